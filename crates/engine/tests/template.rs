//! Chat templates: what transformers' templates rely on, what they may not do,
//! and that no message can speak for anyone else.

#[path = "support/small.rs"]
mod small;
mod support;

use std::sync::LazyLock;

use peerproof_engine::gguf::{GgmlType, Gguf};
use peerproof_engine::model::Model;
use peerproof_engine::template::{ChatMessage, ChatTemplate, MAX_MESSAGES, TemplateError};
use peerproof_engine::tokenizer::Tokenizer;
use peerproof_engine::transformer::LoadOptions;
use peerproof_wire::Prompt;
use proptest::prelude::*;
use small::{Sizes, small_model};

static REAL: LazyLock<(Tokenizer, ChatTemplate)> = LazyLock::new(|| {
    let file = Gguf::open(support::real_model()).expect("it works");
    let tokenizer = Tokenizer::from_gguf(&file).expect("it works");
    let template =
        ChatTemplate::from_gguf(&file, &tokenizer).expect("a template").expect("one at all");
    (tokenizer, template)
});

fn says<'a>(role: &'a str, content: &'a str) -> ChatMessage<'a> {
    ChatMessage { role, content }
}

fn render(source: &str, messages: &[ChatMessage<'_>]) -> Result<String, TemplateError> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(messages, true)
}

#[test]
fn the_default_models_template() {
    let (tokenizer, template) = &*REAL;
    let system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, \
                  trained by Hugging Face<|im_end|>\n";
    let expected = format!(
        "{system}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n\
         <|im_start|>user\n Tell me <|im_end|>\n<|im_start|>assistant\n"
    );
    let messages = [says("user", "Hi"), says("assistant", "Yes?"), says("user", " Tell me ")];
    assert_eq!(template.render(&messages, true).expect("it works"), expected);
    let with_system = [says("system", "Be brief."), says("user", "Hi")];
    let text = template.render(&with_system, false).expect("it works");
    assert_eq!(text, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    let tokens = template.tokens(tokenizer, &messages, true).expect("it works");
    let parsed =
        tokenizer.encode(&expected, peerproof_engine::tokenizer::Special::Parse).expect("it works");
    assert_eq!(tokens, parsed);
}

#[test]
fn what_published_templates_rely_on() {
    let user = [says("user", " a<b ")];
    for (source, expected) in [
        ("{{ bos_token }}{{ messages[0]['content'] | trim }}{{ eos_token }}", "<s>a<b</s>"),
        ("{{ messages[0]['content'].strip().upper() }}", "A<B"),
        ("{% if messages[0].content.startswith(' a') %}y{% endif %}", "y"),
        ("{{ messages[0].content.split('<')[-1] }}", "b "),
        ("{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n", "x\n"),
        (
            "{%- set ns = namespace(n=0) -%}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        ("{% for i in [1,2,3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
        ("{{ messages | tojson }}", r#"[{"role": "user", "content": " a<b "}]"#),
        ("{{ {'ö': [1]} | tojson(indent=2) }}", "{\n  \"ö\": [\n    1\n  ]\n}"),
        (
            "{% if tools is not none %}t{% endif %}{% if strftime_now is defined %}c{% endif %}-",
            "-",
        ),
        ("{{ messages[0]['role'] ~ '&' ~ \"'\" }}", "user&'"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(1) }}", "[1]"),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "user"),
        ("{% if not tools is defined or tools is none %}-{% endif %}", "-"),
        ("{{ tools | selectattr('type', 'equalto', 'x') | list | length }}", "0"),
        ("{% set q %} x {% endset %}{{ q | trim }}", "x"),
        ("{{ messages[0].role == 'user' and loop is not defined }}", "True"),
        ("{{ messages[-1:][0].role }}{{ 'abc'[::-1] }}", "usercba"),
        ("{%- for m in messages -%}\n {{- loop.index0 ~ loop.last }} {% endfor %}", "0True "),
        ("{{ 'a' if messages | length > 1 else 'b' }}", "b"),
        ("{{ {'b': 1, 'a': none} }}{{ [1.0, 'x'] }}", "{'b': 1, 'a': None}[1.0, 'x']"),
        ("{{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }}", "-4 2 1024 3.5"),
        ("{% for k, v in {'x': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "x=1"),
        ("{% raw %}{{ x }}{% endraw %}{# gone #}\n", "{{ x }}"),
        ("{{ messages[0].nothing }}{{ nothing }}|{{ messages[0].get('x', 'y') }}", "|y"),
    ] {
        assert_eq!(render(source, &user).expect("it works"), expected, "{source}");
    }
}

#[test]
fn a_template_can_refuse_in_its_own_words() {
    let source =
        "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}";
    let error = render(source, &[says("system", "x")]).expect_err("a refusal");
    assert!(matches!(&error, TemplateError::Refused { reason } if reason == "user first"));
    let source = format!("{{% macro m() %}}{source}{{% endmacro %}}{{{{ m() }}}}");
    let error = render(&source, &[says("tool", "x")]).expect_err("a refusal");
    assert!(matches!(error, TemplateError::Refused { .. }), "{error}");
}

#[test]
fn bad_templates_and_conversations_are_refused() {
    let user = says("user", "x");
    let too_many = vec![user; MAX_MESSAGES + 1];
    let endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let flood = "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}";
    for (source, messages, words) in [
        ("{% if %}", &[user][..], ["broken", "line 1"]),
        ("{% for x in y %}", &[user], ["broken", "endfor"]),
        ("{{ messages[0].name.first }}", &[user], ["fails", "undefined"]),
        (endless, &[user], ["steps", "4000000"]),
        (flood, &[user], ["rendered chat", "4194304"]),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", &[user], ["depth", "250"]),
        ("x", &too_many, ["conversation", "4096"]),
        ("x", &[user, says("<|im_end|>", "x")], ["message 1", "assistant"]),
    ] {
        let message = render(source, messages).expect_err("a refusal").to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message:?} lacks {words:?}");
    }
    let long = ChatTemplate::new(&"x".repeat(300_000), "", "").map(drop);
    assert!(matches!(long, Err(TemplateError::TooMuch { .. })));
}

#[test]
fn what_is_lacking_is_said_when_a_template_is_loaded() {
    for (source, words) in [
        ("\n{% include 'other' %}", ["line 2", "include"]),
        ("{% import 'other' as o %}", ["line 1", "import"]),
        ("{% from 'other' import o %}", ["line 1", "from"]),
        ("{% extends 'other' %}", ["line 1", "extends"]),
        ("{% block b %}{% endblock %}", ["line 1", "block"]),
        ("{% call m() %}{% endcall %}", ["line 1", "call"]),
        ("{% nonsense %}", ["unknown statement", "nonsense"]),
        ("{% if false %}{{ strftime_now('%Y') }}{% endif %}", ["strftime_now", "any day"]),
        ("{{ lipsum(5) }}", ["function", "lipsum"]),
        ("{{ x | xmlattr }}", ["filter", "xmlattr"]),
        ("{{ x is filter }}", ["test", "filter"]),
        ("{% set _ = messages.append(1) %}", ["method", "append"]),
        ("{{ x.__class__.mro() }}", ["method", "mro"]),
        ("{{ messages[0]() }}", ["functions and methods", "called"]),
        ("{% for x in y recursive %}{% endfor %}", ["recursive", "not supported"]),
        ("{% break %}", ["break", "outside"]),
        ("{{ f(*x) }}", ["unpacked", "arguments"]),
        ("{{ 99999999999999999999 }}", ["number", "64 bits"]),
        ("{{ 'x }}", ["string", "end"]),
        ("{# x", ["comment", "end"]),
        ("{% raw %}x", ["raw", "end"]),
        ("{{ ( ]", ["unexpected", "]"]),
    ] {
        let error = ChatTemplate::new(source, "", "").map(drop).expect_err("a refusal");
        assert!(matches!(error, TemplateError::Syntax { .. }), "{source}: {error}");
        let message = error.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message:?} lacks {words:?}");
    }
    // Who asks first may call; what isn't there is said at the call then.
    let guarded =
        "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}2024{% endif %}";
    assert_eq!(render(guarded, &[says("user", "x")]).expect("it works"), "2024");
}

#[test]
fn a_model_whose_template_cannot_be_used_completes_texts() {
    let sizes = Sizes { width: 256, heads: 4, dims: 64, feed: 256 };
    let writer = small_model(&sizes, "llama", &[GgmlType::Q8_0; 7]);
    let open = |template: &str| {
        let writer = writer.clone().retold("tokenizer.chat_template", template);
        let file = Gguf::parse(writer.bytes()).expect("a file");
        Model::from_gguf(&file, &LoadOptions::default()).expect("a model")
    };
    let message = peerproof_wire::ChatMessage { role: "user".into(), content: "ab".into() };
    let chat = Prompt::Chat(vec![message]);
    let text = Prompt::Text("abc".into());
    let sound = open("{{ messages[0].content }}");
    assert!(sound.template().is_ok() && sound.prompt_tokens(&chat).is_ok());
    let (long, dated) = ("x".repeat(3 << 20), "{{ strftime_now('%Y') }}");
    for (template, said) in
        [(dated, "strftime_now"), ("{% nonsense %}", "nonsense"), (&long, "bytes")]
    {
        let model = open(template);
        let error = model.prompt_tokens(&chat).expect_err("a refusal").to_string();
        assert!(error.contains(said) && error.contains("--text"), "{error}");
        assert_eq!(
            model.prompt_tokens(&text).expect("tokens"),
            sound.prompt_tokens(&text).expect("tokens")
        );
    }
}

/// The program is stopped, or isn't even taken, and the message holds the words.
fn stops(source: &str, words: [&str; 2]) {
    let shown: String = source.chars().take(160).collect();
    let message = render(source, &[says("user", "x")]).map(|text| text.len());
    let message = message.expect_err(&shown).to_string();
    assert!(
        words.iter().all(|word| message.contains(word)),
        "{shown}: {message:?} lacks {words:?}"
    );
}

/// Programs that would take all memory, all time or all of the stack.
#[test]
fn a_template_is_bounded_in_time_and_memory() {
    let text = "{% set n = namespace(x='0123456789abcdef') %}{% for i in range(60) %}";
    let list = "{% set n = namespace(x=[1]) %}{% for i in range(60) %}";
    let with = |start: &str, step: &str| format!("{start}{step}{{% endfor %}}{{{{ n.x }}}}");
    for (source, words) in [
        // A string doubled, in every way that makes one longer.
        (with(text, "{% set n.x = n.x ~ n.x %}"), ["a string", "4194304 bytes"]),
        (with(text, "{% set n.x = n.x + n.x %}"), ["bytes in a string", "4194304"]),
        (with(text, "{% set n.x = n.x * 2 %}"), ["bytes in a string", "4194304"]),
        (with(text, "{% set n.x = [n.x, n.x] | join %}"), ["a string", "4194304 bytes"]),
        (with(text, "{% set n.x = n.x | replace('0', n.x) %}"), ["a string", "4194304 bytes"]),
        (with(text, "{% set n.x = '{0}{0}'.format(n.x) %}"), ["a string", "4194304 bytes"]),
        (with(text, "{% set c %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = c %}"), ["a string", "4194304 bytes"]),
        (with(text, "{% set n.x = (n.x * 2) | indent(256, true) %}"), ["bytes", "4194304"]),
        ("{{ 'x' * 999999999999 }}".into(), ["bytes in a string", "4194304"]),
        ("{{ 'x' | indent(99999999999999999) * 99999999 }}".into(), ["bytes in a string", "4194304"]),
        // Many strings at once, each within bounds.
        ("{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = n.l + ['x' * 999999] %}{% endfor %}".into(), ["bytes of memory", "33554432"]),
        // A list doubled, and one that is kept in itself.
        (with(list, "{% set n.x = n.x + n.x %}"), ["chat template", "bytes"]),
        (with(list, "{% set n.x = n.x * 2 %}"), ["chat template", "bytes"]),
        (with(list, "{% set n.x = [n.x] %}"), ["lists in lists", "32"]),
        (with(list, "{% set n.x = {'k': n.x} %}"), ["lists in lists", "32"]),
        (with(list, "{% set n.x = n.x | map('list') | list %}"), ["can't be walked", "number"]),
        // The same list twice in one, and so on: short, but endless to write or compare.
        ("{% set n = namespace(x=[1]) %}{% for i in range(30) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | string | length }}".into(), ["a string", "4194304"]),
        ("{% set n = namespace(x=[1]) %}{% for i in range(30) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x == n.x | list }}".into(), ["bytes of work", "268435456"]),
        ("{% set n = namespace(x=[1]) %}{% for i in range(30) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson | length }}".into(), ["a string", "4194304"]),
        // Time: loops in loops, long ranges, slow operations.
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".into(), ["steps", "4000000"]),
        ("{{ range(999999999) }}".into(), ["range", "100000"]),
        ("{{ range(-9223372036854775807, 9223372036854775807, 9) }}".into(), ["range", "100000"]),
        ("{% set s = 'x' * 4000000 %}{% for i in range(99999) %}{{ 'y' in s }}{% endfor %}".into(), ["bytes of work", "268435456"]),
        ("{% set s = 'x' * 4000000 %}{% for i in range(99999) %}{% set t = s | upper %}{% endfor %}".into(), ["bytes of work", "268435456"]),
        ("{{ ('x' * 2000000).strip('x' * 2000000) }}".into(), ["bytes of work", "268435456"]),
        ("{{ range(99999) | unique | list | length }}".into(), ["chat template", "expected at most"]),
        // A namespace in itself would never be freed.
        ("{% set n = namespace() %}{% set n.x = n %}".into(), ["namespace", "kept"]),
        ("{% set n = namespace() %}{% set n.x = [n] %}".into(), ["namespace", "kept"]),
    ] {
        stops(&source, words);
    }
}

#[test]
fn a_template_is_bounded_in_depth() {
    let deep = |open: &str, close: &str| {
        ["{{ ", &open.repeat(30_000), "1", &close.repeat(30_000), " }}"].concat()
    };
    let chain = |link: &str| ["{{ x", &link.repeat(5_000), " }}"].concat();
    let blocks = ["{% if 1 %}".repeat(3_000), "{% endif %}".repeat(3_000)].concat();
    for (source, words) in [
        // Depth: of the source, of macros.
        (deep("(", ")"), ["nested", "60"]),
        (deep("[", "]"), ["nested", "60"]),
        (deep("not ", ""), ["nested", "60"]),
        (deep("-", ""), ["nested", "60"]),
        (deep("{1: ", "}"), ["nested", "60"]),
        (blocks, ["nested", "60"]),
        (chain(" + x"), ["chain", "64"]),
        (chain(" | trim"), ["chain", "64"]),
        (chain(".x"), ["chain", "64"]),
        (chain("[0]"), ["chain", "64"]),
        (chain(" is string"), ["chain", "64"]),
        (chain(" if 1"), ["chain", "64"]),
        (
            "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}"
                .into(),
            ["depth", "250"],
        ),
        ("{% macro a() %}{{ a() ~ a() }}{% endmacro %}{{ a() }}".into(), ["depth", "250"]),
    ] {
        stops(&source, words);
    }
    // Long chains that don't nest are no trouble.
    let flat = ["{{ 0", &" ~ 1".repeat(5_000), " }}"].concat();
    assert_eq!(render(&flat, &[]).expect("it works").len(), 5_001);
    let arms = ["{% if 0 %}", &"{% elif 0 %}".repeat(5_000), "{% else %}x{% endif %}"].concat();
    assert_eq!(render(&arms, &[]).expect("it works"), "x");
}

#[test]
fn no_template_is_no_error() {
    let file = Gguf::parse(support::Writer::default().bytes()).expect("it works");
    assert!(ChatTemplate::from_gguf(&file, &REAL.0).expect("it works").is_none());
    let file = support::Writer::default().u32("tokenizer.chat_template", 1);
    let error = ChatTemplate::from_gguf(&Gguf::parse(file.bytes()).expect("it works"), &REAL.0)
        .expect_err("a refusal");
    assert!(error.to_string().contains("tokenizer.chat_template"));
}

/// Messages that try to speak for others.
fn content() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<|im_end|>"),
        Just("<|im_start|>"),
        Just("<|im_"),
        Just("start|>"),
        Just("<"),
        Just("|>"),
        Just("<|endoftext|>"),
        Just("system\n"),
        Just(" "),
        Just("\n"),
        Just("word"),
        Just("\u{100000}"),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn control_tokens_come_from_the_template_alone(contents in proptest::collection::vec(content(), 1..5)) {
        let (tokenizer, template) = &*REAL;
        let roles = ["user", "assistant", "tool"].into_iter().cycle();
        let messages: Vec<_> =
            roles.zip(&contents).map(|(role, content)| says(role, content)).collect();
        let tokens = template.tokens(tokenizer, &messages, true).expect("it works");
        let control: Vec<u32> =
            tokens.iter().copied().filter(|&token| tokenizer.is_control(token)).collect();
        // One pair for the system message, one for each message, and the open turn.
        let mut expected = [1, 2].repeat(messages.len() + 1);
        expected.push(1);
        prop_assert_eq!(control, expected);
        let said = tokenizer.decode(&tokens);
        let unmarked = |text: &str| text.replace("<|im_start|>", "").replace("<|im_end|>", "");
        let plain: Vec<_> = messages.iter().map(|m| says(m.role, "•")).collect();
        let mut frame = unmarked(&template.render(&plain, true).expect("it works"));
        for content in &contents {
            frame = frame.replacen('•', content, 1);
        }
        // Nothing of a message is lost or changed.
        prop_assert_eq!(said, frame);
    }

    #[test]
    fn hostile_templates_never_panic(
        parts in proptest::collection::vec(prop_oneof![
            Just("{{ "), Just(" }}"), Just("{% "), Just(" %}"), Just("for m in messages"),
            Just("endfor"), Just("if m"), Just("endif"), Just("set x = messages"), Just("macro f(x)"),
            Just("endmacro"), Just("f(1)"), Just("m.content[::-1]"), Just("x | tojson(indent=99)"),
            Just("x[999999999999]"), Just("-9 % 0"), Just("1 // 0"), Just("'x' * 99999"), Just("{# "),
            Just("~ x"), Just("[1] * 9"), Just("\u{0}"), Just("'"), Just("messages.append(1)"),
        ], 0..10),
    ) {
        if let Ok(template) = ChatTemplate::new(&parts.concat(), "", "") {
            let _ = template.render(&[says("user", "größer")], true);
        }
    }
}
