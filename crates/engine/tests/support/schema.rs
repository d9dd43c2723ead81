//! A small validator of JSON Schema, for the keywords that the tests use. It
//! shares nothing with what makes masks. A keyword that it doesn't know panics.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary includes this module and uses a part of it"
)]

use serde_json::{Map, Value};

/// Whether `value` is valid; else where it isn't and why.
pub fn verify(schema: &Value, value: &Value) -> Result<(), String> {
    Root(schema).check(schema, value, "$")
}

struct Root<'a>(&'a Value);

impl Root<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let keywords = schema.as_object().expect("a schema is an object");
        keywords.iter().try_for_each(|(key, it)| {
            self.keyword(keywords, key, it, value, at)
                .map_err(|why| if why.starts_with('$') { why } else { format!("{at}: {why}") })
        })
    }

    fn keyword(
        &self,
        all: &Map<String, Value>,
        key: &str,
        it: &Value,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let limit = || it.as_f64().expect("a number");
        match key {
            "$defs" | "description" | "title" => Ok(()),
            "$ref" => {
                let path = it.as_str().and_then(|path| path.strip_prefix('#')).expect("a path");
                self.check(self.0.pointer(path).expect("a definition"), value, at)
            }
            "type" => match it {
                Value::Array(kinds) => needs(kinds.iter().any(|kind| is(kind, value)), "type"),
                kind => needs(is(kind, value), "type"),
            },
            "enum" => needs(it.as_array().is_some_and(|all| all.contains(value)), "enum"),
            "const" => needs(it == value, "const"),
            "anyOf" => {
                let options = it.as_array().expect("a list");
                needs(options.iter().any(|it| self.check(it, value, at).is_ok()), "anyOf")
            }
            "minimum" => needs(value.as_f64().is_none_or(|v| v >= limit()), "minimum"),
            "maximum" => needs(value.as_f64().is_none_or(|v| v <= limit()), "maximum"),
            "minLength" | "maxLength" => {
                let length = value.as_str().map(|text| text.chars().count() as f64);
                needs(length.is_none_or(|n| within(key, n, limit())), key)
            }
            "minItems" | "maxItems" => {
                let length = value.as_array().map(|items| items.len() as f64);
                needs(length.is_none_or(|n| within(key, n, limit())), key)
            }
            "pattern" => needs(value.as_str().is_none_or(hex_colour), "pattern"),
            "required" => {
                let has = |name: &Value| value.get(name.as_str().expect("a name")).is_some();
                let names = it.as_array().expect("a list");
                needs(!value.is_object() || names.iter().all(has), "required")
            }
            "items" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice).iter().enumerate();
                items.into_iter().try_for_each(|(i, v)| self.check(it, v, &format!("{at}[{i}]")))
            }
            "properties" => {
                let known = it.as_object().expect("an object");
                let members = value.as_object().into_iter().flatten();
                members.filter_map(|(name, v)| Some((name, known.get(name)?, v))).try_for_each(
                    |(name, schema, v)| self.check(schema, v, &format!("{at}.{name}")),
                )
            }
            "additionalProperties" => {
                assert_eq!(it, &Value::Bool(false));
                let known = all["properties"].as_object().expect("an object");
                let members = value.as_object();
                let all_known = members.is_none_or(|it| it.keys().all(|k| known.contains_key(k)));
                needs(all_known, "additionalProperties")
            }
            other => panic!("{other} is not known here"),
        }
    }
}

fn needs(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn within(key: &str, got: f64, limit: f64) -> bool {
    if key.starts_with("min") { got >= limit } else { got <= limit }
}

/// The one pattern that the tests use: `^#[0-9a-f]{6}$`.
fn hex_colour(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or_default();
    digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|v| v.fract() == 0.0),
        other => panic!("{other} is not known here"),
    }
}
