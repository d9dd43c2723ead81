//! The values of a running template, with Python's ideas of truth, equality,
//! order and writing.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::rc::Rc;

use super::fault::{Fault, failed};
use super::meter::{Held, Meter, Out};

#[derive(Clone, Debug)]
pub(super) enum Value {
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<Text>),
    List(Rc<List>),
    Map(Rc<Map>),
    Space(Rc<Space>),
    Loop(Rc<Loop>),
}

#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) _held: Held,
}

#[derive(Debug)]
pub(super) struct List {
    pub(super) items: Vec<Value>,
    /// What walking over all of it costs.
    pub(super) weight: u64,
    pub(super) depth: u16,
    pub(super) _held: Held,
}

#[derive(Debug)]
pub(super) struct Map {
    /// In the order they were put in.
    pub(super) entries: Vec<(Value, Value)>,
    pub(super) weight: u64,
    pub(super) depth: u16,
    pub(super) _held: Held,
}

/// A namespace: the one value that can change.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) values: RefCell<Vec<(String, Value)>>,
}

/// What a template knows of the loop it is in.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) items: Rc<List>,
    pub(super) at: usize,
}

impl Value {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(&text.text),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "an undefined value",
            Self::None => "none",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Space(_) => "a namespace",
            Self::Loop(_) => "a loop",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Bool(bit) => *bit,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Space(_) | Self::Loop(_) => true,
        }
    }

    /// What walking over the whole value costs.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::Text(text) => 8 + text.text.len() as u64,
            Self::List(list) => list.weight,
            Self::Map(map) => map.weight,
            _ => 8,
        }
    }

    pub(super) fn depth(&self) -> u16 {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// A whole number; truth values are 0 and 1.
    pub(super) fn int(&self) -> Option<i64> {
        match *self {
            Self::Int(number) => Some(number),
            Self::Bool(bit) => Some(i64::from(bit)),
            _ => None,
        }
    }

    pub(super) fn float(&self) -> Option<f64> {
        match *self {
            Self::Float(number) => Some(number),
            _ => self.int().map(|number| number as f64),
        }
    }

    /// Whether two keys of a map are one.
    pub(super) fn same_key(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.text == b.text,
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => true,
            (a, b) => match (a.float(), b.float()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        }
    }

    /// Whether two values are equal.
    pub(super) fn equals(&self, meter: &Meter, other: &Self) -> Result<bool, Fault> {
        meter.work(self.weight().min(other.weight()))?;
        self.equal(meter, other)
    }

    fn equal(&self, meter: &Meter, other: &Self) -> Result<bool, Fault> {
        Ok(match (self, other) {
            (Self::List(a), Self::List(b)) => {
                if a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equal(meter, b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    match b.get(meter, key)? {
                        Some(other) if value.equals(meter, other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Self::Space(a), Self::Space(b)) => Rc::ptr_eq(a, b),
            (a, b) => match (a.int(), b.int()) {
                (Some(a), Some(b)) => a == b,
                _ => a.same_key(b),
            },
        })
    }

    /// The order of numbers, or of strings.
    pub(super) fn order(&self, meter: &Meter, other: &Self) -> Result<Ordering, Fault> {
        meter.work(self.weight().min(other.weight()))?;
        let order = match (self, other) {
            (Self::Text(a), Self::Text(b)) => Some(a.text.cmp(&b.text)),
            (a, b) => match (a.int(), b.int()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => a.float().zip(b.float()).and_then(|(a, b)| a.partial_cmp(&b)),
            },
        };
        match order {
            Some(order) => Ok(order),
            None => failed(format!("{} and {} have no order", self.kind(), other.kind())),
        }
    }

    /// Whether `item` is in this list, map or string.
    pub(super) fn contains(&self, meter: &Meter, item: &Self) -> Result<bool, Fault> {
        match self {
            Self::Undefined => Ok(false),
            Self::Text(text) => match item.as_str() {
                Some(part) => {
                    meter.work(self.weight())?;
                    Ok(text.text.contains(part))
                }
                None => failed(format!("{} can't be in a string", item.kind())),
            },
            Self::List(list) => {
                for known in &list.items {
                    meter.step()?;
                    if known.equals(meter, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Map(map) => Ok(map.get(meter, item)?.is_some()),
            _ => failed(format!("nothing can be in {}", self.kind())),
        }
    }

    /// What a loop over this value gives.
    pub(super) fn items(&self, meter: &Meter) -> Result<Vec<Self>, Fault> {
        match self {
            Self::Undefined => Ok(Vec::new()),
            Self::List(list) => {
                meter.work(8 * list.items.len() as u64)?;
                Ok(list.items.clone())
            }
            Self::Map(map) => {
                meter.work(8 * map.entries.len() as u64)?;
                Ok(map.entries.iter().map(|(key, _)| key.clone()).collect())
            }
            Self::Text(text) => {
                text.text.chars().map(|char| meter.text(char.to_string())).collect()
            }
            _ => failed(format!("{} can't be walked over", self.kind())),
        }
    }

    /// Appends the value as `{{ }}` writes it.
    pub(super) fn write(&self, out: &mut Out<'_>) -> Result<(), Fault> {
        match self {
            Self::Undefined => Ok(()),
            Self::Text(text) => out.push(&text.text),
            _ => self.write_code(out),
        }
    }

    /// Appends the value as Python's `repr` writes it.
    fn write_code(&self, out: &mut Out<'_>) -> Result<(), Fault> {
        match self {
            Self::Undefined => out.push("Undefined"),
            Self::None => out.push("None"),
            Self::Bool(true) => out.push("True"),
            Self::Bool(false) => out.push("False"),
            Self::Int(number) => out.push(&number.to_string()),
            Self::Float(number) => out.push(&format!("{number:?}")),
            Self::Text(text) => write_quoted(&text.text, out),
            Self::List(list) => {
                out.push("[")?;
                for (at, item) in list.items.iter().enumerate() {
                    out.push(if at == 0 { "" } else { ", " })?;
                    item.write_code(out)?;
                }
                out.push("]")
            }
            Self::Map(map) => {
                out.push("{")?;
                for (at, (key, value)) in map.entries.iter().enumerate() {
                    out.push(if at == 0 { "" } else { ", " })?;
                    key.write_code(out)?;
                    out.push(": ")?;
                    value.write_code(out)?;
                }
                out.push("}")
            }
            Self::Space(_) | Self::Loop(_) => failed(format!("{} can't be written", self.kind())),
        }
    }
}

impl Map {
    pub(super) fn get(&self, meter: &Meter, key: &Value) -> Result<Option<&Value>, Fault> {
        meter.work(8 * self.entries.len() as u64)?;
        Ok(self.entries.iter().find(|(known, _)| known.same_key(key)).map(|(_, value)| value))
    }

    pub(super) fn attr(&self, meter: &Meter, name: &str) -> Result<Option<&Value>, Fault> {
        meter.work(8 * self.entries.len() as u64)?;
        let found = self.entries.iter().find(|(known, _)| known.as_str() == Some(name));
        Ok(found.map(|(_, value)| value))
    }
}

fn write_quoted(text: &str, out: &mut Out<'_>) -> Result<(), Fault> {
    let quote = if text.contains('\'') && !text.contains('"') { "\"" } else { "'" };
    out.push(quote)?;
    let mut from = 0;
    for (at, char) in text.char_indices() {
        let escaped = match char {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\'' if quote == "'" => "\\'".to_owned(),
            char if char.is_control() => format!("\\x{:02x}", u32::from(char)),
            _ => continue,
        };
        out.push(&text[from..at])?;
        out.push(&escaped)?;
        from = at + char.len_utf8();
    }
    out.push(&text[from..])?;
    out.push(quote)
}

impl Space {
    pub(super) fn get(&self, name: &str) -> Value {
        let values = self.values.borrow();
        let found = values.iter().find(|(known, _)| known == name);
        found.map_or(Value::Undefined, |(_, value)| value.clone())
    }

    pub(super) fn set(&self, name: &str, value: Value) {
        let mut values = self.values.borrow_mut();
        match values.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1 = value,
            None => values.push((name.to_owned(), value)),
        }
    }
}
