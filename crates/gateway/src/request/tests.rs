//! What a request may say, what is refused by name, and that no bytes panic.

#![allow(clippy::unwrap_used, reason = "a test states what must hold")]

use peerproof::client::{Level, LogitBias};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn chat(extra: Value) -> Result<Asked, ApiError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    merge(&mut body, extra);
    parse(Shape::Chat, body.to_string().as_bytes())
}

fn text(extra: Value) -> Result<Asked, ApiError> {
    let mut body = json!({"model": "m", "prompt": "once"});
    merge(&mut body, extra);
    parse(Shape::Text, body.to_string().as_bytes())
}

fn parse(shape: Shape, body: &[u8]) -> Result<Asked, ApiError> {
    Asked::parse(shape, body, &Verification::default())
}

fn merge(body: &mut Value, extra: Value) {
    let Value::Object(extra) = extra else { panic!("an object") };
    body.as_object_mut().unwrap().extend(extra);
}

/// The parameter and the code of a refusal.
fn blame(result: Result<Asked, ApiError>) -> (String, String) {
    let error = result.unwrap_err().to_json();
    let text = |name: &str| error["error"][name].as_str().unwrap_or("").to_owned();
    (text("param"), text("code"))
}

fn turns(asked: &Asked) -> Vec<(String, String)> {
    match &asked.jobs[0].prompt {
        Prompt::Chat(list) => list.iter().map(|m| (m.role.clone(), m.content.clone())).collect(),
        other => panic!("not a chat: {other:?}"),
    }
}

#[test]
fn the_plainest_request_has_openai_defaults() {
    let asked = chat(json!({})).unwrap();
    let job = &asked.jobs[0];
    assert_eq!(asked.jobs.len(), 1);
    assert!(!asked.stream && !asked.include_usage);
    let sampling = Sampling { temperature_q16: 65_536, ..Sampling::GREEDY };
    assert_eq!(job.sampling, sampling);
    assert_eq!((job.max_tokens, job.seed), (None, None));
    assert_eq!(job.verification.level, Level::Sampled);
    assert!(job.preference.allow_fallbacks);
}

#[test]
fn floats_become_fixed_point() {
    for (temperature, q16) in [(0.0, 0), (0.7, 45_875), (1.0, 65_536), (2.0, 131_072)] {
        let asked = chat(json!({"temperature": temperature})).unwrap();
        assert_eq!(asked.jobs[0].sampling.temperature_q16, q16, "{temperature}");
    }
    for (top_p, q16) in [(0.0, 1), (0.000_001, 1), (0.5, 32_768), (1.0, 65_536)] {
        let asked = chat(json!({"top_p": top_p})).unwrap();
        assert_eq!(asked.jobs[0].sampling.top_p_q16, q16, "{top_p}");
    }
    for (top_k, k) in [(-1, 0), (0, 0), (40, 40)] {
        assert_eq!(chat(json!({"top_k": top_k})).unwrap().jobs[0].sampling.top_k, k);
    }
}

