//! A provider made by hand. It computes the honest answer with the real engine and then plays
//! whatever a test makes of it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock, mpsc};

use peerproof_engine::model::Model;
use peerproof_engine::service::{Event, Job, Service, ServiceOptions};
use peerproof_engine::transformer::LoadOptions;
use peerproof_identity::{Keypair, PeerId};
use peerproof_job::limits::COMMIT_EVERY;
use peerproof_log::Log;
use peerproof_log::memory::MemoryStorage;
use peerproof_net::{FrameLimits, FrameStream, Handle, NetConfig, Network};
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Transcript, sampling_seed};
use peerproof_wire::{
    Accepted, Announcement, Delivered, Digest, INFO_PROTOCOL, InfoReply, InfoRequest, JOB_PROTOCOL,
    LogBody, LogEntry, LogProof, Message as _, ModelOffer, Offer, ProviderFrame, Receipt,
    RouterFrame, Sampling, Signed, Stop, Tokens,
};

use super::stage::{PATIENCE, model, model_id, random};

/// What a fake does next on a job's stream.
pub(super) enum Move {
    Send(ProviderFrame),
    Raw(Vec<u8>),
    /// Say nothing more and wait for the router to leave.
    Stall,
    Close,
}

/// Turns the honest answer into what is played.
pub(super) type Script = Arc<dyn Fn(Honest) -> Vec<Move> + Send + Sync>;

/// All that an honest provider would have sent.
#[derive(Clone)]
pub(super) struct Honest {
    pub(super) key: Arc<Keypair>,
    pub(super) offer: Signed<Offer>,
    pub(super) accepted: Accepted,
    /// One frame a token.
    pub(super) frames: Vec<Tokens>,
    pub(super) receipt: Receipt,
}

impl Honest {
    pub(super) fn accept(&self) -> Move {
        Move::Send(ProviderFrame::Accepted(self.accepted.clone()))
    }

    /// Acceptance and the first `count` tokens.
    pub(super) fn beginning(&self, count: usize) -> Vec<Move> {
        let mut moves = vec![self.accept()];
        moves.extend(self.frames[..count].iter().cloned().map(tokens));
        moves
    }

    /// Everything, with this receipt, which is signed and logged as it should be.
    pub(super) fn with_receipt(&self, receipt: Receipt) -> Vec<Move> {
        let mut moves = self.beginning(self.frames.len());
        moves.push(delivered(deliver(&self.key, receipt)));
        moves
    }

    /// Tokens, text and receipt that belong together, and follow from nothing.
    pub(super) fn inventing(
        mut self,
        change: impl FnOnce(&mut Vec<u32>, &mut String),
    ) -> Vec<Move> {
        let mut ids: Vec<u32> = self.frames.iter().flat_map(|f| f.tokens.clone()).collect();
        let mut text: String = self.frames.iter().map(|f| f.text.as_str()).collect();
        change(&mut ids, &mut text);
        self.frames.truncate(ids.len());
        let reported = |frame: &Tokens| frame.logprobs.clone();
        let logprobs: Vec<_> = self.frames.iter().flat_map(reported).collect();
        let count = ids.len();
        self.receipt.output_tokens = count as u32;
        self.receipt.leaves = self.receipt.prompt_tokens + count as u32;
        self.receipt.output_hash = peerproof_proof::receipt::output_hash(&ids);
        self.receipt.text_hash = peerproof_proof::receipt::shown_hash(&text, &logprobs);
        for (frame, id) in self.frames.iter_mut().zip(ids) {
            frame.tokens = vec![id];
            frame.text.clear();
        }
        self.frames[count - 1].text = text;
        self.with_receipt(self.receipt.clone())
    }
}

pub(super) fn tokens(frame: Tokens) -> Move {
    Move::Send(ProviderFrame::Tokens(frame))
}

pub(super) fn delivered(delivered: Delivered) -> Move {
    Move::Send(ProviderFrame::Delivered(delivered))
}

