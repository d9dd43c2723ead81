//! From a GGUF file to tokens, bit for bit the same on every machine.
//!
//! Data passes through in one direction. [`gguf`] reads and bounds the file;
//! [`model`] makes weights ([`transformer`]), [`tokenizer`] and chat [`template`] of
//! it. A prompt becomes token ids, [`forward`] turns those into logits, in
//! integers only, [`sample`] draws, [`stop`] decides where the answer ends.
//! [`service`] does all that for many jobs at once, [`execute`] does it again
//! for an auditor; both hand out the same steps, one a position, for
//! `peerproof-proof` to hash. The arithmetic's rules are in [`arith`], and
//! [`mod@reference`] is the same model in floats, to measure their price.
//!
//! ```no_run
//! use peerproof_engine::{transformer::LoadOptions, model::Model, service::{Job, Service}};
//! use peerproof_wire::{Digest, Prompt, Sampling};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::open("model.gguf", &LoadOptions::default())?;
//! let prompt = model.prompt_tokens(&Prompt::Text("The capital of France is".into()))?;
//! let service = Service::start(model, &Default::default())?;
//! let zero = Digest::from_bytes([0; 32]);
//! let answer = service.generate(Job {
//!     key: zero, seed: zero, prompt, resume: vec![], sampling: Sampling::GREEDY,
//!     max_tokens: 16, stop: vec!["\n".into()], salt: zero,
//! })?;
//! println!("{}", answer.text);
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: sockets, a runtime, signatures. What a token sequence
//! is worth as evidence is decided one floor below, in `peerproof-proof`.

mod architecture;
pub mod arith;
pub mod bench;
pub mod cheats;
pub mod constraint;
pub mod dispute;
mod draws;
pub mod embed;
pub mod execute;
pub mod forward;
pub mod gguf;
pub mod kernels;
pub mod kv;
pub mod light;
pub mod logprobs;
pub mod model;
mod pack;
mod pool;
pub mod reference;
pub mod sample;
pub mod service;
pub mod spot;
pub mod stop;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
pub mod template;
pub mod tokenizer;
pub mod trace;
pub mod transformer;
pub mod weigh;
pub mod weights;
