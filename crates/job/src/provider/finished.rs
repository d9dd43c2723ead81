//! Finished jobs whose leaves can still be opened: prompt and tokens only,
//! since everything else can be computed again.

use std::collections::{BTreeMap, VecDeque};

use peerproof_wire::{Digest, Offer, Receipt, Signed};

use crate::limits::{MAX_FINISHED_BYTES, MAX_FINISHED_JOBS};

#[derive(Debug)]
pub(super) struct FinishedJob {
    pub(super) offer: Signed<Offer>,
    pub(super) receipt: Signed<Receipt>,
    pub(super) tokens: Vec<u32>,
    /// Challenges that were answered or are being answered.
    pub(super) challenges: u8,
    bytes: usize,
}

impl FinishedJob {
    pub(super) fn new(offer: Signed<Offer>, receipt: Signed<Receipt>, tokens: Vec<u32>) -> Self {
        let bytes = kept_bytes(&offer, &receipt, tokens.len());
        Self { offer, receipt, tokens, challenges: 0, bytes }
    }
}

/// Bytes that a provider keeps of a finished job to open any part of its transcript.
#[must_use]
pub fn kept_bytes(offer: &Signed<Offer>, receipt: &Signed<Receipt>, tokens: usize) -> usize {
    // Offer and receipt are kept as bytes and as values.
    2 * (offer.envelope().payload.len() + receipt.envelope().payload.len()) + 4 * tokens
}

/// The last [`MAX_FINISHED_JOBS`] jobs in at most [`MAX_FINISHED_BYTES`], oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct FinishedJobs {
    jobs: BTreeMap<Digest, FinishedJob>,
    order: VecDeque<Digest>,
    bytes: usize,
}

impl FinishedJobs {
    pub(super) fn insert(&mut self, job: FinishedJob) {
        let id = job.receipt.id();
        self.bytes += job.bytes;
        self.order.push_back(id);
        self.jobs.insert(id, job);
        while (self.order.len() > MAX_FINISHED_JOBS || self.bytes > MAX_FINISHED_BYTES)
            && let Some(oldest) = self.order.pop_front()
        {
            let gone = self.jobs.remove(&oldest);
            self.bytes -= gone.map_or(0, |job| job.bytes);
        }
    }

    pub(super) fn find(&mut self, receipt_id: &Digest) -> Option<&mut FinishedJob> {
        self.jobs.get_mut(receipt_id)
    }
}

#[cfg(test)]
mod tests {
    use peerproof_identity::Keypair;
    use peerproof_wire::{Level, ModelId, Prompt, Sampling, Stop};

    use super::*;

    fn job(number: u64, prompt_bytes: usize) -> FinishedJob {
        let zero = Digest::from_bytes([0; 32]);
        let key = Keypair::from_seed(&[1; 32]);
        let offer = Offer {
            model_id: ModelId::from_bytes([0; 32]),
            prompt: Prompt::Text("x".repeat(prompt_bytes)),
            sampling: Sampling::GREEDY,
            max_tokens: 1,
            stop: vec![],
            level: Level::Receipt,
            public_nonce: [0; 32],
            client_nonce_hash: zero,
            deadline_ms: 1,
            pooling: None,
            class: peerproof_wire::Class::Exact,
        };
        let offer = Signed::sign(&key, offer).expect("an offer within its limits");
        let receipt = Receipt {
            offer_id: offer.id(),
            model_id: offer.model_id,
            number,
            previous: (number > 1).then_some(zero),
            prompt_tokens: 1,
            output_tokens: 1,
            stop: Stop::Length,
            output_hash: zero,
            text_hash: zero,
            kv_root: zero,
            class: peerproof_wire::Class::Exact,
            transcript_root: zero,
            leaves: 2,
            issued_unix_ms: 0,
        };
        let receipt = Signed::sign(&key, receipt).expect("a receipt within its limits");
        FinishedJob::new(offer, receipt, vec![1])
    }

    #[test]
    fn jobs_are_bounded_by_number() {
        let mut finished = FinishedJobs::default();
        let first = job(1, 1).receipt.id();
        for number in 1..=MAX_FINISHED_JOBS as u64 + 1 {
            finished.insert(job(number, 1));
        }
        assert_eq!(finished.jobs.len(), MAX_FINISHED_JOBS);
        assert!(finished.find(&first).is_none());
    }

    #[test]
    fn jobs_are_bounded_by_size() {
        let mut finished = FinishedJobs::default();
        let prompt_bytes = 500 << 10;
        let fit = (MAX_FINISHED_BYTES / (2 * prompt_bytes)) as u64;
        for number in 1..=fit + 1 {
            finished.insert(job(number, prompt_bytes));
        }
        assert!(finished.bytes <= MAX_FINISHED_BYTES);
        assert!((1..fit as usize + 1).contains(&finished.jobs.len()));
        assert_eq!(finished.order.len(), finished.jobs.len());
    }

    #[test]
    fn a_long_job_is_kept_in_few_bytes_a_token() {
        let mut long = job(1, 4_000);
        long = FinishedJob::new(long.offer, long.receipt, vec![1; 1_000]);
        // 4,000 bytes of text are about 1,000 tokens.
        assert!(long.bytes <= 48 * 2_000, "{}", long.bytes);
    }
}
