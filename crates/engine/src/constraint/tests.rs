//! Masks over small vocabularies: what they allow is what the language allows,
//! whatever the tokens are; texts that are completed under them are valid; and
//! what a schema from a stranger can do is bounded, the same way every time.

use llguidance::api::ParserLimits;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::grammar::parser_limits;
use super::state::State;
use super::*;

#[path = "../../tests/support/schema.rs"]
mod checker;

const PLACE: &str = r##"{
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "kind": {"enum": ["inn", "größe", 3, null, true]},
        "at": {"type": "array", "items": {"type": "number", "minimum": -90.5, "maximum": 180}, "minItems": 2, "maxItems": 3},
        "colour": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
        "in": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
    },
    "required": ["kind", "at"],
    "additionalProperties": false
}"##;

const ANYTHING: &str = r#"{"type": "object"}"#;
const NUMBERS: &str = r#"{"type": "object", "properties": {"n": {"type": "integer", "minimum": -7, "maximum": 123456}}, "required": ["n"]}"#;

fn schema(text: &str) -> Constraint {
    Constraint { rules: RULES.into(), form: Form::JsonSchema(text.into()) }
}

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source::new(&schema(text)).expect("a schema"))
}

/// Bytes, parts of JSON, words, halves of characters, one text twice, tokens
/// without text, and two that end an answer.
fn words() -> (Vec<Vec<u8>>, Vec<u32>) {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let parts = [
        "{\"",
        "\":",
        "\": ",
        ", \"",
        "},",
        "\"}",
        "[[",
        "],",
        "[1",
        "0.",
        "e+",
        "null",
        "true",
        "name",
        "in",
        "inn",
        " inn",
        "kind\": \"",
        "größ",
        "é",
        "\u{1f418}",
        "\n",
        "\n  ",
        "    ",
        "ab",
        "aaaaaaaa",
        "abababab",
        "#00ff",
        "</s>",
        "12",
        "345",
        "-",
        "\\u00",
        "\\\"",
    ];
    words.extend(parts.map(|part| part.as_bytes().to_vec()));
    words.push(b"name".to_vec());
    words.push(vec![]);
    words.push("größe".as_bytes()[..3].to_vec());
    let ends = [words.len() as u32, words.len() as u32 + 2];
    words.extend([vec![], b"x".repeat(1_000), vec![]]);
    (words, ends.to_vec())
}

/// The tree as [`Vocabulary::of`] makes it of a tokenizer's pieces.
fn vocabulary() -> (Vec<Vec<u8>>, Arc<Vocabulary>) {
    let (mut words, ends) = words();
    words[255].clear();
    let vocabulary = Vocabulary::build(&words, &ends, &parser_limits()).expect("a tree");
    (words, vocabulary)
}

/// Takes tokens by `choose` from the masks until an answer ends or has
/// `most` tokens.
fn walk(
    text: &str,
    vocabulary: &Vocabulary,
    most: usize,
    mut choose: impl FnMut(&[u32], usize) -> u32,
) -> Vec<u32> {
    let mut state = State::new(&source(text), vocabulary).expect("a grammar");
    let mut tokens = Vec::new();
    while tokens.len() < most {
        let mask = state.mask();
        assert_eq!(mask.trouble, None);
        let allowed: Vec<u32> =
            (0..vocabulary.tokens as u32).filter(|&token| mask.has(token)).collect();
        let token = choose(&allowed, tokens.len());
        tokens.push(token);
        assert_eq!(state.push(token, &mask), None);
        if vocabulary.ends.contains(&token) {
            break;
        }
    }
    tokens
}

fn text_of(words: &[Vec<u8>], tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|&token| words[token as usize].clone()).collect()
}

/// A number for every step, from one seed.
fn random(seed: u64) -> impl FnMut() -> usize {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    }
}

