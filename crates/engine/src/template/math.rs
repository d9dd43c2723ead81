//! Arithmetic on whole numbers of 64 bits and on floats, as Python rounds it;
//! strings and lists are added and repeated.

use super::fault::{Fault, failed};
use super::meter::Meter;
use super::value::Value;

/// `left op right`.
pub(super) fn math(meter: &Meter, op: &str, left: &Value, right: &Value) -> Result<Value, Fault> {
    match (op, left, right) {
        ("+", Value::Text(a), Value::Text(b)) => {
            meter.expect_text(a.text.len() + b.text.len())?;
            meter.text([a.text.as_str(), &b.text].concat())
        }
        ("+", Value::List(a), Value::List(b)) => {
            meter.work(8 * (a.items.len() + b.items.len()) as u64)?;
            meter.list(a.items.iter().chain(&b.items).cloned().collect())
        }
        ("*", Value::Text(text), count) | ("*", count, Value::Text(text)) => {
            let count = repeats(count)?;
            meter.expect_text(text.text.len().saturating_mul(count))?;
            meter.text(text.text.repeat(count))
        }
        ("*", Value::List(list), count) | ("*", count, Value::List(list)) => {
            let count = repeats(count)?;
            let items = list.items.len().saturating_mul(count);
            meter.work((items as u64).saturating_mul(64))?;
            let copies = std::iter::repeat_n(&list.items, if items == 0 { 0 } else { count });
            meter.list(copies.flatten().cloned().collect())
        }
        _ => numbers(op, left, right),
    }
}

fn repeats(count: &Value) -> Result<usize, Fault> {
    match count.int() {
        Some(count) => Ok(usize::try_from(count).unwrap_or(0)),
        None => failed(format!("nothing can be repeated {} times", count.kind())),
    }
}

fn numbers(op: &str, left: &Value, right: &Value) -> Result<Value, Fault> {
    let no = || failed(format!("{} {op} {} can't be done", left.kind(), right.kind()));
    if let (Some(a), Some(b)) = (left.int(), right.int()) {
        if b == 0 && matches!(op, "/" | "//" | "%") {
            return failed("a division by zero");
        }
        let whole = match op {
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            "*" => a.checked_mul(b),
            "//" => a.checked_div(b).map(|q| q - i64::from(q * b != a && (a < 0) != (b < 0))),
            "%" => a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }),
            "**" => u32::try_from(b).ok().and_then(|power| a.checked_pow(power)),
            _ => return Ok(Value::Float(a as f64 / b as f64)),
        };
        return match whole {
            Some(number) => Ok(Value::Int(number)),
            None => failed(format!("{a} {op} {b} is no whole number of 64 bits")),
        };
    }
    let (Some(a), Some(b)) = (left.float(), right.float()) else { return no() };
    Ok(Value::Float(match op {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => (a / b).floor(),
        "%" => a - b * (a / b).floor(),
        _ => a.powf(b),
    }))
}
