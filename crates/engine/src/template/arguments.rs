//! The arguments of a call, with their values.

use super::fault::{Fault, failed};
use super::value::Value;

#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    pub(super) plain: Vec<Value>,
    pub(super) named: Vec<(&'a str, Value)>,
}

impl Values<'_> {
    pub(super) fn named(&self, name: &str) -> Option<&Value> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The argument at a place, or of a name.
    pub(super) fn at(&self, place: usize, name: &str) -> Option<&Value> {
        self.plain.get(place).or_else(|| self.named(name))
    }

    /// As [`Values::at`], `None` where it is a none.
    pub(super) fn given(&self, place: usize, name: &str) -> Option<&Value> {
        self.at(place, name).filter(|value| !matches!(value, Value::None | Value::Undefined))
    }

    /// A string.
    pub(super) fn text(&self, place: usize, name: &str) -> Result<Option<&str>, Fault> {
        match self.given(place, name) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text)),
                None => failed(format!("expected a string as {name}, got {}", value.kind())),
            },
        }
    }

    pub(super) fn int(&self, place: usize, name: &str) -> Result<Option<i64>, Fault> {
        match self.given(place, name) {
            None => Ok(None),
            Some(value) => match value.int() {
                Some(number) => Ok(Some(number)),
                None => failed(format!("expected a whole number as {name}, got {}", value.kind())),
            },
        }
    }

    /// A string that must be there.
    pub(super) fn needed(&self, place: usize, name: &str) -> Result<&str, Fault> {
        match self.text(place, name)? {
            Some(text) => Ok(text),
            None => failed(format!("the argument {name} is missing")),
        }
    }

    pub(super) fn is_true(&self, place: usize, name: &str) -> bool {
        self.at(place, name).is_some_and(Value::is_true)
    }
}