/// Anything at first; then what brings a text to its end.
fn wander(words: &[Vec<u8>], ends: &[u32], seed: u64) -> impl FnMut(&[u32], usize) -> u32 {
    let mut next = random(seed);
    move |allowed, at| {
        assert!(!allowed.is_empty(), "a text that can't be completed was let happen");
        let wanted = ["}", "]", "\"", "0", "n", "null", "1"].map(str::as_bytes);
        let closing = allowed.iter().copied().filter(|token| ends.contains(token)).chain(
            wanted.iter().filter_map(|text| {
                allowed.iter().copied().find(|&token| words[token as usize] == **text)
            }),
        );
        let any = allowed[next() % allowed.len()];
        if at < 40 || next().is_multiple_of(4) {
            any
        } else {
            closing.into_iter().next().unwrap_or(any)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_is_completed_is_valid(seed in any::<u64>()) {
        let (words, vocabulary) = vocabulary();
        for text in [PLACE, ANYTHING, NUMBERS] {
            let choose = wander(&words, &vocabulary.ends, seed);
            let tokens = walk(text, &vocabulary, 400, choose);
            let text_bytes = text_of(&words, &tokens);
            let is_json = serde_json::from_slice::<IgnoredAny>(&text_bytes).is_ok();
            let ended = tokens.last().is_some_and(|token| vocabulary.ends.contains(token));
            prop_assert_eq!(is_json, ended, "{}", String::from_utf8_lossy(&text_bytes));
            // A number beyond floats is JSON as well, and no value to check.
            if let (true, Ok(value)) = (ended, serde_json::from_slice(&text_bytes)) {
                let schema: Value = serde_json::from_str(text).expect("JSON");
                prop_assert_eq!(checker::verify(&schema, &value), Ok(()));
            }
        }
    }

    /// Arbitrary trees of keywords. Nothing panics through, nothing hangs.
    #[test]
    fn no_schema_breaks_anything(schema_json in keywords()) {
        let text = schema_json.to_string();
        if let Err(error @ ConstraintError::Broken { .. }) = verify(&schema(&text)) {
            return Err(TestCaseError::fail(format!("{error}: {text}")));
        }
    }
}

/// Schemas, and what looks like them.
fn keywords() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 28] = [
        "type",
        "properties",
        "items",
        "required",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "$defs",
        "pattern",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "multipleOf",
        "additionalProperties",
        "patternProperties",
        "prefixItems",
        "format",
        "minProperties",
        "not",
        "a",
        "x-guidance",
    ];
    const TEXTS: [&str; 14] = [
        "object",
        "array",
        "string",
        "integer",
        "number",
        "null",
        "#",
        "#/$defs/a",
        "#/properties/a",
        "^(a|b)*$",
        "[",
        "date-time",
        "uuid",
        "\u{0}é",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..9).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(&TEXTS[..]).prop_map(Value::from),
    ];
    let name = prop::sample::select(&NAMES[..]).prop_map(str::to_owned);
    let tree = leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    tree.prop_map(|tree| serde_json::json!({"type": "object", "properties": {"a": tree}}))
}

#[test]
fn a_mask_is_what_its_bytes_are_one_by_one() {
    let (words, vocabulary) = vocabulary();
    let bytes = Vocabulary::of_bytes().expect("bytes");
    for (text, seed) in [(PLACE, 1), (PLACE, 2), (ANYTHING, 3), (NUMBERS, 4)] {
        let tokens = walk(text, &vocabulary, 40, wander(&words, &vocabulary.ends, seed));
        let mut state = State::new(&source(text), &vocabulary).expect("a grammar");
        let mut plain = State::new(&source(text), &bytes).expect("a grammar");
        for &token in &tokens {
            let mask = state.mask();
            for (token, word) in (0u32..).zip(&words) {
                let expected = match vocabulary.ends.contains(&token) {
                    true => plain.clone().mask().has(255),
                    false => !word.is_empty() && takes(&mut plain.clone(), word),
                };
                assert_eq!(mask.has(token), expected, "{token} {word:?} of {text}");
            }
            state.push(token, &mask);
            takes(&mut plain, &words[token as usize]);
        }
    }
}

/// Whether every byte is allowed in turn.
fn takes(state: &mut State, bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| {
        let mask = state.mask();
        state.push(byte.into(), &mask);
        mask.has(byte.into())
    })
}

#[test]
fn steps_are_counted_alike_every_time() {
    let (words, vocabulary) = vocabulary();
    for (text, seed) in [(PLACE, 5), (ANYTHING, 6), (NUMBERS, 7)] {
        let tokens = walk(text, &vocabulary, 60, wander(&words, &vocabulary.ends, seed));
        let costs = || {
            let mut state = State::new(&source(text), &vocabulary).expect("a grammar");
            let cost = |&token: &u32| {
                let mask = state.mask();
                state.push(token, &mask);
                state.cost()
            };
            tokens.iter().map(cost).collect::<Vec<_>>()
        };
        // Each state hashes with keys of its own.
        let first = costs();
        assert!(first.last() > first.first());
        for _ in 0..4 {
            assert_eq!(costs(), first);
        }
    }
}

#[test]
fn a_limit_is_hit_at_the_same_token_every_time() {
    let (words, ends) = words();
    let tokens = br#"{"name": "a", "kind": "inn", "at": [1.5, 2.5]}"#.map(u32::from);
    let few_items = ParserLimits { step_max_items: 3, ..parser_limits() };
    let little_fuel = ParserLimits { step_lexer_fuel: 60, ..parser_limits() };
    let few_states = ParserLimits { max_lexer_states: 12, ..parser_limits() };
    for limits in [few_items, little_fuel, few_states] {
        let vocabulary = Vocabulary::build(&words, &ends, &limits).expect("a tree");
        hit_alike(&vocabulary, &tokens);
    }
}

