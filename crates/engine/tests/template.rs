//! Chat templates: what transformers' templates rely on, what they may not do,
//! and that no message can speak for anyone else.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::LazyLock;

use peerproof_engine::gguf::Gguf;
use peerproof_engine::template::{ChatMessage, ChatTemplate, MAX_MESSAGES, TemplateError};
use peerproof_engine::tokenizer::Tokenizer;
use proptest::prelude::*;

static REAL: LazyLock<(Tokenizer, ChatTemplate)> = LazyLock::new(|| {
    let file = Gguf::open(support::real_model()).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    let template = ChatTemplate::from_gguf(&file, &tokenizer).unwrap().unwrap();
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
    assert_eq!(template.render(&messages, true).unwrap(), expected);
    let with_system = [says("system", "Be brief."), says("user", "Hi")];
    let text = template.render(&with_system, false).unwrap();
    assert_eq!(text, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    let tokens = template.tokens(tokenizer, &messages, true).unwrap();
    let parsed = tokenizer.encode(&expected, peerproof_engine::tokenizer::Special::Parse).unwrap();
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
    ] {
        assert_eq!(render(source, &user).unwrap(), expected, "{source}");
    }
}

#[test]
fn a_template_can_refuse_in_its_own_words() {
    let source =
        "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}";
    let error = render(source, &[says("system", "x")]).unwrap_err();
    assert!(matches!(&error, TemplateError::Refused { reason } if reason == "user first"));
    let source = format!("{{% macro m() %}}{source}{{% endmacro %}}{{{{ m() }}}}");
    let error = render(&source, &[says("tool", "x")]).unwrap_err();
    assert!(matches!(error, TemplateError::Refused { .. }), "{error}");
}

#[test]
fn bad_templates_and_conversations_are_refused() {
    let user = says("user", "x");
    let too_many = vec![user; MAX_MESSAGES + 1];
    let endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let flood = "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}";
    for (source, messages, words) in [
        ("{% if %}", &[user][..], ["broken", "template:1"]),
        ("{% for x in y %}", &[user], ["broken", "end"]),
        ("{{ strftime_now('%Y') }}", &[user], ["fails", "strftime_now"]),
        ("{{ messages[0].name.first }}", &[user], ["fails", "undefined"]),
        ("{% include 'other' %}", &[user], ["fails", "other"]),
        (endless, &[user], ["steps", "4000000"]),
        (flood, &[user], ["rendered chat", "4194304"]),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", &[user], ["fails", "recursion"]),
        ("x", &too_many, ["conversation", "4096"]),
        ("x", &[user, says("<|im_end|>", "x")], ["message 1", "assistant"]),
    ] {
        let message = render(source, messages).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message:?} lacks {words:?}");
    }
    let long = ChatTemplate::new(&"x".repeat(300_000), "", "").map(drop);
    assert!(matches!(long, Err(TemplateError::TooMuch { .. })));
}

#[test]
fn no_template_is_no_error() {
    let file = Gguf::parse(support::Writer::default().bytes()).unwrap();
    assert!(ChatTemplate::from_gguf(&file, &REAL.0).unwrap().is_none());
    let file = support::Writer::default().u32("tokenizer.chat_template", 1);
    let error = ChatTemplate::from_gguf(&Gguf::parse(file.bytes()).unwrap(), &REAL.0).unwrap_err();
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
        let tokens = template.tokens(tokenizer, &messages, true).unwrap();
        let control: Vec<u32> =
            tokens.iter().copied().filter(|&token| tokenizer.is_control(token)).collect();
        // One pair for the system message, one for each message, and the open turn.
        let mut expected = [1, 2].repeat(messages.len() + 1);
        expected.push(1);
        prop_assert_eq!(control, expected);
        let said = tokenizer.decode(&tokens);
        let unmarked = |text: &str| text.replace("<|im_start|>", "").replace("<|im_end|>", "");
        let plain: Vec<_> = messages.iter().map(|m| says(m.role, "•")).collect();
        let mut frame = unmarked(&template.render(&plain, true).unwrap());
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
