//! The provider's desk by itself: admission, queue, frames, receipts, challenges.

use peerproof_identity::{Keypair, PeerId};
use peerproof_job::Millis;
use peerproof_job::limits::MAX_RUNNING_CHALLENGES;
use peerproof_job::provider::{
    BookError, Config, Desk, Draft, Ended, In, Out, Served, Step, StreamId,
};
use peerproof_wire::{
    Challenge, Class, Commitment, Digest, Failure, FailureCode, Level, LogBody, LogEntry, LogProof,
    ModelId, Offer, Openings, ProviderFrame, Receipt, RouterFrame, Sampling, Signed, Stop, Tokens,
    WireError,
};
use proptest::prelude::*;

use crate::model::{MODEL, NONCE, offer};

const ENDED: Ended = Ended {
    tokens: 13,
    stop: Stop::EndOfText,
    output_hash: Digest::from_bytes([1; 32]),
    text_hash: Digest::from_bytes([2; 32]),
    kv_root: Digest::from_bytes([9; 32]),
    transcript_root: Digest::from_bytes([3; 32]),
    leaves: 20,
};

fn router(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

fn peer(seed: u8) -> PeerId {
    router(seed).public().peer_id()
}

fn varied(seed: u8, change: impl FnOnce(&mut Offer)) -> Signed<Offer> {
    let mut changed = offer(&router(seed), Level::Receipt, 50).statement().clone();
    change(&mut changed);
    Signed::sign(&router(seed), changed).unwrap()
}

/// The `number`-th of many offers that differ.
fn nth(seed: u8, number: u64) -> Signed<Offer> {
    varied(seed, |offer| offer.public_nonce[..8].copy_from_slice(&number.to_le_bytes()))
}

pub(crate) struct Bench {
    pub(crate) desk: Desk,
    key: Keypair,
    now: u64,
    entries: Vec<LogEntry>,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let desk = Desk::new(
            config,
            vec![Served { model_id: MODEL, context_length: 64, class: Class::Exact }],
        );
        Self { desk, key: router(99), now: 0, entries: vec![] }
    }

    fn tell(&mut self, event: In) -> Vec<Out> {
        self.now += 1;
        self.desk.handle(Millis(self.now), event)
    }

    fn ask(&mut self, stream: u64, offer: &Signed<Offer>, resume: &[u32]) -> Vec<Out> {
        let peer = offer.key().peer_id();
        self.tell(In::Opened { stream: StreamId(stream), peer });
        let frame = RouterFrame::Open { offer: offer.clone(), resume: resume.to_vec() };
        self.tell(In::Frame(StreamId(stream), frame))
    }

    /// Up to the engine's start.
    fn run(&mut self, stream: u64, offer: &Signed<Offer>) -> Vec<Out> {
        let outs = self.ask(stream, offer, &[]);
        assert!(matches!(outs[0], Out::Prepare { .. }), "{outs:?}");
        self.tell(In::Prepared(StreamId(stream), 7))
    }

    fn steps(&mut self, stream: u64, start: u32, tokens: &[u32]) -> Vec<Out> {
        let step = |token: &u32| Step {
            token: *token,
            text: format!("{token} "),
            commitment: None,
            logprobs: None,
        };
        let steps = tokens.iter().map(step).collect();
        self.tell(In::Steps { stream: StreamId(stream), start, steps })
    }

    /// Signs and logs what was issued.
    fn log(&mut self, stream: StreamId, draft: Draft) -> (Signed<Receipt>, Vec<Out>) {
        let receipt = Signed::sign(&self.key, draft.receipt(5)).unwrap();
        self.entries.push(LogEntry { unix_ms: 5, body: LogBody::Receipt(receipt.clone()) });
        let proof = LogProof { index: 0, checkpoint: "note\n".into(), path: vec![] };
        let outs = self.tell(In::Logged { stream, receipt: receipt.clone(), proof });
        (receipt, outs)
    }

    /// A whole job; gives back its receipt.
    fn finish(&mut self, stream: u64, offer: &Signed<Offer>) -> Signed<Receipt> {
        self.run(stream, offer);
        self.steps(stream, 0, &[1, 2, 3]);
        let mut outs = self.tell(In::Finished(StreamId(stream), ENDED));
        let Some(Out::Issue { stream, draft }) = outs.pop() else { panic!("{outs:?}") };
        let (receipt, outs) = self.log(stream, draft);
        assert!(matches!(&outs[0], Out::Send(_, ProviderFrame::Delivered(_))), "{outs:?}");
        receipt
    }

    fn challenge(
        &mut self,
        stream: u64,
        receipt: &Signed<Receipt>,
        change: impl FnOnce(&mut Challenge),
    ) -> Vec<Out> {
        let mut challenge = Challenge {
            receipt_id: receipt.id(),
            client_nonce: NONCE,
            positions: vec![],
            leaf_hashes: false,
        };
        change(&mut challenge);
        self.tell(In::Frame(StreamId(stream), RouterFrame::Challenge(challenge)))
    }
}

