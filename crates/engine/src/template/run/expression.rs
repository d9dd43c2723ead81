//! Expressions at work, and the four functions every template has.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::arguments::Values;
use super::super::ast::{Arguments, Expr, Kind};
use super::super::fault::{Fault, failed};
use super::super::parse::FUNCTIONS;
use super::super::value::{Loop, Space, Value};
use super::super::{methods, predicates};
use super::Run;

/// The longest list `range` makes.
const MAX_RANGE: u64 = 100_000;

type Given = Result<Value, Fault>;

impl<'a> Run<'a> {
    pub(super) fn eval(&mut self, expr: &'a Expr) -> Given {
        self.meter.step()?;
        self.meter.enter()?;
        let value = self.kind(&expr.kind).map_err(|fault| fault.at(expr.line))?;
        self.meter.leave();
        Ok(value)
    }

    fn kind(&mut self, kind: &'a Kind) -> Given {
        match kind {
            Kind::Undefined => Ok(Value::Undefined),
            Kind::None => Ok(Value::None),
            Kind::Bool(bit) => Ok(Value::Bool(*bit)),
            Kind::Int(number) => Ok(Value::Int(*number)),
            Kind::Float(number) => Ok(Value::Float(*number)),
            Kind::Str(text) => self.meter.text(text.as_str()),
            Kind::Name(name) => Ok(self.lookup(name)),
            Kind::List(items) => {
                let items: Vec<Value> =
                    items.iter().map(|item| self.eval(item)).collect::<Result<_, _>>()?;
                self.meter.list(items)
            }
            Kind::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| Ok((self.eval(key)?, self.eval(value)?)))
                    .collect::<Result<Vec<_>, Fault>>()?;
                self.meter.map(entries)
            }
            Kind::Attr(of, name) => {
                let of = self.eval(of)?;
                self.attr(&of, name)
            }
            Kind::Item(of, index) => {
                let (of, index) = (self.eval(of)?, self.eval(index)?);
                self.item(&of, &index)
            }
            Kind::Slice(of, parts) => self.slice(of, parts),
            Kind::Filter(of, filter) => {
                let value = self.eval(of)?;
                self.filter(value, filter)
            }
            Kind::Test(of, name, arguments, negated) => self.test(of, name, arguments, *negated),
            Kind::Call(name, arguments) => self.call(name, arguments),
            Kind::Method(of, name, arguments) => {
                let of = self.eval(of)?;
                let arguments = self.arguments(arguments)?;
                methods::call(self.meter, &of, name, &arguments)
            }
            _ => self.operator(kind),
        }
    }

    fn operator(&mut self, kind: &'a Kind) -> Given {
        match kind {
            Kind::Not(inner) => Ok(Value::Bool(!self.eval(inner)?.is_true())),
            Kind::Minus(inner) => match self.eval(inner)? {
                Value::Float(number) => Ok(Value::Float(-number)),
                other => match other.int().and_then(i64::checked_neg) {
                    Some(number) => Ok(Value::Int(number)),
                    None => failed(format!("{} has no negative", other.kind())),
                },
            },
            Kind::Math(op, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                super::super::math::math(self.meter, op, &left, &right)
            }
            Kind::Concat(items) => {
                let mut out = self.meter.out()?;
                for item in items {
                    self.eval(item)?.write(&mut out)?;
                }
                Ok(out.into_value())
            }
            Kind::And(items) => self.first(items, false),
            Kind::Or(items) => self.first(items, true),
            Kind::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (op, right) in rest {
                    let right = self.eval(right)?;
                    if !self.compares(op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Kind::If(parts) => {
                let [condition, then, other] = &**parts;
                let holds = self.eval(condition)?.is_true();
                self.eval(if holds { then } else { other })
            }
            _ => Ok(Value::Undefined),
        }
    }

    /// The first value that is true, or isn't, or else the last.
    fn first(&mut self, items: &'a [Expr], wanted: bool) -> Given {
        let mut value = Value::Undefined;
        for item in items {
            value = self.eval(item)?;
            if value.is_true() == wanted {
                break;
            }
        }
        Ok(value)
    }

    fn compares(&self, op: &str, left: &Value, right: &Value) -> Result<bool, Fault> {
        Ok(match op {
            "==" => left.equals(self.meter, right)?,
            "!=" => !left.equals(self.meter, right)?,
            "in" => right.contains(self.meter, left)?,
            "not in" => !right.contains(self.meter, left)?,
            "<" => left.order(self.meter, right)?.is_lt(),
            "<=" => left.order(self.meter, right)?.is_le(),
            ">" => left.order(self.meter, right)?.is_gt(),
            _ => left.order(self.meter, right)?.is_ge(),
        })
    }

    pub(super) fn arguments(&mut self, arguments: &'a Arguments) -> Result<Values<'a>, Fault> {
        let plain = arguments.plain.iter().map(|expr| self.eval(expr));
        let plain = plain.collect::<Result<_, _>>()?;
        let named = arguments.named.iter().map(|(name, expr)| Ok((&**name, self.eval(expr)?)));
        Ok(Values { plain, named: named.collect::<Result<_, Fault>>()? })
    }

    fn test(
        &mut self,
        of: &'a Expr,
        name: &'a str,
        arguments: &'a Arguments,
        negated: bool,
    ) -> Given {
        // Functions and macros are defined though they are no values.
        if let (Kind::Name(asked), "defined" | "undefined") = (&of.kind, name) {
            let callable = FUNCTIONS.contains(&asked.as_str())
                || self.macros.iter().any(|known| known.name == *asked);
            if callable {
                return Ok(Value::Bool((name == "defined") != negated));
            }
        }
        let value = self.eval(of)?;
        let arguments = self.arguments(arguments)?;
        let holds = predicates::holds(self.meter, name, &value, &arguments)?;
        Ok(Value::Bool(holds != negated))
    }

    fn call(&mut self, name: &'a str, arguments: &'a Arguments) -> Given {
        let arguments = self.arguments(arguments)?;
        if let Some(called) = self.macros.iter().find(|known| known.name == name).copied() {
            return self.call_macro(called, &arguments);
        }
        match name {
            "range" => self.range(&arguments),
            "dict" => {
                let entries = arguments.named.iter();
                let entries =
                    entries.map(|(key, value)| Ok((self.meter.text(*key)?, value.clone())));
                self.meter.map(entries.collect::<Result<_, Fault>>()?)
            }
            "namespace" => {
                let space = Space { values: RefCell::new(Vec::new()) };
                for (key, value) in &arguments.named {
                    if matches!(value, Value::Space(_) | Value::Loop(_)) {
                        return failed("a namespace can't be kept in a namespace");
                    }
                    space.set(key, value.clone());
                }
                Ok(Value::Space(Rc::new(space)))
            }
            "raise_exception" => {
                let reason = arguments.text(0, "message")?.unwrap_or("no reason given");
                Err(Fault::Refused(reason.chars().take(400).collect()))
            }
            _ => failed(format!("{name} is undefined")),
        }
    }

    fn range(&self, arguments: &Values<'_>) -> Given {
        let int = |at| arguments.int(at, "a bound");
        let (start, end) = match (int(0)?, int(1)?) {
            (Some(end), None) => (0, end),
            (Some(start), Some(end)) => (start, end),
            _ => return failed("range takes whole numbers"),
        };
        let step = int(2)?.unwrap_or(1);
        if step == 0 {
            return failed("a range with steps of 0");
        }
        let span = (i128::from(end) - i128::from(start)) * i128::from(step.signum());
        let count = span.max(0).unsigned_abs().div_ceil(u128::from(step.unsigned_abs()));
        if count > u128::from(MAX_RANGE) {
            return failed(format!("a range of more than {MAX_RANGE} numbers"));
        }
        self.meter.work(8 * count as u64)?;
        let items = (0..count as i64).map(|at| Value::Int(start + at * step));
        self.meter.list(items.collect())
    }

    pub(super) fn attr(&self, of: &Value, name: &str) -> Given {
        match of {
            Value::Undefined => failed(format!("an undefined value has no {name:?}")),
            Value::Map(map) => Ok(map.attr(self.meter, name)?.cloned().unwrap_or(Value::Undefined)),
            Value::Space(space) => Ok(space.get(name)),
            Value::Loop(inner) => self.loop_attr(inner, name),
            _ => Ok(Value::Undefined),
        }
    }

    fn loop_attr(&self, inner: &Loop, name: &str) -> Given {
        let (at, count) = (inner.at, inner.items.items.len());
        let int = |number: usize| Ok(Value::Int(number as i64));
        match name {
            "index" => int(at + 1),
            "index0" => int(at),
            "revindex" => int(count - at),
            "revindex0" => int(count - at - 1),
            "length" => int(count),
            "first" => Ok(Value::Bool(at == 0)),
            "last" => Ok(Value::Bool(at + 1 == count)),
            "depth" => int(1),
            "depth0" => int(0),
            "previtem" => {
                let before = at.checked_sub(1).and_then(|at| inner.items.items.get(at));
                Ok(before.cloned().unwrap_or(Value::Undefined))
            }
            "nextitem" => Ok(inner.items.items.get(at + 1).cloned().unwrap_or(Value::Undefined)),
            _ => Ok(Value::Undefined),
        }
    }

    fn item(&self, of: &Value, index: &Value) -> Given {
        let place = |len: usize| {
            let at = index.int()?;
            let at = if at < 0 { at.checked_add_unsigned(len as u64)? } else { at };
            usize::try_from(at).ok().filter(|&at| at < len)
        };
        match of {
            Value::Undefined => failed("an undefined value has no items"),
            Value::Map(map) => Ok(map.get(self.meter, index)?.cloned().unwrap_or(Value::Undefined)),
            Value::List(list) => {
                Ok(place(list.items.len()).map_or(Value::Undefined, |at| list.items[at].clone()))
            }
            Value::Text(text) if index.int().is_some() => {
                self.meter.work(of.weight())?;
                let found =
                    place(text.text.chars().count()).and_then(|at| text.text.chars().nth(at));
                found.map_or(Ok(Value::Undefined), |char| self.meter.text(char.to_string()))
            }
            _ => match index.as_str() {
                Some(name) => self.attr(of, name),
                None => Ok(Value::Undefined),
            },
        }
    }

    fn slice(&mut self, of: &'a Expr, parts: &'a [Option<Expr>; 3]) -> Given {
        let of = self.eval(of)?;
        let mut bounds = [None; 3];
        for (bound, part) in bounds.iter_mut().zip(parts) {
            let Some(part) = part else { continue };
            *bound = match self.eval(part)? {
                Value::None => None,
                other => match other.int() {
                    Some(number) => Some(number),
                    None => return failed(format!("{} is no bound of a slice", other.kind())),
                },
            };
        }
        self.meter.work(of.weight())?;
        match &of {
            Value::Text(text) => {
                let chars: Vec<char> = text.text.chars().collect();
                let places = places(chars.len(), bounds)?;
                self.meter.text(places.map(|at| chars[at]).collect::<String>())
            }
            Value::List(list) => {
                let places = places(list.items.len(), bounds)?;
                self.meter.list(places.map(|at| list.items[at].clone()).collect())
            }
            other => failed(format!("{} can't be sliced", other.kind())),
        }
    }
}

/// The places of a slice, as Python counts them.
fn places(
    len: usize,
    [start, end, step]: [Option<i64>; 3],
) -> Result<impl Iterator<Item = usize>, Fault> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return failed("a slice with steps of 0");
    }
    let len = len as i64;
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |given: Option<i64>, missing: i64| match given {
        None => missing,
        Some(at) if at < 0 => at.saturating_add(len).clamp(least, most),
        Some(at) => at.clamp(least, most),
    };
    let (start, end) = match step > 0 {
        true => (bound(start, 0), bound(end, len)),
        false => (bound(start, len - 1), bound(end, -1)),
    };
    let mut at = start;
    Ok(std::iter::from_fn(move || {
        let inside = if step > 0 { at < end } else { at > end };
        let here = usize::try_from(at).ok().filter(|_| inside)?;
        at = at.saturating_add(step);
        Some(here)
    }))
}
