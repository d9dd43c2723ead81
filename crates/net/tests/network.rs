//! The network as its users see it: nodes on 127.0.0.1, over real sockets.
//!
//! One binary for all files, since linking is what takes long here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod network {
    mod common;
    mod discovery;
    mod faults;
    mod figures;
    mod firewall;
    mod frames;
    mod gossip;
    mod kademlia;
    mod limits;
}