#[test]
fn a_wrong_value_is_blamed_by_name() {
    for (extra, param) in [
        (json!({"model": null}), "model"),
        (json!({"model": ""}), "model"),
        (json!({"model": 7}), "model"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hi"}), "messages"),
        (json!({"messages": [7]}), "messages[0]"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "robot", "content": ""}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "user", "content": [{"text": "a"}]}]}),
            "messages[0].content[0].type",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
        ),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": "1"}), "temperature"),
        (json!({"top_p": 1.01}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_completion_tokens": 1.5}), "max_completion_tokens"),
        (json!({"max_tokens": 1, "max_completion_tokens": 2}), "max_tokens"),
        (json!({"n": 0}), "n"),
        (json!({"n": 9}), "n"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": 18_446_744_073_709_551_615_u64}), "seed"),
        (json!({"stop": [""]}), "stop[0]"),
        (json!({"stop": ["a", 1]}), "stop[1]"),
        (json!({"stop": vec!["x"; 17]}), "stop"),
        (json!({"stop": "x".repeat(257)}), "stop[0]"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
        (json!({"verification": "full"}), "verification"),
        (json!({"verification": {"level": "total"}}), "verification.level"),
        (json!({"verification": {"mode": "trust"}}), "verification.mode"),
        (json!({"verification": {"level": "k_of_n", "mode": "fraud_proof"}}), "verification.mode"),
        (json!({"verification": {"level": "k_of_n", "k": 3, "n": 2}}), "verification.k"),
        (json!({"verification": {"level": "k_of_n", "n": 9}}), "verification.n"),
        (json!({"verification": {"auditor": "../etc"}}), "verification.auditor"),
        (json!({"provider": {"only": ["a b"]}}), "provider.only[0]"),
    ] {
        assert_eq!(blame(chat(extra.clone())), (param.into(), "invalid_value".into()), "{extra}");
    }
    for (extra, param) in [
        (json!({"prompt": null}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [[]]}), "prompt[0]"),
        (json!({"prompt": ["a", ""]}), "prompt[1]"),
        (json!({"prompt": [1, -2]}), "prompt[1]"),
        (json!({"prompt": [1, 4_294_967_296_u64]}), "prompt[1]"),
        (json!({"prompt": ["a", "b", "c"], "n": 3}), "n"),
    ] {
        assert_eq!(blame(text(extra.clone())), (param.into(), "invalid_value".into()), "{extra}");
    }
}

#[test]
fn what_would_change_the_answer_is_refused_by_name() {
    for (extra, param) in [
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"verification": {"levle": "full"}}), "verification.levle"),
        (json!({"verification": {"on_fail": "warn"}}), "verification.on_fail"),
        (json!({"verification": {"mode": "zk_snark"}}), "verification.mode"),
        (json!({"provider": {"sort": "price"}}), "provider.sort"),
        (json!({"messages": [{"role": "tool", "content": "4"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{}]}]}),
            "messages[0].tool_calls",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].type",
        ),
    ] {
        let wanted = (param.into(), "unsupported_parameter".into());
        assert_eq!(blame(chat(extra.clone())), wanted, "{extra}");
    }
    for (extra, param) in [
        (json!({"echo": true}), "echo"),
        (json!({"suffix": "end"}), "suffix"),
        (json!({"best_of": 2}), "best_of"),
    ] {
        let wanted = (param.into(), "unsupported_parameter".into());
        assert_eq!(blame(text(extra.clone())), wanted, "{extra}");
    }
}

#[test]
fn neutral_and_unknown_values_pass() {
    let neutral = json!({
        "tools": [], "tool_choice": "none", "response_format": {"type": "text"},
        "logprobs": false, "top_logprobs": 0, "logit_bias": {}, "frequency_penalty": 0,
        "presence_penalty": 0.0, "modalities": ["text"], "parallel_tool_calls": true,
        "user": "u", "store": false, "metadata": {"a": "b"}, "service_tier": "auto",
        "an_unknown_field": {"deep": [1]}, "functions": null, "audio": null, "min_p": 0,
        "repetition_penalty": 1.0, "stop": [], "seed": null, "n": null,
    });
    assert!(chat(neutral).is_ok());
    let neutral = json!({"logprobs": null, "echo": false, "suffix": "", "best_of": 1});
    assert!(text(neutral).is_ok());
}

#[test]
fn content_is_a_string_or_parts() {
    let asked = chat(json!({"messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "refusal": "no", "tool_calls": []},
        {"role": "system", "content": "", "name": "x"},
    ]}))
    .unwrap();
    let wanted = [("system", "be brief"), ("user", "a\nb"), ("assistant", "no"), ("system", "")];
    assert_eq!(turns(&asked), wanted.map(|(r, c)| (r.to_owned(), c.to_owned())));
}

#[test]
fn prompts_are_text_or_tokens_one_or_several() {
    let kinds = |prompt: Value| -> Vec<String> {
        let asked = text(json!({ "prompt": prompt })).unwrap();
        asked.jobs.iter().map(|job| format!("{:?}", job.prompt)).collect()
    };
    assert_eq!(kinds(json!("a")), ["Text(\"a\")"]);
    assert_eq!(kinds(json!(["a", "b"])), ["Text(\"a\")", "Text(\"b\")"]);
    assert_eq!(kinds(json!([1, 2])), ["Tokens([1, 2])"]);
    assert_eq!(kinds(json!([[1], [2, 3]])), ["Tokens([1])", "Tokens([2, 3])"]);
}

#[test]
fn choices_share_a_seed_and_count() {
    let asked = text(json!({"prompt": ["a", "b"], "n": 3, "seed": 7})).unwrap();
    let drawn = asked.jobs.iter().map(|job| (job.seed, job.choice));
    let wanted = [0, 1, 2, 0, 1, 2].map(|choice| (Some(7), choice));
    assert_eq!(drawn.collect::<Vec<_>>(), wanted);
    assert_eq!(asked.choices_per_prompt, 3);
}

