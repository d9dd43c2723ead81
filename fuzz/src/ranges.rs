//! What peers and disks say of a file's tree: replies with slices, and stored trees.
//!
//! The file is known, and so is its hash: whatever is accepted has to be the truth, byte
//! for byte, and there is one encoding of it. The first byte chooses what the rest is read as.

use std::ops::Range;
use std::sync::OnceLock;

use peerproof_proof::ranges::{Builder, Group, Mode, RangeError, Shape, Slice, Tree, verify};
use peerproof_wire::{Message as _, RangeReply, RangeSlice};

use super::Outcome;

/// Groups of 2 KiB, so that a reply is small; the last one is short.
const LENGTH: u64 = 40_123;
/// Ranges that are asked for: one group, some, the end, all.
const RANGES: [Range<u64>; 5] = [0..1, 5_000..9_000, 20_479..20_481, LENGTH - 1..LENGTH, 0..LENGTH];
pub(crate) const WORDS: &[&[u8]] = &[b"PPTREE01", &[0; 32], &[0xff; 8], &LENGTH.to_le_bytes()];

struct Known {
    content: Vec<u8>,
    shape: Shape,
    tree: Tree,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let content: Vec<u8> = (0..LENGTH).map(|at| (at * at / 7) as u8).collect();
        let group = Group::from_log2(1).expect("a group");
        let mut builder = Builder::new(Mode::Plain, group);
        builder.update(&content);
        let tree = builder.finish().expect("a tree");
        Known { content, shape: Shape::new(LENGTH, group).expect("a length"), tree }
    })
}

fn slice(range: &Range<u64>) -> Slice {
    let Known { content, tree, .. } = known();
    let opened = tree.open(range.clone(), |at, buffer| {
        buffer.copy_from_slice(&content[at as usize..][..buffer.len()]);
        Ok::<_, RangeError>(())
    });
    opened.expect("an opening")
}

fn reply(range: &Range<u64>) -> Vec<u8> {
    let Slice { bytes, hashes } = slice(range);
    let reply = RangeReply::Slice(RangeSlice { file_bytes: LENGTH, bytes, hashes });
    reply.encode().expect("a reply")
}

/// # Panics
/// If something is accepted that is not the truth.
pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let Some((kind, rest)) = bytes.split_first() else { return Outcome::Refused };
    let known = known();
    let root = known.tree.root();
    let Some(range) = RANGES.get(usize::from(*kind)) else {
        let read = Tree::from_bytes(Mode::Plain, &root, known.shape, rest);
        let Ok(read) = read else { return Outcome::Refused };
        assert!(read == known.tree && read.to_bytes() == rest, "another tree has this root");
        return Outcome::Taken;
    };
    let Ok(RangeReply::Slice(said)) = RangeReply::decode(rest) else { return Outcome::Refused };
    // Whoever says another length of the file is proven wrong by its last group, not here.
    let Ok(shape) = Shape::new(said.file_bytes, known.shape.group()) else {
        return Outcome::Refused;
    };
    let said = Slice { bytes: said.bytes, hashes: said.hashes };
    if verify(Mode::Plain, &root, shape, range.clone(), &said).is_err() {
        return Outcome::Refused;
    }
    let first = (range.start / known.shape.group().bytes() * known.shape.group().bytes()) as usize;
    let truth = &known.content[first..];
    assert!(truth.starts_with(&said.bytes), "other bytes have this hash");
    if shape == known.shape {
        assert!(said == slice(range), "there are two openings of a range");
    }
    Outcome::Taken
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let replies = (0u8..).zip(&RANGES).map(|(kind, range)| [&[kind], &reply(range)[..]].concat());
    let tree = [&[RANGES.len() as u8], &known().tree.to_bytes()[..]].concat();
    replies.chain([tree]).collect()
}
