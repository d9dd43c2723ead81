//! Openings against whole hashes, and every way they can be wrong.

use proptest::prelude::*;

use super::*;

/// Lengths around every border of chunk, group and tree.
const LENGTHS: [u64; 22] = [
    0, 1, 2, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 4096, 4097, 5000, 7168, 8193, 16_383,
    16_384, 16_385, 32_769, 49_152, 65_537, 100_000,
];

const KEYED: Mode = Mode::Keyed([9; 32]);

fn text(length: u64) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn shape(length: u64, g: u8) -> Shape {
    let group = Group::from_log2(g).expect("a group");
    Shape::new(length, group).expect("a length")
}

fn tree(mode: Mode, bytes: &[u8], g: u8) -> Tree {
    let mut builder = Builder::new(mode, shape(0, g).group());
    builder.update(bytes);
    builder.finish().expect("a tree")
}

fn open(mode: Mode, bytes: &[u8], g: u8, range: Range<u64>) -> Slice {
    open_bytes(mode, bytes, shape(0, g).group(), range).expect("an opening")
}

/// Ranges worth trying: ends, borders, one byte, all.
fn ranges(length: u64) -> Vec<Range<u64>> {
    let marks =
        [0, 1, 1023, 1024, 1025, 4096, 16_384, length / 2, length.saturating_sub(1), length];
    let mut ranges = Vec::new();
    for start in marks {
        ranges
            .extend(marks.iter().filter(|end| start < **end && **end <= length).map(|e| start..*e));
    }
    if length == 0 {
        ranges.push(0..0);
    }
    ranges
}

#[test]
fn every_opening_leads_to_the_whole_hash() {
    for (length, g) in LENGTHS.into_iter().flat_map(|length| [0, 1, 4].map(|g| (length, g))) {
        let bytes = text(length);
        let shape = shape(length, g);
        for (mode, root) in [
            (Mode::Plain, *blake3::hash(&bytes).as_bytes()),
            (KEYED, *blake3::keyed_hash(&[9; 32], &bytes).as_bytes()),
        ] {
            let root = Digest::from_bytes(root);
            let tree = tree(mode, &bytes, g);
            assert_eq!(tree.root(), root, "{length} bytes, groups of 2^{g}");
            for range in ranges(length) {
                let slice = open(mode, &bytes, g, range.clone());
                let verified = verify(mode, &root, shape, range.clone(), &slice).expect("verified");
                let part = verified.part(&slice, range.clone()).expect("within");
                assert_eq!(part, &bytes[range.start as usize..range.end as usize]);
                let first = (verified.cover.start / shape.group().bytes()) as usize;
                assert_eq!(verified.values, tree.values()[first..first + verified.values.len()]);
            }
        }
    }
}

#[test]
fn pieces_of_any_size_build_the_same_tree() {
    let bytes = text(70_001);
    for size in [1, 777, 1024, 16_384, 20_000] {
        let mut builder = Builder::new(Mode::Plain, Group::KIB_16);
        bytes.chunks(size).for_each(|piece| builder.update(piece));
        assert_eq!(builder.finish().expect("a tree"), tree(Mode::Plain, &bytes, 4));
    }
}

#[test]
fn any_byte_or_hash_altered_is_refused() {
    let bytes = text(9000);
    let root = Mode::Plain.hash(&bytes);
    let shape = shape(9000, 1);
    let range = 4000..4100;
    let slice = open(Mode::Plain, &bytes, 1, range.clone());
    assert!(slice.hashes.len() >= 3);
    let refused = |slice: &Slice| verify(Mode::Plain, &root, shape, range.clone(), slice);
    for at in 0..slice.bytes.len() {
        let mut bad = slice.clone();
        bad.bytes[at] ^= 0x10;
        assert!(matches!(refused(&bad), Err(RangeError::Root { .. })), "byte {at}");
    }
    for (at, byte) in (0..slice.hashes.len()).flat_map(|at| (0..32).map(move |byte| (at, byte))) {
        let mut bad = slice.clone();
        let mut hash = *bad.hashes[at].as_bytes();
        hash[byte] ^= 1;
        bad.hashes[at] = Digest::from_bytes(hash);
        assert!(matches!(refused(&bad), Err(RangeError::Root { .. })), "hash {at} byte {byte}");
    }
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let mut bad = slice.clone();
        bad.hashes.swap(a, b);
        assert!(matches!(refused(&bad), Err(RangeError::Root { .. })), "hashes {a} and {b}");
    }
}

