//! From the receipt to the verdict: levels, cheats, disputes.

use peerproof_job::Fault;
use peerproof_job::router::{Auditor, Blame, Checked, Closed, End, In, LaneId, Options, Reason};
use peerproof_job::{Entropy, Millis};
use peerproof_wire::{Evidence, Level, LogBody, NetworkGroup, Stop};

use crate::world::{AuditBy, Script, World, auditor_key};

const ANSWERED: End = End::Answered(Stop::Length);

fn refused(end: &End) -> (Fault, Blame) {
    match end {
        End::Failed { reason: Reason::Check { fault, .. }, blame } => (*fault, *blame),
        other => panic!("expected a failed check, got {other:?}"),
    }
}

#[test]
fn full_means_audited() {
    let mut world = World::new(Level::Full, &[Script::Honest]);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.verification.done, Checked::Audited { by: Auditor::Local });
    assert!(outcome.verification.cost_ms >= 20);
    assert_eq!(world.audits.len(), 1);
    assert_eq!(world.audits[0].1, [world.providers[0].peer()], "who answered may not judge");
    let accepted =
        world.records.iter().any(|body| matches!(body, LogBody::Accepted(a) if a.audited));
    assert!(accepted, "{:?}", world.records);
}

#[test]
fn a_cheat_is_found_refused_and_barred() {
    for from in 0..12 {
        let mut world = World::new(Level::Full, &[Script::CheatsFrom(from), Script::Honest]);
        let cheat = world.providers[0].peer();
        let outcome = world.run().clone();
        assert_eq!(refused(&outcome.end), (Fault::WrongAnswer, Blame::Provider(cheat)));
        assert_eq!(outcome.verification.done, Checked::Refuted);
        assert_eq!(world.evidence(), [(0, "wrong-answer".into())]);
        assert!(world.is_barred(0), "after a restart too");
        assert!(!world.records.iter().any(|body| matches!(body, LogBody::Accepted(_))));
    }
}

#[test]
fn without_an_auditor_the_outcome_says_so() {
    for (audit_by, words) in [
        (AuditBy::Nobody, "nobody holds the model"),
        (AuditBy::Silence, "no verdict within 120000 ms"),
    ] {
        let mut world = World::new(Level::Full, &[Script::Honest]);
        world.audit_by = audit_by;
        let outcome = world.run().clone();
        assert_eq!(outcome.end, ANSWERED);
        assert_eq!(outcome.verification.done, Checked::NotAudited { why: words.into() });
        assert_eq!(outcome.verification.done.to_string(), format!("not audited: {words}"));
    }
}

#[test]
fn the_lot_falls_as_often_as_it_should() {
    let chance = |permille| {
        let drawn = (0..1_000).filter(|seed| Entropy::new([7; 32]).lucky("audit", *seed, permille));
        drawn.count()
    };
    assert!((400..600).contains(&chance(500)));
    for (permille, expected) in
        [(0, Checked::NotDrawn { permille: 0 }), (1000, Checked::Audited { by: Auditor::Local })]
    {
        let options = Options { audit_permille: Some(permille), ..Options::default() };
        let mut world = World::with(Level::Sampled, &[Script::Honest], 12, options);
        let outcome = world.run().clone();
        assert_eq!(outcome.verification.done, expected);
    }
}

#[test]
fn a_challenge_is_answered_or_the_answer_is_refused() {
    let options = Options { challenge: true, ..Options::default() };
    let run = |script| {
        let mut world = World::with(Level::Receipt, &[script], 12, options.clone());
        let outcome = world.run().clone();
        (world, outcome)
    };
    let (_, outcome) = run(Script::Honest);
    assert_eq!(outcome.end, ANSWERED);
    assert!(outcome.verification.opened);

    let (world, outcome) = run(Script::FalseOpenings);
    assert_eq!(refused(&outcome.end).0, Fault::Openings);
    assert!(world.is_barred(0));

    let (world, outcome) = run(Script::NoOpenings);
    assert_eq!(refused(&outcome.end).0, Fault::Unanswered);
    assert_eq!(world.evidence(), [(0, "unanswered-challenge".into())]);
    assert!(!world.is_barred(0), "its network may be to blame");
}

