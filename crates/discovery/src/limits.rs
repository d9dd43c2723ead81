//! Every number of lookups, table and records, in one place.
//!
//! `docs/spec/discovery.md` gives them with their reasons.

/// Peers a bucket holds, and peers in an answer.
pub const BUCKET_PEERS: usize = 20;
/// Peers of one /24 or /48 in a bucket.
pub const MAX_PER_SUBNET_IN_BUCKET: usize = 2;
/// Peers of one /24 or /48 in a table.
pub const MAX_PER_SUBNET_IN_TABLE: usize = 10;
/// Peers that wait for a probe or an eviction at once, in the whole table.
pub const MAX_PROBES: usize = 64;
/// A probe that has no answer by then has failed.
pub const PROBE_TIMEOUT_MS: u64 = 5_000;
/// A bucket in which nothing was looked up for so long is refreshed.
pub const REFRESH_AFTER_MS: u64 = 3_600_000;
/// A node answers others only after it ran undisturbed for so long.
pub const STABLE_MS: u64 = 20 * 60_000;

/// Bytes of a message.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Bytes of a name.
pub const MAX_KEY_BYTES: usize = 64;
/// Bytes of a record in a message.
pub const MAX_VALUE_BYTES: usize = 1_000;
/// Peers in one list of a message.
pub const MAX_PEERS_PER_MESSAGE: usize = BUCKET_PEERS;
/// Addresses of one peer that are kept; further ones are passed over.
pub const MAX_ADDRESSES_PER_CONTACT: usize = 8;
/// Bytes of one address.
pub const MAX_ADDRESS_BYTES: usize = 128;

/// Bytes of a record, its signature included.
pub const MAX_RECORD_BYTES: usize = 1_000;
/// Bytes of the label that tells a publisher's names apart.
pub const MAX_LABEL_BYTES: usize = 64;
/// Longest life of a record.
pub const MAX_LIFETIME_S: u64 = 48 * 3_600;
/// How far ahead of this node's clock a record may have been made.
pub const CLOCK_TOLERANCE_S: u64 = 15 * 60;