#[test]
fn every_rule_of_sampling_becomes_an_integer() {
    let asked = chat(json!({
        "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
        "presence_penalty": -2, "frequency_penalty": 0.3, "repetition_penalty": 1.1,
        "logit_bias": {"50256": -100, "7": 0.5, "9": 0, "8": 0.000_001},
    }));
    let wanted = Sampling {
        temperature_q16: 45_875,
        top_k: 40,
        top_p_q16: 58_982,
        min_p_q16: 3_277,
        presence_q16: -131_072,
        frequency_q16: 19_661,
        repetition_q16: 72_090,
        bias: vec![
            LogitBias { token: 7, bias_q16: 32_768 },
            LogitBias { token: 50_256, bias_q16: -6_553_600 },
        ],
        ..Sampling::GREEDY
    };
    assert_eq!(asked.unwrap().jobs[0].sampling, wanted);
}

#[test]
fn reports_of_probabilities_are_asked_for_in_two_ways() {
    for (extra, wanted) in [
        (json!({}), None),
        (json!({"logprobs": false, "top_logprobs": 0}), None),
        (json!({"logprobs": true}), Some(0)),
        (json!({"logprobs": true, "top_logprobs": 20}), Some(20)),
    ] {
        assert_eq!(chat(extra.clone()).unwrap().jobs[0].sampling.logprobs, wanted, "{extra}");
    }
    for (extra, wanted) in
        [(json!({}), None), (json!({"logprobs": 0}), Some(0)), (json!({"logprobs": 5}), Some(5))]
    {
        assert_eq!(text(extra.clone()).unwrap().jobs[0].sampling.logprobs, wanted, "{extra}");
    }
    let value = |param: &str| (param.to_owned(), "invalid_value".to_owned());
    assert_eq!(blame(chat(json!({"top_logprobs": 2}))), value("top_logprobs"));
    assert_eq!(blame(chat(json!({"logprobs": true, "top_logprobs": 21}))), value("top_logprobs"));
    assert_eq!(blame(chat(json!({"logprobs": 1}))), value("logprobs"));
    assert_eq!(blame(text(json!({"logprobs": 21}))), value("logprobs"));
    assert_eq!(blame(text(json!({"logprobs": true}))), value("logprobs"));
}

#[test]
fn a_rule_that_does_nothing_is_off() {
    let plain = chat(json!({})).unwrap().jobs.remove(0).sampling;
    for extra in [
        json!({"repetition_penalty": 1, "repeat_penalty": 1.0}),
        json!({"min_p": 0, "presence_penalty": 0, "frequency_penalty": -0.0}),
        json!({"logit_bias": {"5": 0}}),
        json!({"logit_bias": []}),
        json!({"logit_bias": {}}),
    ] {
        assert_eq!(chat(extra.clone()).unwrap().jobs[0].sampling, plain, "{extra}");
    }
    let named = chat(json!({"repeat_penalty": 0.5})).unwrap();
    assert_eq!(named.jobs[0].sampling.repetition_q16, 32_768);
}

#[test]
fn a_rule_out_of_its_range_is_blamed_by_name() {
    let many: Map<String, Value> = (0..301).map(|id| (id.to_string(), json!(1))).collect();
    for (extra, param) in [
        (json!({"min_p": 1.01}), "min_p"),
        (json!({"min_p": -0.1}), "min_p"),
        (json!({"presence_penalty": 2.01}), "presence_penalty"),
        (json!({"frequency_penalty": -2.01}), "frequency_penalty"),
        (json!({"frequency_penalty": "1"}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"repetition_penalty": 0.000_001}), "repetition_penalty"),
        (json!({"repeat_penalty": 16.5}), "repeat_penalty"),
        (json!({"repetition_penalty": 1.1, "repeat_penalty": 1.2}), "repetition_penalty"),
        (json!({"top_k": 16_777_217}), "top_k"),
        (json!({"logit_bias": 5}), "logit_bias"),
        (json!({"logit_bias": [[5, 1]]}), "logit_bias"),
        (json!({"logit_bias": {"five": 1}}), "logit_bias"),
        (json!({"logit_bias": {"+5": 1}}), "logit_bias"),
        (json!({"logit_bias": {"5": 1, "05": 1}}), "logit_bias"),
        (json!({"logit_bias": {"16777216": 1}}), "logit_bias"),
        (json!({"logit_bias": {"5": 100.5}}), "logit_bias.5"),
        (json!({"logit_bias": {"5": "1"}}), "logit_bias.5"),
        (json!({"logit_bias": many}), "logit_bias"),
    ] {
        let wanted = (param.to_owned(), "invalid_value".to_owned());
        assert_eq!(blame(chat(extra.clone())), wanted, "{extra}");
        assert_eq!(blame(text(extra.clone())), wanted, "{extra}");
    }
}

