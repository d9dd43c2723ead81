//! Many requests of one router at one provider that has little room: who finds none waits.

use std::collections::{BTreeMap, HashMap};

use peerproof_identity::Keypair;
use peerproof_job::provider::{self, Config, Desk, Ended, Served, Step, StreamId};
use peerproof_job::router::{self, Closed, End, Job, LaneId, Options};
use peerproof_job::{Candidate, Entropy, Millis, Standing};
use peerproof_wire::{Class, Digest, Level, LogProof, NetworkGroup, Offer, Signed, Stop};

use crate::model::{MODEL, NONCE, PROMPT_TOKENS, offer};

const REQUESTS: usize = 40;
const TOKENS: u32 = 3;
/// What the engine takes for an answer.
const WORK_MS: u64 = 900;
/// More events than this mean that something spins.
const MAX_EVENTS: usize = 100_000;

enum Event {
    ToJob(usize, router::In),
    ToDesk(provider::In),
}

struct Crowd {
    key: Keypair,
    router: Keypair,
    desk: Desk,
    jobs: Vec<Job>,
    ends: BTreeMap<usize, End>,
    /// Who a stream belongs to; streams are numbered as they are opened.
    streams: Vec<(usize, LaneId)>,
    lanes: HashMap<(usize, LaneId), StreamId>,
    /// By time, then in the order they were made.
    queue: BTreeMap<(u64, u64), Event>,
    made: u64,
    now: u64,
    /// Jobs that were told to come again.
    busy: usize,
}

impl Crowd {
    fn new(config: Config) -> Self {
        let served = Served { model_id: MODEL, context_length: 64, class: Class::Exact };
        Self {
            key: Keypair::from_seed(&[50; 32]),
            router: Keypair::from_seed(&[1; 32]),
            desk: Desk::new(config, vec![served]),
            jobs: Vec::new(),
            ends: BTreeMap::new(),
            streams: Vec::new(),
            lanes: HashMap::new(),
            queue: BTreeMap::new(),
            made: 0,
            now: 0,
            busy: 0,
        }
    }

    fn later(&mut self, ms: u64, event: Event) {
        self.made += 1;
        self.queue.insert((self.now + ms, self.made), event);
    }

    fn offer(&self, number: u8) -> Signed<Offer> {
        let offer = offer(&self.router, Level::Receipt, TOKENS);
        let public_nonce = [number; 32];
        let offer = Offer { public_nonce, ..offer.statement().clone() };
        Signed::sign(&self.router, offer).unwrap()
    }

    fn run(&mut self) {
        for number in 0..REQUESTS {
            let (offer, entropy) = (self.offer(number as u8), Entropy::new([number as u8; 32]));
            let options = Options::default();
            let (job, outs) = Job::start(offer, NONCE, options, entropy, Millis(0));
            self.jobs.push(job);
            outs.into_iter().for_each(|out| self.of_job(number, out));
        }
        for _ in 0..MAX_EVENTS {
            let Some(((at, _), event)) = self.queue.pop_first() else { return };
            self.now = at;
            match event {
                Event::ToJob(number, event) => {
                    let outs = self.jobs[number].handle(Millis(at), event);
                    outs.into_iter().for_each(|out| self.of_job(number, out));
                }
                Event::ToDesk(event) => {
                    let outs = self.desk.handle(Millis(at), event);
                    outs.into_iter().for_each(|out| self.of_desk(out));
                }
            }
        }
        panic!("more than {MAX_EVENTS} events");
    }