fn hit_alike(vocabulary: &Arc<Vocabulary>, tokens: &[u32]) {
    let hit = || {
        let mut state = State::new(&source(PLACE), vocabulary).expect("a grammar");
        for (at, &token) in tokens.iter().enumerate() {
            let mask = state.mask();
            let trouble = mask.trouble.clone().or_else(|| state.push(token, &mask));
            if let Some(trouble) = trouble {
                let after = state.mask();
                assert!(after.bits.is_empty() && after.trouble.is_none());
                return (at, trouble);
            }
        }
        panic!("no limit was hit");
    };
    let first = hit();
    assert!(matches!(first.1, ConstraintError::Limit { .. }), "{first:?}");
    assert_eq!([hit(), hit()], [first.clone(), first.clone()]);

    // The handle says so, too, and gives empty masks from there on.
    let mut masks = Masks::start(source(PLACE), vocabulary).expect("a worker");
    let mut found = None;
    for &token in tokens {
        found = found.or(masks.mask().trouble.clone());
        masks.read(token);
    }
    assert_eq!(found, Some(first.1));
    assert!(masks.mask().bits.is_empty());
}

#[test]
fn the_handle_goes_ahead_and_back() {
    let (words, vocabulary) = vocabulary();
    let tokens = walk(PLACE, &vocabulary, 30, wander(&words, &vocabulary.ends, 8));
    let plain = |masks: &mut Masks| {
        let told = tokens.iter().map(|&token| {
            let bits = masks.mask().bits.clone();
            masks.read(token);
            bits
        });
        told.collect::<Vec<_>>()
    };
    let mut masks = Masks::start(source(PLACE), &vocabulary).expect("a worker");
    let expected = plain(&mut masks);
    masks.restart(&[]);
    assert_eq!(plain(&mut masks), expected);
    masks.restart(&tokens[..9]);
    assert_eq!(masks.mask().bits, expected[9]);

    // Told ahead, rightly and wrongly.
    let mut masks = Masks::start(source(PLACE), &vocabulary).expect("a worker");
    for (at, &token) in tokens.iter().enumerate() {
        assert_eq!(masks.mask().bits, expected[at], "{at}");
        match at % 3 {
            0 => masks.expect(token),
            1 => masks.expect(17),
            _ => {}
        }
        masks.read(token);
    }
}

#[test]
fn a_token_outside_its_mask_empties_all_that_follow() {
    let (_, vocabulary) = vocabulary();
    let end = vocabulary.ends[0];
    for wrong in [end, u32::from(b'x'), 100_000] {
        let mut state = State::new(&source(PLACE), &vocabulary).expect("a grammar");
        let mask = state.mask();
        assert!(mask.has(b'{'.into()) && !mask.has(wrong));
        assert_eq!(state.push(wrong, &mask), None);
        for _ in 0..2 {
            let mask = state.mask();
            assert!(mask.bits.is_empty() && mask.trouble.is_none());
            assert_eq!(state.push(b'{'.into(), &mask), None);
        }
    }
}

#[test]
fn vocabularies_that_make_no_tree_are_refused() {
    let (words, ends) = words();
    for (words, ends, named) in [
        (words, vec![], "ends"),
        (vec![b"ab".repeat(500); 5_000], ends, "5000 tokens of 5000000 bytes"),
    ] {
        let error =
            Vocabulary::build(&words, &ends, &parser_limits()).expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
}

/// `open`, `count` times, around `inner`.
fn nested(count: usize, open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(count), close.repeat(count))
}