fn failure(outs: &[Out]) -> &Failure {
    let [Out::Send(_, ProviderFrame::Failure(failure)), Out::Close(_), ..] = outs else {
        panic!("expected a failure and the end of the stream, got {outs:?}");
    };
    failure
}

fn tokens(outs: &[Out]) -> Vec<&Tokens> {
    let sent = outs.iter().filter_map(|out| match out {
        Out::Send(_, ProviderFrame::Tokens(tokens)) => Some(tokens),
        _ => None,
    });
    sent.collect()
}

#[test]
fn offers_are_held_against_every_rule() {
    let mut bench = Bench::new(Config { max_deadline_ms: 10_000, ..Config::default() });
    let cases = [
        (
            varied(1, |offer| offer.model_id = ModelId::from_bytes([1; 32])),
            vec![],
            FailureCode::UnknownModel,
        ),
        (varied(1, |offer| offer.deadline_ms = 999), vec![], FailureCode::Deadline),
        (varied(1, |offer| offer.deadline_ms = 10_001), vec![], FailureCode::Deadline),
        (varied(1, |offer| offer.deadline_ms = 5_000), vec![0; 51], FailureCode::BadOffer),
        (varied(1, statistical), vec![], FailureCode::Unsupported),
    ];
    for (number, (offer, resume, code)) in (0..).zip(cases) {
        let outs = bench.ask(number, &offer, &resume);
        assert_eq!(failure(&outs).code, code, "case {number}");
        assert_eq!(bench.desk.streams(), 0);
    }
}

fn statistical(offer: &mut Offer) {
    offer.class = Class::Statistical;
    offer.sampling = Sampling { logprobs: Some(20), ..Sampling::GREEDY };
}

#[test]
fn a_class_is_served_alone_and_a_statistical_answer_is_not_continued() {
    let mut bench = Bench::new(Config::default());
    let class = Class::Statistical;
    bench.desk.serve(vec![Served { model_id: MODEL, context_length: 64, class }]);
    let outs = bench.ask(1, &nth(1, 0), &[]);
    let exact = failure(&outs);
    assert_eq!(exact.code, FailureCode::Unsupported);
    assert!(exact.message.contains("statistical class only"), "{}", exact.message);
    let outs = bench.ask(2, &varied(1, statistical), &[7]);
    assert_eq!(failure(&outs).code, FailureCode::Unsupported);
    let outs = bench.ask(3, &varied(1, statistical), &[]);
    assert!(matches!(outs.as_slice(), [Out::Prepare { .. }, ..]), "{outs:?}");
}

