//! Several providers, one answer.

use peerproof_job::Fault;
use peerproof_job::router::{Auditor, Blame, Checked, End, Options, Reason};
use peerproof_wire::{Evidence, Level, LogBody, Stop};

use crate::world::{AuditBy, Script, World};

const ANSWERED: End = End::Answered(Stop::Length);
const HONEST: Script = Script::Honest;

fn quorum(scripts: &[Script], audit_by: AuditBy) -> World {
    let options = Options { k: 2, n: 3, ..Options::default() };
    let mut world = World::with(Level::KOfN, scripts, 12, options);
    world.audit_by = audit_by;
    world
}

fn accepted(world: &World) -> usize {
    world.records.iter().filter(|body| matches!(body, LogBody::Accepted(_))).count()
}

#[test]
fn three_agree() {
    let mut world = quorum(&[HONEST; 3], AuditBy::Nobody);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.verification.done, Checked::Agreed { equal: 3, of: 3 });
    assert_eq!(accepted(&world), 3);
    world.assert_answer();
}

#[test]
fn the_odd_one_out_is_audited_and_barred() {
    for odd in 1..3 {
        let mut scripts = [HONEST; 3];
        scripts[odd] = Script::CheatsFrom(4);
        let mut world = quorum(&scripts, AuditBy::Here);
        // The honest first leads because it is nearest.
        (world.providers[1].latency_ms, world.providers[2].latency_ms) = (3, 3);
        let outcome = world.run().clone();
        assert_eq!(outcome.end, ANSWERED, "odd one {odd}");
        assert_eq!(outcome.verification.done, Checked::Agreed { equal: 2, of: 3 });
        assert_eq!(world.evidence(), [(odd, "wrong-answer".into())]);
        assert!(world.is_barred(odd));
        world.assert_answer();
    }
}

#[test]
fn the_odd_one_out_is_recorded_if_nobody_can_audit() {
    let mut world = quorum(&[HONEST, HONEST, Script::CheatsFrom(4)], AuditBy::Nobody);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(world.evidence(), [(2, Fault::Minority.code().into())]);
    assert!(!world.is_barred(2), "two liars could say the same");
    world.assert_answer();
}

#[test]
fn an_answer_led_by_the_odd_one_out_is_refused() {
    let mut world = quorum(&[Script::CheatsFrom(4), HONEST, HONEST], AuditBy::Nobody);
    (world.providers[1].latency_ms, world.providers[2].latency_ms) = (3, 3);
    let leader = world.providers[0].peer();
    let outcome = world.run().clone();
    let End::Failed { reason: Reason::Check { fault, .. }, blame } = outcome.end else {
        panic!("{:?}", outcome.end)
    };
    assert_eq!((fault, blame), (Fault::FalsePrefix, Blame::Provider(leader)));
}

#[test]
fn a_recomputation_outranks_a_majority_of_liars() {
    let liar = Script::CheatsFrom(0);
    let mut world = quorum(&[HONEST, liar, liar], AuditBy::Here);
    (world.providers[1].latency_ms, world.providers[2].latency_ms) = (3, 3);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.verification.done, Checked::Audited { by: Auditor::Local });
    assert!(world.is_barred(1) && world.is_barred(2) && !world.is_barred(0));
    world.assert_answer();
}

#[test]
fn without_agreement_everybody_is_audited() {
    let scripts = [HONEST, Script::CheatsFrom(2), Script::CheatsFrom(5)];
    let mut world = quorum(&scripts, AuditBy::Nobody);
    let outcome = world.run().clone();
    let reason = Reason::NoAgreement { equal: 1, answered: 3, needed: 2 };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Unknown });
    assert_eq!(world.audits.len(), 3);

    let mut world = quorum(&scripts, AuditBy::Here);
    (world.providers[1].latency_ms, world.providers[2].latency_ms) = (3, 3);
    assert_eq!(world.run().end, ANSWERED);
    assert!(world.is_barred(1) && world.is_barred(2));
    world.assert_answer();
}