#[test]
fn both_token_limits_mean_the_same() {
    for extra in [
        json!({"max_tokens": 5}),
        json!({"max_completion_tokens": 5}),
        json!({"max_tokens": 5, "max_completion_tokens": 5}),
    ] {
        assert_eq!(chat(extra).unwrap().jobs[0].max_tokens, Some(5));
    }
}

#[test]
fn verification_and_provider_are_read_in_full() {
    let asked = chat(json!({
        "verification": {"level": "k_of_n", "k": 2, "n": 4, "auditor": "12D3Koo"},
        "provider": {"order": ["a"], "only": ["a", "b"], "ignore": ["c"], "allow_fallbacks": false},
    }))
    .unwrap();
    let job = &asked.jobs[0];
    assert_eq!(job.verification.level, Level::KOfN);
    assert_eq!(job.verification.k_of_n, (2, 4));
    assert_eq!(job.verification.auditor.as_deref(), Some("12D3Koo"));
    assert_eq!(job.preference.order, ["a"]);
    assert_eq!(job.preference.only, ["a", "b"]);
    assert_eq!(job.preference.ignore, ["c"]);
    assert!(!job.preference.allow_fallbacks);
    let one_of = chat(json!({"verification": {"level": "k_of_n", "n": 1}})).unwrap();
    assert_eq!(one_of.jobs[0].verification.k_of_n, (1, 1));
}

#[test]
fn the_nodes_default_check_holds_unless_the_request_says_otherwise() {
    let default = Verification { level: Level::Full, ..Verification::default() };
    for (verification, level) in [
        (json!(null), Level::Full),
        (json!({"auditor": "12D3Koo"}), Level::Full),
        (json!({"level": "receipt"}), Level::Receipt),
        (json!({"level": "spot", "mode": "fraud_proof"}), Level::Spot),
        (json!({"level": "light", "mode": "fraud_proof"}), Level::Light),
    ] {
        let body = json!({"model": "m", "prompt": "a", "verification": verification});
        let asked = Asked::parse(Shape::Text, body.to_string().as_bytes(), &default).unwrap();
        assert_eq!(asked.jobs[0].verification.level, level, "{verification}");
    }
}

#[test]
fn what_is_not_an_object_of_json_is_refused_without_a_parameter() {
    let deep = "[".repeat(100_000);
    for body in [&b""[..], b"{", b"[]", b"null", b"{\"model\":\"\xff\"}", deep.as_bytes()] {
        let wanted = (String::new(), "invalid_json".to_owned());
        assert_eq!(blame(parse(Shape::Chat, body)), wanted);
    }
}

/// A body that uses most of the parser.
fn rich() -> String {
    json!({
        "model": "m", "stream": true, "n": 2, "temperature": 0.5, "stop": ["a", "b"],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "prompt": [[1, 2], [3]], "stream_options": {"include_usage": true},
        "verification": {"level": "k_of_n", "k": 2, "n": 3}, "provider": {"order": ["a"]},
    })
    .to_string()
}

/// JSON of any shape, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof![Just("type".to_owned()), Just("role".to_owned()), "[a-z]{1,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn a_body_with_flipped_bytes_never_panics(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
        let mut body = rich().into_bytes();
        let length = body.len();
        body[at % length] = byte;
        let _ = parse(Shape::Chat, &body);
        let _ = parse(Shape::Text, &body);
        let _ = parse(Shape::Chat, &body[..cut % length]);
    }

    #[test]
    fn any_value_in_any_place_never_panics_and_never_makes_too_many_jobs(
        place in 0_usize..10,
        value in any_json(),
    ) {
        let mut body: Map<String, Value> = serde_json::from_str(&rich()).unwrap();
        let name = body.keys().nth(place % body.len()).unwrap().clone();
        body.insert(name, value);
        let body = Value::Object(body).to_string();
        for shape in [Shape::Chat, Shape::Text] {
            if let Ok(asked) = parse(shape, body.as_bytes()) {
                prop_assert!((1..=MAX_CHOICES).contains(&asked.jobs.len()));
            }
        }
    }
}