#[test]
fn an_offer_by_another_key_is_refused_first_of_all() {
    let mut bench = Bench::new(Config::default());
    let stream = StreamId(1);
    bench.tell(In::Opened { stream, peer: peer(2) });
    // Everything else is wrong with it too; the cheapest check speaks.
    let foreign = varied(1, |offer| {
        offer.model_id = ModelId::from_bytes([1; 32]);
        offer.deadline_ms = 1;
    });
    let outs = bench.tell(In::Frame(stream, RouterFrame::Open { offer: foreign, resume: vec![] }));
    assert_eq!(failure(&outs).code, FailureCode::BadOffer);
    assert!(failure(&outs).message.contains("not this connection's key"));
}

#[test]
fn unreadable_bytes_are_refused_with_the_reason() {
    for (error, code) in [
        (
            WireError::Version { place: "offer.protocol", expected: 1, got: 2 },
            FailureCode::Unsupported,
        ),
        (WireError::LengthPrefix, FailureCode::BadOffer),
    ] {
        let mut bench = Bench::new(Config::default());
        bench.tell(In::Opened { stream: StreamId(1), peer: peer(1) });
        let outs = bench.tell(In::Unreadable(StreamId(1), error));
        assert_eq!(failure(&outs).code, code);
    }
}

#[test]
fn an_offer_is_answered_once() {
    let mut bench = Bench::new(Config::default());
    let offer = nth(1, 0);
    bench.run(1, &offer);
    assert_eq!(failure(&bench.ask(2, &offer, &[])).code, FailureCode::Replayed, "while it runs");
    bench.tell(In::Frame(StreamId(1), RouterFrame::Cancel));
    bench.finish(3, &offer);
    assert_eq!(
        failure(&bench.ask(4, &offer, &[])).code,
        FailureCode::Replayed,
        "after the receipt"
    );

    let served = vec![Served { model_id: MODEL, context_length: 64, class: Class::Exact }];
    bench.desk = Desk::restore(Config::default(), served, &bench.entries).unwrap();
    assert_eq!(failure(&bench.ask(5, &offer, &[])).code, FailureCode::Replayed, "after a restart");
    let second = bench.finish(6, &nth(1, 1));
    assert_eq!(second.number, 2, "the chain goes on");
    let LogBody::Receipt(first) = &bench.entries[0].body else { panic!() };
    assert_eq!(second.previous, Some(first.id()));
}

#[test]
fn the_reading_of_a_prompt_is_reported_once_a_second_until_a_token_comes() {
    let mut bench = Bench::new(Config::default());
    bench.run(1, &nth(1, 0));
    let stream = StreamId(1);
    let mut told = |ms, event| {
        let outs = bench.desk.handle(Millis(ms), event);
        outs.iter().find_map(|out| match out {
            Out::Send(_, ProviderFrame::Progress(progress)) => Some(progress.read),
            _ => None,
        })
    };
    assert_eq!(told(500, In::Read(stream, 2)), None, "too soon");
    assert_eq!(told(1_100, In::Read(stream, 3)), Some(3));
    assert_eq!(told(1_500, In::Read(stream, 4)), None, "too soon");
    assert_eq!(told(2_200, In::Read(stream, 3)), None, "no news");
    assert_eq!(told(2_200, In::Read(stream, 5)), Some(5));
    let steps = vec![Step { token: 1, text: String::new(), commitment: None, logprobs: None }];
    told(3_000, In::Steps { stream, start: 0, steps });
    assert_eq!(told(9_000, In::Read(stream, 7)), None, "the answer has begun");
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    for (prompt_tokens, code) in [(0, FailureCode::EmptyPrompt), (64, FailureCode::ContextLength)] {
        let mut bench = Bench::new(Config::default());
        bench.ask(1, &nth(1, 0), &[]);
        let outs = bench.tell(In::Prepared(StreamId(1), prompt_tokens));
        assert_eq!(failure(&outs).code, code);
        assert!(
            matches!(bench.ask(2, &nth(1, 0), &[])[0], Out::Prepare { .. }),
            "not held against it"
        );
    }
}

