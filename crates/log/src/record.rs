//! The bytes of one record in a segment.
//!
//! ```text
//! len u32 │ seq u64 │ previous 32 │ payload len │ zeros to 4 │ crc32c u32     (little-endian)
//! ```
//!
//! `previous` is SHA-256 over the record before, without its checksum; the first
//! record's is over the log's origin line, so a segment of another log never
//! continues this one. The checksum covers everything before it. Records start
//! at multiples of 4. A batch of records ends with zeros up to a multiple of
//! [`SECTOR_BYTES`], so no later write touches a sector that holds acknowledged
//! bytes; since no payload is empty, a length of zero marks that padding.
//! Absent: compression, types of payload, time.

use sha2::{Digest as _, Sha256};

use crate::damage::DamageKind;
use crate::limits::MAX_PAYLOAD_BYTES;
use crate::tree::Hash;

/// The unit a disk writes whole.
pub const SECTOR_BYTES: u64 = 512;

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 4 + 8 + 32;
const CRC_BYTES: usize = 4;

/// What the first record of a log names as its predecessor.
pub fn chain_start(origin: &str) -> Hash {
    Sha256::new().chain_update(b"peerproof log v1\n").chain_update(origin).finalize().into()
}

/// Appends the record of `payload` to `out` and returns its chain hash.
pub fn encode(seq: u64, previous: &Hash, payload: &[u8], out: &mut Vec<u8>) -> Hash {
    let start = out.len();
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(previous);
    out.extend_from_slice(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    let chain = Sha256::digest(&out[start..]).into();
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    chain
}

/// Fills `out` with zeros up to the next sector.
pub fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(SECTOR_BYTES as usize), 0);
}

/// The length of the payload that a record's first four bytes announce; 0 is padding.
///
/// # Errors
/// [`DamageKind::Length`] if no record is that long.
pub fn payload_bytes(first: [u8; 4]) -> Result<usize, DamageKind> {
    let len = u32::from_le_bytes(first) as usize;
    if len > MAX_PAYLOAD_BYTES {
        return Err(DamageKind::Length { got: len as u64, limit: MAX_PAYLOAD_BYTES as u64 });
    }
    Ok(len)
}

/// The length of a whole record around a payload of `payload` bytes.
pub fn record_bytes(payload: usize) -> usize {
    HEADER_BYTES + payload.next_multiple_of(4) + CRC_BYTES
}

/// Checks a whole record against its expected place and yields payload and chain hash.
///
/// # Errors
/// [`DamageKind`] names the first field that is wrong, expected and got.
pub fn decode<'a>(
    record: &'a [u8],
    seq: u64,
    previous: &Hash,
) -> Result<(&'a [u8], Hash), DamageKind> {
    let cut_short =
        DamageKind::Truncated { needed: record.len() as u64 + 1, left: record.len() as u64 };
    let Some((body, crc)) = record.split_last_chunk::<CRC_BYTES>() else {
        return Err(cut_short);
    };
    let (got, expected) = (u32::from_le_bytes(*crc), crc32c::crc32c(body));
    if got != expected {
        return Err(DamageKind::Checksum { expected, got });
    }
    let Some((header, rest)) = body.split_first_chunk::<HEADER_BYTES>() else {
        return Err(cut_short);
    };
    let (len, header) = split::<4>(header);
    let (found_seq, found_previous) = split::<8>(header);
    let len = payload_bytes(len)?;
    let found_seq = u64::from_le_bytes(found_seq);
    if found_seq != seq {
        return Err(DamageKind::Sequence { expected: seq, got: found_seq });
    }
    if found_previous != previous {
        return Err(DamageKind::Chain);
    }
    if record_bytes(len) != record.len() || rest[len..].iter().any(|byte| *byte != 0) {
        return Err(DamageKind::Padding);
    }
    Ok((&rest[..len], Sha256::digest(body).into()))
}

/// The first `N` bytes, and the rest. The caller knows that there are enough.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (head, tail) = bytes.split_at(N);
    let mut array = [0; N];
    array.copy_from_slice(head);
    (array, tail)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
    use super::*;

    fn sample() -> (Vec<u8>, Hash, Hash) {
        let previous = chain_start("peerproof.log/test");
        let mut bytes = Vec::new();
        let chain = encode(7, &previous, b"a payload of 23 bytes..", &mut bytes);
        (bytes, previous, chain)
    }

    #[test]
    fn a_record_round_trips() {
        let (bytes, previous, chain) = sample();
        assert_eq!(bytes.len(), record_bytes(23));
        assert_eq!(bytes.len() % 4, 0);
        let (payload, got) = decode(&bytes, 7, &previous).unwrap();
        assert_eq!(payload, b"a payload of 23 bytes..");
        assert_eq!(got, chain);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let (bytes, previous, _) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&changed, 7, &previous).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len], 7, &previous).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_refused() {
        let (bytes, previous, chain) = sample();
        assert!(matches!(
            decode(&bytes, 8, &previous),
            Err(DamageKind::Sequence { expected: 8, got: 7 })
        ));
        assert!(matches!(decode(&bytes, 7, &chain), Err(DamageKind::Chain)));
    }

    #[test]
    fn wrong_padding_under_a_right_checksum_is_refused() {
        let (mut bytes, previous, _) = sample();
        let end = bytes.len() - CRC_BYTES;
        bytes[end - 1] = 1;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode(&bytes, 7, &previous), Err(DamageKind::Padding)));
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_read() {
        assert!(matches!(payload_bytes([0xff; 4]), Err(DamageKind::Length { .. })));
        assert_eq!(
            payload_bytes((MAX_PAYLOAD_BYTES as u32).to_le_bytes()).unwrap(),
            MAX_PAYLOAD_BYTES
        );
    }
}