    fn of_job(&mut self, number: usize, out: router::Out) {
        use router::{In, Out};
        let to_job = |event| Event::ToJob(number, event);
        match out {
            Out::FindCandidates => {
                let alone = vec![self.candidate()];
                self.later(1, to_job(In::Candidates(alone)));
                self.later(2, to_job(In::SearchOver));
            }
            Out::OpenStream { lane, .. } => {
                let stream = StreamId(self.streams.len() as u64);
                self.streams.push((number, lane));
                self.lanes.insert((number, lane), stream);
                let peer = self.router.public().peer_id();
                self.later(1, Event::ToDesk(provider::In::Opened { stream, peer }));
                self.later(1, to_job(In::Opened(lane)));
            }
            Out::Send(lane, frame) => {
                let stream = self.lanes[&(number, lane)];
                self.later(1, Event::ToDesk(provider::In::Frame(stream, frame)));
            }
            Out::CloseStream(lane) => {
                let stream = self.lanes[&(number, lane)];
                self.later(1, Event::ToDesk(provider::In::Closed(stream)));
            }
            Out::CheckBindings(question) => {
                self.later(1, to_job(In::BindingsChecked(question.lane, Ok(()))));
            }
            Out::CheckLogProof { lane, .. } => {
                self.later(1, to_job(In::LogProofChecked(lane, Ok(()))));
            }
            Out::SetTimer(at) => self.later(at.0.saturating_sub(self.now), to_job(In::Timer)),
            Out::Finish(outcome) => {
                let waited = outcome.trail.iter().any(|left| left.why.starts_with("busy"));
                self.busy += usize::from(waited);
                self.ends.insert(number, outcome.end);
            }
            _ => {}
        }
    }

    fn of_desk(&mut self, out: provider::Out) {
        use provider::{In, Out};
        let owner = |stream: StreamId| self.streams[stream.0 as usize];
        match out {
            Out::Send(stream, frame) => {
                let (number, lane) = owner(stream);
                self.later(1, Event::ToJob(number, router::In::Frame(lane, frame)));
                self.later(1, Event::ToDesk(In::Sent(stream)));
            }
            Out::Close(stream) => {
                let (number, lane) = owner(stream);
                let gone = Closed::Gone("closed".into());
                self.later(1, Event::ToJob(number, router::In::Closed(lane, gone)));
            }
            Out::Prepare { stream, .. } => {
                self.later(1, Event::ToDesk(In::Prepared(stream, PROMPT_TOKENS)));
            }
            Out::Run { stream, .. } => self.compute(stream),
            Out::Issue { stream, draft } => {
                let receipt = Signed::sign(&self.key, draft.receipt(1_000)).unwrap();
                let proof = LogProof { index: 0, checkpoint: "note\n".into(), path: vec![] };
                self.later(1, Event::ToDesk(In::Logged { stream, receipt, proof }));
            }
            Out::SetTimer(at) => {
                self.later(at.0.saturating_sub(self.now), Event::ToDesk(In::Timer));
            }
            _ => {}
        }
    }

    fn compute(&mut self, stream: StreamId) {
        let step = |token| Step { token, text: "a".into(), commitment: None, logprobs: None };
        let steps = (0..TOKENS).map(step).collect();
        let some = Digest::from_bytes([1; 32]);
        let ended = Ended {
            tokens: TOKENS,
            stop: Stop::Length,
            output_hash: some,
            text_hash: some,
            kv_root: some,
            transcript_root: some,
            leaves: PROMPT_TOKENS + TOKENS,
        };
        let steps = provider::In::Steps { stream, start: 0, steps };
        self.later(WORK_MS, Event::ToDesk(steps));
        self.later(WORK_MS, Event::ToDesk(provider::In::Finished(stream, ended)));
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            peer: self.key.public().peer_id(),
            context_length: 64,
            active_jobs: 0,
            queued_jobs: 0,
            max_jobs: 2,
            rtt_ms: Some(2),
            standing: Standing::stranger(),
            preferred: None,
            group: NetworkGroup::Local,
        }
    }
}

#[test]
fn a_crowd_behind_one_router_waits_for_the_only_provider() {
    let config = Config { max_running: 2, max_queued: 6, max_per_peer: 5, ..Config::default() };
    let mut crowd = Crowd::new(config);
    crowd.run();
    let answered = crowd.ends.values().filter(|end| **end == End::Answered(Stop::Length)).count();
    assert_eq!(answered, REQUESTS, "{:?}", crowd.ends);
    assert_eq!(crowd.busy, REQUESTS - 5, "all others had to wait");
}
