//! The model id: BLAKE3 of the file, on a few threads.
//!
//! BLAKE3 is a tree over 1 KiB chunks, so the halves of a large input are
//! hashed apart and joined; the result is the ordinary hash. Splitting by hand
//! keeps a thread pool out of the dependencies.

use std::path::Path;
use std::thread;

use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};

use super::{GgufError, map};

/// Below this many bytes a thread costs more than it brings.
const WORTH_A_THREAD: usize = 8 << 20;
/// Memory bandwidth is used up with about as many threads.
const MAX_THREADS: usize = 8;

/// The id of the model file at `path`: BLAKE3 of all its bytes. The file
/// needn't be a model.
///
/// # Errors
/// The file can't be read.
pub fn model_id(path: impl AsRef<Path>) -> Result<[u8; 32], GgufError> {
    Ok(parallel(&map(path.as_ref())?))
}

/// BLAKE3 of `bytes`.
pub(super) fn parallel(bytes: &[u8]) -> [u8; 32] {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    split(bytes, threads, WORTH_A_THREAD)
}

fn split(bytes: &[u8], threads: usize, worth: usize) -> [u8; 32] {
    if threads < 2 || bytes.len() < worth.max(2 * blake3::CHUNK_LEN) {
        return *blake3::hash(bytes).as_bytes();
    }
    let (left, right) = halves(bytes, 0, threads, worth);
    *hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

/// The chaining values of the two children of the subtree at `offset`.
fn halves(
    bytes: &[u8],
    offset: u64,
    threads: usize,
    worth: usize,
) -> (ChainingValue, ChainingValue) {
    let middle = hazmat::left_subtree_len(bytes.len() as u64);
    let (left, right) = bytes.split_at(middle as usize);
    let (for_left, for_right) = (threads.div_ceil(2), threads / 2);
    thread::scope(|scope| {
        let job = scope.spawn(move || subtree(left, offset, for_left, worth));
        let right = subtree(right, offset + middle, for_right, worth);
        match job.join() {
            Ok(left) => (left, right),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn subtree(bytes: &[u8], offset: u64, threads: usize, worth: usize) -> ChainingValue {
    if threads < 2 || bytes.len() < worth.max(2 * blake3::CHUNK_LEN) {
        let mut hasher = blake3::Hasher::new();
        return hasher.set_input_offset(offset).update(bytes).finalize_non_root();
    }
    let (left, right) = halves(bytes, offset, threads, worth);
    hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitting_leaves_the_hash_as_it_is() {
        let bytes: Vec<u8> = (0..300_001u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in [0, 1, 1024, 1025, 2048, 2049, 65_536, 65_537, 300_001] {
            for threads in 1..6 {
                let expected = *blake3::hash(&bytes[..len]).as_bytes();
                assert_eq!(split(&bytes[..len], threads, 4096), expected, "{len} on {threads}");
            }
        }
    }
}
