//! The `peerproof` binary.
fn main() {}
