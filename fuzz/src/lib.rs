//! What a stranger's bytes may do: nothing but be refused or be used.
//!
//! A target is a function from bytes to an [`Outcome`]; it panics where a promise
//! is broken. [`GGUF`] reads a file, loads it as a model and runs it; [`TOKENIZER`]
//! builds a vocabulary and encodes with it; [`TEMPLATE`] compiles a chat template
//! and renders; [`KADEMLIA`] reads a message of discovery;
//! [`RANGES`] judges pieces of files, and trees. Inputs are [`made`](Target::made) from seeds by a mutator that
//! knows what lengths, names and tags look like, so that the same seed and number
//! always make the same input: a finding is a pair of numbers. The binary runs
//! them under a counting allocator, in a process of their own, so that an abort,
//! a deep recursion or an endless loop is a finding too.
//!
//! The targets take any bytes, so a coverage-guided fuzzer can call them as they
//! are. Deliberately absent: coverage feedback, which stable Rust doesn't offer.

mod choices;
mod gguf;
mod kademlia;
mod mutate;
mod random;
mod ranges;
#[path = "../../crates/engine/tests/support/small.rs"]
mod small;
#[path = "../../crates/engine/tests/support/mod.rs"]
mod support;
mod template;
mod tokenizer;

use mutate::Mutator;
use random::Random;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused with an error.
    Refused,
    /// It was used.
    Taken,
}

/// A target with its seeds.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Runs an input.
    pub run: fn(&[u8]) -> Outcome,
    /// The most bytes an input may hold alive where it is refused.
    pub refused_bytes: usize,
    /// The same where it is used.
    pub taken_bytes: usize,
    seeds: fn() -> Vec<Vec<u8>>,
    words: &'static [&'static [u8]],
}

/// The reader of model files, and all that is made from one.
pub const GGUF: Target = Target {
    name: "gguf",
    run: gguf::run,
    refused_bytes: 16 << 20,
    taken_bytes: 64 << 20,
    seeds: gguf::seeds,
    words: gguf::WORDS,
};

/// Vocabularies, and texts under them.
pub const TOKENIZER: Target = Target {
    name: "tokenizer",
    run: tokenizer::run,
    refused_bytes: 16 << 20,
    taken_bytes: 32 << 20,
    seeds: tokenizer::seeds,
    words: &[],
};

/// Chat templates.
pub const TEMPLATE: Target = Target {
    name: "template",
    run: template::run,
    refused_bytes: 64 << 20,
    taken_bytes: 64 << 20,
    seeds: template::seeds,
    words: template::WORDS,
};

/// Messages and records of discovery.
pub const KADEMLIA: Target = Target {
    name: "kademlia",
    run: kademlia::run,
    refused_bytes: 1 << 20,
    taken_bytes: 1 << 20,
    seeds: kademlia::seeds,
    words: kademlia::WORDS,
};

/// Pieces of files from peers, and trees of files on disk.
pub const RANGES: Target = Target {
    name: "ranges",
    run: ranges::run,
    refused_bytes: 8 << 20,
    taken_bytes: 8 << 20,
    seeds: ranges::seeds,
    words: ranges::WORDS,
};

/// Every target.
pub const TARGETS: [Target; 5] = [GGUF, TOKENIZER, TEMPLATE, KADEMLIA, RANGES];

/// Makes a target's inputs.
pub struct Inputs {
    mutator: Mutator,
    seed: u64,
}

impl Target {
    /// What makes the inputs of a seed.
    #[must_use]
    pub fn made(&self, seed: u64) -> Inputs {
        Inputs { mutator: Mutator { seeds: (self.seeds)(), words: self.words }, seed }
    }
}

impl Inputs {
    /// The input of that number; the first ones are the seeds themselves.
    #[must_use]
    pub fn input(&self, number: u64) -> Vec<u8> {
        match self.mutator.seeds.get(number as usize) {
            Some(seed) => seed.clone(),
            None => self.mutator.make(&mut Random::new(self.seed, number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed that is refused would leave most of a target untouched.
    #[test]
    fn every_seed_is_taken() {
        for target in TARGETS {
            for (at, seed) in (target.seeds)().iter().enumerate() {
                assert_eq!((target.run)(seed), Outcome::Taken, "{} {at}", target.name);
            }
        }
    }

    #[test]
    fn a_number_makes_one_input() {
        for target in TARGETS {
            let inputs = target.made(1);
            let same = target.made(1);
            assert!((0..200).all(|number| inputs.input(number) == same.input(number)));
            let other = target.made(2);
            assert!((100..200).any(|number| inputs.input(number) != other.input(number)));
        }
    }

    /// What was once found stays found.
    #[test]
    fn regressions_stay_fixed() {
        for target in TARGETS {
            let folder = format!("{}/regressions/{}", env!("CARGO_MANIFEST_DIR"), target.name);
            let files = std::fs::read_dir(&folder).expect("a folder of regressions");
            for file in files {
                let path = file.expect("a file").path();
                (target.run)(&std::fs::read(&path).expect("a regression"));
            }
        }
    }
}
