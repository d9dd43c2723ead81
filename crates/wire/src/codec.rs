//! One way from values to bytes and back, for every message.
//!
//! Out: check the value, convert it, encode. In: size, then the shape of the
//! raw bytes, and only then anything that allocates: conversion, the same
//! check, and a re-encoding that must give the same bytes. So each value has
//! exactly one encoding.

use prost::Message as _;

use crate::WireError;
use crate::check::Place;
use crate::shape::{self, Shape};

/// How one domain type maps to its generated twin. Private: it seals [`Message`].
pub trait Codec: Sized {
    /// The generated twin.
    type Proto: prost::Message + Default;

    /// Name in errors.
    const NAME: &'static str;
    /// Longest encoding.
    const MAX_BYTES: usize;
    /// Its fields.
    const SHAPE: &'static Shape;

    /// The value as its twin, whatever it holds.
    fn to_proto(&self) -> Self::Proto;
    /// The twin as a value, where every field is present and has its form.
    fn from_proto(proto: Self::Proto) -> Result<Self, WireError>;
    /// Whether the value keeps every limit.
    fn check(&self) -> Result<(), WireError>;
}

/// Something that travels: it has one encoding, and limits.
pub trait Message: Codec {
    /// The message's name in errors.
    const NAME: &'static str = <Self as Codec>::NAME;
    /// The longest encoding that is accepted.
    const MAX_BYTES: usize = <Self as Codec>::MAX_BYTES;

    /// The value's one encoding. Refuses what a peer would refuse, as
    /// [`WireError::Unsendable`].
    fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(self).map_err(|error| WireError::Unsendable(Box::new(error)))
    }

    /// Reads a value whose encoding is exactly `bytes`.
    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        check_size::<Self>(bytes.len())?;
        shape::check(Self::SHAPE, bytes)?;
        let proto = Self::Proto::decode(bytes).map_err(|error| WireError::Malformed {
            place: <Self as Codec>::NAME,
            reason: error.to_string(),
        })?;
        let value = Self::from_proto(proto)?;
        value.check()?;
        check_canonical(<Self as Codec>::NAME, &value.to_proto().encode_to_vec(), bytes)?;
        Ok(value)
    }
}

impl<T: Codec> Message for T {}

fn encode<T: Codec>(value: &T) -> Result<Vec<u8>, WireError> {
    value.check()?;
    let bytes = value.to_proto().encode_to_vec();
    check_size::<T>(bytes.len())?;
    Ok(bytes)
}

fn check_size<T: Codec>(got: usize) -> Result<(), WireError> {
    crate::check::count(T::NAME, got, T::MAX_BYTES)
}

fn check_canonical(place: Place, canonical: &[u8], got: &[u8]) -> Result<(), WireError> {
    if canonical == got {
        return Ok(());
    }
    let same = canonical.iter().zip(got).take_while(|(one, other)| one == other);
    Err(WireError::NotCanonical {
        place,
        expected: "the one encoding of its values, got bytes that leave it at index",
        got: same.count() as u64,
    })
}
