//! The shape of every message, checked on the raw bytes.
//!
//! A parser turns two bytes into an empty message of a hundred bytes; a frame
//! full of those would cost a hundred times its size. So before anything is
//! allocated, one pass over the received bytes, guided by the tables in [`tables`],
//! holds them against the limits: known fields, in ascending order, each in
//! its wire type and its shortest form, no default written out, no text that
//! is not UTF-8, no list or length above its bound. The pass needs no memory
//! and no recursion beyond the depth of the schemas.
//!
//! What remains to the re-encoding in `codec`: numbers wider than their field,
//! and two alternatives of one choice at once.

use crate::WireError;
use crate::check::{Place, count};

mod tables;

pub(crate) use tables::*;

/// One message: its fields in ascending order.
#[derive(Debug)]
pub struct Shape {
    /// Name in errors.
    pub(crate) name: Place,
    /// Number, name in errors, kind.
    pub(crate) fields: &'static [(u32, Place, Kind)],
}

/// What a field holds. Limits are inclusive.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A number, a truth value or a named value; absent means zero.
    Number,
    /// At most so many bytes.
    Bytes(usize),
    /// At most so many hashes of 32 bytes, end to end.
    Hashes(usize),
    /// At most so many bytes of UTF-8.
    Text(usize),
    /// A message.
    One(&'static Shape),
    /// At most so many numbers, packed.
    Numbers(usize),
    /// At most so many texts, of at most so many bytes each.
    Texts(usize, usize),
    /// At most so many byte strings, of at most so many bytes each.
    Strings(usize, usize),
    /// At most so many messages.
    Many(usize, &'static Shape),
}

impl Kind {
    const fn wire_type(&self) -> u64 {
        match self {
            Self::Number => 0,
            _ => 2,
        }
    }

    /// The most times the field may stand in one message.
    const fn max_count(&self) -> usize {
        match self {
            Self::Texts(limit, _) | Self::Strings(limit, _) | Self::Many(limit, _) => *limit,
            _ => 1,
        }
    }
}

/// Holds `bytes` against `shape`.
pub(crate) fn check(shape: &Shape, bytes: &[u8]) -> Result<(), WireError> {
    let mut rest = bytes;
    let mut last = 0;
    let mut times = 0;
    while !rest.is_empty() {
        let key = take_varint(shape.name, &mut rest)?;
        let (number, place, kind) = find(shape, key >> 3)?;
        if number < last {
            return Err(WireError::NotCanonical {
                place,
                expected: "fields in ascending order, got field number",
                got: number.into(),
            });
        }
        times = if number == last { times + 1 } else { 1 };
        last = number;
        count(place, times, kind.max_count())?;
        if key & 7 != kind.wire_type() {
            return Err(WireError::WireType {
                place,
                expected: kind.wire_type() as u8,
                got: (key & 7) as u8,
            });
        }
        check_value(place, kind, &mut rest)?;
    }
    Ok(())
}

fn find(shape: &Shape, number: u64) -> Result<(u32, Place, &'static Kind), WireError> {
    let field = shape.fields.iter().find(|field| u64::from(field.0) == number);
    match field {
        Some((number, place, kind)) => Ok((*number, place, kind)),
        None => Err(WireError::NotCanonical {
            place: shape.name,
            expected: "fields of its schema, got field number",
            got: number,
        }),
    }
}

fn check_value(place: Place, kind: &Kind, rest: &mut &[u8]) -> Result<(), WireError> {
    if let Kind::Number = kind {
        let value = take_varint(place, rest)?;
        return no_default(place, value == 0);
    }
    let bytes = take_bytes(place, rest)?;
    match kind {
        Kind::Number => Ok(()),
        Kind::Bytes(limit) => {
            no_default(place, bytes.is_empty())?;
            count(place, bytes.len(), *limit)
        }
        Kind::Hashes(limit) => {
            no_default(place, bytes.is_empty())?;
            count(place, bytes.len().div_ceil(32), *limit)
        }
        Kind::Text(limit) => {
            no_default(place, bytes.is_empty())?;
            check_text(place, bytes, *limit)
        }
        Kind::Texts(_, limit) => check_text(place, bytes, *limit),
        Kind::Strings(_, limit) => count(place, bytes.len(), *limit),
        Kind::Numbers(limit) => {
            no_default(place, bytes.is_empty())?;
            check_numbers(place, bytes, *limit)
        }
        Kind::One(shape) | Kind::Many(_, shape) => check(shape, bytes),
    }
}

fn check_text(place: Place, bytes: &[u8], limit: usize) -> Result<(), WireError> {
    count(place, bytes.len(), limit)?;
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(WireError::NotUtf8 { place, valid_bytes: error.valid_up_to() }),
    }
}

fn check_numbers(place: Place, mut bytes: &[u8], limit: usize) -> Result<(), WireError> {
    let mut numbers = 0;
    while !bytes.is_empty() {
        take_varint(place, &mut bytes)?;
        numbers += 1;
        count(place, numbers, limit)?;
    }
    Ok(())
}

fn no_default(place: Place, is_default: bool) -> Result<(), WireError> {
    if is_default {
        return Err(WireError::NotCanonical {
            place,
            expected: "no default value written out, got",
            got: 0,
        });
    }
    Ok(())
}

fn take_bytes<'a>(place: Place, rest: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let length = take_varint(place, rest)?;
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((bytes, after)) = split else {
        return Err(WireError::Truncated { place, expected: length, got: rest.len() as u64 });
    };
    *rest = after;
    Ok(bytes)
}

/// Reads a varint in its shortest form, at most 64 bits.
fn take_varint(place: Place, rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // A tenth byte has room for one bit; a last byte of zero adds nothing.
            if (index == 9 && byte > 1) || (index > 0 && byte == 0) {
                return Err(long_varint(place, index + 1));
            }
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    if rest.len() < 10 {
        return Err(WireError::Truncated {
            place,
            expected: rest.len() as u64 + 1,
            got: rest.len() as u64,
        });
    }
    Err(long_varint(place, 10))
}

fn long_varint(place: Place, bytes: usize) -> WireError {
    WireError::NotCanonical {
        place,
        expected: "numbers in their shortest form, got one with this many bytes:",
        got: bytes as u64,
    }
}
