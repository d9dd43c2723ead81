//! Whatever fails when: what was passed on is a beginning of the one answer,
//! and the job comes to an end.

use peerproof_job::Millis;
use peerproof_job::router::{End, In, Options};
use peerproof_wire::{FailureCode, Level};
use proptest::prelude::*;

use crate::model::{reference, text_of};
use crate::world::{AuditBy, Script, World};

/// Scripts under which every token that is passed on is the right one.
fn network_trouble() -> impl Strategy<Value = Script> {
    prop_oneof![
        3 => Just(Script::Honest),
        1 => Just(Script::Unreachable),
        1 => Just(Script::Mute),
        1 => Just(Script::AcceptsOnly),
        1 => (0..40_u32).prop_map(Script::DiesAt),
        1 => (0..40_u32).prop_map(Script::StallsAt),
        1 => (0..40_u32).prop_map(Script::GarbageAt),
        1 => (0..40_u32).prop_map(Script::Doubles),
        1 => (0..40_u32).prop_map(Script::Swaps),
        1 => (0..40_u32).prop_map(Script::Skips),
        1 => Just(Script::NoCommitments),
        1 => (1..4_u32).prop_map(Script::BusyTimes),
        1 => proptest::sample::select(FailureCode::ALL).prop_map(Script::Refuses),
    ]
}

fn any_script() -> impl Strategy<Value = Script> {
    prop_oneof![
        4 => network_trouble(),
        1 => (0..40_u32).prop_map(Script::CheatsFrom),
        1 => Just(Script::Pads),
        1 => Just(Script::FalseText),
        1 => Just(Script::OthersReceipt),
        1 => Just(Script::OtherOffer),
        1 => Just(Script::FalseLogProof),
        1 => Just(Script::NoOpenings),
        1 => Just(Script::FalseOpenings),
    ]
}

fn level() -> impl Strategy<Value = Level> {
    proptest::sample::select(vec![Level::Receipt, Level::Sampled, Level::Full, Level::KOfN])
}

fn audit_by() -> impl Strategy<Value = AuditBy> {
    proptest::sample::select(vec![
        AuditBy::Here,
        AuditBy::Nobody,
        AuditBy::Silence,
        AuditBy::OneStranger,
        AuditBy::OneLiar,
    ])
}

fn paces(count: usize) -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((1..60_u64, 1..400_u64), count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// `World` checks after every event that emits are contiguous and a timer is set.
    #[test]
    fn no_token_is_lost_or_doubled(
        scripts in proptest::collection::vec(network_trouble(), 1..6),
        paces in paces(6),
        level in level(),
        max_tokens in 1..70_u32,
    ) {
        let mut world = World::with(level, &scripts, max_tokens, Options::default());
        for (provider, (latency_ms, step_ms)) in world.providers.iter_mut().zip(paces) {
            (provider.latency_ms, provider.step_ms) = (latency_ms, step_ms);
        }
        let outcome = world.run().clone();
        let right = reference(&world.offer);
        prop_assert!(right.starts_with(&world.tokens));
        prop_assert!(text_of(&right, right.len(), right.len()).starts_with(&world.text));
        prop_assert_eq!(outcome.output_tokens as usize, world.tokens.len());
        if matches!(outcome.end, End::Answered(_)) {
            world.assert_answer();
        }
        for provider in 0..scripts.len() {
            prop_assert!(!world.is_barred(provider), "a network can cause all of this: {:?} {:?}", world.evidence(), outcome);
        }
        if level != Level::KOfN && scripts.last() == Some(&Script::Honest) && scripts.len() <= 3 {
            prop_assert!(matches!(outcome.end, End::Answered(_)), "{:?}", outcome);
        }
    }

    #[test]
    fn every_job_ends_and_only_liars_are_barred(
        scripts in proptest::collection::vec(any_script(), 0..6),
        paces in paces(6),
        level in level(),
        audit_by in audit_by(),
        challenge in any::<bool>(),
        ends_at in proptest::option::of(1..40_u32),
        answer_checks in proptest::bool::weighted(0.9),
        cancel_at in proptest::option::weighted(0.3, 0..5_000_u64),
    ) {
        let mut world = match ends_at {
            Some(ends_at) => World::ending(level, &scripts, ends_at),
            None => World::with(level, &scripts, 40, Options { challenge, ..Options::default() }),
        };
        (world.audit_by, world.answer_checks) = (audit_by, answer_checks);
        for (provider, (latency_ms, step_ms)) in world.providers.iter_mut().zip(paces) {
            (provider.latency_ms, provider.step_ms) = (latency_ms, step_ms);
        }
        if let Some(moment) = cancel_at {
            world.run_until(Millis(moment));
            world.tell(In::CancelledByUser);
        }
        let outcome = world.run().clone();
        let limit = Options::default();
        prop_assert!(outcome.total_ms <= limit.total_ms + limit.check_ms + 8 * limit.audit_ms + limit.challenge_ms);
        let right = reference(&world.offer);
        let full = outcome.end == End::Answered(peerproof_wire::Stop::Length)
            && matches!(level, Level::Full | Level::KOfN) && audit_by == AuditBy::Here;
        if full && level == Level::Full {
            prop_assert_eq!(&world.tokens, &right, "a false answer passed a full audit");
        }
        for (provider, script) in scripts.iter().enumerate() {
            let liar = matches!(
                script,
                Script::CheatsFrom(_) | Script::Pads | Script::FalseText | Script::OthersReceipt | Script::OtherOffer | Script::FalseLogProof | Script::FalseOpenings
            );
            prop_assert!(liar || !world.is_barred(provider), "{script:?} is barred: {:?}", world.evidence());
        }
    }
}