fn listed(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

/// Numbers that are multiples of these, one a member.
fn multiples(of: &[&str]) -> String {
    let members = of.iter().enumerate();
    let members = members.map(|(i, of)| format!(r#""m{i}":{{"type":"number","multipleOf":{of}}}"#));
    let members = members.collect::<Vec<_>>().join(",");
    format!(r#"{{"type":"object","properties":{{{members}}}}}"#)
}

fn of_string(rules: &str) -> String {
    format!(
        r#"{{"type":"object","properties":{{"a":{{"type":"string",{rules}}}}},"required":["a"]}}"#
    )
}

#[test]
fn what_a_stranger_can_ask_for_is_bounded() {
    let member = |i| format!(r#""p{i}":{{"type":"string"}}"#);
    let object =
        |i| format!(r#"{{"type":"object","properties":{{"k{i}":{{}}}},"required":["k{i}"]}}"#);
    let refs = |n: usize| {
        let defs = listed(n, |i| format!(r##""a{i}":{{"$ref":"#/$defs/a{}"}}"##, i + 1));
        format!(r##"{{"$ref":"#/$defs/a0","$defs":{{{defs},"a{n}":{{"type":"null"}}}}}}"##)
    };
    let any = |n| format!(r#"{{"anyOf":[{}]}}"#, listed(n, object));
    for (text, fault) in [
        (nested(30, r#"{"properties":{"a":"#, "{}", "}}"), None),
        (nested(70, r#"{"items":"#, "{}", "}"), Some("depth")),
        (nested(200, r#"{"items":"#, "{}", "}"), Some("recursion")),
        (format!(r#"{{"properties":{{{}}}}}"#, listed(1_024, member)), None),
        (format!(r#"{{"properties":{{{}}}}}"#, listed(1_025, member)), Some("properties")),
        (format!(r#"{{"enum":[{}]}}"#, listed(8_000, |i| i.to_string())), None),
        (format!(r#"{{"enum":[{}]}}"#, listed(8_192, |i| i.to_string())), Some("values")),
        (
            format!(r#"{{"oneOf":[{}]}}"#, listed(65, |i| format!(r#"{{"const":{i}}}"#))),
            Some("branches"),
        ),
        (format!(r#"{{"oneOf":[{}]}}"#, listed(3, object)), Some("use anyOf")),
        (refs(250), None),
        (refs(257), Some("references")),
        (r##"{"$ref":"#"}"##.into(), Some("no text")),
        (
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##
                .into(),
            Some("no text"),
        ),
        (r##"{"allOf":[{"$ref":"#"},{"type":"object"}]}"##.into(), Some("circular")),
        (r#"{"$ref":"https://example.com/schema"}"#.into(), Some("$ref")),
        (format!(r#"{{"allOf":[{},{}]}}"#, any(300), any(300)), Some("too large")),
        (of_string(r#""pattern":"^((a{1000}){1000}){1000}$""#), None),
        (of_string(r#""pattern":"^(a|b)*a(a|b){30}$""#), None),
        (of_string(&format!(r#""pattern":"{}""#, "a".repeat(1_025))), Some("pattern")),
        (of_string(&format!(r#""pattern":"{}""#, nested(300, "(", "a", ")"))), Some("nest")),
        (of_string(r#""pattern":"(?=a)b""#), Some("look-around")),
        (of_string(r#""minLength":1000000000"#), None),
        (of_string(r#""minLength":3,"maxLength":2"#), Some("nsatisfiable")),
        (r#"{"properties":{"a":false},"required":["a"]}"#.into(), None),
        (
            r#"{"type":"object","properties":{"a":false},"required":["a"]}"#.into(),
            Some("nsatisfiable"),
        ),
        (r#"{"type":"array","items":{},"maxItems":1000000000}"#.into(), None),
        (r#"{"not":{}}"#.into(), Some("not")),
        (r#"{"x-guidance":{"lenient":true}}"#.into(), Some("x-guidance")),
        ("true".into(), Some("JSON object")),
        ("{".into(), Some("JSON object")),
        (format!(r#"{{"const":"{}"}}"#, "k".repeat(60_000)), None),
    ] {
        expect(&text, fault);
    }
}

#[test]
fn remainders_of_multiples_are_bounded() {
    for (text, fault) in [
        (multiples(&["0.01", "0.05", "2.5"]), None),
        (multiples(&["10000"]), None),
        (multiples(&["10001"]), Some("multipleOf")),
        (multiples(&["97", "89", "83"]), Some("in common")),
        (multiples(&["60", "0.01"]), None),
        (multiples(&["600", "0.01"]), Some("in common")),
        (multiples(&["9973"; 10]), None),
        (multiples(&["9973"; 11]), Some("remainders")),
        (multiples(&["0.000001"]), None),
        (multiples(&["0.0000001"]), Some("digits")),
        (multiples(&["1e-300"]), Some("digits")),
        (multiples(&["1e300"]), Some("multipleOf")),
        (multiples(&["4294967295"]), Some("multipleOf")),
        (multiples(&["0"]), Some("multiple of")),
    ] {
        expect(&text, fault);
    }
}

/// That a schema is taken, or refused for a reason that says this.
fn expect(text: &str, fault: Option<&str>) {
    let shown = text.chars().take(80).collect::<String>();
    match (verify(&schema(text)), fault) {
        (Ok(()), None) => {}
        (Err(error), Some(fault)) => {
            let error = error.to_string();
            assert!(error.contains(fault) && error.len() < 500, "{shown}: {error} lacks {fault}");
        }
        (got, _) => panic!("{shown}: {got:?}, expected {fault:?}"),
    }
}