#[test]
fn who_drops_out_is_replaced_and_another_leads_on() {
    for at in 0..12 {
        let scripts = [Script::DiesAt(at), HONEST, HONEST, HONEST];
        let mut world = quorum(&scripts, AuditBy::Nobody);
        let outcome = world.run().clone();
        assert_eq!(outcome.end, ANSWERED, "died at {at}");
        assert_eq!(outcome.verification.done, Checked::Agreed { equal: 3, of: 3 });
        world.assert_answer();
    }
}

#[test]
fn k_are_enough_after_the_grace() {
    let mut world = quorum(&[HONEST, HONEST, Script::StallsAt(3)], AuditBy::Nobody);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.verification.done, Checked::Agreed { equal: 2, of: 2 });
    assert!(outcome.total_ms < 3_000, "{}", outcome.total_ms);
}

#[test]
fn too_few_cannot_agree() {
    let mut world = quorum(&[HONEST], AuditBy::Nobody);
    let outcome = world.run().clone();
    let reason = Reason::NoAgreement { equal: 0, answered: 0, needed: 2 };
    assert_eq!(outcome.end, End::Failed { reason, blame: Blame::Unknown });

    let outcome = quorum(&[], AuditBy::Nobody).run().clone();
    assert_eq!(
        outcome.end,
        End::Failed { reason: Reason::NoProvider, blame: Blame::Circumstances }
    );
}

#[test]
fn a_false_receipt_does_not_count() {
    let mut world = quorum(&[HONEST, Script::FalseText, HONEST], AuditBy::Nobody);
    let outcome = world.run().clone();
    assert_eq!(outcome.end, ANSWERED);
    assert_eq!(outcome.verification.done, Checked::Agreed { equal: 2, of: 2 });
    assert_eq!(world.evidence(), [(1, "bindings".into())]);
    let with_case = world.records.iter().any(
        |body| matches!(body, LogBody::Evidence(Evidence::Observation(seen)) if seen.case.is_some()),
    );
    assert!(with_case, "the receipt that does not hold is kept");
    assert!(world.is_barred(1));
}

#[test]
fn text_that_only_the_leader_gave_is_refused() {
    let mut world = quorum(&[Script::FalseText, HONEST, HONEST, HONEST], AuditBy::Here);
    for provider in &mut world.providers[1..] {
        provider.latency_ms = 3;
    }
    let leader = world.providers[0].peer();
    let outcome = world.run().clone();
    let End::Failed { reason: Reason::Check { fault, .. }, blame } = outcome.end else {
        panic!("{:?}", outcome.end)
    };
    assert_eq!((fault, blame), (Fault::FalsePrefix, Blame::Provider(leader)));
    assert!(world.is_barred(0));
}

#[test]
fn a_false_beginning_is_recorded_also_if_its_author_is_gone() {
    let liar = Script::CheatsThenDies(4);
    let mut world = quorum(&[liar, HONEST, HONEST, HONEST], AuditBy::Nobody);
    for honest in 1..4 {
        world.providers[honest].latency_ms = 3;
    }
    let outcome = world.run().clone();
    assert!(matches!(outcome.end, End::Failed { blame: Blame::Provider(_), .. }));
    let code = |fault: Fault| fault.code().to_owned();
    assert_eq!(world.evidence(), [(0, code(Fault::Dropped)), (0, code(Fault::Minority))]);
    assert!(!world.is_barred(0), "equality is no proof");

    let others = Script::CheatsFrom(6);
    let mut world = quorum(&[liar, HONEST, others, others], AuditBy::Here);
    for later in 1..4 {
        world.providers[later].latency_ms = 3;
    }
    world.run();
    assert!(world.evidence().contains(&(0, code(Fault::FalsePrefix))), "{:?}", world.evidence());
    assert!(world.is_barred(0) && !world.is_barred(1));
}

#[test]
fn too_few_answers_refute_nothing() {
    for (scripts, done) in [
        ([Script::DiesAt(0); 2], Checked::Nothing),
        ([HONEST, Script::DiesAt(11)], Checked::Receipt),
    ] {
        let mut world = quorum(&scripts, AuditBy::Nobody);
        world.providers[1].step_ms = 20;
        let outcome = world.run().clone();
        let End::Failed { reason: Reason::NoAgreement { .. }, .. } = outcome.end else {
            panic!("{:?}", outcome.end)
        };
        assert_eq!(outcome.verification.done, done);
    }
}
