//! The golden files: what `vectors/engine/golden/*.json` hold.

use std::fs;
use std::path::{Path, PathBuf};

use peerproof_proof::Step;
use peerproof_proof::transcript::{Transcript, leaf_hash};
use peerproof_wire::{Digest, LogitBias, Sampling, Stop};
use serde::{Deserialize, Serialize};
use serde_json::json;

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
    /// The prompts that the digest covers.
    pub(crate) prompts: Vec<Entry>,
    /// More prompts, with every rule of sampling on.
    pub(crate) ruled: Vec<Entry>,
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
    /// Root over the keys and values of all positions.
    pub(crate) kv_root: String,
    /// BLAKE3 of these leaf hashes and that root.
    pub(crate) digest: String,
    /// Root of the transcript, the closing leaf included.
    pub(crate) root: String,
    /// What is reported with each token of the answer, if that is asked for: its
    /// value, then the likeliest tokens with theirs.
    #[serde(default, skip_serializing_if = "is_off")]
    pub(crate) reported: Vec<String>,
}

/// The sampling parameters as the wire has them; rules that are off are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parameters {
    pub(crate) temperature_q16: u32,
    pub(crate) top_k: u32,
    pub(crate) top_p_q16: u32,
    #[serde(default, skip_serializing_if = "is_off")]
    pub(crate) min_p_q16: u32,
    #[serde(default, skip_serializing_if = "is_off")]
    pub(crate) repetition_q16: u32,
    #[serde(default, skip_serializing_if = "is_off")]
    pub(crate) presence_q16: i32,
    #[serde(default, skip_serializing_if = "is_off")]
    pub(crate) frequency_q16: i32,
    /// Tokens and what is added.
    #[serde(default, skip_serializing_if = "is_off")]
    pub(crate) bias: Vec<(u32, i32)>,
    #[serde(default, skip_serializing_if = "is_off")]
    pub(crate) logprobs: Option<u32>,
}

fn is_off<T: Default + PartialEq>(rule: &T) -> bool {
    *rule == T::default()
}

impl From<Sampling> for Parameters {
    fn from(sampling: Sampling) -> Self {
        let Sampling { temperature_q16, top_k, top_p_q16, min_p_q16, .. } = sampling;
        let Sampling { repetition_q16, presence_q16, frequency_q16, logprobs, .. } = sampling;
        Self {
            temperature_q16,
            top_k,
            top_p_q16,
            min_p_q16,
            repetition_q16,
            presence_q16,
            frequency_q16,
            bias: sampling.bias.iter().map(|bias| (bias.token, bias.bias_q16)).collect(),
            logprobs,
        }
    }
}

impl From<&Parameters> for Sampling {
    fn from(parameters: &Parameters) -> Self {
        let bias = |&(token, bias_q16)| LogitBias { token, bias_q16 };
        Self {
            temperature_q16: parameters.temperature_q16,
            top_k: parameters.top_k,
            top_p_q16: parameters.top_p_q16,
            min_p_q16: parameters.min_p_q16,
            repetition_q16: parameters.repetition_q16,
            presence_q16: parameters.presence_q16,
            frequency_q16: parameters.frequency_q16,
            bias: parameters.bias.iter().map(bias).collect(),
            logprobs: parameters.logprobs,
            ..Self::GREEDY
        }
    }
}

impl Entry {
    /// A prompt before its answer.
    pub(crate) fn asked(seed: String, sampling: Sampling, prompt: Vec<u32>) -> Self {
        Self {
            seed,
            sampling: sampling.into(),
            prompt,
            answer: vec![],
            text: String::new(),
            leaves: String::new(),
            kv_root: String::new(),
            digest: String::new(),
            root: String::new(),
            reported: vec![],
        }
    }

    /// Takes the leaves of its answer, and the root over its keys and values.
    pub(crate) fn settle(&mut self, steps: Vec<Step>, kv_root: Digest) {
        let mut transcript = Transcript::new();
        let leaves: Vec<Digest> = steps.iter().map(|s| leaf_hash(&s.clone().into())).collect();
        self.reported = steps.iter().filter_map(reported).collect();
        for step in steps {
            transcript.push(&step.into()).expect("leaves in their order");
        }
        let count = self.answer.len() as u32;
        let tree = transcript.close(Stop::Length, count, &self.text, &kv_root);
        let tree = tree.expect("a whole answer");
        (self.leaves, self.digest) = (short(&leaves), of_run(&leaves, &kv_root));
        self.kv_root = kv_root.to_string();
        self.root = tree.commitment().root.to_string();
    }
}

/// What is reported with the token that a step draws.
pub(crate) fn reported(step: &Step) -> Option<String> {
    let report = step.drawn.as_ref()?.logprobs.as_ref()?;
    let likeliest = report.top.iter().map(|(token, value)| format!(" {token}:{value}"));
    Some(likeliest.fold(report.chosen_q16.to_string(), |line, next| line + &next))
}

/// The file of that name.
pub(crate) fn path(name: &str) -> PathBuf {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/engine/golden");
    vectors.join(name).with_extension("json")
}

impl Golden {
    pub(crate) fn read(name: &str) -> Self {
        let bytes = fs::read(path(name)).expect("a golden file");
        let golden: Self = serde_json::from_slice(&bytes).expect("golden digests");
        assert_eq!(golden.digest, of_entries(&golden.prompts), "the file's own digest");
        golden
    }

    /// Writes the file, a line a prompt.
    pub(crate) fn write(&self, name: &str) {
        let head = json!({
            "model": self.model,
            "arithmetic": self.arithmetic,
            "offer": self.offer,
            "tokens": self.tokens,
            "digest": self.digest,
        });
        write(name, &head, &[("prompts", lines(&self.prompts)), ("ruled", lines(&self.ruled))]);
    }
}

/// Each of them as JSON in one line.
pub(crate) fn lines<T: Serialize>(values: &[T]) -> Vec<String> {
    let line = |value| serde_json::to_string(value).expect("plain values");
    values.iter().map(line).collect()
}

/// Writes a golden file: the head, then lists with an element a line.
pub(crate) fn write(name: &str, head: &serde_json::Value, lists: &[(&str, Vec<String>)]) {
    let head = serde_json::to_string_pretty(head).expect("plain values");
    let mut text = head.trim_end_matches("\n}").to_owned();
    for (list, lines) in lists {
        text += &format!(",\n  \"{list}\": [\n{}\n  ]", lines.join(",\n"));
    }
    fs::write(path(name), text + "\n}\n").expect("a directory of golden files");
}

/// BLAKE3 of the digests of prompts.
pub(crate) fn of_entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let own = |entry: &Entry| entry.digest.parse().expect("a digest");
    digest(&entries.into_iter().map(own).collect::<Vec<Digest>>())
}

/// BLAKE3 of a run's leaf hashes and of the root over its keys and values.
pub(crate) fn of_run(leaves: &[Digest], kv_root: &Digest) -> String {
    digest(&[leaves, &[*kv_root]].concat())
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
