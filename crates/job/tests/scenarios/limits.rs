//! One push past each limit. Those of private parts are tested beside them:
//! `MAX_CANDIDATES` and `MAX_ATTEMPTS_PER_PROVIDER` in `roster`,
//! `MAX_REMEMBERED_OFFERS` in `seen`, `MAX_FINISHED_*` in `finished`,
//! `MAX_RATED_PEERS` in `rate`, `MAX_RECORDS` and `MAX_BARRED` in `reputation`.

use peerproof_identity::Keypair;
use peerproof_job::auditor;
use peerproof_job::limits::*;
use peerproof_job::provider::{Config, Desk, In, Out, StreamId};
use peerproof_job::router::{self, LaneId, Options};
use peerproof_job::{Entropy, Millis};
use peerproof_wire::{
    Accepted, Commitment, Digest, Failure, FailureCode, Level, Progress, ProviderFrame, Tokens,
};

use crate::audit;
use crate::model::{MODEL, NONCE, offer};
use crate::world::{Script, World};

/// A job whose first lane has accepted.
fn running(max_tokens: u32) -> (router::Job, LaneId) {
    running_with(7, max_tokens)
}

fn running_with(prompt_tokens: u32, max_tokens: u32) -> (router::Job, LaneId) {
    let offer = offer(&Keypair::from_seed(&[1; 32]), Level::Receipt, max_tokens);
    let accepted = Accepted { offer_id: offer.id(), prompt_tokens, queue_position: 0 };
    let (mut job, _) =
        router::Job::start(offer, NONCE, Options::default(), Entropy::new([0; 32]), Millis(0));
    let lane = LaneId(0);
    let candidates = World::new(Level::Receipt, &[Script::Honest]).candidates();
    job.handle(Millis(0), router::In::Candidates(candidates));
    job.handle(Millis(0), router::In::Opened(lane));
    job.handle(Millis(0), router::In::Frame(lane, ProviderFrame::Accepted(accepted)));
    (job, lane)
}

fn closes(outs: &[router::Out]) -> bool {
    outs.iter().any(|out| matches!(out, router::Out::CloseStream(_)))
}

fn frame(start: u32, tokens: usize, text: usize) -> ProviderFrame {
    let tokens =
        Tokens { start, tokens: vec![1; tokens], text: "x".repeat(text), ..Tokens::default() };
    ProviderFrame::Tokens(tokens)
}

#[test]
fn lanes_and_attempts_are_bounded() {
    let options = Options { n: 100, k: 100, max_attempts: u32::MAX, ..Options::default() };
    let scripts = [Script::Honest; 30];
    let mut world = World::with(Level::KOfN, &scripts, 4, options);
    let outcome = world.run().clone();
    assert_eq!(world.reputation().len(), MAX_LANES);
    assert_eq!(outcome.trail.len(), 0);

    let options = Options { max_attempts: u32::MAX, ..Options::default() };
    let mut world = World::with(Level::Receipt, &[Script::Unreachable; 30], 4, options);
    assert_eq!(world.run().trail.len(), MAX_ATTEMPTS as usize);
}

#[test]
fn racers_are_bounded() {
    let scripts = [Script::Mute, Script::Mute, Script::Honest];
    let mut world = World::new(Level::Receipt, &scripts);
    world.run_until(Millis(5_000));
    let asked: u32 = world.providers.iter().map(|provider| provider.ran).sum();
    assert_eq!(asked as usize, MAX_RACERS, "the third waits until one is given up");
    world.run();
}

#[test]
fn more_tokens_than_asked_for_end_a_stream() {
    let (mut job, lane) = running(3);
    assert!(!closes(&job.handle(Millis(1), router::In::Frame(lane, frame(0, 3, 0)))));
    assert!(closes(&job.handle(Millis(1), router::In::Frame(lane, frame(3, 1, 0)))));
}

#[test]
fn text_is_bounded_by_tokens() {
    for (bytes, ends) in
        [(2 * MAX_TEXT_BYTES_PER_TOKEN, false), (2 * MAX_TEXT_BYTES_PER_TOKEN + 1, true)]
    {
        let (mut job, lane) = running(3);
        let outs = job.handle(Millis(1), router::In::Frame(lane, frame(0, 1, bytes)));
        assert_eq!(closes(&outs), ends, "{bytes} bytes");
    }
}

#[test]
fn commitments_grow_and_cover_no_more_than_there_is() {
    let commit = |start, leaves| {
        let root = Digest::from_bytes([1; 32]);
        let commitment = Some(Commitment { leaves, root });
        let tokens = Tokens { start, tokens: vec![1], commitment, ..Tokens::default() };
        router::In::Frame(LaneId(0), ProviderFrame::Tokens(tokens))
    };
    let (mut job, _) = running(3);
    assert!(closes(&job.handle(Millis(1), commit(0, 9))), "7 of the prompt, 1 of the answer");
    for (leaves, ends) in [(7, true), (8, true), (9, false)] {
        let (mut job, _) = running(3);
        assert!(!closes(&job.handle(Millis(1), commit(0, 8))));
        assert_eq!(closes(&job.handle(Millis(1), commit(1, leaves))), ends, "{leaves} after 8");
    }
}

#[test]
fn a_frame_without_tokens_buys_no_time() {
    let (mut job, lane) = running(3);
    assert!(closes(&job.handle(Millis(1), router::In::Frame(lane, frame(0, 0, 1)))));
}

fn read(read: u32) -> router::In {
    router::In::Frame(LaneId(0), ProviderFrame::Progress(Progress { read }))
}

