//! `tojson` as transformers defines it for templates: Python's spacing, no
//! escaping of HTML or of letters beyond ASCII.

use super::fault::{Fault, failed};
use super::meter::Out;
use super::value::Value;

/// The widest indentation taken.
const MAX_INDENT: usize = 16;

/// Appends a value as JSON, over several lines where there is an indentation.
pub(super) fn write(value: &Value, indent: Option<usize>, out: &mut Out<'_>) -> Result<(), Fault> {
    let indent = indent.map(|width| width.min(MAX_INDENT));
    value_at(value, indent, 0, out)
}

fn value_at(
    value: &Value,
    indent: Option<usize>,
    depth: usize,
    out: &mut Out<'_>,
) -> Result<(), Fault> {
    match value {
        Value::None => out.push("null"),
        Value::Bool(bit) => out.push(if *bit { "true" } else { "false" }),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Float(number) => out.push(&format!("{number:?}")),
        Value::Text(text) => string(&text.text, out),
        Value::List(list) => {
            let mut items = list.items.iter();
            many(
                ["[", "]"],
                indent,
                depth,
                out,
                |out| {
                    let Some(item) = items.next() else { return Ok(false) };
                    value_at(item, indent, depth + 1, out).map(|()| true)
                },
                list.items.len(),
            )
        }
        Value::Map(map) => {
            let mut entries = map.entries.iter();
            many(
                ["{", "}"],
                indent,
                depth,
                out,
                |out| {
                    let Some((key, value)) = entries.next() else { return Ok(false) };
                    match key {
                        Value::Text(text) => string(&text.text, out)?,
                        other => {
                            out.push("\"")?;
                            value_at(other, None, 0, out)?;
                            out.push("\"")?;
                        }
                    }
                    out.push(": ")?;
                    value_at(value, indent, depth + 1, out).map(|()| true)
                },
                map.entries.len(),
            )
        }
        _ => failed(format!("{} can't be written as JSON", value.kind())),
    }
}

/// What stands in brackets, with commas or on lines of its own.
fn many<'m>(
    [open, close]: [&str; 2],
    indent: Option<usize>,
    depth: usize,
    out: &mut Out<'m>,
    mut next: impl FnMut(&mut Out<'m>) -> Result<bool, Fault>,
    count: usize,
) -> Result<(), Fault> {
    out.push(open)?;
    let line = |out: &mut Out<'m>, depth: usize| match indent {
        Some(width) => out.push(&format!("\n{}", " ".repeat(width * depth))),
        None => Ok(()),
    };
    for at in 0..count {
        if at > 0 {
            out.push(if indent.is_some() { "," } else { ", " })?;
        }
        line(out, depth + 1)?;
        next(out)?;
    }
    if count > 0 {
        line(out, depth)?;
    }
    out.push(close)
}

fn string(text: &str, out: &mut Out<'_>) -> Result<(), Fault> {
    out.push("\"")?;
    let mut from = 0;
    for (at, char) in text.char_indices() {
        let escaped = match char {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\u{8}' => "\\b".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            char if u32::from(char) < 0x20 => format!("\\u{:04x}", u32::from(char)),
            _ => continue,
        };
        out.push(&text[from..at])?;
        out.push(&escaped)?;
        from = at + char.len_utf8();
    }
    out.push(&text[from..])?;
    out.push("\"")
}
