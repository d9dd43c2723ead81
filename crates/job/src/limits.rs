//! Every bound of this crate's queues, maps and loops, in one place.
//!
//! Bounds on single messages are `peerproof_wire::limits`. Those here bound
//! what a state machine keeps or tries; `tests/limits.rs` pushes past each.

/// Candidates a job remembers; more are ignored.
pub const MAX_CANDIDATES: usize = 64;
/// Streams a job has open at once.
pub const MAX_LANES: usize = 8;
/// Streams a job opens in all before it gives up.
pub const MAX_ATTEMPTS: u32 = 16;
/// Times one job goes to the same provider, after it said it was busy or lost a race.
pub const MAX_ATTEMPTS_PER_PROVIDER: u32 = 3;
/// Times one job hears that a provider is busy before that counts as a turn and an attempt.
pub const MAX_BUSY_TURNS: u32 = 32;
/// Streams racing for the first token of one answer.
pub const MAX_RACERS: usize = 2;
/// Bytes of text an answer may release for each token, and for its end.
pub const MAX_TEXT_BYTES_PER_TOKEN: usize = 1024;
/// Letters of a peer's explanation that are kept.
pub const MAX_REASON_BYTES: usize = 256;
/// Longest wait that a busy provider can ask for.
pub const MAX_RETRY_AFTER_MS: u64 = 60_000;

/// Streams a desk has open at once.
pub const MAX_STREAMS: usize = 1024;
/// Streams one peer has open at a desk.
pub const MAX_STREAMS_PER_PEER: usize = 64;
/// Offers a desk remembers so that none is answered twice.
pub const MAX_REMEMBERED_OFFERS: usize = 16_384;
/// Finished jobs a desk can still open leaves of.
pub const MAX_FINISHED_JOBS: usize = 1024;
/// Bytes of prompts and tokens of finished jobs that a desk keeps in all.
pub const MAX_FINISHED_BYTES: usize = 64 << 20;
/// Challenges a desk answers for one receipt.
pub const MAX_CHALLENGES_PER_RECEIPT: u8 = 2;
/// Challenges a desk works on at once.
pub const MAX_RUNNING_CHALLENGES: usize = 4;
/// Frames given to the driver and not yet written, per stream.
pub const MAX_FRAMES_IN_FLIGHT: usize = 4;
/// Shortest time between two frames that say how far a prompt is read, and before the first.
pub const PROGRESS_EVERY_MS: u64 = 1_000;
/// What each token that was read adds to a router's patience for the first token of an answer:
/// who reads more slowly than this is left in the end, however often it says so.
pub const READ_FLOOR_MS: u64 = 500;
/// A running commitment is due after this many tokens of the answer.
pub const COMMIT_EVERY: usize = 32;
/// Shortest deadline an offer may set.
pub const MIN_DEADLINE_MS: u64 = 1_000;

/// Audits that wait for the machine.
pub const MAX_QUEUED_AUDITS: usize = 64;
/// Streams that wait for the verdict on one receipt.
pub const MAX_WAITERS_PER_AUDIT: usize = 16;
/// Verdicts kept to answer the same question again.
pub const MAX_CACHED_VERDICTS: usize = 1024;
/// Peers whose audit rate is tracked; the longest idle one is forgotten first.
pub const MAX_RATED_PEERS: usize = 4096;
/// Network groups whose audit rate is tracked; the longest idle one is forgotten first.
pub const MAX_RATED_GROUPS: usize = 4096;

/// Days on which a record holds points; the oldest are forgotten first.
pub const MAX_DAYS: usize = 1024;
/// Network groups of which a record holds points apart; those of further ones count as unknown.
pub const MAX_GROUPS_PER_RECORD: usize = 16;
/// Charges that are kept against one peer: the first ones and the last one.
pub const MAX_CHARGES: usize = 16;
/// Receipts whose accusation is remembered as refuted; beyond this no bar is lifted by another.
pub const MAX_REFUTED: usize = 65_536;
/// Auditors whose checks are kept; the longest idle one is forgotten first.
pub const MAX_AUDITOR_RECORDS: usize = 16_384;
/// Providers whose record is kept; a barred one is never forgotten in favour of another.
pub const MAX_RECORDS: usize = 65_536;
/// Providers that are barred; beyond this nobody else is remembered as barred.
pub const MAX_BARRED: usize = 262_144;
