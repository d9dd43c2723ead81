//! The auditor's bench by itself.

use peerproof_identity::{Keypair, PeerId};
use peerproof_job::Millis;
use peerproof_job::auditor::{Allowance, Bench, CaseId, Config, In, Out, StreamId};
use peerproof_wire::{
    AuditReply, Case, Digest, DrawRequest, Level, ModelId, NetworkGroup, Outcome, Receipt, Signed,
    Stop, Verdict, VrfDraw,
};

use crate::model::{MODEL, offer};

pub(crate) fn case(number: u64) -> Box<Case> {
    let offer = offer(&Keypair::from_seed(&[1; 32]), Level::Full, 10);
    let receipt = Receipt {
        offer_id: offer.id(),
        model_id: MODEL,
        number,
        previous: (number > 1).then_some(Digest::from_bytes([1; 32])),
        prompt_tokens: 3,
        output_tokens: 2,
        stop: Stop::Length,
        output_hash: Digest::from_bytes([1; 32]),
        text_hash: Digest::from_bytes([1; 32]),
        kv_root: Digest::from_bytes([9; 32]),
        class: peerproof_wire::Class::Exact,
        transcript_root: Digest::from_bytes([1; 32]),
        leaves: 5,
        issued_unix_ms: 1,
    };
    let receipt = Signed::sign(&Keypair::from_seed(&[2; 32]), receipt).unwrap();
    Box::new(Case { offer, receipt, tokens: vec![1, 2] })
}

pub(crate) fn verdict(case: &Case) -> Signed<Verdict> {
    let verdict = Verdict {
        receipt_id: case.receipt.id(),
        offer_id: case.offer.id(),
        model_id: MODEL,
        provider: case.receipt.key(),
        outcome: Outcome::Pass,
        work: Digest::from_bytes([4; 32]),
        draw: None,
        issued_unix_ms: 1,
    };
    Signed::sign(&Keypair::from_seed(&[3; 32]), verdict).unwrap()
}

/// So many audits at once for everybody.
pub(crate) fn generous(burst: u32) -> Config {
    let allowance = Allowance { burst, refill_ms: 500 };
    Config { stranger: allowance, known: allowance, ..Config::default() }
}

pub(crate) fn bench() -> Bench {
    Bench::new(generous(1_000), vec![MODEL])
}

pub(crate) fn ask(bench: &mut Bench, stream: u64, peer: u8, case: Box<Case>) -> Vec<Out> {
    let peer = Keypair::from_seed(&[peer; 32]).public().peer_id();
    ask_from(bench, stream, peer, NetworkGroup::Local, In::Requested(StreamId(stream), case))
}

fn ask_from(
    bench: &mut Bench,
    stream: u64,
    peer: PeerId,
    group: NetworkGroup,
    question: In,
) -> Vec<Out> {
    bench.handle(Millis(0), In::Opened { stream: StreamId(stream), peer, group });
    bench.handle(Millis(0), question)
}

pub(crate) fn started(outs: &[Out]) -> Option<CaseId> {
    outs.iter().find_map(|out| if let Out::RunAudit { id, .. } = out { Some(*id) } else { None })
}

pub(crate) fn failure(outs: &[Out]) -> (&str, u64) {
    let [Out::Reply(_, AuditReply::Failure(failure)), Out::Close(_), ..] = outs else {
        panic!("expected a failure and the end, got {outs:?}");
    };
    (&failure.message, failure.retry_after_ms)
}

#[test]
fn a_request_gets_its_verdict_and_a_second_one_the_same() {
    let mut bench = bench();
    let id = started(&ask(&mut bench, 1, 7, case(1))).unwrap();
    assert_eq!(
        started(&ask(&mut bench, 2, 8, case(1))),
        None,
        "the same question waits for the same answer"
    );
    let verdict = verdict(&case(1));
    let outs = bench.handle(Millis(5), In::Done(id, Ok(verdict.clone())));
    let replies: Vec<_> =
        outs.iter().filter(|out| matches!(out, Out::Reply(_, AuditReply::Verdict(_)))).collect();
    assert_eq!(replies.len(), 2);
    let outs = ask(&mut bench, 3, 9, case(1));
    assert!(
        matches!(&outs[0], Out::Reply(_, AuditReply::Verdict(again)) if *again == verdict),
        "{outs:?}"
    );
    assert_eq!(bench.audits(), 0);
    assert_eq!(bench.timer(), None);
}

#[test]
fn other_tokens_are_another_question() {
    let mut bench = bench();
    let mut false_case = case(1);
    false_case.tokens = vec![1, 3];
    let false_id = started(&ask(&mut bench, 1, 7, false_case)).unwrap();
    let outs =
        bench.handle(Millis(1), In::Done(false_id, Err("tokens do not fit the receipt".into())));
    assert_eq!(failure(&outs).0, "tokens do not fit the receipt");
    let id = started(&ask(&mut bench, 2, 8, case(1))).unwrap();
    assert_ne!(id, false_id, "a false case says nothing about the true one");
}