#[test]
fn progress_grows_and_ends_with_the_first_token() {
    for (second, ends) in [(2, true), (3, true), (8, true), (7, false)] {
        let (mut job, _) = running(3);
        let outs = job.handle(Millis(1), read(3));
        assert!(!closes(&outs));
        let told = |out: &router::Out| {
            matches!(out, router::Out::Notice(router::Notice::Reading { read: 3, of: 7 }))
        };
        assert!(outs.iter().any(told), "{outs:?}");
        assert_eq!(closes(&job.handle(Millis(1), read(second))), ends, "{second} after 3 of 7");
    }
    let (mut job, lane) = running(3);
    job.handle(Millis(1), router::In::Frame(lane, frame(0, 1, 0)));
    assert!(closes(&job.handle(Millis(1), read(3))), "an answer has begun");
}

#[test]
fn progress_is_life_if_it_is_not_too_slow() {
    let patience = Options::default().first_token_ms;
    let timer = |job: &mut router::Job, ms| closes(&job.handle(Millis(ms), router::In::Timer));

    let (mut job, _) = running_with(5_000, 3);
    assert!(timer(&mut job, patience), "silence");

    let (mut job, _) = running_with(5_000, 3);
    job.handle(Millis(patience - 1), read(1_000));
    assert!(!timer(&mut job, 2 * patience - 2), "the silence counts anew");
    assert!(timer(&mut job, 2 * patience - 1));

    // A token every two seconds.
    let (mut job, _) = running_with(5_000, 3);
    let left = (1..150_u64).find(|n| closes(&job.handle(Millis(n * 2_000), read(*n as u32))));
    let latest = left.expect("it is left before the whole limit") * 2_000;
    assert!(latest <= patience + latest / 2_000 * READ_FLOOR_MS + 2_000, "after {latest} ms");
}

#[test]
fn words_and_waits_of_peers_are_cut() {
    let (mut job, lane) = running(3);
    let mut failure = Failure::new(FailureCode::Busy, "x".repeat(500));
    failure.retry_after_ms = u64::MAX;
    job.handle(Millis(1), router::In::Frame(lane, ProviderFrame::Failure(failure)));
    job.handle(Millis(1), router::In::SearchOver);
    assert_eq!(job.timer(), Some(Millis(1 + MAX_RETRY_AFTER_MS)));
    let outs = job.handle(Millis(2), router::In::CancelledByUser);
    let Some(router::Out::Finish(outcome)) = outs.last() else { panic!("{outs:?}") };
    assert_eq!(outcome.trail[0].why.len(), MAX_REASON_BYTES);
}

fn open(desk: &mut Desk, stream: u64, seed: u8) -> Vec<Out> {
    let peer = Keypair::from_seed(&[seed; 32]).public().peer_id();
    desk.handle(Millis(0), In::Opened { stream: StreamId(stream), peer })
}

#[test]
fn streams_are_bounded() {
    let mut desk = Desk::new(Config::default(), vec![]);
    let streams = (0..MAX_STREAMS_PER_PEER as u64).chain([9_999]);
    let refused: Vec<u64> = streams
        .filter(|stream| open(&mut desk, *stream, 1).iter().any(|out| matches!(out, Out::Close(_))))
        .collect();
    assert_eq!(refused, [9_999], "one peer");
    let mut next = MAX_STREAMS_PER_PEER as u64;
    for seed in 2..=40 {
        for _ in 0..MAX_STREAMS_PER_PEER {
            open(&mut desk, next, seed);
            next += 1;
        }
    }
    assert_eq!(desk.streams(), MAX_STREAMS, "all peers");
}

#[test]
fn audits_that_wait_are_bounded() {
    let mut bench = audit::bench();
    // One runs, the queue is full, the next is refused; another peer's stream each time.
    for number in 0..=MAX_QUEUED_AUDITS as u64 {
        audit::ask(&mut bench, number, number as u8, audit::case(number + 1));
    }
    assert_eq!(bench.audits(), MAX_QUEUED_AUDITS + 1);
    let outs = audit::ask(&mut bench, 1_000, 250, audit::case(1_000));
    assert_eq!(audit::failure(&outs).0, "the queue is full");
    bench.handle(Millis(0), auditor::In::Closed(StreamId(5)));
    audit::ask(&mut bench, 1_001, 250, audit::case(1_001));
    assert_eq!(bench.audits(), MAX_QUEUED_AUDITS + 1, "a place that was left is free");
}

#[test]
fn waiters_of_one_audit_are_bounded() {
    let mut bench = audit::bench();
    for stream in 0..MAX_WAITERS_PER_AUDIT as u64 {
        audit::ask(&mut bench, stream, 7, audit::case(1));
    }
    let outs = audit::ask(&mut bench, 1_000, 7, audit::case(1));
    assert_eq!(audit::failure(&outs).0, "too many wait for this verdict");
}

#[test]
fn cached_verdicts_are_bounded() {
    let mut bench = auditor::Bench::new(audit::generous(u32::MAX), vec![MODEL]);
    let total = MAX_CACHED_VERDICTS as u64 + 1;
    for number in 1..=total {
        let id = audit::started(&audit::ask(&mut bench, number, 7, audit::case(number))).unwrap();
        let verdict = audit::verdict(&audit::case(number));
        bench.handle(Millis(0), auditor::In::Done(id, Ok(verdict)));
    }
    let again = audit::started(&audit::ask(&mut bench, total + 1, 7, audit::case(1)));
    assert!(again.is_some(), "the oldest is forgotten");
    let kept = audit::started(&audit::ask(&mut bench, total + 2, 7, audit::case(total)));
    assert!(kept.is_none(), "the newest is not");
}
