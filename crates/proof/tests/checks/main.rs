//! The whole of proof, exercised with a toy model.
//!
//! `honest` shows that nothing honest is refused, `attacks` and `forgeries`
//! that every cheat named in the specification is, `tamper` that no field of a statement can be
//! altered unseen, `embeddings` that vectors are held
//! to the same, `strangers` how audits are drawn and verdicts held to
//! account, `evidence` what files prove, `executors` what a broken engine meets,
//! `vectors` and `ranges` that the bytes are those of the specification.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod embeddings;
mod evidence;
mod executors;
mod forgeries;
mod honest;
mod ranges;
mod strangers;
mod support;
mod tamper;
mod vectors;
