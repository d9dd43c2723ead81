//! The library face of Peerproof.

pub mod client;
pub mod config;
pub mod home;
pub mod models;
pub mod store;
