//! `response_format`: what the text of an answer must be.
//!
//! A schema is looked at whole before a job is made of it: what it means under
//! the rules this build names in offers is known without a model, so a client
//! hears at once that its schema has no meaning, or asks for too much. What is
//! signed is the schema as it was parsed: its members in the client's order,
//! without white space. Deliberately absent: telling the model about the schema,
//! which is for the messages to do.

use peerproof::client::{CONSTRAINT_RULES, Constraint, Form, verify_constraint};
use serde_json::Value;

use super::fields::{Fields, expected};
use crate::error::ApiError;

const MAX_SCHEMA_BYTES: usize = 64 << 10;
const MAX_NAME_BYTES: usize = 64;

/// `{"type": "text" | "json_object"}`, or
/// `{"type": "json_schema", "json_schema": {"name", "schema", "strict"}}`.
pub(super) fn parse(fields: &Fields<'_>) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = fields.object("response_format")? else { return Ok(None) };
    let form = match format.string("type")? {
        Some("text") => return Ok(None),
        Some("json_object") => Form::JsonObject,
        Some("json_schema") => Form::JsonSchema(schema(&format)?),
        _ => {
            let message = "one of text, json_object, json_schema";
            return Err(ApiError::invalid(format.path("type"), message));
        }
    };
    let constraint = Constraint { rules: CONSTRAINT_RULES.into(), form };
    verify_constraint(&constraint)
        .map_err(|error| ApiError::invalid("response_format", error.to_string()))?;
    Ok(Some(constraint))
}

fn schema(format: &Fields<'_>) -> Result<String, ApiError> {
    let path = format.path("json_schema");
    let Some(named) = format.object("json_schema")? else {
        return Err(ApiError::invalid(path, "an object with a schema is required"));
    };
    if named.string("name")?.is_some_and(|name| name.len() > MAX_NAME_BYTES) {
        let message = format!("at most {MAX_NAME_BYTES} bytes");
        return Err(ApiError::invalid(named.path("name"), message));
    }
    // Strict or not, the text is held to the schema, or the schema is refused.
    named.boolean("strict")?;
    let path = named.path("schema");
    let text = match named.present("schema") {
        Some(schema @ Value::Object(_)) => schema.to_string(),
        Some(other) => return Err(ApiError::invalid(path, expected("an object", other))),
        None => return Err(ApiError::invalid(path, "a schema is required")),
    };
    if text.len() > MAX_SCHEMA_BYTES {
        let message = format!("at most {MAX_SCHEMA_BYTES} bytes, without white space");
        return Err(ApiError::invalid(path, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(format: Value) -> Result<Option<Constraint>, ApiError> {
        let body = json!({ "response_format": format });
        parse(&Fields::top(body.as_object().expect("an object")))
    }

    #[test]
    fn formats_become_constraints() {
        let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let named = |schema: &Value| json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
        for (format, form) in [
            (Value::Null, None),
            (json!({"type": "text"}), None),
            (json!({"type": "json_object"}), Some(Form::JsonObject)),
            // The client's order is the order of the members in the answer.
            (
                named(&schema),
                Some(Form::JsonSchema(r#"{"type":"object","properties":{"b":{},"a":{}}}"#.into())),
            ),
        ] {
            let constraint = parsed(format).expect("a format");
            assert!(constraint.iter().all(|it| it.rules == CONSTRAINT_RULES));
            assert_eq!(constraint.map(|it| it.form), form);
        }
    }

    #[test]
    fn what_can_not_be_followed_is_refused_before_a_job_starts() {
        let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        let deep = (0..70).fold(json!({}), |inner, _| json!({ "items": inner }));
        let large = json!({"enum": ["x".repeat(70_000)]});
        for (format, param, words) in [
            (json!({"type": "xml"}), "response_format.type", "json_schema"),
            (json!({}), "response_format.type", "json_object"),
            (json!("json"), "response_format", "object"),
            (json!({"type": "json_schema"}), "response_format.json_schema", "required"),
            (
                json!({"type": "json_schema", "json_schema": {"name": "x"}}),
                "response_format.json_schema.schema",
                "required",
            ),
            (schema(json!(true)), "response_format.json_schema.schema", "object"),
            (schema(large), "response_format.json_schema.schema", "65536"),
            (schema(deep), "response_format", "depth"),
            (schema(json!({"not": {}})), "response_format", "not"),
            (schema(json!({"type": "integer", "minimum": 3, "maximum": 2})), "response_format", ""),
            (
                schema(json!({"type": "string", "minLength": 3, "maxLength": 2})),
                "response_format",
                "nsatisfiable",
            ),
            (schema(json!({"$ref": "https://example.com"})), "response_format", "$ref"),
            (
                schema(json!({"oneOf": [{"type": "object"}, {"type": "object"}]})),
                "response_format",
                "use anyOf",
            ),
        ] {
            let shown = format.to_string().chars().take(90).collect::<String>();
            let error = parsed(format).map(drop).expect_err(&shown);
            let body = error.to_json();
            assert_eq!(body["error"]["param"], param, "{shown}: {body}");
            let message = body["error"]["message"].as_str().expect("a message");
            assert!(message.contains(words), "{shown}: {message} lacks {words}");
        }
    }
}
