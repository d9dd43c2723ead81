//! Picking, racing, failing over, giving up.

use peerproof_job::Fault;
use peerproof_job::Millis;
use peerproof_job::limits::{MAX_ATTEMPTS_PER_PROVIDER, MAX_BUSY_TURNS};
use peerproof_job::router::{Blame, Checked, End, In, Notice, Options, Reason, Segment};
use peerproof_wire::{FailureCode, Level, ProviderFrame, Stop, TokenLogprobs, Tokens};

use crate::model::reports;
use crate::world::{Script, World};

const ANSWERED: End = End::Answered(Stop::Length);

#[test]
fn an_honest_provider_answers() {
    let mut world = World::new(Level::Receipt, &[Script::Honest]);
    let provider = world.providers[0].peer();
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.served_by, [Segment { provider, start: 0 }]);
    assert_eq!(outcome.trail, []);
    assert_eq!(outcome.verification.done, Checked::Receipt);
    assert_eq!(outcome.receipt.unwrap().key().peer_id(), provider);
    assert!(outcome.first_token_ms.unwrap() < outcome.total_ms);
    assert_eq!(world.notices.len(), 2, "{:?}", world.notices);
    assert!(matches!(world.notices[0], Notice::Started { prompt_tokens: 7, .. }));
    assert_eq!(world.emits, 12, "each token as soon as it is there");
    assert_eq!(world.reputation().standing(&provider, 1_000).score, 555);
    world.assert_answer();
}

/// The first fails as scripted at every possible token; the second continues.
fn check_failover(script: impl Fn(u32) -> Script, fault: Fault) {
    for at in 0..12 {
        let mut world = World::new(Level::Receipt, &[script(at), Script::Honest]);
        let (first, second) = (world.providers[0].peer(), world.providers[1].peer());
        let outcome = world.run().clone();
        assert_eq!(outcome.end, ANSWERED, "{:?}", script(at));
        world.assert_answer();
        assert_eq!(outcome.trail.len(), 1, "{:?}", outcome.trail);
        assert_eq!((outcome.trail[0].provider, outcome.trail[0].fault), (first, Some(fault)));
        let expected: Vec<Segment> =
            [Segment { provider: first, start: 0 }, Segment { provider: second, start: at }]
                .into_iter()
                .skip(usize::from(at == 0))
                .collect();
        assert_eq!(outcome.served_by, expected, "{:?}", script(at));
        assert_eq!(outcome.receipt.unwrap().key().peer_id(), second);
        assert_eq!(world.evidence(), [(0, fault.code().to_owned())]);
        assert!(!world.is_barred(0), "a network can cause this");
        let switched =
            world.notices.iter().filter(|notice| matches!(notice, Notice::Switched { .. })).count();
        assert_eq!(switched, usize::from(at > 0));
    }
}

#[test]
fn another_continues_when_one_dies_at_any_token() {
    check_failover(Script::DiesAt, Fault::Dropped);
}

#[test]
fn another_signs_when_one_dies_after_the_last_token() {
    let mut world = World::new(Level::Receipt, &[Script::DiesAt(12), Script::Honest]);
    let (first, second) = (world.providers[0].peer(), world.providers[1].peer());
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    world.assert_answer();
    assert_eq!(outcome.served_by, [Segment { provider: first, start: 0 }]);
    assert_eq!(outcome.receipt.unwrap().key().peer_id(), second);
}

#[test]
fn another_continues_when_one_sends_garbage_at_any_token() {
    check_failover(Script::GarbageAt, Fault::Garbage);
}

#[test]
fn another_continues_when_one_stalls_at_any_token() {
    // At token 0 the second is asked as a hedge, and the first merely loses the race.
    for at in 1..12 {
        let mut world = World::new(Level::Receipt, &[Script::StallsAt(at), Script::Honest]);
        let outcome = world.run().clone();
        assert_eq!(outcome.end, ANSWERED);
        world.assert_answer();
        assert_eq!(outcome.trail[0].fault, Some(Fault::Stalled));
        assert_eq!(outcome.trail[0].tokens, at);
    }
}

