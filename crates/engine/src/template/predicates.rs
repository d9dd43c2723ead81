//! The tests of `is`.

use super::arguments::Values;
use super::fault::{Fault, failed};
use super::meter::Meter;
use super::value::Value;

/// Every known test.
pub(super) const NAMES: [&str; 33] = [
    "defined",
    "undefined",
    "none",
    "true",
    "false",
    "boolean",
    "string",
    "number",
    "integer",
    "float",
    "mapping",
    "sequence",
    "iterable",
    "callable",
    "odd",
    "even",
    "divisibleby",
    "eq",
    "equalto",
    "sameas",
    "ne",
    "lt",
    "lessthan",
    "le",
    "gt",
    "greaterthan",
    "ge",
    "in",
    "lower",
    "upper",
    "startingwith",
    "endingwith",
    "escaped",
];

/// Whether a name behind the test can be its argument.
pub(super) fn takes_argument(name: &str) -> bool {
    matches!(
        name,
        "divisibleby"
            | "eq"
            | "equalto"
            | "sameas"
            | "ne"
            | "lt"
            | "lessthan"
            | "le"
            | "gt"
            | "greaterthan"
            | "ge"
            | "in"
            | "startingwith"
            | "endingwith"
    )
}

/// Whether a value passes a test.
pub(super) fn holds(
    meter: &Meter,
    name: &str,
    value: &Value,
    arguments: &Values<'_>,
) -> Result<bool, Fault> {
    if takes_argument(name) {
        let Some(other) = arguments.plain.first() else {
            return failed(format!("the test {name} takes an argument"));
        };
        return compares(meter, name, value, other);
    }
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined),
        "undefined" => matches!(value, Value::Undefined),
        "none" => matches!(value, Value::None),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "boolean" => matches!(value, Value::Bool(_)),
        "string" => value.as_str().is_some(),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "mapping" => matches!(value, Value::Map(_)),
        "sequence" => matches!(value, Value::List(_) | Value::Map(_) | Value::Text(_)),
        "iterable" => {
            matches!(value, Value::List(_) | Value::Map(_) | Value::Text(_) | Value::Undefined)
        }
        "odd" | "even" => match value.int() {
            Some(number) => (number % 2 != 0) == (name == "odd"),
            None => return failed(format!("{} is neither odd nor even", value.kind())),
        },
        "lower" | "upper" => {
            meter.work(value.weight())?;
            let text = value.as_str().unwrap_or_default();
            let wrong = if name == "lower" { char::is_uppercase } else { char::is_lowercase };
            text.chars().any(char::is_alphabetic) && !text.chars().any(wrong)
        }
        // Nothing a template can hold is a function or marked as safe.
        _ => false,
    })
}

fn compares(meter: &Meter, name: &str, value: &Value, other: &Value) -> Result<bool, Fault> {
    Ok(match name {
        "eq" | "equalto" | "sameas" => value.equals(meter, other)?,
        "ne" => !value.equals(meter, other)?,
        "lt" | "lessthan" => value.order(meter, other)?.is_lt(),
        "le" => value.order(meter, other)?.is_le(),
        "gt" | "greaterthan" => value.order(meter, other)?.is_gt(),
        "ge" => value.order(meter, other)?.is_ge(),
        "in" => other.contains(meter, value)?,
        "divisibleby" => match (value.int(), other.int()) {
            (Some(number), Some(by)) if by != 0 => number.checked_rem(by).unwrap_or(0) == 0,
            _ => return failed("divisibleby takes whole numbers"),
        },
        _ => {
            let (Some(text), Some(part)) = (value.as_str(), other.as_str()) else {
                return failed(format!("the test {name} takes strings"));
            };
            if name == "startingwith" { text.starts_with(part) } else { text.ends_with(part) }
        }
    })
}
