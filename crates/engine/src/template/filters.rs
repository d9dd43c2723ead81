//! The filters that chat templates use.

use std::cmp::Ordering;

use super::arguments::Values;
use super::fault::{Fault, failed};
use super::meter::Meter;
use super::value::Value;
use super::{json, predicates, text};

/// Every known filter.
pub(super) const NAMES: [&str; 36] = [
    "trim",
    "upper",
    "lower",
    "title",
    "capitalize",
    "replace",
    "indent",
    "escape",
    "e",
    "safe",
    "string",
    "tojson",
    "length",
    "count",
    "default",
    "d",
    "first",
    "last",
    "join",
    "list",
    "reverse",
    "sort",
    "unique",
    "items",
    "dictsort",
    "sum",
    "min",
    "max",
    "abs",
    "int",
    "float",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
];

type Given = Result<Value, Fault>;

/// A filter applied.
pub(super) fn apply(meter: &Meter, name: &str, value: &Value, with: &Values<'_>) -> Given {
    meter.step()?;
    match name {
        "default" | "d" => {
            let missing = matches!(value, Value::Undefined);
            let falsy = with.is_true(1, "boolean") && !value.is_true();
            if !missing && !falsy {
                return Ok(value.clone());
            }
            match with.at(0, "default_value") {
                Some(other) => Ok(other.clone()),
                None => meter.text(""),
            }
        }
        "safe" => Ok(value.clone()),
        "tojson" => {
            let indent = with.int(usize::MAX, "indent")?.or(with.int(0, "indent")?);
            let indent = indent.map(|width| usize::try_from(width).unwrap_or(0));
            let mut out = meter.out()?;
            json::write(value, indent, &mut out)?;
            Ok(out.into_value())
        }
        "length" | "count" => length(meter, value),
        "abs" => match value {
            Value::Float(number) => Ok(Value::Float(number.abs())),
            other => match other.int().and_then(i64::checked_abs) {
                Some(number) => Ok(Value::Int(number)),
                None => failed(format!("{} has no absolute value", other.kind())),
            },
        },
        "int" | "float" => number(name, value, with),
        "trim" | "upper" | "lower" | "title" | "capitalize" | "replace" | "indent" | "escape"
        | "e" | "string" => of_text(meter, name, value, with),
        _ => of_items(meter, name, value, with),
    }
}

fn length(meter: &Meter, value: &Value) -> Given {
    let count = match value {
        Value::Undefined => 0,
        Value::Text(text) => {
            meter.work(value.weight())?;
            text.text.chars().count()
        }
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        other => return failed(format!("{} has no length", other.kind())),
    };
    Ok(Value::Int(count as i64))
}

fn number(name: &str, value: &Value, with: &Values<'_>) -> Given {
    let default = with.at(0, "default").cloned();
    let parsed = match value {
        Value::Text(text) => {
            let text = text.text.trim();
            match text.parse().ok().map(Value::Int) {
                Some(int) => Some(int),
                None => text.parse().ok().map(Value::Float),
            }
        }
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => Some(value.clone()),
        _ => None,
    };
    Ok(match (name, parsed) {
        ("int", Some(Value::Float(number))) => Value::Int(number as i64),
        ("int", Some(other)) => Value::Int(other.int().unwrap_or(0)),
        ("float", Some(other)) => Value::Float(other.float().unwrap_or(0.0)),
        ("int", None) => default.unwrap_or(Value::Int(0)),
        _ => default.unwrap_or(Value::Float(0.0)),
    })
}

fn of_text(meter: &Meter, name: &str, value: &Value, with: &Values<'_>) -> Given {
    let mut out = meter.out()?;
    value.write(&mut out)?;
    let written = out.into_value();
    let given = written.as_str().unwrap_or_default();
    match name {
        "string" => Ok(written),
        "trim" => text::strip(meter, given, with.text(0, "chars")?, (true, true)),
        "upper" | "lower" => {
            meter.expect_text(given.len())?;
            let upper = name == "upper";
            meter.text(if upper { given.to_uppercase() } else { given.to_lowercase() })
        }
        "title" => text::title(meter, given),
        "capitalize" => text::capitalize(meter, given),
        "replace" => {
            let (old, new) = (with.needed(0, "old")?, with.needed(1, "new")?);
            text::replace(meter, given, old, new, with.int(2, "count")?)
        }
        "indent" => {
            let width = match with.given(0, "width") {
                Some(Value::Text(by)) => by.text.clone(),
                _ => {
                    let width = with.int(0, "width")?.unwrap_or(4).clamp(0, 256);
                    " ".repeat(width as usize)
                }
            };
            text::indent(meter, given, &width, with.is_true(1, "first"), with.is_true(2, "blank"))
        }
        _ => text::escape(meter, given),
    }
}

