//! The gateway over real sockets, with scripted answers instead of a network.

#![allow(clippy::unwrap_used, reason = "a test states what must hold")]

mod access;
mod bodies;
mod checks;
mod embeddings;
mod harness;
mod limits;
mod log;
mod streams;
