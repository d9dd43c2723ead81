//! Each value has one encoding; every other one is refused, at any depth.

use crate::shape::{Kind, Shape};
use crate::*;

use super::samples;

/// A field as it stands: number, wire type, the bytes after key and length.
#[derive(Clone)]
struct Field {
    number: u32,
    wire_type: u8,
    value: Vec<u8>,
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The same number, one byte longer.
fn long_varint(value: u64) -> Vec<u8> {
    let mut bytes = varint(value);
    *bytes.last_mut().unwrap() |= 0x80;
    bytes.push(0);
    bytes
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (head, tail) = bytes.split_at(length);
    *bytes = tail;
    let digits = head.iter().rev();
    digits.fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

fn parse(mut bytes: &[u8]) -> Vec<Field> {
    let mut fields = vec![];
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes);
        let wire_type = (key & 7) as u8;
        let value = match wire_type {
            0 => varint(take_varint(&mut bytes)),
            _ => {
                let length = take_varint(&mut bytes) as usize;
                let (value, tail) = bytes.split_at(length);
                bytes = tail;
                value.to_vec()
            }
        };
        fields.push(Field { number: (key >> 3) as u32, wire_type, value });
    }
    fields
}

fn key(field: &Field) -> u64 {
    u64::from(field.number) << 3 | u64::from(field.wire_type)
}

fn write_field(field: &Field) -> Vec<u8> {
    let length = match field.wire_type {
        0 => vec![],
        _ => varint(field.value.len() as u64),
    };
    [varint(key(field)), length, field.value.clone()].concat()
}

fn write(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(write_field).collect()
}

/// Other encodings of the values in `bytes`, or such with something added,
/// none of them canonical; at this level and below.
fn mutations(shape: &Shape, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let fields = parse(bytes);
    assert_eq!(write(&fields), bytes, "the test's own parser");
    let mut found = vec![];
    let mut add = |what: &str, bytes| found.push((format!("{}: {what}", shape.name), bytes));

    let unknown = Field { number: 1000, wire_type: 0, value: vec![1] };
    add("unknown field", [bytes, &write_field(&unknown)].concat());
    add("trailing zero", [bytes, &[0]].concat());
    for at in 1..fields.len() {
        if fields[at - 1].number != fields[at].number {
            let mut swapped = fields.clone();
            swapped.swap(at - 1, at);
            add("reordered fields", write(&swapped));
        }
    }
    for (at, field) in fields.iter().enumerate() {
        let (before, after) = (write(&fields[..at]), write(&fields[at + 1..]));
        let rest = &write_field(field)[varint(key(field)).len()..];
        let long_key = long_varint(key(field));
        add("long key", [&before[..], &long_key, rest, &after].concat());
        let long = match field.wire_type {
            0 => long_varint(take_varint(&mut &field.value[..])),
            _ => [long_varint(field.value.len() as u64), field.value.clone()].concat(),
        };
        let long = [&before[..], &varint(key(field)), &long, &after].concat();
        add("long number or length", long);
        let twice = [&before[..], &write_field(field).repeat(2), &after].concat();
        let (_, _, kind) = kind_of(shape, field.number);
        if !matches!(kind, Kind::Many(..) | Kind::Texts(..) | Kind::Strings(..)) {
            add("doubled field", twice);
        }
    }
    for (number, _, kind) in shape.fields {
        let absent = fields.iter().all(|field| field.number != *number);
        let default = matches!(
            kind,
            Kind::Number | Kind::Bytes(_) | Kind::Hashes(_) | Kind::Text(_) | Kind::Numbers(_)
        );
        if absent && default {
            let is_number = matches!(kind, Kind::Number);
            let mut with_default = fields.clone();
            let at = fields.partition_point(|field| field.number < *number);
            let default = Field {
                number: *number,
                wire_type: if is_number { 0 } else { 2 },
                value: if is_number { vec![0] } else { vec![] },
            };
            with_default.insert(at, default);
            add("default written out", write(&with_default));
        }
    }
    for (at, field) in fields.iter().enumerate() {
        if let (_, _, Kind::One(inner) | Kind::Many(_, inner)) = kind_of(shape, field.number) {
            for (what, value) in mutations(inner, &field.value) {
                let mut outer = fields.clone();
                outer[at].value = value;
                found.push((what, write(&outer)));
            }
        }
    }
    found
}

