//! The library face of Peerproof.

pub mod client;