#[test]
fn the_queue_is_bounded_and_in_order() {
    let mut bench = Bench::new(Config { max_running: 1, max_queued: 2, ..Config::default() });
    let outs = bench.run(1, &nth(1, 1));
    let [Out::Send(_, ProviderFrame::Accepted(accepted)), Out::Run { .. }, ..] = outs.as_slice()
    else {
        panic!("{outs:?}");
    };
    assert_eq!((accepted.prompt_tokens, accepted.queue_position), (7, 0));
    for stream in 2..4 {
        let outs = bench.run(stream, &nth(1, stream));
        let Out::Send(_, ProviderFrame::Accepted(accepted)) = &outs[0] else { panic!("{outs:?}") };
        assert_eq!(u64::from(accepted.queue_position), stream - 1);
    }
    assert_eq!((bench.desk.load().active, bench.desk.load().queued), (1, 2));
    let outs = bench.ask(4, &nth(1, 4), &[]);
    assert_eq!(failure(&outs).code, FailureCode::Busy);
    assert!(failure(&outs).retry_after_ms >= 100);

    bench.tell(In::Closed(StreamId(2)));
    let outs = bench.run(5, &nth(1, 5));
    let Out::Send(_, ProviderFrame::Accepted(accepted)) = &outs[0] else { panic!("{outs:?}") };
    assert_eq!(accepted.queue_position, 2, "who left is not counted");
    let outs = bench.tell(In::Closed(StreamId(1)));
    let next = outs
        .iter()
        .find_map(|out| if let Out::Run { stream, .. } = out { Some(*stream) } else { None });
    assert_eq!(next, Some(StreamId(3)));
}

#[test]
fn one_peer_cannot_take_all_places() {
    let mut bench = Bench::new(Config { max_per_peer: 2, ..Config::default() });
    bench.run(1, &nth(1, 1));
    bench.run(2, &nth(1, 2));
    assert_eq!(failure(&bench.ask(3, &nth(1, 3), &[])).code, FailureCode::Busy);
    bench.run(4, &nth(2, 4));
}

#[test]
fn tokens_go_out_at_once_and_together_when_the_reader_is_slow() {
    let mut bench = Bench::new(Config::default());
    bench.run(1, &nth(1, 1));
    // Accepted is on its way; three more frames may be.
    for index in 0..3 {
        let outs = bench.steps(1, index, &[index]);
        assert_eq!(tokens(&outs).len(), 1, "token {index}");
    }
    for index in 3..9 {
        assert_eq!(tokens(&bench.steps(1, index, &[index])).len(), 0, "token {index}");
    }
    let root = Digest::from_bytes([9; 32]);
    for leaves in [16, 17] {
        let commitment = Some(Commitment { leaves, root });
        let step = Step { token: leaves, text: String::new(), commitment, logprobs: None };
        bench.tell(In::Steps { stream: StreamId(1), start: leaves - 7, steps: vec![step] });
    }
    let outs = bench.tell(In::Sent(StreamId(1)));
    let [frame] = tokens(&outs)[..] else { panic!("{outs:?}") };
    assert_eq!((frame.start, &frame.tokens[..]), (3, &[3, 4, 5, 6, 7, 8, 16, 17][..]));
    assert_eq!(frame.text, "3 4 5 6 7 8 ");
    assert_eq!(frame.commitment.unwrap().leaves, 17, "the later one covers the earlier");
}

#[test]
fn steps_that_are_ready_together_are_cut_at_the_frame_limit() {
    let mut bench = Bench::new(Config::default());
    let long = varied(1, |offer| offer.max_tokens = 3_000);
    bench.run(1, &long);
    let outs = bench.steps(1, 0, &[5; 2_100]);
    let lengths: Vec<usize> = tokens(&outs).iter().map(|frame| frame.tokens.len()).collect();
    assert_eq!(lengths, [1024, 1024, 52]);
}