fn of_items(meter: &Meter, name: &str, value: &Value, with: &Values<'_>) -> Given {
    if let ("items" | "dictsort", Value::Map(map)) = (name, value) {
        let mut pairs = Vec::with_capacity(map.entries.len());
        for (key, value) in &map.entries {
            pairs.push((key.clone(), meter.list(vec![key.clone(), value.clone()])?));
        }
        if name == "dictsort" {
            pairs = sorted(meter, pairs, true)?;
        }
        return meter.list(pairs.into_iter().map(|(_, pair)| pair).collect());
    }
    if matches!(name, "items" | "dictsort") && !matches!(value, Value::Undefined) {
        return failed(format!("{} has no items", value.kind()));
    }
    let of_each = matches!(name, "map" | "select" | "reject" | "selectattr" | "rejectattr");
    let mut items = match value {
        Value::None if of_each => Vec::new(),
        _ => value.items(meter)?,
    };
    match name {
        "first" => Ok(items.first().cloned().unwrap_or(Value::Undefined)),
        "last" => Ok(items.pop().unwrap_or(Value::Undefined)),
        "join" => {
            if let Some(attribute) = with.given(1, "attribute") {
                items = attributes(meter, &items, attribute)?;
            }
            text::join(meter, &items, with.text(0, "d")?.unwrap_or_default())
        }
        "list" | "items" | "dictsort" => meter.list(items),
        "reverse" => match value {
            Value::Text(text) => meter.text(text.text.chars().rev().collect::<String>()),
            _ => {
                items.reverse();
                meter.list(items)
            }
        },
        "sort" | "unique" | "min" | "max" => ordered(meter, name, items, with),
        "sum" => {
            let mut sum = with.at(1, "start").cloned().unwrap_or(Value::Int(0));
            if let Some(attribute) = with.given(0, "attribute") {
                items = attributes(meter, &items, attribute)?;
            }
            for item in &items {
                sum = super::math::math(meter, "+", &sum, item)?;
            }
            Ok(sum)
        }
        "map" => map(meter, &items, with),
        _ => select(meter, name, items, with),
    }
}

/// Items by their keys, equal ones in the order they came.
fn sorted(
    meter: &Meter,
    mut items: Vec<(Value, Value)>,
    fold: bool,
) -> Result<Vec<(Value, Value)>, Fault> {
    let folded = |value: &Value| match value {
        Value::Text(text) if fold => meter.text(text.text.to_lowercase()),
        other => Ok(other.clone()),
    };
    for item in &mut items {
        item.0 = folded(&item.0)?;
    }
    let mut fault = None;
    items.sort_by(|(a, _), (b, _)| {
        if fault.is_some() {
            return Ordering::Equal;
        }
        meter.step().and_then(|()| a.order(meter, b)).unwrap_or_else(|found| {
            fault = Some(found);
            Ordering::Equal
        })
    });
    fault.map_or(Ok(items), Err)
}

