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

/// Calls in a row that a peer of the table may leave unanswered.
pub const MAX_STRIKES: u8 = 2;

/// Paths of a lookup; no two of them ask the same peer.
pub const PATHS: usize = 8;
/// Seeds a path starts from.
pub const SEEDS_PER_PATH: usize = 4;
/// Peers a path still means to ask, and answers it ends with.
pub const PATH_BEST: usize = 4;
/// Calls of one path.
pub const MAX_PATH_CALLS: u32 = 16;
/// A call that has no answer by then has failed.
pub const CALL_TIMEOUT_MS: u64 = 2_000;
/// A walk ends after so long, whatever it found.
pub const WALK_TIMEOUT_MS: u64 = 10_000;
/// A lookup, with all its walks and writes, ends after so long.
pub const LOOKUP_TIMEOUT_MS: u64 = 30_000;
/// Walks of one lookup: the first, one more where nothing was found, one in a wider region.
pub const MAX_WALKS: u32 = 3;
/// Lookups under way at once.
pub const MAX_LOOKUPS: usize = 256;

/// Honest peers that a region is expected to hold.
pub const REGION_PEERS: u128 = 20;
/// A region that holds so many times what is expected is crowded.
pub const CROWD_FACTOR: usize = 3;
/// A crowded region is widened by so much: to 60 expected peers.
pub const WIDE_FACTOR: u128 = 3;
/// Peers of a region that are asked or written to.
pub const MAX_SWEPT: usize = 320;
/// Readers' and writers' calls to a region at once.
pub const SWEEP_CALLS: usize = 16;
/// Equal parts of a region, by distance from the key.
pub const CELLS: usize = 8;
/// Answers of one cell that count towards an early end.
pub const MAX_ANSWERS_PER_CELL: usize = 2;
/// Counted answers with which a reader that has a record ends early.
pub const ENOUGH_ANSWERS: usize = 10;
/// Peers that failed among those one teller told of, after which it is not followed.
pub const MAX_TELLER_STRIKES: u8 = 3;
/// Providers a reader takes.
pub const MAX_PROVIDERS_FOUND: usize = 64;

/// Samples of the density of peers that are kept.
pub const MAX_DENSITY_SAMPLES: usize = 64;
/// Samples before an estimate is trusted.
pub const MIN_DENSITY_SAMPLES: usize = 16;

/// Records kept for others.
pub const MAX_RECORDS: usize = 8_192;
/// Writers' tokens turn after so long; the one before is taken as well.
pub const TOKEN_TURN_MS: u64 = 5 * 60_000;
/// A record is kept within so many times the region: estimates differ.
pub const KEEP_FACTOR: u128 = 6;

/// Names of which providers are kept.
pub const MAX_PROVIDER_NAMES: usize = 1_024;
/// Providers kept of a name.
pub const MAX_PROVIDERS_PER_NAME: usize = BUCKET_PEERS;
/// Those of one /24 or /48.
pub const MAX_PROVIDERS_PER_SUBNET: usize = 2;
/// How long a provider is kept without a word.
pub const PROVIDER_TTL_MS: u64 = 30 * 60_000;