/// A receipt signed by `key` and put into a log of that key.
pub(super) fn deliver(key: &Arc<Keypair>, receipt: Receipt) -> Delivered {
    let receipt = Signed::sign(key, receipt).unwrap();
    let log = logged(key, &receipt);
    Delivered { receipt, log }
}

/// Where a receipt stands in a fresh log of `key`.
pub(super) fn logged(key: &Arc<Keypair>, receipt: &Signed<Receipt>) -> LogProof {
    let unix_ms = receipt.issued_unix_ms;
    let entry = LogEntry { unix_ms, body: LogBody::Receipt(receipt.clone()) };
    let mut log = Log::open(MemoryStorage::default(), Arc::clone(key)).unwrap();
    log.append(&[b"an entry before".to_vec(), entry.encode().unwrap()]).unwrap();
    LogProof {
        index: 1,
        checkpoint: log.checkpoint().unwrap().note().to_owned(),
        path: log.inclusion(1, 2).unwrap().into_iter().map(Digest::from_bytes).collect(),
    }
}

fn engine() -> &'static (Arc<Model>, Service) {
    static ENGINE: OnceLock<(Arc<Model>, Service)> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let model = Model::open(&model().path, &LoadOptions::default()).unwrap();
        let options = ServiceOptions { threads: 1, ..ServiceOptions::default() };
        let service = Service::start(Arc::clone(&model), &options).unwrap();
        (model, service)
    })
}

/// Computes an answer as a provider should; `sampling` and `resume` as it should not.
pub(super) fn compute(
    key: &Arc<Keypair>,
    offer: &Signed<Offer>,
    resume: &[u32],
    sampling: Sampling,
) -> Honest {
    let (model, service) = engine();
    let prompt = model.prompt_tokens(&offer.prompt).unwrap();
    let prompt_tokens = prompt.len() as u32;
    let job = Job {
        key: offer.id(),
        seed: sampling_seed(offer),
        prompt,
        resume: vec![],
        sampling,
        max_tokens: offer.max_tokens,
        stop: offer.stop.clone(),
        salt: offer.id(),
    };
    let (events, gathered) = mpsc::channel();
    let sink = move |event| match events.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    service.submit(job, Box::new(sink)).unwrap();
    let (mut transcript, mut frames, mut ids) = (Transcript::new(), Vec::new(), Vec::new());
    let mut end: Option<(Stop, String, Digest)> = None;
    for event in gathered {
        match event {
            Event::Prompt { step } => transcript.push(&step.into()).unwrap(),
            Event::Token { index, token, text, mut step, .. } => {
                let mut logprobs = step.drawn.as_mut().unwrap().logprobs.take();
                if let Some(report) = &mut logprobs {
                    report.spell(token, |token| model.tokenizer().spelling(token));
                }
                transcript.push(&step.into()).unwrap();
                ids.push(token);
                let due = ids.len().is_multiple_of(COMMIT_EVERY);
                let commitment = due.then(|| transcript.commitment());
                frames.push(Tokens {
                    start: index,
                    tokens: vec![token],
                    text,
                    commitment,
                    logprobs: logprobs.into_iter().collect(),
                });
            }
            Event::Finished { stop, text, kv_root, .. } => end = Some((stop, text, kv_root)),
            Event::Started => {}
            other => panic!("{other:?}"),
        }
    }
    let (stop, text, kv_root) = end.unwrap();
    let logprobs: Vec<_> = frames.iter().flat_map(|frame| frame.logprobs.clone()).collect();
    let shown = peerproof_proof::receipt::shown_hash(&text, &logprobs);
    let tree = transcript.close_with(stop, ids.len() as u32, &shown, &kv_root).unwrap();
    let answer = Answer { tokens: &ids, text: &text, logprobs: &logprobs };
    let receipt =
        build(offer, answer, stop, (&tree, kv_root), Place::FIRST, 1_700_000_000_000).unwrap();
    Honest {
        key: Arc::clone(key),
        offer: offer.clone(),
        accepted: Accepted { offer_id: offer.id(), prompt_tokens, queue_position: 0 },
        frames: frames.split_off(resume.len().min(ids.len())),
        receipt,
    }
}

