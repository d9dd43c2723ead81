//! What happens on the streams of a job: frames in, racing, leading, leaving.

use peerproof_identity::PeerId;
use peerproof_wire::{
    Accepted, Class, Delivered, Evidence, Failure, FailureCode, LogBody, Observation, Offer,
    ProviderFrame, Receipt, RouterFrame, Signed, Tokens,
};

use super::answer::Answer;
use super::lane::{Breach, Stage};
use super::roster::Again;
use super::{
    Attempt, BindingsQuestion, Blame, Checked, Closed, Job, Lane, LaneId, Notice, Out, Reason,
};
use crate::limits::{MAX_RACERS, MAX_REASON_BYTES, MAX_RETRY_AFTER_MS, PROGRESS_EVERY_MS};
use crate::planted::planted;
use crate::reputation::Fault;
use crate::text::clip;

/// Shortest pause before a busy provider is asked again.
const MIN_RETRY_AFTER_MS: u64 = 50;
/// That pause doubles so many times.
const MAX_BACKOFF: u32 = 6;

impl Job {
    pub(super) fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.id == id)
    }

    pub(super) fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    pub(super) fn on_opened(&mut self, id: LaneId) {
        // Every provider of a quorum computes the whole answer by itself.
        let alone = self.quorum.is_some();
        let nothing = Answer::default();
        let begun = if alone { &nothing } else { &self.answer };
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) else { return };
        if lane.stage != Stage::Opening {
            return;
        }
        lane.offered(begun, self.now, &self.options);
        let mut resume = begun.tokens.clone();
        if planted("one token too few to resume") {
            resume.pop();
        }
        let open = RouterFrame::Open { offer: self.offer.clone(), resume };
        self.outs.push(Out::Send(id, open));
    }

    pub(super) fn on_open_failed(&mut self, id: LaneId, why: &str) {
        if self.lane(id).is_some_and(|lane| lane.stage == Stage::Opening) {
            self.leave(id, Some(Fault::Unreachable), why, Again::Never);
        }
    }

    pub(super) fn on_closed(&mut self, id: LaneId, why: Closed) {
        let Some(lane) = self.lane(id) else { return };
        if lane.is_delivered() {
            return self.on_challenged_gone(id, "the stream ended");
        }
        match why {
            Closed::Gone(why) => self.leave(id, Some(Fault::Dropped), &why, Again::Never),
            Closed::Garbage(why) => self.leave(id, Some(Fault::Garbage), &why, Again::Never),
        }
    }

    pub(super) fn on_frame(&mut self, id: LaneId, frame: ProviderFrame) {
        if self.lane(id).is_none() {
            return;
        }
        let result = match frame {
            ProviderFrame::Accepted(accepted) => self.on_accepted(id, &accepted),
            ProviderFrame::Tokens(tokens) => self.on_tokens(id, tokens),
            ProviderFrame::Progress(progress) => self.on_progress(id, progress.read),
            ProviderFrame::Delivered(delivered) => self.on_delivered(id, delivered),
            ProviderFrame::Openings(openings) => self.on_openings(id, openings),
            ProviderFrame::Failure(failure) => {
                self.on_failure(id, failure);
                Ok(())
            }
        };
        if let Err(breach) = result {
            self.on_breach(id, &breach);
        }
    }

    fn on_breach(&mut self, id: LaneId, breach: &Breach) {
        // Once the receipt is in, it is what counts; chatter after it is nothing.
        if self.lane(id).is_some_and(|lane| !lane.is_delivered()) {
            self.leave(id, Some(breach.fault), &breach.why, Again::Never);
        }
    }

    fn on_accepted(&mut self, id: LaneId, accepted: &Accepted) -> Result<(), Breach> {
        let (now, offer_id) = (self.now, self.offer.id());
        if accepted.offer_id != offer_id {
            let why = format!("accepted offer {}, expected {offer_id}", accepted.offer_id);
            return Err(Breach { fault: Fault::Garbage, why });
        }
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) else { return Ok(()) };
        lane.accepted(accepted.prompt_tokens, now, &self.options)
    }

    fn on_progress(&mut self, id: LaneId, read: u32) -> Result<(), Breach> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) else { return Ok(()) };
        lane.take_progress(read, self.now, &self.options)?;
        let of = lane.to_read();
        let farthest = !self.lanes.iter().any(|other| other.id != id && other.has_read(read));
        if farthest && self.leader.is_none() && self.reading_told <= self.now {
            self.reading_told = self.now.after(PROGRESS_EVERY_MS / 2);
            self.outs.push(Out::Notice(Notice::Reading { read, of }));
        }
        Ok(())
    }

    fn on_tokens(&mut self, id: LaneId, tokens: Tokens) -> Result<(), Breach> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) else { return Ok(()) };
        lane.take_tokens(tokens, &self.offer, self.now, &self.options)?;
        if self.quorum.is_none() && self.leader.is_none() {
            self.win(id);
        }
        self.pass_on();
        Ok(())
    }

    fn on_delivered(&mut self, id: LaneId, delivered: Delivered) -> Result<(), Breach> {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) else { return Ok(()) };
        let (receipt, proof) = lane.delivered(delivered, self.now, &self.options)?;
        let question = BindingsQuestion {
            lane: id,
            provider: lane.candidate.peer,
            receipt: receipt.clone(),
            prompt_tokens: lane.prompt_tokens,
            tokens: lane.tokens.clone(),
            text: lane.text.clone(),
            logprobs: lane.logprobs.clone(),
            commitments: lane.commitments.clone(),
        };
        let foreign = foreign(&receipt, lane.candidate.peer, &self.offer);
        self.delivered_at.get_or_insert(self.now);
        if self.quorum.is_none() {
            self.win(id);
            self.outs.push(Out::Notice(Notice::Checking));
        }
        self.pass_on();
        if let Some(detail) = foreign {
            self.on_false_receipt(id, Fault::Bindings, &detail);
            return Ok(());
        }
        self.outs.push(Out::CheckBindings(Box::new(question)));
        self.outs.push(Out::CheckLogProof { lane: id, receipt, proof });
        Ok(())
    }

    fn on_failure(&mut self, id: LaneId, failure: Failure) {
        let Some(lane) = self.lane(id) else { return };
        let message = clip(&failure.message, MAX_REASON_BYTES);
        if lane.is_delivered() {
            return self.on_challenged_gone(id, &message);
        }
        match failure.code {
            FailureCode::Busy => self.on_busy(id, failure.retry_after_ms, &message),
            FailureCode::ContextLength | FailureCode::EmptyPrompt | FailureCode::BadOffer
                if self.answer.tokens.is_empty() =>
            {
                self.on_offer_refused(id, failure.code, &message);
            }
            // Another one may have the memory.
            FailureCode::Capacity => {
                self.leave_without_room(id, &message);
            }
            // Its limits may be hit in the middle of an answer, at every provider.
            FailureCode::Constraint => self.on_offer_refused(id, failure.code, &message),
            code => {
                let why = format!("{code:?}: {message}");
                self.leave(id, Some(Fault::Refused), &why, Again::Never);
            }
        }
    }

    /// What is wrong is said to be the offer: one more provider is asked.
    fn on_offer_refused(&mut self, id: LaneId, code: FailureCode, message: &str) {
        self.refusals.of_offer_count += 1;
        if let (FailureCode::BadOffer, Some(lane)) = (code, self.lane(id)) {
            let peer = lane.candidate.peer;
            self.refusals.as_malformed.push((peer, message.to_owned()));
        }
        self.refusals.of_offer = Some((code, message.to_owned()));
        let confirmed = self.refusals.of_offer_count > 1;
        self.leave(id, None, message, Again::Never);
        if confirmed && !self.over {
            self.give_up();
        }
    }

    /// The job does not fit into this provider: no fault, and no word on the request.
    fn leave_without_room(&mut self, id: LaneId, message: &str) {
        self.refusals.capacity = Some(message.to_owned());
        self.leave(id, None, message, Again::Never);
    }

    fn on_busy(&mut self, id: LaneId, retry_after_ms: u64, message: &str) {
        let wait_ms = retry_after_ms.clamp(MIN_RETRY_AFTER_MS, MAX_RETRY_AFTER_MS);
        let shortest = self.refusals.busy_ms.map_or(wait_ms, |ms| ms.min(wait_ms));
        self.refusals.busy_ms = Some(shortest);
        // The room of a provider is shared by all: who waits longer asks less often.
        let at = self.now.after(wait_ms.max(MIN_RETRY_AFTER_MS << self.waits.min(MAX_BACKOFF)));
        let again = if self.waits_on() { Again::Waiting(at) } else { Again::From(at) };
        self.leave(id, None, &format!("busy: {message}"), again);
    }

    /// This lane is first: the others need not go on.
    fn win(&mut self, id: LaneId) {
        self.leader.get_or_insert(id);
        let others: Vec<LaneId> =
            self.lanes.iter().map(|lane| lane.id).filter(|other| *other != id).collect();
        for other in others {
            self.drop_lane(other, None, "another provider was faster", Again::From(self.now));
        }
    }

    /// Passes on what the leader has more than was passed on, and finds a leader if there is none.
    pub(super) fn pass_on(&mut self) {
        let continues = |lane: &&Lane| lane.continues(&self.answer);
        let leading = self.leader.and_then(|id| self.lane(id));
        let lane = match leading {
            Some(lane) => Some(lane).filter(continues),
            None => self.lanes.iter().filter(continues).max_by_key(|lane| lane.tokens.len()),
        };
        let Some(lane) = lane.filter(|lane| lane.tokens.len() > self.answer.tokens.len()) else {
            return;
        };
        let (id, peer, prompt_tokens) = (lane.id, lane.candidate.peer, lane.prompt_tokens);
        self.leader = Some(id);
        self.tell_leader(peer, prompt_tokens);
        self.grow(id);
    }

    /// Passes on what this lane has more than the answer so far, which it continues.
    pub(super) fn grow(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.iter().find(|lane| lane.id == id) {
            self.outs.push(self.answer.grow(lane, self.now));
        }
    }

    fn tell_leader(&mut self, provider: PeerId, prompt_tokens: u32) {
        let notice = match self.answer.segments.last() {
            None => Notice::Started { provider, prompt_tokens },
            Some(last) if last.provider == provider => return,
            Some(_) => Notice::Switched { provider, why: self.left.take().unwrap_or_default() },
        };
        self.outs.push(Out::Notice(notice));
    }

    /// Asks a second provider where the first is late.
    pub(super) fn hedge(&mut self) {
        if self.over || self.check.is_some() {
            return;
        }
        for lane in &mut self.lanes {
            if lane.hedge_at.is_some_and(|at| at <= self.now) {
                lane.hedge_at = None;
                lane.late = true;
            }
        }
        let wanted = self.quorum.is_none() && self.lanes.iter().any(|lane| lane.late);
        if !wanted || self.lanes.len() >= MAX_RACERS {
            return;
        }
        if self.open_next() {
            self.lanes.iter_mut().for_each(|lane| lane.late = false);
        } else {
            self.seek();
        }
    }

    /// Leaves a barred provider at once. What is being recomputed is recomputed to its end, and
    /// what a quorum has received is still compared.
    pub(super) fn on_barred(&mut self, peer: PeerId, why: &str) {
        self.roster.bar(&peer);
        let of_peer = self.lanes.iter().filter(|lane| lane.candidate.peer == peer);
        let kept =
            |lane: &&Lane| self.is_audited(lane.id) || self.quorum.is_some() && lane.is_sound();
        let left: Vec<LaneId> = of_peer.filter(|lane| !kept(lane)).map(|lane| lane.id).collect();
        for id in left {
            self.forget_check(id);
            self.leave(id, None, &format!("barred: {why}"), Again::Never);
        }
    }

    /// Leaves a provider and fills its place.
    pub(super) fn leave(&mut self, id: LaneId, fault: Option<Fault>, why: &str, again: Again) {
        let led = self.leader == Some(id);
        self.drop_lane(id, fault, why, again);
        // Another engine would go on with other tokens.
        let begun = led && !self.answer.tokens.is_empty();
        if begun && self.offer.class == Class::Statistical && !self.over {
            return self.give_up();
        }
        self.pass_on();
        self.fill();
    }

    /// Leaves a provider: stream, trail, log, roster.
    pub(super) fn drop_lane(&mut self, id: LaneId, fault: Option<Fault>, why: &str, again: Again) {
        let Some(at) = self.lanes.iter().position(|lane| lane.id == id) else { return };
        let case = self.case(id);
        let lane = self.lanes.remove(at);
        self.dismiss(&lane);
        let peer = lane.candidate.peer;
        let turns = self.roster.leave(&peer, again);
        // A provider that had a turn before may remember the offer from then.
        let fault = fault.filter(|fault| !(*fault == Fault::Refused && turns > 1));
        let why = clip(why, MAX_REASON_BYTES);
        if let Some(fault) = fault
            && fault != Fault::WrongAnswer
        {
            self.observe(fault, peer, &why, case);
        }
        if self.leader == Some(id) {
            self.leader = None;
            self.left = Some(why.clone());
        }
        let tokens = self.answer.tokens.len() as u32;
        self.trail.push(Attempt { provider: peer, tokens, fault, why });
    }

    /// Records what this node saw and nobody else can check.
    pub(super) fn observe(
        &mut self,
        fault: Fault,
        peer: PeerId,
        why: &str,
        case: Option<peerproof_wire::Case>,
    ) {
        let reason = format!("{}: {why}", fault.code());
        let observation = Observation::new(peer.public_key(), reason, case);
        self.record(LogBody::Evidence(Evidence::Observation(observation)));
    }

    /// This node did not answer its own question about a receipt.
    pub(super) fn own_check_unfinished(&mut self, id: LaneId) {
        if self.quorum.is_some() {
            return self.leave(
                id,
                None,
                "this node's check of the receipt did not finish",
                Again::Never,
            );
        }
        let reason = Reason::CheckUnfinished { what: "receipt" };
        self.fail(reason, Blame::Router, Checked::Nothing);
    }
}

/// Why a receipt is not this provider's for this offer. Nothing that follows
/// may be held against another signer.
fn foreign(receipt: &Signed<Receipt>, provider: PeerId, offer: &Signed<Offer>) -> Option<String> {
    let signer = receipt.key().peer_id();
    if signer != provider {
        return Some(format!("receipt signer: expected {provider}, got {signer}"));
    }
    let (expected, got) = (offer.id(), receipt.offer_id);
    (got != expected).then(|| format!("receipt offer_id: expected {expected}, got {got}"))
}
