//! The real binary, as separate processes on loopback, with the real model: what a user does,
//! what a peer may do to a user, and what goes wrong on a machine.

#![allow(clippy::unwrap_used, reason = "a test states what must hold")]

mod bad_input;
mod checking;
mod commands;
mod demo;
mod failing_over;
mod finding;
mod firewalling;
mod reputing;
mod support;
