//! The methods of Python's strings, maps and lists that chat templates call.

use super::arguments::Values;
use super::fault::{Fault, failed};
use super::meter::Meter;
use super::text;
use super::value::{Map, Value};

/// Every known method.
pub(super) const NAMES: [&str; 32] = [
    "get",
    "keys",
    "values",
    "items",
    "upper",
    "lower",
    "title",
    "capitalize",
    "strip",
    "lstrip",
    "rstrip",
    "replace",
    "split",
    "rsplit",
    "splitlines",
    "startswith",
    "endswith",
    "removeprefix",
    "removesuffix",
    "find",
    "rfind",
    "count",
    "index",
    "join",
    "format",
    "isdigit",
    "isnumeric",
    "isalpha",
    "isalnum",
    "isspace",
    "isupper",
    "islower",
];

type Given = Result<Value, Fault>;

/// A method called.
pub(super) fn call(meter: &Meter, of: &Value, name: &str, with: &Values<'_>) -> Given {
    meter.step()?;
    let found = match of {
        Value::Text(text) => of_text(meter, &text.text, name, with)?,
        Value::Map(map) => of_map(meter, map, name, with)?,
        Value::List(list) if matches!(name, "count" | "index") => {
            let Some(item) = with.plain.first() else {
                return failed(format!("{name} takes an argument"));
            };
            let mut places = Vec::new();
            for (at, known) in list.items.iter().enumerate() {
                meter.step()?;
                if known.equals(meter, item)? {
                    places.push(at);
                }
            }
            match (name, places.first()) {
                ("count", _) => Some(Value::Int(places.len() as i64)),
                (_, Some(&at)) => Some(Value::Int(at as i64)),
                _ => return failed("the item isn't in the list"),
            }
        }
        _ => None,
    };
    match found {
        Some(value) => Ok(value),
        None => failed(format!("{} has no method {name}", of.kind())),
    }
}

fn of_map(meter: &Meter, map: &Map, name: &str, with: &Values<'_>) -> Result<Option<Value>, Fault> {
    let entries = map.entries.iter();
    Ok(Some(match name {
        "get" => {
            let Some(key) = with.plain.first() else { return failed("get takes a key") };
            let found = map.get(meter, key)?.cloned();
            found.or_else(|| with.plain.get(1).cloned()).unwrap_or(Value::None)
        }
        "keys" => meter.list(entries.map(|(key, _)| key.clone()).collect())?,
        "values" => meter.list(entries.map(|(_, value)| value.clone()).collect())?,
        "items" => {
            let pairs = entries.map(|(key, value)| meter.list(vec![key.clone(), value.clone()]));
            meter.list(pairs.collect::<Result<_, _>>()?)?
        }
        _ => return Ok(None),
    }))
}

fn of_text(
    meter: &Meter,
    text: &str,
    name: &str,
    with: &Values<'_>,
) -> Result<Option<Value>, Fault> {
    meter.work(text.len() as u64)?;
    let value = match name {
        "upper" => meter.text(text.to_uppercase()),
        "lower" => meter.text(text.to_lowercase()),
        "title" => text::title(meter, text),
        "capitalize" => text::capitalize(meter, text),
        "strip" => text::strip(meter, text, with.text(0, "chars")?, (true, true)),
        "lstrip" => text::strip(meter, text, with.text(0, "chars")?, (true, false)),
        "rstrip" => text::strip(meter, text, with.text(0, "chars")?, (false, true)),
        "replace" => {
            let (old, new) = (with.needed(0, "old")?, with.needed(1, "new")?);
            text::replace(meter, text, old, new, with.int(2, "count")?)
        }
        "split" | "rsplit" => {
            let (separator, cuts) = (with.text(0, "sep")?, with.int(1, "maxsplit")?);
            text::split(meter, text, separator, cuts, name == "rsplit")
        }
        "splitlines" => text::texts(meter, text.lines()),
        "startswith" | "endswith" => affixes(meter, text, name, with),
        "removeprefix" => {
            let prefix = with.needed(0, "prefix")?;
            meter.text(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let suffix = with.needed(0, "suffix")?;
            meter.text(text.strip_suffix(suffix).unwrap_or(text))
        }
        "find" | "rfind" | "index" => {
            let part = with.needed(0, "sub")?;
            let found = if name == "rfind" { text.rfind(part) } else { text.find(part) };
            match found.map(|at| text[..at].chars().count() as i64) {
                None if name == "index" => return failed("the string isn't in the other"),
                found => Ok(Value::Int(found.unwrap_or(-1))),
            }
        }
        "count" => {
            let count = text.matches(with.needed(0, "sub")?).count();
            Ok(Value::Int(count as i64))
        }
        "join" => match with.plain.first() {
            Some(items) => text::join(meter, &items.items(meter)?, text),
            None => return failed("join takes a list"),
        },
        "format" => format(meter, text, with),
        _ => return Ok(class(text, name).map(Value::Bool)),
    };
    value.map(Some)
}

/// With a string, or any of a list of strings.
fn affixes(meter: &Meter, text: &str, name: &str, with: &Values<'_>) -> Given {
    let Some(affix) = with.plain.first() else { return failed(format!("{name} takes a string")) };
    let affixes = match affix {
        Value::List(_) => affix.items(meter)?,
        one => vec![one.clone()],
    };
    for affix in &affixes {
        let Some(affix) = affix.as_str() else {
            return failed(format!("{name} takes strings, got {}", affix.kind()));
        };
        let holds =
            if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) };
        if holds {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

/// Whether all characters are of a class, and there are any.
fn class(text: &str, name: &str) -> Option<bool> {
    let all = |of: fn(char) -> bool| !text.is_empty() && text.chars().all(of);
    let cased =
        |wrong: fn(char) -> bool| text.chars().any(char::is_alphabetic) && !text.chars().any(wrong);
    Some(match name {
        "isdigit" => all(|c| c.is_ascii_digit()),
        "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(char::is_whitespace),
        "isupper" => cased(char::is_lowercase),
        "islower" => cased(char::is_uppercase),
        _ => return None,
    })
}

/// `{}`, `{0}` and `{name}`; a field with a conversion or a format is refused.
fn format(meter: &Meter, text: &str, with: &Values<'_>) -> Given {
    let mut out = meter.out()?;
    let mut rest = text;
    let mut next = 0;
    while let Some(at) = rest.find(['{', '}']) {
        out.push(&rest[..at])?;
        let (brace, after) = rest[at..].split_at(1);
        if after.starts_with(brace) {
            out.push(brace)?;
            rest = &after[1..];
            continue;
        }
        let end = after.find('}').filter(|_| brace == "{");
        let Some(end) = end else { return failed("a single brace in a format") };
        let field = &after[..end];
        let value = match field.parse::<usize>() {
            Ok(at) => with.plain.get(at),
            Err(_) if field.is_empty() => {
                next += 1;
                with.plain.get(next - 1)
            }
            Err(_) => with.named(field),
        };
        match value {
            Some(value) => value.write(&mut out)?,
            None => return failed("a field of a format that is not supported, or has no argument"),
        }
        rest = &after[end + 1..];
    }
    out.push(rest)?;
    Ok(out.into_value())
}
