//! What the model says of an answer that another engine made.
//!
//! One causal prefill reads prompt and answer; at each place of the answer the
//! logits give the logarithms of the probabilities that the other engine
//! reported, and where the token it chose stands under the offer's rules
//! ([`peerproof_proof::statistical`] judges both). All of it is integers, so
//! every auditor finds the same. Deliberately absent: the judgement.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use peerproof_proof::statistical::{Weigh, Weighed};
use peerproof_wire::{Offer, TokenLogprobs};

use crate::execute::{BATCH, ReplayError, Replayer, Until};
use crate::forward::Item;
use crate::logprobs;
use crate::sample;

impl Weigh for Replayer {
    type Error = ReplayError;

    fn weigh(
        &self,
        offer: &Offer,
        prompt: &[u32],
        answer: &[u32],
        reports: &[TokenLogprobs],
    ) -> Result<Vec<Weighed>, ReplayError> {
        self.until(&AtomicBool::new(false)).weigh(offer, prompt, answer, reports)
    }
}

impl Weigh for Until<'_> {
    type Error = ReplayError;

    fn weigh(
        &self,
        offer: &Offer,
        prompt: &[u32],
        answer: &[u32],
        reports: &[TokenLogprobs],
    ) -> Result<Vec<Weighed>, ReplayError> {
        let Replayer { model, runner, .. } = self.replayer;
        self.replayer.check_model(offer)?;
        let read = answer.len().saturating_sub(1);
        model.check_fit(prompt, read as u32)?;
        let tokens: Vec<u32> = prompt.iter().chain(&answer[..read]).copied().collect();
        // An id that is no token cannot be read: what stands before it is all there is to say.
        let known = tokens.iter().take_while(|id| (**id as usize) < model.vocabulary()).count();
        let item = |(position, &token): (usize, &u32)| Item {
            sequence: 0,
            token,
            logits: position + 1 >= prompt.len(),
        };
        let items: Vec<Item> = tokens[..known].iter().enumerate().map(item).collect();
        // Only scratch memory is behind this lock, which every pass overwrites.
        let mut runner = runner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kv = self.replayer.cache(items.len())?;
        let mut weighed = Vec::with_capacity(answer.len());
        for (at, batch) in items.chunks(BATCH).enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ReplayError::Stopped { read: at * BATCH, tokens: items.len() });
            }
            runner.forward(&mut [&mut kv], batch, &mut |_, output| {
                let index = weighed.len();
                let beside = answer.get(index).zip(reports.get(index));
                if let Some((logits, (token, report))) = output.logits.zip(beside) {
                    weighed.push(of_one(logits, offer, *token, report));
                }
            })?;
        }
        Ok(weighed)
    }
}

fn of_one(logits: &[i32], offer: &Offer, token: u32, report: &TokenLogprobs) -> Weighed {
    let ids: Vec<u32> = report.top.iter().map(|(id, _)| *id).collect();
    let (chosen_q16, best_q16, top_q16) = logprobs::figures(logits, token, &ids);
    let standing_q16 = sample::standing(logits, &offer.sampling, token);
    Weighed { chosen_q16, best_q16, top_q16, standing_q16 }
}