#[test]
fn one_form_only() {
    let bytes = text(9000);
    let root = Mode::Plain.hash(&bytes);
    let shape = shape(9000, 1);
    let slice = open(Mode::Plain, &bytes, 1, 0..1);
    let refused = |slice: &Slice| verify(Mode::Plain, &root, shape, 0..1, slice);
    for at in 0..slice.hashes.len() {
        let mut missing = slice.clone();
        missing.hashes.remove(at);
        assert!(matches!(refused(&missing), Err(RangeError::Hashes { .. })));
        let mut doubled = slice.clone();
        doubled.hashes.insert(at, slice.hashes[at]);
        assert!(matches!(refused(&doubled), Err(RangeError::Hashes { .. })));
    }
    let mut long = slice.clone();
    long.bytes.push(0);
    assert_eq!(refused(&long), Err(RangeError::Bytes { expected: 2048, got: 2049 }));
    let mut short = slice.clone();
    short.bytes.pop();
    assert_eq!(refused(&short), Err(RangeError::Bytes { expected: 2048, got: 2047 }));
    // A wider opening is no opening of the narrow range, nor is another place's.
    let wide = open(Mode::Plain, &bytes, 1, 0..3000);
    assert!(matches!(refused(&wide), Err(RangeError::Bytes { .. })));
    let beside = open(Mode::Plain, &bytes, 1, 2048..2049);
    assert!(matches!(refused(&beside), Err(RangeError::Root { .. })));
}

#[test]
fn wrong_key_mode_root_and_group_are_refused() {
    let bytes = text(20_000);
    let root = KEYED.hash(&bytes);
    let slice = open(KEYED, &bytes, 0, 5000..6000);
    let plain = Mode::Plain.hash(&bytes);
    let check = |mode, root, shape| verify(mode, root, shape, 5000..6000, &slice);
    assert!(check(KEYED, &root, shape(20_000, 0)).is_ok());
    assert!(check(Mode::Plain, &root, shape(20_000, 0)).is_err());
    assert!(check(Mode::Keyed([8; 32]), &root, shape(20_000, 0)).is_err());
    assert!(check(KEYED, &plain, shape(20_000, 0)).is_err());
    assert!(check(KEYED, &root, shape(20_000, 2)).is_err());
}

/// The last group's opening proves the length: under no other length does an
/// opening of the true string pass as an opening of its last byte.
#[test]
fn the_last_byte_proves_the_length() {
    for length in [1, 1024, 1025, 2048, 5000, 8192, 8193] {
        let bytes = text(length);
        let root = Mode::Plain.hash(&bytes);
        let truth = shape(length, 0);
        let slice = open(Mode::Plain, &bytes, 0, truth.last());
        verify(Mode::Plain, &root, truth, truth.last(), &slice).expect("the true length");
        for claimed in (1..=9_000).filter(|claimed| claimed % 7 == 0 || claimed % 1024 < 2) {
            if claimed == length {
                continue;
            }
            let shape = shape(claimed, 0);
            // The best a liar can do: the true bytes, zeros behind them, true values beside.
            let mut padded = bytes.clone();
            padded.resize(claimed as usize, 0);
            let slice = open(Mode::Plain, &padded, 0, shape.last());
            let got = verify(Mode::Plain, &root, shape, shape.last(), &slice);
            assert!(matches!(got, Err(RangeError::Root { .. })), "{claimed} for {length}");
        }
    }
}

/// What an opening in the front says of the length, and what it does not.
#[test]
fn a_front_opening_binds_its_own_path_only() {
    let bytes = text(7 * 1024);
    let root = Mode::Plain.hash(&bytes);
    let slice = open(Mode::Plain, &bytes, 0, 0..1);
    let passes = |length| verify(Mode::Plain, &root, shape(length, 0), 0..1, &slice).is_ok();
    for length in [4097, 5000, 7168, 8192] {
        assert!(passes(length), "the same path under {length}");
    }
    for length in [1024, 2048, 4096, 8193, 16_384] {
        assert!(!passes(length), "another path under {length}");
    }
}