#[test]
fn a_fast_provider_is_left_sooner_than_a_slow_one() {
    let waited = |at| {
        let mut world = World::new(Level::Receipt, &[Script::StallsAt(at), Script::Honest]);
        let outcome = world.run().clone();
        assert_eq!(outcome.trail[0].fault, Some(Fault::Stalled));
        outcome.total_ms
    };
    let options = Options::default();
    // Its pace is known after eight tokens; before that, all patience is given.
    assert!(waited(7) >= options.stall_ms);
    assert!((options.stall_floor_ms..options.stall_ms).contains(&waited(8)));
}

#[test]
fn frames_out_of_order_end_a_stream_not_the_answer() {
    for script in [Script::Doubles, Script::Swaps, Script::Skips] {
        for frame in 0..11 {
            let mut world = World::new(Level::Receipt, &[script(frame), Script::Honest]);
            let outcome = world.run().clone();
            assert_eq!(outcome.end, ANSWERED, "{:?}", script(frame));
            world.assert_answer();
            let fault = outcome.trail[0].fault;
            assert_eq!(fault, Some(Fault::OutOfOrder), "{:?}", script(frame));
        }
    }
}

#[test]
fn reported_probabilities_come_with_their_tokens_and_outlive_a_provider() {
    for at in 0..12 {
        let scripts = [Script::DiesAt(at), Script::Honest];
        let mut world = World::reporting(Level::Receipt, &scripts);
        assert_eq!(world.run().end, ANSWERED, "{at}");
        world.assert_answer();
        assert_eq!(world.logprobs, reports(&world.offer, &world.tokens));
    }
}

#[test]
fn reported_probabilities_may_not_be_left_out_or_sent_unasked() {
    let mut world = World::reporting(Level::Receipt, &[Script::NoReports, Script::Honest]);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.trail[0].fault, Some(Fault::Garbage));
    assert_eq!(outcome.trail[0].tokens, 0);
    let mut world = World::new(Level::Receipt, &[Script::Honest]);
    world.serve_until(3);
    let logprobs = vec![TokenLogprobs { spellings: vec![vec![]], ..TokenLogprobs::default() }];
    let unasked = Tokens { start: 3, tokens: vec![1], logprobs, ..Tokens::default() };
    let lane = *world.lanes().first().unwrap();
    world.later(0, In::Frame(lane, ProviderFrame::Tokens(unasked)));
    let outcome = world.run().clone();
    assert_eq!(outcome.trail[0].fault, Some(Fault::Garbage));
}

#[test]
fn reported_probabilities_that_the_receipt_does_not_cover_fail_the_answer() {
    let mut world = World::reporting(Level::Receipt, &[Script::FalseReports]);
    let outcome = world.run().clone();
    assert!(
        matches!(
            outcome.end,
            End::Failed { reason: Reason::Check { fault: Fault::Bindings, .. }, .. }
        ),
        "{:?}",
        outcome.end
    );
}

#[test]
fn commitments_may_not_be_left_out() {
    let scripts = [Script::NoCommitments, Script::Honest];
    let mut world = World::with(Level::Receipt, &scripts, 100, Options::default());
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    world.assert_answer();
    assert_eq!(outcome.trail[0].fault, Some(Fault::OutOfOrder));
    assert_eq!(outcome.trail[0].tokens, 31, "the token that owed it was not passed on");
}

