//! `tojson` as transformers defines it for templates: Python's spacing, no
//! escaping of HTML or of letters beyond ASCII.

use std::io;

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// The widest indentation taken.
const MAX_INDENT: usize = 16;

/// The `tojson` filter, with Python's `indent` as the one option that matters.
pub(super) fn filter(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Python)),
        Some(width) => {
            let spaces = [b' '; MAX_INDENT];
            let pretty = PrettyFormatter::with_indent(&spaces[..width.min(MAX_INDENT)]);
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
    };
    let bad = |reason: String| Error::new(ErrorKind::BadSerialization, reason);
    written.map_err(|error| bad(error.to_string()))?;
    String::from_utf8(out).map_err(|error| bad(error.to_string()))
}

/// `json.dumps` puts a space after every comma and colon.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}