#[test]
fn ranges_outside_are_refused() {
    let bytes = text(3000);
    let (three, five) = (3, 5);
    for range in [0..3001, 3000..3000, 3000..3001, five..three, u64::MAX - 1..u64::MAX, 0..0] {
        let got = open_bytes(Mode::Plain, &bytes, Group::KIB_1, range.clone());
        assert!(matches!(got, Err(RangeError::Range { .. })), "{range:?}");
    }
    assert!(matches!(Shape::new(MAX_LENGTH + 1, Group::KIB_1), Err(RangeError::Length { .. })));
    assert!(Group::from_log2(11).is_none());
    // The largest shape is walked without trouble.
    let largest = shape(MAX_LENGTH, 0);
    assert_eq!(largest.hashes(largest.last()), Ok(50));
    let slice = Slice { bytes: vec![0; 1024], hashes: vec![Digest::from_bytes([0; 32]); 50] };
    let got = verify(Mode::Plain, &Mode::Plain.hash(&[]), largest, largest.last(), &slice);
    assert!(matches!(got, Err(RangeError::Root { .. })));
}

#[test]
fn too_much_at_once_is_refused_before_it_is_read() {
    let mut builder = Builder::new(Mode::Plain, Group::from_log2(10).expect("1 MiB"));
    let zeros = vec![0; 1 << 20];
    (0..65).for_each(|_| builder.update(&zeros));
    let tree = builder.finish().expect("a tree");
    let got = tree.open(0..MAX_SLICE_BYTES + 1, |_, _| -> Result<(), RangeError> {
        panic!("read before the check")
    });
    assert!(matches!(got, Err(RangeError::TooLong { .. })));
}

#[test]
fn a_string_that_changed_is_not_opened() {
    let bytes = text(40_000);
    let tree = tree(Mode::Plain, &bytes, 4);
    let got = tree.open(0..40_000, |at, buffer| {
        buffer.copy_from_slice(&bytes[at as usize..][..buffer.len()]);
        buffer[17_000] ^= 1;
        Ok(())
    });
    assert_eq!(got, Err(RangeError::Changed { at: 16_384 }));
}

#[test]
fn stored_trees_come_back_or_are_refused() {
    for (mode, length) in [(Mode::Plain, 0), (KEYED, 100), (Mode::Plain, 9000), (KEYED, 8192)] {
        let bytes = text(length);
        let shape = shape(length, 1);
        let tree = tree(mode, &bytes, 1);
        let root = tree.root();
        let stored = tree.to_bytes();
        assert_eq!(Tree::from_bytes(mode, &root, shape, &stored), Ok(tree));
        for at in 0..stored.len() {
            let mut bad = stored.clone();
            bad[at] ^= 1;
            assert!(Tree::from_bytes(mode, &root, shape, &bad).is_err(), "byte {at}");
            assert!(Tree::from_bytes(mode, &root, shape, &stored[..at]).is_err(), "cut at {at}");
        }
        let mut long = stored.clone();
        long.push(0);
        assert!(Tree::from_bytes(mode, &root, shape, &long).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_range_of_any_string(
        length in 1u64..200_000, g in 0u8..=6, from in any::<u64>(), to in any::<u64>(),
        flip in any::<u64>(),
    ) {
        let bytes = text(length);
        let (from, to) = (from % length, to % length);
        let range = from.min(to)..from.max(to) + 1;
        let root = Mode::Plain.hash(&bytes);
        let mut slice = open(Mode::Plain, &bytes, g, range.clone());
        let shape = shape(length, g);
        let verified = verify(Mode::Plain, &root, shape, range.clone(), &slice).expect("honest");
        prop_assert_eq!(
            verified.part(&slice, range.clone()),
            Some(&bytes[range.start as usize..range.end as usize])
        );
        let at = (flip % slice.bytes.len() as u64) as usize;
        slice.bytes[at] ^= 1 << (flip >> 61);
        prop_assert!(verify(Mode::Plain, &root, shape, range, &slice).is_err());
    }

    #[test]
    fn arbitrary_slices_never_panic(
        length in 0u64..=MAX_LENGTH, g in 0u8..=10, from in any::<u64>(), to in any::<u64>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..5000), hashes in 0usize..70,
    ) {
        let slice = Slice { bytes, hashes: vec![Digest::from_bytes([3; 32]); hashes] };
        let root = Digest::from_bytes([5; 32]);
        let shape = shape(length, g);
        prop_assert!(verify(Mode::Plain, &root, shape, from..to, &slice).is_err());
        let _ = Tree::from_bytes(Mode::Plain, &root, shape, &slice.bytes);
    }
}