/// A fake provider on its own network.
pub(super) struct Fake {
    pub(super) net: Handle,
    pub(super) peer: PeerId,
    pub(super) key: Arc<Keypair>,
}

impl Fake {
    /// Announces the model honestly, and serves it by the script.
    pub(super) async fn start(script: Script) -> Fake {
        let key = Arc::new(Keypair::from_seed(&random()));
        let (net, _) = Network::start(&key, NetConfig::loopback()).await.unwrap();
        announce(&net, &key, true, false);
        let limits = FrameLimits { read_timeout: PATIENCE, ..FrameLimits::default() };
        let mut jobs = net.accept(JOB_PROTOCOL, limits).unwrap();
        let peer = net.local_peer();
        let signer = Arc::clone(&key);
        tokio::spawn(async move {
            while let Some((_, stream)) = jobs.next().await {
                tokio::spawn(play(stream, Arc::clone(&signer), Arc::clone(&script)));
            }
        });
        Fake { net, peer, key }
    }

    pub(super) async fn address(&self) -> String {
        let addresses = self.net.listen_addresses().await.unwrap();
        addresses[0].with_peer(self.peer).to_string()
    }
}

/// Answers every question what `key` does.
pub(super) fn announce(net: &Handle, key: &Arc<Keypair>, serves: bool, audits: bool) {
    let mut questions = net.accept(INFO_PROTOCOL, FrameLimits::default()).unwrap();
    let key = Arc::clone(key);
    tokio::spawn(async move {
        while let Some((_, mut stream)) = questions.next().await {
            let Ok(Some(frame)) = stream.recv().await else { continue };
            let nonce = InfoRequest::decode(&frame).unwrap().nonce;
            let says = announcement(&key, nonce, serves, audits);
            let announcement = Signed::sign(&key, says).unwrap();
            let _ = stream.send(&InfoReply { announcement }.encode().unwrap()).await;
            let _ = stream.finish().await;
        }
    });
}

fn announcement(key: &Keypair, nonce: [u8; 32], serves: bool, audits: bool) -> Announcement {
    let offer = ModelOffer {
        model_id: model_id(),
        name: model().name.clone(),
        architecture: "llama".into(),
        quantisation: "Q4_1".into(),
        context_length: u32::MAX,
        file_bytes: model().bytes,
        class: peerproof_wire::Class::Exact,
        declared_tps: 0,
        price: None,
    };
    let list = |yes: bool| if yes { vec![offer.clone()] } else { vec![] };
    Announcement {
        serves: list(serves),
        audits: list(audits),
        active_jobs: 0,
        queued_jobs: 0,
        max_jobs: 1_000,
        vrf_key: key.vrf().public(),
        issued_unix_ms: 0,
        nonce,
        software: "liar/1".into(),
    }
}

async fn play(mut stream: FrameStream, key: Arc<Keypair>, script: Script) {
    let Ok(Some(frame)) = stream.recv().await else { return };
    let Ok(RouterFrame::Open { offer, resume }) = RouterFrame::decode(&frame) else { return };
    let acting = tokio::task::spawn_blocking(move || {
        let sampling = offer.sampling.clone();
        script(compute(&key, &offer, &resume, sampling))
    });
    let mut moves: VecDeque<Move> = acting.await.unwrap().into();
    while let Some(next) = moves.pop_front() {
        match next {
            Move::Send(frame) => {
                if stream.send(&frame.encode().unwrap()).await.is_err() {
                    return;
                }
            }
            Move::Raw(bytes) => stream.send_raw(&bytes).await,
            Move::Stall => break,
            Move::Close => {
                let _ = stream.finish().await;
                return;
            }
        }
    }
    while let Ok(Some(_)) = stream.recv().await {}
}
