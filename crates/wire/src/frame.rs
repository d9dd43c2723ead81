//! How messages follow each other on a stream: a length, then that many bytes.
//!
//! The length is an unsigned LEB128 varint in its shortest form, from 1 to
//! [`MAX_FRAME_BYTES`]. A [`Decoder`] takes bytes as they come and gives whole
//! frames; it refuses a bad length before it holds a byte of the frame, and
//! never holds more than arrived.

use crate::limits::MAX_FRAME_BYTES;
use crate::{Message, WireError};

/// Longest length prefix: [`MAX_FRAME_BYTES`] needs 21 bits, 7 a byte.
const MAX_PREFIX_BYTES: usize = 3;

/// `message` with its length in front.
pub fn encode(message: &impl Message) -> Result<Vec<u8>, WireError> {
    let payload = message.encode()?;
    let mut frame = Vec::with_capacity(MAX_PREFIX_BYTES + payload.len());
    prost::encoding::encode_varint(payload.len() as u64, &mut frame);
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// Cuts a stream of bytes into frames.
///
/// ```
/// use peerproof_wire::{InfoRequest, Message, frame};
///
/// let question = InfoRequest { nonce: [5; 32] };
/// let bytes = frame::encode(&question)?;
/// let mut decoder = frame::Decoder::default();
/// assert_eq!(decoder.push(&bytes)?, bytes.len());
/// let payload = decoder.poll_frame().expect("the frame is whole");
/// assert_eq!(InfoRequest::decode(&payload)?, question);
/// # Ok::<(), peerproof_wire::WireError>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    Prefix { value: usize, bytes: usize },
    Payload { length: usize, held: Vec<u8> },
    Refused(WireError),
}

impl Default for State {
    fn default() -> Self {
        Self::Prefix { value: 0, bytes: 0 }
    }
}

impl Decoder {
    /// Takes bytes from the front of `input` up to the end of the current
    /// frame and says how many. While a whole frame waits to be polled it
    /// takes none. After an error it stays refused: the stream has lost its frame borders.
    pub fn push(&mut self, input: &[u8]) -> Result<usize, WireError> {
        let mut taken = 0;
        while let (State::Prefix { .. }, Some(&byte)) = (&self.state, input.get(taken)) {
            taken += 1;
            if let Err(error) = self.push_prefix(byte) {
                self.state = State::Refused(error);
            }
        }
        match &mut self.state {
            State::Prefix { .. } => Ok(taken),
            State::Payload { length, held } => {
                let rest = &input[taken..];
                let part = &rest[..rest.len().min(*length - held.len())];
                held.extend_from_slice(part);
                Ok(taken + part.len())
            }
            State::Refused(error) => Err(error.clone()),
        }
    }

    /// The frame, once it is whole.
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Payload { length, held } if held.len() == *length => {
                let frame = std::mem::take(held);
                self.state = State::default();
                Some(frame)
            }
            _ => None,
        }
    }

    /// Whether the stream may end here: no frame is begun.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Prefix { bytes: 0, .. })
    }

    fn push_prefix(&mut self, byte: u8) -> Result<(), WireError> {
        let State::Prefix { value, bytes } = &mut self.state else {
            return Ok(());
        };
        *value |= usize::from(byte & 0x7f) << (7 * *bytes);
        *bytes += 1;
        let (value, bytes) = (*value, *bytes);
        if byte & 0x80 != 0 {
            if bytes == MAX_PREFIX_BYTES {
                return Err(WireError::LengthPrefix);
            }
            return Ok(());
        }
        if byte == 0 && bytes > 1 {
            return Err(WireError::LengthPrefix);
        }
        crate::check::within("frame length", value as u64, 1, MAX_FRAME_BYTES as u64)?;
        self.state = State::Payload { length: value, held: Vec::new() };
        Ok(())
    }
}
