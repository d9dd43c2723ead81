//! The types generated from `proto/`. They mirror bytes and promise nothing;
//! nothing outside this crate sees them.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::large_enum_variant,
    reason = "generated code; the schemas and the domain types carry the documentation"
)]

include!(concat!(env!("OUT_DIR"), "/peerproof.v1.rs"));