fn ordered(meter: &Meter, name: &str, items: Vec<Value>, with: &Values<'_>) -> Given {
    let place = if name == "sort" { 2 } else { 1 };
    let keys = match with.given(place, "attribute") {
        Some(attribute) => attributes(meter, &items, attribute)?,
        None => items.clone(),
    };
    let fold = !with.is_true(if name == "sort" { 1 } else { 0 }, "case_sensitive");
    let pairs: Vec<(Value, Value)> = keys.into_iter().zip(items).collect();
    if name == "unique" {
        let mut kept: Vec<(Value, Value)> = Vec::new();
        for (key, item) in pairs {
            let key = match key {
                Value::Text(text) if fold => meter.text(text.text.to_lowercase())?,
                other => other,
            };
            let mut new = true;
            for (known, _) in &kept {
                meter.step()?;
                new &= !known.equals(meter, &key)?;
            }
            if new {
                kept.push((key, item));
            }
        }
        return meter.list(kept.into_iter().map(|(_, item)| item).collect());
    }
    let mut items: Vec<Value> =
        sorted(meter, pairs, fold)?.into_iter().map(|(_, item)| item).collect();
    match name {
        "min" => Ok(items.into_iter().next().unwrap_or(Value::Undefined)),
        "max" => Ok(items.pop().unwrap_or(Value::Undefined)),
        _ => {
            if with.is_true(0, "reverse") {
                items.reverse();
            }
            meter.list(items)
        }
    }
}

/// An attribute of every item; dots go further in.
fn attributes(meter: &Meter, items: &[Value], name: &Value) -> Result<Vec<Value>, Fault> {
    let one = |item: &Value| {
        meter.step()?;
        let mut value = item.clone();
        match name {
            Value::Text(name) => {
                for part in name.text.split('.') {
                    value = match &value {
                        Value::Map(map) => {
                            map.attr(meter, part)?.cloned().unwrap_or(Value::Undefined)
                        }
                        Value::List(list) => {
                            let at: Option<usize> = part.parse().ok();
                            let found = at.and_then(|at| list.items.get(at));
                            found.cloned().unwrap_or(Value::Undefined)
                        }
                        _ => Value::Undefined,
                    };
                }
                Ok(value)
            }
            _ => match (&value, name.int().and_then(|at| usize::try_from(at).ok())) {
                (Value::List(list), Some(at)) => {
                    Ok(list.items.get(at).cloned().unwrap_or(Value::Undefined))
                }
                _ => Ok(Value::Undefined),
            },
        }
    };
    items.iter().map(one).collect()
}

/// An attribute, or another filter, of every item.
fn map(meter: &Meter, items: &[Value], with: &Values<'_>) -> Given {
    if let Some(attribute) = with.named("attribute") {
        let mut values = attributes(meter, items, attribute)?;
        if let Some(default) = with.named("default") {
            for value in &mut values {
                if matches!(value, Value::Undefined) {
                    *value = default.clone();
                }
            }
        }
        return meter.list(values);
    }
    let filter = with.needed(0, "filter")?;
    if !NAMES.contains(&filter) || matches!(filter, "map") {
        return failed(format!(
            "map takes no filter {:?}",
            filter.chars().take(40).collect::<String>()
        ));
    }
    let inner = Values { plain: with.plain[1..].to_vec(), named: with.named.clone() };
    let values = items.iter().map(|item| apply(meter, filter, item, &inner));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    meter.list(values)
}

/// The items that pass a test, or fail it; of an attribute for `..attr`.
fn select(meter: &Meter, name: &str, items: Vec<Value>, with: &Values<'_>) -> Given {
    let of_attribute = name.ends_with("attr");
    let wanted = name.starts_with("select");
    let keys = match of_attribute {
        true => match with.plain.first() {
            Some(attribute) => attributes(meter, &items, attribute)?,
            None => return failed(format!("{name} takes the name of an attribute")),
        },
        false => items.clone(),
    };
    let rest = with.plain.get(usize::from(of_attribute)..).unwrap_or_default();
    let test = match rest.first() {
        None => None,
        Some(test) => Some(match test.as_str() {
            Some("==") => "eq",
            Some("!=") => "ne",
            Some("<") => "lt",
            Some("<=") => "le",
            Some(">") => "gt",
            Some(">=") => "ge",
            Some(known) if predicates::NAMES.contains(&known) => known,
            _ => return failed(format!("{name} takes the name of a known test")),
        }),
    };
    let arguments = Values { plain: rest.get(1..).unwrap_or_default().to_vec(), named: Vec::new() };
    let mut kept = Vec::new();
    for (key, item) in keys.iter().zip(items) {
        meter.step()?;
        let holds = match test {
            None => key.is_true(),
            Some(test) => predicates::holds(meter, test, key, &arguments)?,
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    meter.list(kept)
}
