//! Logs between real nodes on 127.0.0.1: witnesses, old copies, second histories, proofs.
//!
//! The nodes are auditors of the default model, since a log is witnessed for those who
//! sign for others. Their entries are put into their logs while they are down; peers that
//! break the rules are made by hand from the crates below.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod logs {
    mod copies;
    mod desk;
    mod proofs;
    mod stage;
}
