//! The golden files: what `vectors/engine/golden/*.json` hold.

use std::fs;
use std::path::{Path, PathBuf};

use peerproof_wire::{Digest, Sampling};
use serde::{Deserialize, Serialize};

/// Answer tokens of every prompt.
pub(crate) const TOKENS: usize = 64;

/// The digests of one model.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Golden {
    /// BLAKE3 of the model file.
    pub(crate) model: String,
    /// Version of the arithmetic.
    pub(crate) arithmetic: u32,
    /// Keys the digests of states and logits, as the id of an offer does.
    pub(crate) offer: String,
    /// Tokens of every answer.
    pub(crate) tokens: usize,
    /// BLAKE3 of the digests of all prompts.
    pub(crate) digest: String,
    /// The prompts.
    pub(crate) prompts: Vec<Entry>,
}

/// One prompt and what follows from it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Seeds the draws.
    pub(crate) seed: String,
    /// How tokens are chosen.
    pub(crate) sampling: Parameters,
    /// The prompt's tokens.
    pub(crate) prompt: Vec<u32>,
    /// The answer's.
    pub(crate) answer: Vec<u32>,
    /// The answer's text, which the closing leaf covers.
    pub(crate) text: String,
    /// The first 4 bytes of each leaf hash, the closing one left out.
    pub(crate) leaves: String,
    /// BLAKE3 of these leaf hashes.
    pub(crate) digest: String,
    /// Root of the transcript, the closing leaf included.
    pub(crate) root: String,
}

/// The sampling parameters as the wire has them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parameters {
    pub(crate) temperature_q16: u32,
    pub(crate) top_k: u32,
    pub(crate) top_p_q16: u32,
}

impl From<Sampling> for Parameters {
    fn from(sampling: Sampling) -> Self {
        let Sampling { temperature_q16, top_k, top_p_q16, .. } = sampling;
        Self { temperature_q16, top_k, top_p_q16 }
    }
}

impl From<Parameters> for Sampling {
    fn from(parameters: Parameters) -> Self {
        let Parameters { temperature_q16, top_k, top_p_q16 } = parameters;
        Self { temperature_q16, top_k, top_p_q16, ..Self::GREEDY }
    }
}

fn path(name: &str) -> PathBuf {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/engine/golden");
    vectors.join(name).with_extension("json")
}

impl Golden {
    pub(crate) fn read(name: &str) -> Self {
        let golden: Self = serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap();
        let digests: Vec<Digest> =
            golden.prompts.iter().map(|entry| entry.digest.parse().unwrap()).collect();
        assert_eq!(golden.digest, digest(&digests), "the file's own digest");
        golden
    }

    /// Writes the file, a line a prompt.
    pub(crate) fn write(&self, name: &str) {
        let mut head = serde_json::to_value(Self { prompts: vec![], ..self.head() }).unwrap();
        head.as_object_mut().unwrap().remove("prompts");
        let head = serde_json::to_string_pretty(&head).unwrap();
        let lines: Vec<String> =
            self.prompts.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let text = format!(
            "{},\n  \"prompts\": [\n{}\n  ]\n}}\n",
            head.trim_end_matches("\n}"),
            lines.join(",\n")
        );
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), text).unwrap();
    }

    fn head(&self) -> Self {
        let Self { model, arithmetic, offer, tokens, digest, .. } = self;
        Self {
            model: model.clone(),
            arithmetic: *arithmetic,
            offer: offer.clone(),
            tokens: *tokens,
            digest: digest.clone(),
            prompts: vec![],
        }
    }
}

/// BLAKE3 of digests, one after the other, in hex.
pub(crate) fn digest(digests: &[Digest]) -> String {
    let mut hasher = blake3::Hasher::new();
    for digest in digests {
        hasher.update(digest.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The first 4 bytes of each, in hex.
pub(crate) fn short(leaves: &[Digest]) -> String {
    let short = |leaf: &Digest| leaf.to_string()[..8].to_owned();
    leaves.iter().map(short).collect::<Vec<_>>().join(" ")
}
