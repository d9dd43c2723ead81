//! A chat template: compiled, and rendered over two conversations.

use peerproof_engine::template::{ChatMessage, ChatTemplate, MAX_RENDERED_BYTES};

use super::Outcome;

pub(crate) const WORDS: &[&[u8]] = &[
    b"{{ ",
    b" }}",
    b"{% ",
    b" %}",
    b"{%- ",
    b" -%}",
    b"{# ",
    b" #}",
    b"{% endif %}",
    b"{% endfor %}",
    b"{% if ",
    b"{% elif ",
    b"{% else %}",
    b"{% for i in range(9) %}",
    b"{% for k, v in ",
    b"{% set x = ",
    b"{% set x %}",
    b"{% endset %}",
    b"{% macro m(a, b=1) %}",
    b"{% endmacro %}",
    b"{{ m(1) }}",
    b"{% raw %}",
    b"{% endraw %}",
    b"{% break %}",
    b"{% continue %}",
    b"{% generation %}",
    b"namespace(x=1)",
    b"ns.x = ns.x ~ ns.x",
    b"messages",
    b"messages[0].content",
    b"messages[-1]",
    b"loop.index",
    b"loop.nextitem",
    b"loop",
    b" | tojson(indent=2)",
    b" | join(',')",
    b" | sort",
    b" | map(attribute='role')",
    b" | selectattr('role', 'in', messages)",
    b" | length",
    b" | list",
    b" | replace('', 'xx')",
    b" | indent(9)",
    b" | default('x')",
    b" | unique",
    b" | dictsort",
    b".split(' ')",
    b".strip('x')",
    b".format(1, x)",
    b".items()",
    b".get('x')",
    b".join(messages)",
    b" is defined",
    b" is not none",
    b" is divisibleby 3",
    b" in ",
    b" not ",
    b" and ",
    b" or ",
    b" if ",
    b" else ",
    b"[::-1]",
    b"[1:9:2]",
    b"[-9223372036854775807:]",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b" ~ ",
    b" + ",
    b" - ",
    b" * ",
    b" ** 9",
    b" // 0",
    b" % -3",
    b" / 7",
    b"-",
    b"'x'",
    b"9223372036854775807",
    b"1e308",
    b"0.5",
    b"\"\\u00e9\"",
    b"'x' * 99999",
    b"[x, x]",
    b"{'k': x}",
    b"range(99999)",
    b"range(-9, 9, 4)",
    b"dict(a=1)",
    b"raise_exception('no')",
    b"strftime_now('%Y')",
    b"true",
    b"none",
    b"x",
    b"ns",
    b"\n",
    b"  ",
    b"\r\n",
    "größe".as_bytes(),
    "🦀".as_bytes(),
    b"\0",
];

/// Templates of the usual shapes, and of unusual ones.
const SEEDS: &[&str] = &[
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{{- bos_token }}\n{%- if messages[0].role == 'system' %}\n    {%- set first = messages[0].content | trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set first = '' %}\n{%- endif %}\n{%- for m in messages %}\n    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}\n        {{- '' }}\n    {%- endif %}\n    {{- '[' ~ m.role ~ '] ' ~ (first if loop.first else '') ~ m.content | trim ~ eos_token }}\n{%- endfor %}",
    "{%- set ns = namespace(system='', multi=true, last=messages | length - 1) %}\n{%- for m in messages[::-1] %}\n{%- set index = (messages | length - 1) - loop.index0 %}\n{%- if ns.multi and m.role == 'user' and not (m.content.startswith('<tool>') and m.content.endswith('</tool>')) %}\n{%- set ns.multi = false %}\n{%- set ns.last = index %}\n{%- endif %}\n{%- endfor %}{{ ns.last }}",
    "{% macro render(value, depth=0) %}{% if value is mapping %}{% for k, v in value | dictsort %}{{ k }}: {{ render(v, depth + 1) }}{% endfor %}{% elif value is iterable and value is not string %}{% for v in value %}{{ render(v, depth + 1) }}{% endfor %}{% else %}{{ value | tojson }}{% endif %}{% endmacro %}{{ render(messages) }}{{ render({'a': [1, 2.5, none, true, {'b': 'c'}]}) }}",
    "{% set x %}{% for m in messages if m.role in ['user', 'tool'] %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}none{% endfor %}{% endset %}{% filter upper %}{{ x | replace('a', 'b') | indent(2, true) }}{% endfilter %}{{ messages | map(attribute='role') | unique | sort | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{% if tools is defined and tools %}{{ tools | tojson }}{% endif %}{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}{% with a = 1, b = [1, 2, 3] %}{{ a + b[1] * 2 ** 3 // 2 - 7 % 4 }}{{ b[::-1] }}{{ 'x{}y{}'.format(a, b) }}{% endwith %}{% raw %}{{ raw }}{% endraw %}{# note #}",
    "{% for i in range(20) %}{% if i == 3 %}{% continue %}{% elif i > 9 %}{% break %}{% endif %}{{ loop.index }}{{ loop.last }}{{ loop.previtem }}{% generation %}{{ i is odd }}{% endgeneration %}{% endfor %}{{ dict(a=1).items() | list }}{{ 'abc'[1:] ~ 'abc'[-1] }}{{ 1 < 2 <= 3 }}{{ not none }}",
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let source = String::from_utf8_lossy(bytes);
    let Ok(template) = ChatTemplate::new(&source, "<s>", "</s>") else { return Outcome::Refused };
    let says = |role, content| ChatMessage { role, content };
    let one = [says("user", "größer a<b {{ 'x' }}")];
    let many = [
        says("system", " Be brief. "),
        says("user", "Hi"),
        says("assistant", "<think>\nhm\n</think>\nYes?"),
        says("user", "Tell me"),
        says("tool", ""),
    ];
    let first = template.render(&one, false);
    // The same conversation gives the same text.
    assert_eq!(first.as_ref().ok(), template.render(&one, false).as_ref().ok());
    let second = template.render(&many, true);
    for text in [&first, &second].into_iter().flatten() {
        assert!(text.len() <= MAX_RENDERED_BYTES);
    }
    Outcome::Taken
}
