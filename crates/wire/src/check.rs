//! The small checks of which every message's check is made.

use peerproof_identity::{PublicKey, vrf};

use crate::{Digest, ModelId, WireError, limits};

/// What a place is called in an error: `message.field`.
pub(crate) type Place = &'static str;
type Checked<T = ()> = Result<T, WireError>;

pub(crate) fn at_most(place: Place, got: u64, limit: u64) -> Checked {
    if got > limit {
        return Err(WireError::OverLimit { place, limit, got });
    }
    Ok(())
}

pub(crate) fn count(place: Place, got: usize, limit: usize) -> Checked {
    at_most(place, got as u64, limit as u64)
}

pub(crate) fn within(place: Place, got: u64, least: u64, limit: u64) -> Checked {
    if got < least {
        return Err(WireError::TooSmall { place, least, got });
    }
    at_most(place, got, limit)
}

pub(crate) fn not_empty(place: Place, is_empty: bool) -> Checked {
    if is_empty {
        return Err(WireError::Empty { place });
    }
    Ok(())
}

/// A line for a person: bounded, without control characters that could steer a terminal.
pub(crate) fn line(place: Place, text: &str, limit: usize) -> Checked {
    count(place, text.len(), limit)?;
    match text.chars().find(|letter| letter.is_control()) {
        Some(got) => Err(WireError::ControlCharacter { place, got }),
        None => Ok(()),
    }
}

/// `text` as a line within `limit` bytes: control characters become spaces,
/// the end is cut at a character's border, nothing becomes a word.
pub(crate) fn to_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if line.len() + letter.len_utf8() > limit {
            break;
        }
        line.push(letter);
    }
    if line.is_empty() {
        line.push_str("unexplained");
    }
    line
}

pub(crate) fn token(place: Place, id: u32) -> Checked {
    at_most(place, id.into(), limits::MAX_TOKEN_ID.into())
}

pub(crate) fn tokens(place: Place, ids: &[u32], limit: usize) -> Checked {
    count(place, ids.len(), limit)?;
    ids.iter().try_for_each(|&id| token(place, id))
}

pub(crate) fn required<T>(place: Place, value: Option<T>) -> Checked<T> {
    value.ok_or(WireError::Missing { place })
}

pub(crate) fn array<const N: usize>(place: Place, bytes: &[u8]) -> Checked<[u8; N]> {
    bytes.try_into().map_err(|_| WireError::Length { place, expected: N, got: bytes.len() })
}

pub(crate) fn digest(place: Place, bytes: &[u8]) -> Checked<Digest> {
    array(place, bytes).map(Digest::from_bytes)
}

pub(crate) fn model_id(place: Place, bytes: &[u8]) -> Checked<ModelId> {
    array(place, bytes).map(ModelId::from_bytes)
}

/// A list of hashes, laid end to end.
pub(crate) fn digests(place: Place, bytes: &[u8], limit: usize) -> Checked<Vec<Digest>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(WireError::Length { place, expected: 32, got: bytes.len() });
    }
    count(place, hashes.len(), limit)?;
    Ok(hashes.iter().copied().map(Digest::from_bytes).collect())
}

pub(crate) fn join(digests: &[Digest]) -> Vec<u8> {
    digests.iter().flat_map(|digest| *digest.as_bytes()).collect()
}

pub(crate) fn public_key(place: Place, bytes: &[u8]) -> Checked<PublicKey> {
    PublicKey::from_bytes(bytes).map_err(|source| WireError::Key { place, source })
}

pub(crate) fn vrf_key(place: Place, bytes: &[u8]) -> Checked<vrf::Public> {
    vrf::Public::from_bytes(bytes).map_err(|source| WireError::Key { place, source })
}

pub(crate) fn vrf_proof(place: Place, bytes: &[u8]) -> Checked<vrf::Proof> {
    vrf::Proof::from_bytes(bytes).map_err(|source| WireError::Vrf { place, source })
}

pub(crate) fn version(place: Place, got: u32, expected: u32) -> Checked {
    if got != expected {
        return Err(WireError::Version { place, expected, got });
    }
    Ok(())
}
