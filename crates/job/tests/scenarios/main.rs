//! Router, providers and auditors against each other, in fake time.
//!
//! `world` is the network, the engine, the log and the auditor, all made up and
//! deterministic; the state machines are the real ones.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod audit;
mod desk;
mod limits;
mod property;
mod quorum;
mod routing;
mod verification;
mod world;