#[test]
fn an_engine_that_miscounts_ends_its_job() {
    for (start, count) in [(1, 1), (0, 51)] {
        let mut bench = Bench::new(Config::default());
        bench.run(1, &nth(1, 1));
        let outs = bench.steps(1, start, &vec![1; count]);
        assert!(matches!(outs[0], Out::Stop(_)));
        assert_eq!(failure(&outs[1..]).code, FailureCode::Internal);
    }
}

#[test]
fn a_resumed_answer_starts_where_the_model_departs() {
    for (start, kept) in [(3, vec![1, 2, 3, 8]), (1, vec![1, 8])] {
        let mut bench = Bench::new(Config::default());
        let outs = bench.ask(1, &nth(1, 1), &[1, 2, 3]);
        assert!(matches!(outs[0], Out::Prepare { .. }));
        let outs = bench.tell(In::Prepared(StreamId(1), 7));
        assert!(matches!(&outs[1], Out::Run { resume, .. } if resume == &[1, 2, 3]));
        let outs = bench.steps(1, start, &[8]);
        assert_eq!(tokens(&outs)[0].start, start);
        let mut outs = bench.tell(In::Finished(StreamId(1), ENDED));
        let Some(Out::Issue { draft, stream }) = outs.pop() else { panic!("{outs:?}") };
        let (receipt, _) = bench.log(stream, draft);
        assert_eq!(receipt.output_tokens as usize, kept.len());
        let outs = bench.challenge(1, &receipt, |_| {});
        assert!(matches!(&outs[0], Out::OpenLeaves { question, .. } if question.tokens == kept));
    }
}

#[test]
fn a_resumed_answer_may_end_inside_its_beginning() {
    let mut bench = Bench::new(Config::default());
    bench.ask(1, &nth(1, 1), &[1, 2, 3]);
    bench.tell(In::Prepared(StreamId(1), 7));
    let mut outs = bench.tell(In::Finished(StreamId(1), Ended { tokens: 2, leaves: 9, ..ENDED }));
    let Some(Out::Issue { draft, stream }) = outs.pop() else { panic!("{outs:?}") };
    let (receipt, _) = bench.log(stream, draft);
    assert_eq!((receipt.output_tokens, receipt.leaves), (2, 9));
}

#[test]
fn receipts_are_one_chain_written_one_at_a_time() {
    let mut bench = Bench::new(Config::default());
    for stream in 1..4 {
        bench.run(stream, &nth(1, stream));
        bench.steps(stream, 0, &[1]);
    }
    let mut drafts = vec![];
    for stream in [2, 1, 3] {
        drafts.extend(bench.tell(In::Finished(StreamId(stream), ENDED)));
    }
    let issued = |outs: &[Out]| outs.iter().filter(|out| matches!(out, Out::Issue { .. })).count();
    assert_eq!(issued(&drafts), 1, "the others wait");
    let mut previous = None;
    for (number, wanted) in (1..).zip([2, 1, 3]) {
        let at = drafts.iter().position(|out| matches!(out, Out::Issue { .. })).unwrap();
        let Out::Issue { stream, draft } = drafts.remove(at) else { panic!() };
        assert_eq!(stream, StreamId(wanted));
        let (receipt, outs) = bench.log(stream, draft);
        assert_eq!((receipt.number, receipt.previous), (number, previous));
        previous = Some(receipt.id());
        drafts = outs;
    }
    assert_eq!(issued(&drafts), 0);
}

