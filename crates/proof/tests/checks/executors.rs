//! An executor that breaks its contract yields an error, never a verdict.

use std::convert::Infallible;

use peerproof_proof::audit::{AuditError, recompute};
use peerproof_proof::{Ending, Execute, Step};
use peerproof_wire::{Digest, ModelId, Offer, Stop, TokenLogprobs};

use crate::support::{Toy, VOCABULARY, long_offer, reporting_offer, serve, sign};

/// A toy whose steps pass through `meddle`; what it returns is handed on.
struct Broken {
    meddle: fn(Step) -> Vec<Step>,
    stands: fn(u32) -> u32,
    prompt: fn(Vec<u32>) -> Vec<u32>,
}

const SOUND: Broken =
    Broken { meddle: |step| vec![step], stands: |tokens| tokens, prompt: |ids| ids };

#[derive(Debug, thiserror::Error)]
#[error("out of memory")]
struct OutOfMemory;

impl Execute for Broken {
    type Error = OutOfMemory;

    fn model_id(&self) -> ModelId {
        Toy::default().model_id()
    }

    fn vocabulary(&self) -> u32 {
        VOCABULARY
    }

    fn spelling(&self, _: u32) -> &[u8] {
        b"x"
    }

    fn prompt_tokens(&self, offer: &Offer) -> Result<Vec<u32>, OutOfMemory> {
        let Ok(tokens): Result<_, Infallible> = Toy::default().prompt_tokens(offer);
        Ok((self.prompt)(tokens))
    }

    fn replay(
        &self,
        offer: &Offer,
        key: &Digest,
        seed: &Digest,
        prompt: &[u32],
        answer: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Digest, OutOfMemory> {
        if prompt.is_empty() {
            return Err(OutOfMemory);
        }
        let mut meddled = |step| (self.meddle)(step).into_iter().for_each(&mut *on_step);
        let Ok(kv_root) = Toy::default().replay(offer, key, seed, prompt, answer, &mut meddled);
        Ok(kv_root)
    }

    fn embed(
        &self,
        offer: &Offer,
        key: &Digest,
        prompt: &[u32],
        on_step: &mut dyn FnMut(Step),
    ) -> Result<(Vec<u32>, Digest), OutOfMemory> {
        let mut meddled = |step| (self.meddle)(step).into_iter().for_each(&mut *on_step);
        let Ok(vector) = Toy::default().embed(offer, key, prompt, &mut meddled);
        Ok(vector)
    }

    fn ending(&self, offer: &Offer, answer: &[u32]) -> Result<Ending, OutOfMemory> {
        let Ok(ending) = Toy::default().ending(offer, answer);
        Ok(Ending { tokens: (self.stands)(ending.tokens), ..ending })
    }
}

fn refused(executor: &Broken) -> AuditError {
    let served = serve(&Toy::default(), &sign(long_offer()));
    recompute(executor, &served.offer, &served.tokens).unwrap_err()
}

fn what(executor: &Broken) -> &'static str {
    match refused(executor) {
        AuditError::Executor { what, .. } => what,
        other => panic!("{other}"),
    }
}

#[test]
fn a_sound_executor_is_accepted() {
    let served = serve(&Toy::default(), &sign(long_offer()));
    let recomputation = recompute(&SOUND, &served.offer, &served.tokens).unwrap();
    assert_eq!(recomputation.tree(), Some(served.tree));
    assert_eq!(recomputation.ending().stop, Some(Stop::Length));
}

#[test]
fn steps_missing_doubled_or_altered() {
    let with = |meddle| what(&Broken { meddle, ..SOUND });
    assert_eq!(with(|_| vec![]), "count");
    assert_eq!(with(|step| if step.position < 20 { vec![step] } else { vec![] }), "count");
    assert_eq!(with(|step| if step.position == 9 { vec![] } else { vec![step] }), "position");
    assert_eq!(with(|step| vec![step.clone(), step]), "position");
    assert_eq!(with(|step| vec![Step { token: step.token ^ 1, ..step }]), "token");
    assert_eq!(with(|step| vec![Step { drawn: None, ..step }]), "draw present");
    let beyond = |step: Step| {
        let next = Step { position: step.position + 1, ..step.clone() };
        if step.position == 81 { vec![step, next] } else { vec![step] }
    };
    assert_eq!(serve(&Toy::default(), &sign(long_offer())).leaves.len(), 82);
    assert_eq!(with(beyond), "count");
}

#[test]
fn probabilities_nobody_asked_for_or_none_where_they_are_due() {
    let extra = |mut step: Step| {
        let report = || Some(TokenLogprobs::default());
        step.drawn.iter_mut().for_each(|drawn| drawn.logprobs = report());
        vec![step]
    };
    assert_eq!(what(&Broken { meddle: extra, ..SOUND }), "probabilities present");
    let none = |mut step: Step| {
        step.drawn.iter_mut().for_each(|drawn| drawn.logprobs = None);
        vec![step]
    };
    let served = serve(&Toy::default(), &sign(reporting_offer()));
    let broken = Broken { meddle: none, ..SOUND };
    let refused = recompute(&broken, &served.offer, &served.tokens).unwrap_err();
    assert!(matches!(refused, AuditError::Executor { what: "probabilities present", .. }));
}

#[test]
fn endings_that_cannot_be() {
    assert_eq!(what(&Broken { stands: |tokens| tokens + 1, ..SOUND }), "tokens that stand");
    assert_eq!(what(&Broken { stands: |_| 0, ..SOUND }), "tokens that stand");
}

#[test]
fn a_prompt_without_tokens() {
    let empty = Broken { prompt: |_| vec![], ..SOUND };
    assert!(matches!(refused(&empty), AuditError::Positions { .. }));
}

#[test]
fn an_answer_without_tokens() {
    let offer = sign(long_offer());
    assert!(matches!(recompute(&SOUND, &offer, &[]), Err(AuditError::Positions { .. })));
}