#[test]
fn a_second_is_asked_when_the_first_is_late() {
    let options = Options::default();
    for (script, patience_ms) in
        [(Script::Mute, options.hedge_accept_ms), (Script::AcceptsOnly, options.hedge_token_ms)]
    {
        let mut world = World::new(Level::Receipt, &[script, Script::Honest]);
        let outcome = world.run().clone();
        assert_eq!(outcome.end, ANSWERED, "{script:?}");
        world.assert_answer();
        let first_token_ms = outcome.first_token_ms.unwrap();
        assert!(
            (patience_ms..patience_ms + 100).contains(&first_token_ms),
            "{script:?}: {first_token_ms}"
        );
        assert_eq!(outcome.trail[0].fault, None, "slower is no fault");
        assert_eq!(world.evidence(), []);
    }
}

#[test]
fn the_first_keeps_the_lead_if_it_comes_before_the_hedge() {
    let mut world = World::new(Level::Receipt, &[Script::Honest, Script::Honest]);
    world.providers[0].step_ms = 1_700;
    world.providers[1].step_ms = 1_000;
    let first = world.providers[0].peer();
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.served_by.len(), 1);
    assert_eq!(outcome.served_by[0].provider, first, "1,700 ms comes before 1,500 + 1,000 ms");
    assert_eq!(outcome.trail.len(), 1);
    assert_eq!(world.providers[1].stopped, 1, "the loser is told");
}

#[test]
fn who_lost_a_race_may_still_take_over() {
    let mut world = World::new(Level::Receipt, &[Script::DiesAt(5), Script::Honest]);
    world.providers[0].step_ms = 1_700;
    world.providers[1].step_ms = 1_000;
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    world.assert_answer();
    assert_eq!(outcome.served_by[1].start, 5);
    assert_eq!(outcome.trail.len(), 2);
}

#[test]
fn refusals_lead_to_the_next() {
    for code in FailureCode::ALL {
        let mut world = World::new(Level::Receipt, &[Script::Refuses(*code), Script::Honest]);
        let outcome = world.run().clone();
        assert_eq!(outcome.end, ANSWERED, "{code:?}");
        assert_eq!(outcome.trail.len(), 1);
        world.assert_answer();
    }
}

#[test]
fn a_request_that_two_refuse_is_refused() {
    for code in [FailureCode::ContextLength, FailureCode::EmptyPrompt, FailureCode::BadOffer] {
        let refuses = Script::Refuses(code);
        for scripts in [vec![refuses], vec![refuses, refuses, Script::Honest]] {
            let mut world = World::new(Level::Receipt, &scripts);
            let outcome = world.run().clone();
            let End::Failed { reason: Reason::Refused { code: got, .. }, blame } = outcome.end
            else {
                panic!("{:?}", outcome.end);
            };
            assert_eq!((got, blame), (code, Blame::Offer));
            assert_eq!(world.evidence(), [], "the request is to blame");
        }
    }
}

#[test]
fn one_word_against_a_request_is_not_enough_where_there_are_others() {
    let malformed = Script::Refuses(FailureCode::BadOffer);
    let mut world = World::new(Level::Receipt, &[malformed, Script::DiesAt(0)]);
    let outcome = world.run().clone();
    let reason = Reason::Exhausted { attempts: 2 };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Circumstances });

    let mut world = World::new(Level::Receipt, &[malformed, Script::Honest]);
    assert_eq!(world.run().end, ANSWERED);
    assert_eq!(world.evidence(), [(0, "refused".into())], "another one answered it");
}

#[test]
fn who_lacks_the_memory_is_left_for_one_that_has_it() {
    let small = Script::Refuses(FailureCode::Capacity);
    let mut world = World::new(Level::Receipt, &[small, small, small, Script::Honest]);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.trail.len(), 3, "however many are too small");
    assert_eq!(world.evidence(), [], "nobody's fault");
    world.assert_answer();

    let mut world = World::new(Level::Receipt, &[small, small]);
    let outcome = world.run().clone();
    let reason = Reason::TooLarge { message: "as the script says".into() };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Circumstances });
}

