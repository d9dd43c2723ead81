//! What filters and methods do to strings.

use super::fault::{Fault, failed};
use super::meter::Meter;
use super::value::Value;

type Given = Result<Value, Fault>;

/// Both ends, or one, without white space or without any of some characters.
pub(super) fn strip(meter: &Meter, text: &str, chars: Option<&str>, ends: (bool, bool)) -> Given {
    meter.work(text.len() as u64)?;
    let goes = |char: char| match chars {
        Some(chars) => chars.contains(char),
        None => char.is_whitespace(),
    };
    if let Some(chars) = chars {
        meter.work((text.len() as u64).saturating_mul(chars.len() as u64))?;
    }
    let text = if ends.0 { text.trim_start_matches(goes) } else { text };
    let text = if ends.1 { text.trim_end_matches(goes) } else { text };
    meter.text(text)
}

/// Every `old` by `new`, or the first few of them.
pub(super) fn replace(
    meter: &Meter,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Given {
    meter.work((text.len() + old.len()) as u64)?;
    let most = match count {
        Some(count) if count >= 0 => usize::try_from(count).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let mut out = meter.out()?;
    let mut from = 0;
    for (at, found) in text.match_indices(old).take(most) {
        out.push(&text[from..at])?;
        out.push(new)?;
        from = at + found.len();
    }
    out.push(&text[from..])?;
    Ok(out.into_value())
}

/// The first letter large, the others small.
pub(super) fn capitalize(meter: &Meter, text: &str) -> Given {
    meter.expect_text(text.len())?;
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    meter.text(first + &chars.as_str().to_lowercase())
}

/// Every word's first letter large, its others small.
pub(super) fn title(meter: &Meter, text: &str) -> Given {
    meter.expect_text(text.len())?;
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for char in text.chars() {
        match inside {
            true => out.extend(char.to_lowercase()),
            false => out.extend(char.to_uppercase()),
        }
        inside = char.is_alphabetic();
    }
    meter.text(out)
}

/// The pieces between separators, or between runs of white space; at most so many
/// cuts, counted from the end if `from_end`.
pub(super) fn split(
    meter: &Meter,
    text: &str,
    separator: Option<&str>,
    cuts: Option<i64>,
    from_end: bool,
) -> Given {
    meter.work(text.len() as u64)?;
    let pieces = match cuts {
        Some(cuts) if cuts >= 0 => {
            usize::try_from(cuts).unwrap_or(usize::MAX - 1).saturating_add(1)
        }
        _ => usize::MAX,
    };
    let parts: Vec<&str> = match separator {
        Some("") => return failed("an empty separator"),
        Some(separator) if from_end => {
            let mut parts: Vec<&str> = text.rsplitn(pieces, separator).collect();
            parts.reverse();
            parts
        }
        Some(separator) => text.splitn(pieces, separator).collect(),
        None if from_end && pieces != usize::MAX => {
            return failed("rsplit without a separator takes no number of cuts");
        }
        None => words(text, pieces),
    };
    texts(meter, parts.into_iter())
}

/// As Python's `split()`: the last piece keeps what is left.
fn words(text: &str, pieces: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && words.len() + 1 < pieces {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    if !rest.is_empty() {
        words.push(rest);
    }
    words
}

/// A list of strings.
pub(super) fn texts<'t>(meter: &Meter, parts: impl Iterator<Item = &'t str>) -> Given {
    let parts = parts.map(|part| meter.text(part)).collect::<Result<Vec<_>, _>>()?;
    meter.list(parts)
}

/// Values as they are written, with a separator between them.
pub(super) fn join(meter: &Meter, values: &[Value], separator: &str) -> Given {
    let mut out = meter.out()?;
    for (at, value) in values.iter().enumerate() {
        meter.step()?;
        if at > 0 {
            out.push(separator)?;
        }
        value.write(&mut out)?;
    }
    Ok(out.into_value())
}

/// Every line but the first (if `first`, that too) moved in; blank ones only if `blank`.
pub(super) fn indent(meter: &Meter, text: &str, by: &str, first: bool, blank: bool) -> Given {
    let mut out = meter.out()?;
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push("\n")?;
        }
        let moved = if at == 0 { first } else { blank || !line.is_empty() };
        if moved {
            out.push(by)?;
        }
        out.push(line)?;
    }
    Ok(out.into_value())
}

/// Characters of HTML by their names.
pub(super) fn escape(meter: &Meter, text: &str) -> Given {
    let mut out = meter.out()?;
    let mut from = 0;
    for (at, found) in text.match_indices(['&', '<', '>', '\'', '"']) {
        out.push(&text[from..at])?;
        out.push(match found {
            "&" => "&amp;",
            "<" => "&lt;",
            ">" => "&gt;",
            "'" => "&#39;",
            _ => "&#34;",
        })?;
        from = at + 1;
    }
    out.push(&text[from..])?;
    Ok(out.into_value())
}
