//! What a router decides before a job starts.

use crate::limits::{MAX_ATTEMPTS, MAX_LANES};

/// How patient a job is, and how it checks. All times in milliseconds.
///
/// ```
/// use peerproof_job::router::Options;
///
/// let options = Options { total_ms: 30_000, ..Options::default() };
/// assert!(options.stall_ms < options.total_ms);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// From the start to the last token and its receipt.
    pub total_ms: u64,
    /// How long a search for providers may take.
    pub search_ms: u64,
    /// For opening a stream.
    pub open_ms: u64,
    /// From the offer to its acceptance.
    pub accept_ms: u64,
    /// From the acceptance to the first token. A provider that says how far it has read the
    /// prompt has it anew each time, and half a second for each token read in all.
    pub first_token_ms: u64,
    /// Between tokens, and from the last token to the receipt, at most. A provider
    /// that has been fast is left after fifty of its usual gaps already.
    pub stall_ms: u64,
    /// The least of that.
    pub stall_floor_ms: u64,
    /// Without acceptance after this, and four round trips, a second provider is asked too.
    pub hedge_accept_ms: u64,
    /// Without a token after this since the acceptance, and two round trips, a second provider is asked too.
    pub hedge_token_ms: u64,
    /// For this node's own checks of a receipt.
    pub check_ms: u64,
    /// For a provider's openings.
    pub challenge_ms: u64,
    /// For an audit, local or not.
    pub audit_ms: u64,
    /// `k_of_n`: how long the rest may take once k agree.
    pub grace_ms: u64,
    /// Streams opened in all; at most [`MAX_ATTEMPTS`].
    pub max_attempts: u32,
    /// `k_of_n`: how many must agree; at least 1.
    pub k: usize,
    /// `k_of_n`: how many are asked; at most [`MAX_LANES`].
    pub n: usize,
    /// Chance in a thousand of an audit of a sampled answer, instead of the provider's own.
    pub audit_permille: Option<u16>,
    /// Whether a receipt that is not audited is at least challenged for openings.
    pub challenge: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            total_ms: 300_000,
            search_ms: 5_000,
            open_ms: 5_000,
            accept_ms: 10_000,
            first_token_ms: 60_000,
            stall_ms: 15_000,
            stall_floor_ms: 2_500,
            hedge_accept_ms: 400,
            hedge_token_ms: 1_500,
            check_ms: 10_000,
            challenge_ms: 30_000,
            audit_ms: 120_000,
            grace_ms: 2_000,
            max_attempts: 8,
            k: 2,
            n: 3,
            audit_permille: None,
            challenge: false,
        }
    }
}

impl Options {
    /// The same with every count inside its limit and every time at least 1 ms.
    pub(super) fn bounded(mut self) -> Self {
        for ms in [
            &mut self.total_ms,
            &mut self.search_ms,
            &mut self.open_ms,
            &mut self.accept_ms,
            &mut self.first_token_ms,
            &mut self.stall_ms,
            &mut self.stall_floor_ms,
            &mut self.hedge_accept_ms,
            &mut self.hedge_token_ms,
            &mut self.check_ms,
            &mut self.challenge_ms,
            &mut self.audit_ms,
            &mut self.grace_ms,
        ] {
            *ms = (*ms).max(1);
        }
        self.max_attempts = self.max_attempts.clamp(1, MAX_ATTEMPTS);
        self.n = self.n.clamp(1, MAX_LANES);
        self.k = self.k.clamp(1, self.n);
        self
    }
}