#[test]
fn a_failure_is_not_kept() {
    let mut bench = bench();
    let id = started(&ask(&mut bench, 1, 7, case(1))).unwrap();
    bench.handle(Millis(1), In::Done(id, Err("out of memory".into())));
    assert!(started(&ask(&mut bench, 2, 7, case(1))).is_some());
}

#[test]
fn models_that_are_not_held_are_refused() {
    let mut bench = Bench::new(Config::default(), vec![ModelId::from_bytes([0; 32])]);
    let outs = ask(&mut bench, 1, 7, case(1));
    assert!(failure(&outs).0.contains("not held"));
}

#[test]
fn each_peer_has_its_rate() {
    let mut bench = Bench::new(generous(2), vec![MODEL]);
    for stream in 1..3 {
        ask(&mut bench, stream, 7, case(stream));
    }
    let outs = ask(&mut bench, 3, 7, case(3));
    assert_eq!(failure(&outs), ("too many audits asked for", 500));
    assert_eq!(bench.audits(), 2);
    ask(&mut bench, 4, 8, case(4));
    assert_eq!(bench.audits(), 3);
}

#[test]
fn an_audit_that_nobody_waits_for_is_dropped() {
    let mut bench = bench();
    let id = started(&ask(&mut bench, 1, 7, case(1))).unwrap();
    ask(&mut bench, 2, 8, case(1));
    ask(&mut bench, 3, 8, case(3));
    assert!(bench.handle(Millis(1), In::Closed(StreamId(1))).is_empty(), "another still waits");
    let outs = bench.handle(Millis(1), In::Closed(StreamId(2)));
    assert!(matches!(outs[0], Out::StopAudit(stopped) if stopped == id));
    assert!(started(&outs).is_some(), "the next one starts");
    bench.handle(Millis(1), In::Closed(StreamId(3)));
    assert_eq!((bench.audits(), bench.timer()), (0, None));
}

#[test]
fn nobody_waits_for_ever() {
    let mut bench = bench();
    ask(&mut bench, 1, 7, case(1));
    let at = bench.timer().unwrap();
    let outs = bench.handle(at, In::Timer);
    assert_eq!(failure(&outs[1..]).0, "out of time");
    assert_eq!(bench.audits(), 0);
}

#[test]
fn one_request_a_stream() {
    let mut bench = bench();
    ask(&mut bench, 1, 7, case(1));
    let outs = bench.handle(Millis(0), In::Requested(StreamId(1), case(2)));
    assert_eq!(bench.audits(), 0, "{outs:?}");
}

#[test]
fn many_keys_of_one_place_get_what_one_place_gets() {
    let mut bench = Bench::new(Config::default(), vec![MODEL]);
    let city = NetworkGroup::V4([203, 0]);
    let limit = u64::from(Config::default().group.burst);
    let mut taken = 0;
    for stream in 0..2 * limit {
        let mut seed = [5; 32];
        seed[..8].copy_from_slice(&stream.to_le_bytes());
        let peer = Keypair::from_seed(&seed).public().peer_id();
        let question = In::Requested(StreamId(stream), case(1));
        let outs = ask_from(&mut bench, stream, peer, city, question);
        bench.handle(Millis(0), In::Closed(StreamId(stream)));
        let refused = outs.iter().any(|out| matches!(out, Out::Reply(_, AuditReply::Failure(_))));
        taken += u64::from(!refused);
    }
    assert_eq!(taken, limit);
    let other = Keypair::from_seed(&[6; 32]).public().peer_id();
    let question = In::Requested(StreamId(9_999), case(1));
    let outs = ask_from(&mut bench, 9_999, other, NetworkGroup::V4([9, 9]), question);
    assert!(started(&outs).is_some(), "another place is not touched");
}

#[test]
fn a_draw_is_answered_without_a_case_and_has_its_own_rate() {
    let mut bench = Bench::new(Config::default(), vec![MODEL]);
    let zero = Digest::from_bytes([0; 32]);
    let request = DrawRequest { transcript_root: zero, offer_id: zero };
    let peer = Keypair::from_seed(&[7; 32]).public().peer_id();
    let vrf = Keypair::from_seed(&[8; 32]).vrf();
    let (_, proof) = vrf.prove(b"anything").unwrap();
    let draw = VrfDraw { key: vrf.public(), proof };
    for stream in 0..u64::from(Config::default().draws.burst) {
        let question = In::DrawRequested(StreamId(stream), request);
        let outs = ask_from(&mut bench, stream, peer, NetworkGroup::Local, question);
        assert!(matches!(outs[..], [Out::Draw(_, asked), ..] if asked == request), "{outs:?}");
        let outs = bench.handle(Millis(0), In::Drawn(StreamId(stream), Ok(draw)));
        assert!(matches!(outs[0], Out::Reply(_, AuditReply::Draw(_))), "{outs:?}");
    }
    let question = In::DrawRequested(StreamId(999), request);
    let outs = ask_from(&mut bench, 999, peer, NetworkGroup::Local, question);
    assert_eq!(failure(&outs).0, "too many draws asked for");
    assert!(started(&ask(&mut bench, 1_000, 7, case(1))).is_some(), "audits are counted apart");
}
