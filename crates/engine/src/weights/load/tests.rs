//! What packing a model refuses costs nothing but reading it.

use super::super::RESERVED;
use super::*;
use crate::support::Writer;

/// Its number in a file.
const Q4_0: u32 = 2;

/// Q4_0 of a scale of one, all integers 7.
fn blocks(count: usize) -> Vec<u8> {
    [&[0, 0x3c][..], &[0xff; 16]].concat().repeat(count)
}

#[test]
fn a_bad_number_in_the_last_block_is_found_before_memory_is_taken() {
    let plan: Vec<Piece> = ["a", "b"]
        .into_iter()
        .map(|name| Piece { name: name.into(), dims: [64, 16], skip: 0, rows: 16 })
        .collect();
    // Not a number; infinite; a scale far beyond the others where the integers are 0.
    for (bits, expected) in [
        (0x3c00, None),
        (0x7e00, Some("block 31")),
        (0xfc00, Some("block 31")),
        (0x7bff, Some("block 31 has a scale")),
    ] {
        let mut last = blocks(32);
        let at = last.len() - 18;
        last[at..at + 2].copy_from_slice(&u16::to_le_bytes(bits));
        last[at + 2..].fill(0x88);
        let writer = Writer::default()
            .str("general.architecture", "llama")
            .tensor("a", &[64, 16], Q4_0, &blocks(32))
            .tensor("b", &[64, 16], Q4_0, &last);
        let file = Gguf::parse(writer.bytes()).expect("a readable file");
        for threads in [1, 2] {
            let before = RESERVED.get();
            let outcome = pack_all(&file, &plan, threads);
            let taken = RESERVED.get() - before;
            match expected {
                None => assert!(outcome.is_ok() && taken > 0),
                Some(expected) => {
                    let error = outcome.expect_err(expected).to_string();
                    assert!(error.contains("tensor b") && error.contains(expected), "{error}");
                    assert_eq!(taken, 0, "{error}");
                }
            }
        }
    }
}
