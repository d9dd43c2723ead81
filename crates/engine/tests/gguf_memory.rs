//! Refusing a bad file must stay cheap. A counting allocator holds the peak.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(unsafe_code, reason = "a global allocator is unsafe by nature")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use peerproof_engine::gguf::{Gguf, MAX_KEYS, MAX_TENSORS};
use support::{ARRAY, STR, U8, Writer, string, words};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), SeqCst) + layout.size();
        PEAK.fetch_max(live, SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMIT: usize = 16 << 20;

/// The most bytes alive while `bytes` is refused, above what was alive before.
fn peak_while_refusing(name: &str, bytes: &[u8]) -> usize {
    let shared: std::sync::Arc<[u8]> = bytes.into();
    let before = LIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    let outcome = Gguf::parse(shared);
    let peak = PEAK.load(SeqCst).saturating_sub(before);
    assert!(outcome.is_err(), "{name} was taken");
    peak
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn refusing_takes_at_most_16_mib() {
    let mut many_keys = Writer::default();
    for index in 1..MAX_KEYS {
        many_keys = many_keys.raw(format!("key.{index}"), U8, &[0]);
    }
    let mut many_tensors = many_keys.clone();
    for index in 0..MAX_TENSORS {
        many_tensors = many_tensors.info(format!("tensor.{index}"), &[1], 0, 32 * index);
    }
    let vocabulary = string(b"piece").repeat(2_000_000);
    let big_vocabulary =
        Writer::default().array("tokens", STR, 2_000_000, &vocabulary).info("t", &[1], 0, 0);
    let hollow = [words(&[U8]), vec![0; 8]].concat().repeat(1_000_000);
    let hollow = Writer::default().array("hollow", ARRAY, 1_000_000, &hollow).u32("hollow", 1);
    let mut lying = Writer::default().array("a", STR, 1 << 24, &[0; 64]);
    lying.key_count = Some(MAX_KEYS);
    lying.tensor_count = Some(MAX_TENSORS);
    for (name, writer) in [
        ("a key twice among many", many_keys.clone().u32("key.1", 1)),
        ("tensors beyond the file", many_tensors),
        ("a big vocabulary, then a bad tensor", big_vocabulary),
        ("hollow arrays, then a key twice", hollow),
        ("lying counts", lying),
    ] {
        let peak = peak_while_refusing(name, &writer.bytes());
        assert!(peak <= LIMIT, "{name}: {peak} bytes");
    }
    // The measure measures: what is recorded of that many keys isn't free.
    let measured = peak_while_refusing("keys", &many_keys.u32("key.1", 1).bytes());
    assert!(measured > 64 * MAX_KEYS as usize, "{measured} bytes");
}
