//! Router, providers and auditors against each other, in fake time.
//!
//! `world` is the network, the engine, the log and the auditor, `model` what is
//! computed: all made up and deterministic. The state machines are the real ones.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod audit;
mod crowd;
mod desk;
mod limits;
mod model;
mod property;
mod quorum;
mod routing;
mod verification;
mod world;
