//! The model id: BLAKE3 of the file, on a few threads.
//!
//! BLAKE3 is a tree over 1 KiB chunks, so the halves of a large input are
//! hashed apart and joined; the result is the ordinary hash. Splitting by hand
//! keeps a thread pool out of the dependencies. A mapped file's pages are let go
//! of as they are hashed: a file larger than memory has an id all the same.

use std::ops::Range;
use std::path::Path;
use std::thread;

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use super::{GgufError, Source, map};

/// Below this many bytes a thread costs more than it brings.
const WORTH_A_THREAD: usize = 8 << 20;
/// Memory bandwidth is used up with about as many threads.
const MAX_THREADS: usize = 8;
/// Bytes hashed before their pages are let go of.
const STRIDE: usize = 1 << 20;

/// The id of the model file at `path`: BLAKE3 of all its bytes. The file
/// needn't be a model.
///
/// # Errors
/// The file can't be read.
pub fn model_id(path: impl AsRef<Path>) -> Result<[u8; 32], GgufError> {
    Ok(parallel(&Source::Mapped(map(path.as_ref())?)))
}

/// BLAKE3 of a file.
pub(super) fn parallel(source: &Source) -> [u8; 32] {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    split(source, threads, WORTH_A_THREAD)
}

fn split(source: &Source, threads: usize, worth: usize) -> [u8; 32] {
    let all = 0..source.len();
    if threads < 2 || all.len() < worth.max(2 * blake3::CHUNK_LEN) {
        let mut hasher = blake3::Hasher::new();
        feed(&mut hasher, source, all);
        return *hasher.finalize().as_bytes();
    }
    let (left, right) = halves(source, all, threads, worth);
    *hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

/// The chaining values of the two children of the subtree over `range`.
fn halves(
    source: &Source,
    range: Range<usize>,
    threads: usize,
    worth: usize,
) -> (ChainingValue, ChainingValue) {
    let middle = range.start + hazmat::left_subtree_len(range.len() as u64) as usize;
    let (left, right) = (range.start..middle, middle..range.end);
    let (for_left, for_right) = (threads.div_ceil(2), threads / 2);
    thread::scope(|scope| {
        let job = scope.spawn(move || subtree(source, left, for_left, worth));
        let right = subtree(source, right, for_right, worth);
        match job.join() {
            Ok(left) => (left, right),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn subtree(source: &Source, range: Range<usize>, threads: usize, worth: usize) -> ChainingValue {
    if threads < 2 || range.len() < worth.max(2 * blake3::CHUNK_LEN) {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(range.start as u64);
        feed(&mut hasher, source, range);
        return hasher.finalize_non_root();
    }
    let (left, right) = halves(source, range, threads, worth);
    hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// Hashes a range, letting go of its pages on the way.
fn feed(hasher: &mut blake3::Hasher, source: &Source, range: Range<usize>) {
    for start in range.clone().step_by(STRIDE) {
        let piece = start..range.end.min(start.saturating_add(STRIDE));
        hasher.update(&source[piece.clone()]);
        source.release(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_leaves_the_hash_as_it_is() {
        let bytes: Vec<u8> = (0..300_001u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in [0, 1, 1024, 1025, 2048, 2049, 65_536, 65_537, 300_001] {
            let source = Source::Shared(bytes[..len].into());
            for threads in 1..6 {
                let expected = *blake3::hash(&bytes[..len]).as_bytes();
                assert_eq!(split(&source, threads, 4096), expected, "{len} on {threads}");
            }
        }
    }
}