#[test]
fn an_audit_makes_a_challenge_superfluous_but_not_the_other_way_round() {
    let options = Options { challenge: true, ..Options::default() };
    let mut world = World::with(Level::Full, &[Script::Honest], 12, options.clone());
    assert!(!world.run().verification.opened);

    let mut world = World::with(Level::Full, &[Script::Honest], 12, options);
    world.audit_by = AuditBy::Nobody;
    let outcome = world.run().clone();
    assert!(outcome.verification.opened);
    assert!(matches!(outcome.verification.done, Checked::NotAudited { .. }));
}

#[test]
fn text_and_log_place_are_checked() {
    let mut world = World::new(Level::Receipt, &[Script::FalseText, Script::Honest]);
    let outcome = world.run().clone();
    assert_eq!(
        refused(&outcome.end),
        (Fault::Bindings, Blame::Provider(world.providers[0].peer()))
    );
    assert!(world.is_barred(0));

    let mut world = World::new(Level::Receipt, &[Script::FalseLogProof]);
    let outcome = world.run().clone();
    assert_eq!(refused(&outcome.end).0, Fault::LogProof);
    assert!(world.is_barred(0));
}

/// The first gives false tokens and dies; the second is asked to continue them.
fn disputed(second: Script, audit_by: AuditBy) -> (World, End) {
    let mut world = World::new(Level::Receipt, &[Script::DiesAt(6), second, Script::Honest]);
    world.audit_by = audit_by;
    world.run_until(Millis(25));
    assert!((1..6).contains(&world.tokens.len()));
    let end = world.run().end.clone();
    (world, end)
}

#[test]
fn a_liar_cannot_talk_down_an_honest_beginning() {
    let (world, end) = disputed(Script::CheatsFrom(2), AuditBy::Here);
    assert_eq!(end, ANSWERED, "a third one continues");
    world.assert_answer();
    assert_eq!(world.evidence(), [(0, "dropped".into()), (1, "wrong-answer".into())]);
    assert!(world.is_barred(1) && !world.is_barred(0));
}

#[test]
fn a_dispute_that_nobody_can_settle_ends_the_answer() {
    let (world, end) = disputed(Script::CheatsFrom(2), AuditBy::Nobody);
    let End::Failed { reason: Reason::Disputed { at, .. }, blame } = end else { panic!("{end:?}") };
    assert_eq!((at, blame), (2, Blame::Unknown));
    assert!(!world.is_barred(0) && !world.is_barred(1));
}

#[test]
fn a_false_beginning_is_found_by_whoever_continues() {
    let mut world = World::new(Level::Receipt, &[Script::CheatsFrom(3), Script::Honest]);
    // It lies from token 3 on; then its connection breaks.
    world.serve_until(8);
    let liar = world.providers[0].peer();
    world.tell(In::Closed(LaneId(0), Closed::Gone("connection lost".into())));
    let outcome = world.run().clone();
    assert_eq!(refused(&outcome.end), (Fault::FalsePrefix, Blame::Provider(liar)));
    assert!(world.is_barred(0) && !world.is_barred(1));
}

#[test]
fn one_auditor_s_word_refuses_a_beginning_and_bars_nobody() {
    let mut world = World::new(Level::Receipt, &[Script::CheatsFrom(3), Script::Honest]);
    world.audit_by = AuditBy::Another;
    world.serve_until(8);
    let first = world.providers[0].peer();
    world.tell(In::Closed(LaneId(0), Closed::Gone("connection lost".into())));
    let outcome = world.run().clone();
    assert_eq!(refused(&outcome.end), (Fault::FalsePrefix, Blame::Provider(first)));
    let code = |fault: Fault| fault.code().to_owned();
    assert_eq!(world.evidence(), [(0, code(Fault::Dropped)), (0, code(Fault::Minority))]);
    assert!(!world.is_barred(0) && !world.is_barred(1));
}

