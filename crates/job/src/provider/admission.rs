//! Which offers are let in. Cheap checks first; nothing here hashes or tokenizes.

use peerproof_wire::limits::MAX_RETRY_AFTER_MS;
use peerproof_wire::{
    Accepted, Class, Failure, FailureCode, Offer, ProviderFrame, Signed, WireError,
};

use super::stream::{Job, State};
use super::{Desk, Out, StreamId};
use crate::limits::MIN_DEADLINE_MS;
use crate::planted::planted;

/// Shortest wait that is asked of a router.
const MIN_RETRY_AFTER_MS: u64 = 100;

impl Desk {
    pub(super) fn on_unreadable(&mut self, stream: StreamId, error: &WireError) {
        let code = match error {
            WireError::Version { .. } => FailureCode::Unsupported,
            _ => FailureCode::BadOffer,
        };
        self.refuse(stream, Failure::new(code, error.to_string()));
    }

    pub(super) fn on_offer(&mut self, stream: StreamId, offer: Signed<Offer>, resume: Vec<u32>) {
        if let Err(failure) = self.admit(stream, &offer, &resume) {
            return self.refuse(stream, failure);
        }
        let Some(known) = self.streams.get_mut(&stream) else { return };
        self.seen.insert(offer.id());
        known.deadline = self.now.after(offer.deadline_ms);
        known.state = State::Preparing;
        known.job = Some(Box::new(Job {
            offer: offer.clone(),
            admitted: self.now,
            prompt_tokens: 0,
            resumed: resume.len(),
            tokens: resume,
            begun: false,
            read: 0,
            told: self.now,
            ended: None,
        }));
        self.outs.push(Out::Prepare { stream, offer });
    }

    fn admit(
        &self,
        stream: StreamId,
        offer: &Signed<Offer>,
        resume: &[u32],
    ) -> Result<(), Failure> {
        let peer = self.streams.get(&stream).map(|known| known.peer);
        let signer = offer.key().peer_id();
        if peer != Some(signer) && !planted("an offer is answered for a stranger") {
            let message = format!("signed by {signer}, which is not this connection's key");
            return Err(Failure::new(FailureCode::BadOffer, message));
        }
        if resume.len() > offer.max_tokens as usize {
            let message =
                format!("{} tokens to resume, {} asked for", resume.len(), offer.max_tokens);
            return Err(Failure::new(FailureCode::BadOffer, message));
        }
        if self.seen.contains(&offer.id()) && !planted("an offer is answered twice") {
            return Err(Failure::new(FailureCode::Replayed, "this offer was seen before"));
        }
        self.admit_class(offer, resume)?;
        let deadlines = MIN_DEADLINE_MS..=self.config.max_deadline_ms;
        if !deadlines.contains(&offer.deadline_ms) {
            let message = format!(
                "deadline of {} ms, expected {} to {}",
                offer.deadline_ms,
                deadlines.start(),
                deadlines.end()
            );
            return Err(Failure::new(FailureCode::Deadline, message));
        }
        if let Some(why) = &self.broken {
            return Err(Failure::new(
                FailureCode::Internal,
                format!("receipts cannot be written: {why}"),
            ));
        }
        let jobs = self.streams.values().filter(|known| known.is_job());
        if jobs.filter(|known| known.peer == signer).count() >= self.config.max_per_peer
            && !planted("one peer takes every place")
        {
            return Err(self.busy("too many jobs of this peer"));
        }
        if self.jobs() >= self.config.max_running.saturating_add(self.config.max_queued) {
            return Err(self.busy("the queue is full"));
        }
        Ok(())
    }

    /// A class is answered in that class, and one that leaves a choice is not continued.
    fn admit_class(&self, offer: &Offer, resume: &[u32]) -> Result<(), Failure> {
        let served = self.served.iter().find(|served| served.model_id == offer.model_id);
        let Some(served) = served else {
            let message = format!("model {} is not served here", offer.model_id);
            return Err(Failure::new(FailureCode::UnknownModel, message));
        };
        if served.class != offer.class {
            let message = format!("served here in the {} class only", served.class);
            return Err(Failure::new(FailureCode::Unsupported, message));
        }
        if offer.class == Class::Statistical && !resume.is_empty() {
            let message = "an answer of the statistical class cannot be continued";
            return Err(Failure::new(FailureCode::Unsupported, message));
        }
        Ok(())
    }

    fn busy(&self, message: &str) -> Failure {
        let waiting = self.jobs().saturating_sub(self.running()) as u64 + 1;
        let places = self.config.max_running.max(1) as u64;
        let wait_ms = self.mean_job_ms.saturating_mul(waiting) / places;
        let mut failure = Failure::new(FailureCode::Busy, message);
        failure.retry_after_ms = wait_ms.clamp(MIN_RETRY_AFTER_MS, MAX_RETRY_AFTER_MS);
        failure
    }

    /// Jobs that wait or run.
    pub(super) fn jobs(&self) -> usize {
        self.streams.values().filter(|known| known.is_job()).count()
    }

    pub(super) fn running(&self) -> usize {
        self.streams.values().filter(|known| known.state == State::Running).count()
    }

    pub(super) fn on_prepared(&mut self, stream: StreamId, prompt_tokens: u32) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let Some(job) = known.job_in(State::Preparing) else { return };
        job.prompt_tokens = prompt_tokens;
        let (model_id, offer_id) = (job.offer.model_id, job.offer.id());
        known.state = State::Queued;
        let served = self.served.iter().find(|served| served.model_id == model_id);
        let context_length = served.map_or(0, |served| served.context_length);
        if prompt_tokens == 0 {
            let failure = Failure::new(FailureCode::EmptyPrompt, "the prompt has no tokens");
            return self.refuse(stream, failure);
        }
        if prompt_tokens >= context_length {
            let message =
                format!("a prompt of {prompt_tokens} tokens leaves no room in {context_length}");
            return self.refuse(stream, Failure::new(FailureCode::ContextLength, message));
        }
        let full = self.running() >= self.config.max_running.max(1);
        let ahead = if full || !self.queue.is_empty() { self.queue.len() + 1 } else { 0 };
        self.queue.push_back(stream);
        let queue_position = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.send(
            stream,
            ProviderFrame::Accepted(Accepted { offer_id, prompt_tokens, queue_position }),
        );
    }
}
