//! Typed access to one JSON object, with errors that name the full path.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ApiError;

/// An object of the request and where it stands.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    at: String,
}

impl<'a> Fields<'a> {
    /// The body itself.
    pub(super) fn top(object: &'a Map<String, Value>) -> Fields<'a> {
        Fields { object, at: String::new() }
    }

    /// An object inside the body, at a path such as `messages[2]`.
    pub(super) fn inner(value: &'a Value, at: String) -> Result<Fields<'a>, ApiError> {
        match value {
            Value::Object(object) => Ok(Fields { object, at }),
            other => Err(ApiError::invalid(at, expected("an object", other))),
        }
    }

    /// The path of a member.
    pub(super) fn path(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// A member that is there and is not null.
    pub(super) fn present(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, "a whole number of 64 bits", Value::as_i64)
    }

    pub(super) fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, ApiError> {
        self.typed(name, "a list", Value::as_array)
    }

    pub(super) fn unsigned(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.typed(name, &wanted, |value| value.as_u64().filter(|n| range.contains(n)))
    }

    /// A number from 0 to `most`, times 65,536, rounded to nearest.
    pub(super) fn q16(&self, name: &str, most: u32) -> Result<Option<u32>, ApiError> {
        let wanted = format!("a number from 0 to {most}");
        let in_range = |number: &f64| (0.0..=f64::from(most)).contains(number);
        let number = self.typed(name, &wanted, |value| value.as_f64().filter(in_range))?;
        Ok(number.map(|number| (number * 65_536.0).round() as u32))
    }

    /// A number within these bounds, times 65,536, rounded to nearest.
    pub(super) fn signed_q16(
        &self,
        name: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<i32>, ApiError> {
        let wanted = format!("a number from {least} to {most}");
        let in_range = |number: &f64| (least..=most).contains(number);
        let number = self.typed(name, &wanted, |value| value.as_f64().filter(in_range))?;
        Ok(number.map(|number| (number * 65_536.0).round() as i32))
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        self.present(name).map(|value| Fields::inner(value, self.path(name))).transpose()
    }

    /// A list of at most `most` strings.
    pub(super) fn strings(&self, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let list = self.array(name)?.map_or(&[][..], Vec::as_slice);
        if list.len() > most {
            return Err(ApiError::invalid(self.path(name), format!("at most {most} entries")));
        }
        let text = |(i, value): (usize, &Value)| match value {
            Value::String(text) => Ok(text.clone()),
            other => {
                let at = format!("{}[{i}]", self.path(name));
                Err(ApiError::invalid(at, expected("a string", other)))
            }
        };
        list.iter().enumerate().map(text).collect()
    }

    /// Refuses members that are not in `known`: in our own objects a
    /// misspelt name would silently weaken what was asked for.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.object.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let message = format!("not known here; known: {}", known.join(", "));
                Err(ApiError::unsupported(self.path(name), message))
            }
        }
    }

    fn typed<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.present(name) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(ApiError::invalid(self.path(name), expected(wanted, value))),
        }
    }
}

/// "expected … got …", without repeating a long value.
pub(super) fn expected(wanted: &str, got: &Value) -> String {
    let got = match got {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("expected {wanted}, got {got}")
}