#[test]
fn a_busy_provider_is_asked_again() {
    let mut world = World::new(Level::Receipt, &[Script::BusyTimes(2)]);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.trail.len(), 2);
    assert!(outcome.first_token_ms.unwrap() >= 200);

    let mut world = World::new(Level::Receipt, &[Script::BusyTimes(9)]);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED, "there is nobody else, and time");
    assert_eq!(outcome.trail.len(), 9);

    let mut world = World::new(Level::Receipt, &[Script::BusyTimes(99)]);
    let outcome = world.run().clone();
    let reason = Reason::Busy { retry_after_ms: 100 };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Circumstances });
    let turns = (MAX_BUSY_TURNS + MAX_ATTEMPTS_PER_PROVIDER) as usize;
    assert_eq!(outcome.trail.len(), turns, "bounded");
}

#[test]
fn nobody_there_and_nobody_left() {
    let outcome = World::new(Level::Receipt, &[]).run().clone();
    assert_eq!(
        outcome.end,
        End::Failed { reason: Reason::NoProvider, blame: Blame::Circumstances }
    );

    let mut world = World::new(Level::Receipt, &[Script::Unreachable, Script::DiesAt(3)]);
    let outcome = world.run().clone();
    let reason = Reason::Exhausted { attempts: 2 };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Circumstances });
    assert_eq!(world.evidence(), [(0, "unreachable".into()), (1, "dropped".into())]);
    assert_eq!(outcome.output_tokens, 3);
}

#[test]
fn attempts_are_bounded() {
    let options = Options { max_attempts: 5, ..Options::default() };
    let mut world = World::with(Level::Receipt, &[Script::Unreachable; 20], 12, options);
    let outcome = world.run().clone();
    let reason = Reason::Exhausted { attempts: 5 };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Circumstances });
    assert_eq!(outcome.trail.len(), 5);
}

#[test]
fn the_overall_deadline_ends_everything() {
    let options = Options { total_ms: 40, ..Options::default() };
    let mut world = World::with(Level::Receipt, &[Script::Honest], 12, options);
    let outcome = world.run().clone();
    let reason = Reason::Deadline { total_ms: 40 };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Circumstances });
    assert_eq!(outcome.total_ms, 40);
    assert_eq!(world.providers[0].stopped, 1, "the provider is told");
}

#[test]
fn cancelling_stops_the_provider_at_any_moment() {
    for moment in 0..90 {
        let mut world = World::new(Level::Full, &[Script::Honest, Script::Honest]);
        world.run_until(Millis(moment));
        world.tell(In::CancelledByUser);
        let outcome = world.run().clone();
        assert_eq!(outcome.end, End::Cancelled, "at {moment}");
        assert_eq!(world.providers[0].ran.saturating_sub(1), 0);
    }
}

#[test]
fn a_barred_provider_is_not_asked() {
    let mut world = World::new(Level::Receipt, &[]);
    let mut honest = World::new(Level::Receipt, &[Script::Honest]).candidates();
    honest[0].standing.barred = Some("wrong-answer".into());
    world.tell(In::Candidates(honest));
    let outcome = world.run().clone();
    assert_eq!(
        outcome.end,
        End::Failed { reason: Reason::NoProvider, blame: Blame::Circumstances }
    );
}

#[test]
fn a_provider_that_is_barred_meanwhile_is_left_at_once() {
    for moment in 0..90 {
        let mut world = World::new(Level::Receipt, &[Script::Honest, Script::Honest]);
        world.run_until(Millis(moment));
        if world.outcome.is_some() {
            continue;
        }
        world.bar(0);
        let outcome = world.run().clone();
        assert_eq!(outcome.end, End::Answered(Stop::Length), "at {moment}");
        let last = outcome.receipt.map(|receipt| receipt.key().peer_id());
        assert_eq!(last, Some(world.providers[1].peer()), "at {moment}");
        world.assert_answer();
        assert!(world.evidence().is_empty(), "it did nothing wrong in this job");
    }
}
