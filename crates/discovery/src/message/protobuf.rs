//! Just enough protobuf: varints, fields of bytes, and passing over the rest.
//!
//! Reading borrows from the message; nothing is allocated here. Groups, which proto3
//! doesn't have, are refused.

use super::MessageError;

/// Most bytes a varint of 64 bits takes.
const MAX_VARINT_BYTES: usize = 10;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) wire: Wire<'a>,
}

/// Reads one field after another.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, MessageError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 {
            return Err(self.fault("a field without a number"));
        }
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => self.pass(8)?,
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.pass(4)?,
            _ => return Err(self.fault("a wire type that proto3 does not have")),
        };
        Ok(Some(Field { number, wire }))
    }

    fn pass(&mut self, length: u64) -> Result<Wire<'a>, MessageError> {
        self.take(length).map(|_| Wire::Fixed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], MessageError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| self.fault("a field that is cut off"))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, MessageError> {
        let at = self.at;
        match leading_varint(&self.bytes[at..]) {
            Ok(Some((value, length))) => {
                self.at += length;
                Ok(value)
            }
            Ok(None) => Err(self.fault("a number that is cut off")),
            Err(_) => Err(self.fault("a number of more than 64 bits")),
        }
    }

    const fn fault(&self, what: &'static str) -> MessageError {
        MessageError::Protobuf { at: self.at, what }
    }
}

/// The varint that `bytes` open with and its length; nothing while it is incomplete.
pub(super) fn leading_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, MessageError> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(MAX_VARINT_BYTES).enumerate() {
        if at == MAX_VARINT_BYTES - 1 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < MAX_VARINT_BYTES {
        return Ok(None);
    }
    Err(MessageError::Protobuf { at: 0, what: "a number of more than 64 bits" })
}

/// Writes fields; those that are empty or zero are left out, as proto3 does.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn number(&mut self, number: u64, value: u64) {
        if value != 0 {
            self.varint(number << 3);
            self.varint(value);
        }
    }

    pub(super) fn bytes(&mut self, number: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.required(number, bytes.to_vec());
        }
    }

    /// Written even if it is empty.
    #[allow(clippy::needless_pass_by_value, reason = "callers hand over what they just made")]
    pub(super) fn required(&mut self, number: u64, bytes: Vec<u8>) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.raw(&bytes);
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}