#[test]
fn a_stream_that_ends_while_its_receipt_is_written_leaves_no_gap() {
    let mut bench = Bench::new(Config::default());
    bench.run(1, &nth(1, 1));
    bench.steps(1, 0, &[1]);
    let mut outs = bench.tell(In::Finished(StreamId(1), ENDED));
    let Some(Out::Issue { stream, draft }) = outs.pop() else { panic!("{outs:?}") };
    bench.tell(In::Closed(StreamId(1)));
    let (first, outs) = bench.log(stream, draft);
    assert!(!outs.iter().any(|out| matches!(out, Out::Send(..))), "nobody is there");
    assert_eq!(failure(&bench.ask(2, &nth(1, 1), &[])).code, FailureCode::Replayed);
    let second = bench.finish(3, &nth(1, 3));
    assert_eq!((second.number, second.previous), (2, Some(first.id())));
}

#[test]
fn a_log_that_fails_ends_all_business() {
    let mut bench = Bench::new(Config::default());
    bench.run(1, &nth(1, 1));
    bench.run(2, &nth(1, 2));
    bench.steps(1, 0, &[1]);
    bench.tell(In::Finished(StreamId(1), ENDED));
    let outs = bench.tell(In::LogFailed { stream: StreamId(1), why: "disk full".into() });
    let refused = |out: &&Out| matches!(out, Out::Send(_, ProviderFrame::Failure(_)));
    assert_eq!(outs.iter().filter(refused).count(), 2, "{outs:?}");
    let outs = bench.ask(3, &nth(1, 3), &[]);
    assert_eq!(failure(&outs).code, FailureCode::Internal);
    assert!(failure(&outs).message.contains("disk full"));
    assert_eq!(bench.desk.streams(), 0);
}

#[test]
fn a_broken_chain_is_not_continued() {
    let mut bench = Bench::new(Config::default());
    bench.finish(1, &nth(1, 1));
    bench.finish(2, &nth(1, 2));
    let restore =
        |entries: &[LogEntry]| Desk::restore(Config::default(), vec![], entries).map(|_| ());
    assert_eq!(restore(&bench.entries), Ok(()));
    assert_eq!(restore(&bench.entries[1..]), Err(BookError::Number { expected: 1, got: 2 }));
    let mut forked = bench.entries.clone();
    let LogBody::Receipt(second) = &forked[1].body else { panic!() };
    let false_previous =
        Receipt { previous: Some(Digest::from_bytes([7; 32])), ..second.statement().clone() };
    forked[1].body = LogBody::Receipt(Signed::sign(&router(99), false_previous).unwrap());
    assert!(matches!(restore(&forked), Err(BookError::Previous { number: 2, .. })));
}

#[test]
fn cancelling_gives_everything_back_at_once() {
    for how in [In::Frame(StreamId(1), RouterFrame::Cancel), In::Closed(StreamId(1))] {
        for stage in 0..5 {
            let mut bench = Bench::new(Config { max_running: 1, ..Config::default() });
            bench.run(9, &nth(9, 9));
            if stage != 1 {
                bench.tell(In::Closed(StreamId(9)));
            }
            match stage {
                0 => drop(bench.ask(1, &nth(1, 1), &[])),
                1 | 2 => drop(bench.run(1, &nth(1, 1))),
                3 => {
                    bench.run(1, &nth(1, 1));
                    bench.tell(In::Finished(StreamId(1), ENDED));
                }
                _ => drop(bench.finish(1, &nth(1, 1))),
            }
            let outs = bench.tell(how.clone());
            let stopped = outs.iter().any(|out| matches!(out, Out::Stop(StreamId(1))));
            assert_eq!(stopped, matches!(stage, 0 | 2), "stage {stage}: {outs:?}");
            assert_eq!(bench.desk.streams(), usize::from(stage == 1), "stage {stage}");
            assert_eq!(bench.desk.load().queued, 0);
        }
    }
}

