//! Opening leaves behind a receipt, for whoever shows the offer's nonce.

use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{Challenge, Failure, FailureCode, Openings, ProviderFrame};

use super::stream::State;
use super::{Desk, LeavesQuestion, Out, StreamId};
use crate::limits::{MAX_CHALLENGES_PER_RECEIPT, MAX_RUNNING_CHALLENGES};
use crate::planted::planted;

/// Advice to a router whose challenge has to wait.
const RETRY_AFTER_MS: u64 = 1_000;

impl Desk {
    pub(super) fn on_challenge(&mut self, stream: StreamId, challenge: Challenge) {
        match self.take_challenge(challenge) {
            Err(failure) => self.refuse(stream, failure),
            Ok(question) => {
                let Some(known) = self.streams.get_mut(&stream) else { return };
                known.state = State::Opening;
                known.deadline = self.now.after(self.config.challenge_ms);
                self.outs.push(Out::OpenLeaves { stream, question: Box::new(question) });
            }
        }
    }

    fn take_challenge(&mut self, challenge: Challenge) -> Result<LeavesQuestion, Failure> {
        let opening = self.streams.values().filter(|known| known.state == State::Opening);
        let busy = opening.count() >= MAX_RUNNING_CHALLENGES;
        let Some(job) = self.finished.find(&challenge.receipt_id) else {
            let message = format!("receipt {} is not kept here", challenge.receipt_id);
            return Err(Failure::new(FailureCode::UnknownReceipt, message));
        };
        if client_nonce_hash(&challenge.client_nonce) != job.offer.client_nonce_hash
            && !planted("leaves are opened without the nonce")
        {
            return Err(Failure::new(FailureCode::BadOffer, "the nonce is not the offer's"));
        }
        if let Some(position) =
            challenge.positions.iter().find(|position| **position >= job.receipt.leaves)
        {
            let message = format!("position {position} of {} leaves", job.receipt.leaves);
            return Err(Failure::new(FailureCode::BadOffer, message));
        }
        if job.challenges >= MAX_CHALLENGES_PER_RECEIPT {
            let message =
                format!("{MAX_CHALLENGES_PER_RECEIPT} challenges were answered for this receipt");
            return Err(Failure::new(FailureCode::Replayed, message));
        }
        if busy {
            let mut failure =
                Failure::new(FailureCode::Busy, "other challenges are being answered");
            failure.retry_after_ms = RETRY_AFTER_MS;
            return Err(failure);
        }
        job.challenges += 1;
        Ok(LeavesQuestion {
            offer: job.offer.clone(),
            receipt: job.receipt.clone(),
            tokens: job.tokens.clone(),
            challenge,
        })
    }

    pub(super) fn on_leaves_opened(
        &mut self,
        stream: StreamId,
        openings: Result<Openings, String>,
    ) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        if known.state != State::Opening {
            return;
        }
        known.state = State::Delivered;
        known.deadline = self.now.after(self.config.linger_ms);
        match openings {
            Ok(openings) => self.send(stream, ProviderFrame::Openings(openings)),
            Err(why) => self.refuse(stream, Failure::new(FailureCode::Internal, why)),
        }
    }
}
