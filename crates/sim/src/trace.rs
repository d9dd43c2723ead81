//! A running hash of everything that happened, and its words if somebody reads along.
//!
//! Two runs of one seed must have one hash: a difference means that something
//! outside the seed had a say, and a failure of that seed could not be replayed.

use std::fmt::Arguments;
use std::fmt::Write as _;

/// What a trace does with its words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Words {
    /// They are hashed and forgotten.
    #[default]
    Hashed,
    /// They are kept too.
    Kept,
}

/// The hash, and the words if they are kept.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    words: Words,
    line: String,
    lines: Vec<String>,
    events: u64,
}

impl Trace {
    pub(crate) fn new(words: Words) -> Self {
        let (line, lines) = (String::new(), Vec::new());
        Self { hasher: blake3::Hasher::new(), words, line, lines, events: 0 }
    }

    /// One thing that happened.
    pub(crate) fn note(&mut self, now: u64, what: Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        let _ = write!(self.line, "{now:>8} {what}");
        self.hasher.update(self.line.as_bytes());
        self.hasher.update(b"\n");
        if self.words == Words::Kept {
            self.lines.push(self.line.clone());
        }
    }

    /// An event is handed out.
    pub(crate) fn step(&mut self, now: u64, kind: [u64; 3]) {
        for number in [now, kind[0], kind[1], kind[2]] {
            self.hasher.update(&number.to_le_bytes());
        }
        self.events += 1;
    }

    /// Bytes that passed, without words.
    pub(crate) fn absorb(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn finish(self) -> ([u8; 32], Vec<String>) {
        (*self.hasher.finalize().as_bytes(), self.lines)
    }
}