#[test]
fn time_runs_out_at_every_stage() {
    let config = Config { open_ms: 50, linger_ms: 70, ..Config::default() };
    let mut bench = Bench::new(config.clone());
    bench.tell(In::Opened { stream: StreamId(1), peer: peer(1) });
    assert_eq!(bench.desk.timer(), Some(Millis(51)));
    bench.now = 50;
    let outs = bench.tell(In::Timer);
    assert!(matches!(outs[..], [Out::Close(_)]), "{outs:?}");

    let mut bench = Bench::new(config.clone());
    bench.run(1, &nth(1, 1));
    bench.now = 700_000;
    let outs = bench.tell(In::Timer);
    assert!(matches!(outs[0], Out::Stop(_)));
    assert_eq!(failure(&outs[1..]).code, FailureCode::Deadline);

    let mut bench = Bench::new(config);
    bench.finish(1, &nth(1, 1));
    bench.now += 70;
    let outs = bench.tell(In::Timer);
    assert!(matches!(outs[..], [Out::Close(_)]), "{outs:?}");
    assert_eq!((bench.desk.streams(), bench.desk.timer()), (0, None));
}

#[test]
fn frames_out_of_order_are_refused() {
    let mut bench = Bench::new(Config::default());
    let receipt = bench.finish(1, &nth(1, 1));
    bench.run(2, &nth(1, 2));
    let outs = bench.challenge(2, &receipt, |_| {});
    assert!(matches!(outs[0], Out::Stop(_)));
    assert_eq!(failure(&outs[1..]).code, FailureCode::OutOfOrder);
    bench.run(3, &nth(1, 3));
    let again = RouterFrame::Open { offer: nth(1, 4), resume: vec![] };
    let outs = bench.tell(In::Frame(StreamId(3), again));
    assert_eq!(failure(&outs[1..]).code, FailureCode::OutOfOrder);
}

#[test]
fn challenges_need_the_nonce_and_are_few() {
    let mut bench = Bench::new(Config::default());
    let receipt = bench.finish(1, &nth(1, 1));
    let mut on_new_stream = |stream, change: fn(&mut Challenge)| {
        bench.tell(In::Opened { stream: StreamId(stream), peer: peer(8) });
        bench.challenge(stream, &receipt, change)
    };
    let outs = on_new_stream(2, |challenge| challenge.client_nonce[0] ^= 1);
    assert_eq!(failure(&outs).code, FailureCode::BadOffer);
    let outs = on_new_stream(3, |challenge| challenge.receipt_id = Digest::from_bytes([0; 32]));
    assert_eq!(failure(&outs).code, FailureCode::UnknownReceipt);
    let outs = on_new_stream(4, |challenge| challenge.positions = vec![20]);
    assert_eq!(failure(&outs).code, FailureCode::BadOffer);

    for stream in [1, 5] {
        if stream != 1 {
            bench.tell(In::Opened { stream: StreamId(stream), peer: peer(8) });
        }
        let outs = bench.challenge(stream, &receipt, |challenge| challenge.positions = vec![19]);
        assert!(
            matches!(&outs[0], Out::OpenLeaves { question, .. } if question.tokens == [1, 2, 3])
        );
        let outs = bench.tell(In::LeavesOpened(StreamId(stream), Ok(Openings::default())));
        assert!(matches!(outs[0], Out::Send(_, ProviderFrame::Openings(_))));
    }
    bench.tell(In::Opened { stream: StreamId(6), peer: peer(8) });
    let outs = bench.challenge(6, &receipt, |_| {});
    assert_eq!(failure(&outs).code, FailureCode::Replayed);
}

#[test]
fn challenges_at_once_are_bounded() {
    let mut bench = Bench::new(Config::default());
    for number in 0..=MAX_RUNNING_CHALLENGES as u64 {
        let receipt = bench.finish(number, &nth(1, number));
        let outs = bench.challenge(number, &receipt, |_| {});
        if number < MAX_RUNNING_CHALLENGES as u64 {
            assert!(matches!(outs[0], Out::OpenLeaves { .. }), "{outs:?}");
        } else {
            assert_eq!(failure(&outs).code, FailureCode::Busy);
        }
    }
}

