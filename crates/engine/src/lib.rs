//! From a GGUF file to tokens, bit for bit the same on every machine.
//!
//! Data passes through in one direction: [`gguf`] reads and bounds the file,
//! the model is built over its mapped tensors, and tokens come out. The
//! forward pass uses integers only; where its rules live, the specification
//! has the same name as the module.
//!
//! Deliberately absent: sockets, a runtime, signatures. What a token sequence
//! is worth as evidence is decided one floor below, in `peerproof-proof`.

pub mod arith;
pub mod bench;
pub mod execute;
pub mod forward;
pub mod gguf;
pub mod kernels;
pub mod kv;
pub mod llama;
pub mod model;
mod pack;
mod pool;
pub mod reference;
pub mod sample;
pub mod service;
pub mod stop;
pub mod template;
pub mod tokenizer;
pub mod weights;
