//! From a place in the engine to a receipt in the log.

use peerproof_wire::limits::{
    MAX_LOGPROBS_PER_FRAME, MAX_TEXT_PER_FRAME_BYTES, MAX_TOKENS_PER_FRAME,
};
use peerproof_wire::{
    Delivered, Digest, Failure, FailureCode, LogProof, Offer, Progress, ProviderFrame, Receipt,
    Signed, Tokens,
};

use super::event::Step;
use super::finished::FinishedJob;
use super::stream::State;
use super::{Desk, Ended, Out, StreamId};
use crate::limits::PROGRESS_EVERY_MS;
use crate::planted::planted;

/// A receipt on its way into the log.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) stream: StreamId,
    offer: Signed<Offer>,
    tokens: Vec<u32>,
    number: u64,
    previous: Option<Digest>,
}

impl Desk {
    /// Gives free places to those who wait longest.
    pub(super) fn start_next(&mut self) {
        while self.running() < self.config.max_running.max(1)
            && let Some(stream) = self.queue.pop_front()
        {
            let Some(known) = self.streams.get_mut(&stream) else { continue };
            let Some(job) = known.job_in(State::Queued) else { continue };
            job.told = self.now;
            self.outs.push(Out::Run {
                stream,
                offer: job.offer.clone(),
                resume: job.tokens.clone(),
            });
            known.state = State::Running;
        }
    }

    /// Tells the router that its prompt is being read, every so often.
    pub(super) fn on_read(&mut self, stream: StreamId, read: u32) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let Some(job) = known.job_in(State::Running) else { return };
        let due = self.now.since(job.told) >= PROGRESS_EVERY_MS;
        if due && !job.begun && read > job.read {
            (job.read, job.told) = (read, self.now);
            self.send(stream, ProviderFrame::Progress(Progress { read }));
        }
    }

    pub(super) fn on_steps(&mut self, stream: StreamId, start: u32, steps: Vec<Step>) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let Some(job) = known.job_in(State::Running) else { return };
        let start = start as usize;
        if !job.begun && start < job.resumed {
            job.tokens.truncate(start);
        }
        let room = (job.offer.max_tokens as usize).saturating_sub(job.tokens.len());
        if start != job.tokens.len() || steps.len() > room {
            let failure =
                Failure::new(FailureCode::Internal, "the engine lost count of its tokens");
            return self.refuse(stream, failure);
        }
        job.begun |= !steps.is_empty();
        job.tokens.extend(steps.iter().map(|step| step.token));
        for frame in frames(start as u32, steps) {
            self.send(stream, ProviderFrame::Tokens(frame));
        }
    }

    pub(super) fn on_finished(&mut self, stream: StreamId, ended: Ended) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let Some(job) = known.job_in(State::Running) else { return };
        job.ended = Some(ended);
        if !job.begun {
            // The answer may end inside the beginning that was given.
            job.tokens.truncate(ended.tokens as usize);
        }
        let took_ms = self.now.since(job.admitted);
        known.state = State::Issuing;
        self.mean_job_ms = (self.mean_job_ms.saturating_mul(7).saturating_add(took_ms)) / 8;
        self.issuing.push_back(stream);
    }

    /// Has the next receipt written, if none is being written.
    pub(super) fn issue_next(&mut self) {
        if self.writing.is_some() || self.broken.is_some() {
            return;
        }
        let Some(stream) = self.issuing.pop_front() else { return };
        let job = self.streams.get(&stream).and_then(|known| known.job.as_deref());
        let Some((job, ended)) = job.and_then(|job| Some((job, job.ended?))) else { return };
        let draft = self.book.draft(job, &ended);
        self.writing = Some(Writing {
            stream,
            offer: job.offer.clone(),
            tokens: job.tokens.clone(),
            number: draft.number(),
            previous: draft.previous(),
        });
        self.outs.push(Out::Issue { stream, draft });
    }

    pub(super) fn on_logged(
        &mut self,
        stream: StreamId,
        receipt: Signed<Receipt>,
        proof: LogProof,
    ) {
        let Some(writing) = self.writing.take_if(|writing| writing.stream == stream) else {
            return;
        };
        if receipt.number != writing.number || receipt.previous != writing.previous {
            return self.break_down(&format!(
                "receipt {} came back as {}",
                writing.number, receipt.number
            ));
        }
        if !planted("a number is given twice") {
            self.book.advance(&receipt);
        }
        self.finished.insert(FinishedJob::new(writing.offer, receipt.clone(), writing.tokens));
        let Some(known) = self.streams.get_mut(&stream) else { return };
        known.state = State::Delivered;
        known.job = None;
        known.deadline = self.now.after(self.config.linger_ms);
        self.send(stream, ProviderFrame::Delivered(Delivered { receipt, log: proof }));
    }

    pub(super) fn on_log_failed(&mut self, stream: StreamId, why: &str) {
        if self.writing.take_if(|writing| writing.stream == stream).is_some() {
            self.break_down(why);
        }
    }

    /// Without a log there are no receipts, and without receipts no jobs.
    fn break_down(&mut self, why: &str) {
        self.broken = Some(why.to_owned());
        let with_jobs = self.streams.iter().filter(|(_, known)| known.job.is_some());
        let streams: Vec<StreamId> = with_jobs.map(|(id, _)| *id).collect();
        for stream in streams {
            self.refuse(stream, Failure::new(FailureCode::Internal, "receipts cannot be written"));
        }
    }
}

/// Steps that are ready together go out together, as far as a frame may grow.
fn frames(start: u32, steps: Vec<Step>) -> Vec<Tokens> {
    let mut frames: Vec<Tokens> = Vec::new();
    for (index, step) in (start..).zip(steps) {
        let fits = |frame: &Tokens| {
            frame.tokens.len() < MAX_TOKENS_PER_FRAME
                && frame.logprobs.len() < MAX_LOGPROBS_PER_FRAME
                && frame.text.len() + step.text.len() <= MAX_TEXT_PER_FRAME_BYTES
        };
        if !frames.last().is_some_and(fits) {
            frames.push(Tokens { start: index, ..Tokens::default() });
        }
        if let Some(frame) = frames.last_mut() {
            frame.tokens.push(step.token);
            frame.text.push_str(&step.text);
            frame.commitment = step.commitment.or(frame.commitment);
            frame.logprobs.extend(step.logprobs);
        }
    }
    frames
}