#[test]
fn whoever_continues_a_false_beginning_is_barred_with_its_author() {
    let liar = Script::CheatsFrom(3);
    let mut world = World::new(Level::Receipt, &[liar, liar, Script::Honest]);
    for (lane, tokens) in [(0, 6), (1, 9)] {
        world.serve_until(tokens);
        let gone = Closed::Gone("connection lost".into());
        world.tell(In::Closed(LaneId(lane), gone));
    }
    let first = world.providers[0].peer();
    let outcome = world.run().clone();
    assert_eq!(outcome.served_by.len(), 2);
    assert_eq!(refused(&outcome.end), (Fault::FalsePrefix, Blame::Provider(first)));
    assert!(world.is_barred(0) && world.is_barred(1) && !world.is_barred(2));
}

#[test]
fn padding_is_found_by_whoever_continues() {
    for ends_at in [1, 3, 5] {
        let scripts = [Script::Pads, Script::Honest];
        for (audit_by, expected) in [(AuditBy::Here, true), (AuditBy::Nobody, false)] {
            let mut world = World::ending(Level::Receipt, &scripts, ends_at);
            world.audit_by = audit_by;
            world.serve_until(6);
            world.tell(In::Closed(LaneId(0), Closed::Gone("connection lost".into())));
            let first = world.providers[0].peer();
            let outcome = world.run().clone();
            if expected {
                assert_eq!(refused(&outcome.end), (Fault::FalsePrefix, Blame::Provider(first)));
            } else {
                let End::Failed { reason: Reason::Disputed { at, .. }, blame } = outcome.end else {
                    panic!("{:?}", outcome.end)
                };
                assert_eq!((at, blame), (ends_at as usize, Blame::Unknown));
            }
            assert_eq!(world.is_barred(0), expected);
            assert!(!world.is_barred(1), "who tells the truth is not punished");
        }
    }
}

#[test]
fn a_receipt_of_somebody_else_or_of_another_job_is_held_against_who_shows_it() {
    for script in [Script::OthersReceipt, Script::OtherOffer] {
        let mut world = World::new(Level::Full, &[script]);
        world.answer_checks = false;
        let shows_it = world.providers[0].peer();
        let outcome = world.run().clone();
        assert_eq!(
            refused(&outcome.end),
            (Fault::Bindings, Blame::Provider(shows_it)),
            "{script:?}"
        );
        assert_eq!(world.evidence(), [(0, "bindings".into())]);
    }
}

#[test]
fn own_checks_that_do_not_come_back_are_our_own_fault() {
    let mut world = World::new(Level::Receipt, &[Script::Honest]);
    world.answer_checks = false;
    let outcome = world.run().clone();
    let reason = Reason::CheckUnfinished { what: "receipt" };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Router });
    assert_eq!(world.evidence(), []);
}

#[test]
fn one_auditors_word_bars_nobody() {
    let mut world = World::new(Level::Full, &[Script::CheatsFrom(3), Script::Honest]);
    world.audit_by = AuditBy::OneStranger;
    let outcome = world.run().clone();
    assert_eq!(refused(&outcome.end), (Fault::Accused, Blame::Unknown), "it is not used either");
    assert_eq!(world.evidence(), [(0, "accused".into())]);
    assert!(!world.is_barred(0));
    let kept = world.kept.iter().any(|kept| {
        matches!(kept, Evidence::WrongAnswer(wrong)
        if wrong.verdicts.len() == 1)
    });
    assert!(kept, "whoever holds the model can check it: {:?}", world.kept);
    // A liar can spoil an answer it is asked about, and no record.
    let mut world = World::new(Level::Full, &[Script::Honest]);
    world.audit_by = AuditBy::OneLiar;
    let outcome = world.run().clone();
    assert_eq!(refused(&outcome.end), (Fault::Accused, Blame::Unknown));
    assert!(!world.is_barred(0));
    assert!(world.reputation().standing(&world.providers[0].peer(), 1_000).score > 400);
}

#[test]
fn an_accepted_answer_says_who_recomputed_it_and_where_it_came_from() {
    let mut world = World::new(Level::Full, &[Script::Honest]);
    world.audit_by = AuditBy::OneStranger;
    world.run();
    let accepted = world.records.iter().find_map(|body| match body {
        LogBody::Accepted(accepted) => Some(accepted),
        _ => None,
    });
    let accepted = accepted.expect("an accepted answer");
    assert_eq!(accepted.group, NetworkGroup::Local);
    assert_eq!(accepted.auditor.map(|by| by.auditor), Some(auditor_key().public()));
}
