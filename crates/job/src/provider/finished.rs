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
        // An offer is kept as bytes and as a value.
        let bytes = 2 * offer.envelope().payload.len() + 4 * tokens.len();
        Self { offer, receipt, tokens, challenges: 0, bytes }
    }
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
