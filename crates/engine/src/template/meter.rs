//! What a running template has left: steps, bytes of work, bytes alive, depth.
//!
//! Whatever makes or walks a value asks first, so a template stops before it has
//! taken more, not after.

use std::cell::Cell;
use std::rc::Rc;

use super::fault::{Fault, failed};
use super::value::{List, Map, Text, Value};
use super::{MAX_LIVE_BYTES, MAX_RENDERED_BYTES, MAX_STEPS, MAX_WORK_BYTES};

/// The most a template may nest while it runs: expressions, statements, macros.
const MAX_DEPTH: u32 = 250;
/// How deep lists and maps may lie in each other.
pub(super) const MAX_VALUE_DEPTH: u16 = 32;
/// What a value costs beside its text.
const VALUE_BYTES: usize = 48;
/// The place that limits name.
pub(super) const PLACE: &str = "chat template";

#[derive(Debug, Default)]
pub(super) struct Meter {
    steps: Cell<u64>,
    work: Cell<u64>,
    live: Rc<Cell<usize>>,
    depth: Cell<u32>,
}

/// Bytes that count as alive until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    live: Rc<Cell<usize>>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.live.set(self.live.get() - self.bytes);
    }
}

fn limit<T>(expected: u64, unit: &'static str) -> Result<T, Fault> {
    Err(Fault::Limit { place: PLACE, expected, unit })
}

impl Meter {
    pub(super) fn step(&self) -> Result<(), Fault> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > MAX_STEPS { limit(MAX_STEPS, "steps") } else { Ok(()) }
    }

    /// Something that takes as long as it takes to walk over `bytes`.
    pub(super) fn work(&self, bytes: u64) -> Result<(), Fault> {
        self.work.set(self.work.get().saturating_add(bytes));
        if self.work.get() > MAX_WORK_BYTES {
            return limit(MAX_WORK_BYTES, "bytes of work");
        }
        Ok(())
    }

    /// One level deeper, for as long as `inner` runs.
    pub(super) fn enter(&self) -> Result<(), Fault> {
        if self.depth.get() == MAX_DEPTH {
            return limit(u64::from(MAX_DEPTH), "levels of depth");
        }
        self.depth.set(self.depth.get() + 1);
        Ok(())
    }

    pub(super) fn leave(&self) {
        self.depth.set(self.depth.get() - 1);
    }

    fn hold(&self, bytes: usize) -> Result<Held, Fault> {
        let mut held = Held { live: Rc::clone(&self.live), bytes: 0 };
        self.grow(&mut held, bytes)?;
        Ok(held)
    }

    fn grow(&self, held: &mut Held, bytes: usize) -> Result<(), Fault> {
        let live = self.live.get().saturating_add(bytes);
        if live > MAX_LIVE_BYTES {
            return limit(MAX_LIVE_BYTES as u64, "bytes of memory");
        }
        self.live.set(live);
        held.bytes += bytes;
        Ok(())
    }

    /// Before a string of `bytes` is made.
    pub(super) fn expect_text(&self, bytes: usize) -> Result<(), Fault> {
        if bytes > MAX_RENDERED_BYTES {
            return limit(MAX_RENDERED_BYTES as u64, "bytes in a string");
        }
        self.work(bytes as u64)
    }

    /// A string, that was made after [`Meter::expect_text`] or is of this size anyway.
    pub(super) fn text(&self, text: impl Into<String>) -> Result<Value, Fault> {
        let text = text.into();
        self.expect_text(text.len())?;
        let held = self.hold(text.len() + VALUE_BYTES)?;
        Ok(Value::Text(Rc::new(Text { text, _held: held })))
    }

    pub(super) fn list(&self, items: Vec<Value>) -> Result<Value, Fault> {
        let (weight, depth) = self.inside(items.iter())?;
        let held = self.hold((items.len() + 1) * VALUE_BYTES)?;
        Ok(Value::List(Rc::new(List { items, weight, depth, _held: held })))
    }

    /// Later entries replace earlier ones of the same key.
    pub(super) fn map(&self, entries: Vec<(Value, Value)>) -> Result<Value, Fault> {
        let mut unique: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if matches!(key, Value::List(_) | Value::Map(_) | Value::Space(_) | Value::Loop(_)) {
                return failed("a key of a map must be a string or a number");
            }
            self.work(8 * unique.len() as u64)?;
            match unique.iter_mut().find(|(known, _)| known.same_key(&key)) {
                Some(entry) => entry.1 = value,
                None => unique.push((key, value)),
            }
        }
        let (weight, depth) = self.inside(unique.iter().flat_map(|(key, value)| [key, value]))?;
        let held = self.hold((2 * unique.len() + 1) * VALUE_BYTES)?;
        Ok(Value::Map(Rc::new(Map { entries: unique, weight, depth, _held: held })))
    }

    /// Weight and depth of a list or map of these.
    fn inside<'a>(&self, items: impl Iterator<Item = &'a Value>) -> Result<(u64, u16), Fault> {
        let (mut weight, mut depth, mut count) = (8u64, 0, 0u64);
        for item in items {
            if matches!(item, Value::Space(_) | Value::Loop(_)) {
                return failed("a namespace can't be kept in a list or a map");
            }
            weight = weight.saturating_add(item.weight());
            depth = depth.max(item.depth());
            count += 1;
        }
        self.work(8 * count)?;
        if depth >= MAX_VALUE_DEPTH {
            return limit(u64::from(MAX_VALUE_DEPTH), "lists in lists");
        }
        Ok((weight, depth + 1))
    }

    /// A string in the making.
    pub(super) fn out(&self) -> Result<Out<'_>, Fault> {
        Ok(Out { meter: self, text: String::new(), held: self.hold(VALUE_BYTES)?, place: None })
    }

    /// As [`Meter::out`], for the whole of what is rendered.
    pub(super) fn main_out(&self) -> Result<Out<'_>, Fault> {
        Ok(Out { place: Some("the rendered chat"), ..self.out()? })
    }
}

/// A string in the making.
#[derive(Debug)]
pub(super) struct Out<'a> {
    meter: &'a Meter,
    text: String,
    held: Held,
    place: Option<&'static str>,
}

impl Out<'_> {
    pub(super) fn push(&mut self, text: &str) -> Result<(), Fault> {
        if self.text.len() + text.len() > MAX_RENDERED_BYTES {
            let place = self.place.unwrap_or("a string of the chat template");
            return Err(Fault::Limit { place, expected: MAX_RENDERED_BYTES as u64, unit: "bytes" });
        }
        self.meter.work(text.len() as u64)?;
        self.meter.grow(&mut self.held, text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// The string.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// The string as a value.
    pub(super) fn into_value(self) -> Value {
        Value::Text(Rc::new(Text { text: self.text, _held: self.held }))
    }
}
