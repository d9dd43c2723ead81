//! Cutting a stream into frames.

use proptest::prelude::*;

use crate::frame::{self, Decoder};
use crate::limits::MAX_FRAME_BYTES;
use crate::*;

use super::samples;

/// Pushes `bytes` in pieces of `size`; the frames found, or the first error.
fn decode(bytes: &[u8], size: usize) -> Result<Vec<Vec<u8>>, WireError> {
    let mut decoder = Decoder::default();
    let mut frames = vec![];
    for mut piece in bytes.chunks(size) {
        while !piece.is_empty() {
            let taken = decoder.push(piece)?;
            piece = &piece[taken..];
            frames.extend(decoder.poll_frame());
        }
    }
    Ok(frames)
}

#[test]
fn frames_come_whole_in_pieces_of_any_size() {
    let messages = [
        RouterFrame::Open { offer: samples::signed_offer(), resume: vec![] },
        RouterFrame::Challenge(samples::challenge()),
        RouterFrame::Cancel,
    ];
    let stream: Vec<u8> =
        messages.iter().flat_map(|message| frame::encode(message).unwrap()).collect();
    for size in [1, 2, 3, 7, 100, stream.len()] {
        let frames = decode(&stream, size).unwrap();
        let decoded = frames.iter().map(|frame| RouterFrame::decode(frame).unwrap());
        assert_eq!(decoded.collect::<Vec<_>>(), messages, "pieces of {size}");
    }
}

#[test]
fn bad_lengths_are_refused_before_the_frame() {
    let over =
        |got| WireError::OverLimit { place: "frame length", limit: MAX_FRAME_BYTES as u64, got };
    let empty = WireError::TooSmall { place: "frame length", least: 1, got: 0 };
    for (prefix, expected) in [
        (&[0x00][..], empty),
        (&[0x81, 0x00], WireError::LengthPrefix),
        (&[0xff, 0xff, 0x00], WireError::LengthPrefix),
        (&[0x80, 0x80, 0x80], WireError::LengthPrefix),
        (&[0xff, 0xff, 0xff], WireError::LengthPrefix),
        (&[0x81, 0x80, 0x40], over((1 << 20) + 1)),
        (&[0xff, 0xff, 0x7f], over((1 << 21) - 1)),
    ] {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(prefix), Err(expected.clone()), "{prefix:?}");
        // The stream stays refused.
        assert_eq!(decoder.push(&[1, 2]), Err(expected));
        assert_eq!(decoder.poll_frame(), None);
        assert!(!decoder.is_idle());
    }
}

#[test]
fn the_largest_frame_passes() {
    let mut stream = vec![0x80, 0x80, 0x40];
    stream.resize(3 + MAX_FRAME_BYTES, 7);
    let frames = decode(&stream, 4096).unwrap();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].len(), MAX_FRAME_BYTES);
}

#[test]
fn a_decoder_takes_nothing_while_a_frame_waits() {
    let mut decoder = Decoder::default();
    assert!(decoder.is_idle());
    assert_eq!(decoder.push(&[2, 7]).unwrap(), 2);
    assert!(!decoder.is_idle());
    assert_eq!(decoder.poll_frame(), None);
    assert_eq!(decoder.push(&[8, 1, 9]).unwrap(), 1);
    assert_eq!(decoder.push(&[1, 9]).unwrap(), 0);
    assert_eq!(decoder.poll_frame(), Some(vec![7, 8]));
    assert!(decoder.is_idle());
    assert_eq!(decoder.push(&[1, 9]).unwrap(), 2);
    assert_eq!(decoder.poll_frame(), Some(vec![9]));
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces(bytes in prop::collection::vec(any::<u8>(), 0..2000), size in 1usize..50) {
        let whole = decode(&bytes, bytes.len().max(1));
        prop_assert_eq!(decode(&bytes, size), whole);
    }
}