fn kind_of(shape: &Shape, number: u32) -> &(u32, &'static str, Kind) {
    let mut fields = shape.fields.iter();
    fields.find(|field| field.0 == number).unwrap()
}

#[test]
fn other_encodings_are_refused() {
    let mut tried = 0;
    for sample in samples::all() {
        for (what, bytes) in mutations(sample.shape, &sample.bytes) {
            let result = (sample.decode)(&bytes);
            assert!(result.is_err(), "{}: {what} was accepted", sample.name);
            tried += 1;
        }
    }
    assert!(tried > 1000, "only {tried} mutations");
}

/// What decodes encodes to the bytes it came in, so no value has two encodings.
#[test]
fn a_changed_bit_gives_another_value_or_an_error() {
    for sample in samples::all() {
        // Long ones mostly hold signed payloads, of which `signing` tries every bit.
        let step = if sample.bytes.len() > 300 { 13 } else { 1 };
        for bit in (0..8 * sample.bytes.len()).step_by(step) {
            let mut changed = sample.bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok((_, bytes)) = (sample.decode)(&changed) {
                assert_eq!(bytes, changed, "{} bit {bit}", sample.name);
            }
        }
    }
}

#[test]
fn every_truncation_is_another_value_or_an_error() {
    for sample in samples::all() {
        for length in 0..sample.bytes.len() {
            let cut = &sample.bytes[..length];
            if let Ok((_, bytes)) = (sample.decode)(cut) {
                assert_eq!(bytes, cut, "{} cut to {length}", sample.name);
            }
        }
        // The first layer at the first position is all zeros; so is the first output of a head.
        let may_be_empty = matches!(sample.name, "cell" | "trace-layout" | "trace-part");
        assert!(may_be_empty || (sample.decode)(&[]).is_err(), "{}: empty", sample.name);
    }
}

/// Both alternatives of a choice: a lenient parser takes the last.
#[test]
fn two_alternatives_at_once_are_refused() {
    let mut cancel = RouterFrame::Cancel.encode().unwrap();
    cancel.extend(RouterFrame::Challenge(samples::challenge()).encode().unwrap());
    let error = RouterFrame::decode(&cancel).unwrap_err();
    assert!(matches!(error, WireError::NotCanonical { .. }), "{error}");
}

/// `max_tokens` as 2³² + 256: a lenient parser cuts it to 256.
#[test]
fn numbers_wider_than_their_field_are_refused() {
    let mut fields = parse(&samples::offer().encode().unwrap());
    let field = fields.iter_mut().find(|field| field.number == 8).unwrap();
    field.value = varint((1 << 32) + 256);
    let error = Offer::decode(&write(&fields)).unwrap_err();
    assert!(matches!(error, WireError::NotCanonical { .. }), "{error}");
}

#[test]
fn errors_name_the_place() {
    let check = |bytes: &[u8], expected: &str| {
        assert_eq!(ProviderFrame::decode(bytes).unwrap_err().to_string(), expected);
    };
    check(&[], "provider frame: expected a value, got none");
    check(&[0x12, 0], "tokens: expected at least one, got an empty value");
    check(
        &[0x12, 4, 0x1a, 2, 0xc3, 0x28],
        "tokens.text: expected UTF-8, got a bad byte after 0 good ones",
    );
    check(&[0x12, 9, 0x08, 1], "provider_frame.tokens: expected 9 more bytes, got 2");
    check(&[0x10, 1], "provider_frame.tokens: expected wire type 2, got 0");
    check(&[0x2a, 2, 0x08, 99], "failure.code: expected one of its named values, got 99");
    check(&[0x12, 2, 0x08, 0], "tokens.start: expected no default value written out, got 0");
}