/// Any event about any of a few streams.
fn any_event() -> impl Strategy<Value = In> {
    let stream = || (0..5_u64).prop_map(StreamId);
    let digest = Digest::from_bytes([0; 32]);
    let step = |token| Step { token, text: "x".into(), commitment: None, logprobs: None };
    prop_oneof![
        3 => stream().prop_map(|stream| In::Opened { stream, peer: peer(1) }),
        4 => (stream(), 0..9_u64, 0..4_usize).prop_map(|(stream, number, resume)| {
            In::Frame(stream, RouterFrame::Open { offer: nth(1, number), resume: vec![1; resume] })
        }),
        1 => stream().prop_map(|stream| In::Frame(stream, RouterFrame::Cancel)),
        1 => stream().prop_map(move |stream| {
            let positions = vec![];
            let challenge =
                Challenge { receipt_id: digest, client_nonce: NONCE, positions, leaf_hashes: true };
            In::Frame(stream, RouterFrame::Challenge(challenge))
        }),
        1 => stream().prop_map(|stream| In::Unreadable(stream, WireError::LengthPrefix)),
        1 => stream().prop_map(In::Closed),
        2 => stream().prop_map(In::Sent),
        4 => (stream(), 0..70_u32).prop_map(|(stream, tokens)| In::Prepared(stream, tokens)),
        4 => (stream(), 0..5_u32, 0..5_u32).prop_map(move |(stream, start, count)| {
            In::Steps { stream, start, steps: (0..count).map(step).collect() }
        }),
        2 => stream().prop_map(|stream| In::Finished(stream, ENDED)),
        1 => stream().prop_map(|stream| In::Refused(stream, Failure::new(FailureCode::Internal, "x"))),
        1 => stream().prop_map(|stream| In::LeavesOpened(stream, Err("x".into()))),
        1 => Just(In::Timer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Events in any order: no panic, a timer while anything is held, nothing
    /// held at the end, and receipts that are one chain.
    #[test]
    fn any_order_of_events_is_survived(events in proptest::collection::vec(any_event(), 1..120)) {
        let mut bench = Bench::new(Config { max_running: 2, max_queued: 2, ..Config::default() });
        for event in events {
            let mut outs = bench.tell(event);
            while let Some(at) = outs.iter().position(|out| matches!(out, Out::Issue { .. })) {
                let Out::Issue { stream, draft } = outs.remove(at) else { unreachable!() };
                outs = bench.log(stream, draft).1;
            }
            prop_assert_eq!(bench.desk.timer().is_none(), bench.desk.streams() == 0);
        }
        for stream in 0..5 {
            bench.tell(In::Closed(StreamId(stream)));
        }
        prop_assert_eq!(bench.desk.streams(), 0);
        prop_assert_eq!(bench.desk.load().active + bench.desk.load().queued, 0);
        prop_assert!(Desk::restore(Config::default(), vec![], &bench.entries).is_ok());
    }
}

#[test]
fn jobs_of_a_barred_peer_are_dropped_running_and_queued() {
    let mut bench = Bench::new(Config { max_running: 1, ..Config::default() });
    let theirs = [nth(1, 1), nth(1, 2)];
    bench.run(1, &theirs[0]);
    bench.run(2, &theirs[1]);
    bench.run(3, &nth(2, 3));
    assert_eq!((bench.desk.load().active, bench.desk.load().queued), (1, 2));
    let outs = bench.tell(In::Barred(peer(1)));
    let closed: Vec<u64> = outs
        .iter()
        .filter_map(|out| if let Out::Close(stream) = out { Some(stream.0) } else { None })
        .collect();
    assert_eq!(closed, [1, 2], "{outs:?}");
    assert!(outs.iter().any(|out| matches!(out, Out::Stop(stream) if stream.0 == 1)), "{outs:?}");
    assert_eq!((bench.desk.load().active, bench.desk.load().queued), (1, 0), "the other goes on");
}
