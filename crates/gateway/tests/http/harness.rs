//! A gateway on a free loopback port over scripted answers, and a bare HTTP
//! client: what is tested is bytes on a socket, not functions.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use peerproof::client::{
    AnswerEvent, AskError, CheckState, Counters, FinishReason, JobSpec, LaterCheck, Level,
    NodeStatus, Outcome, PeerStatus, Report, ServedModel, TokenLogprobs,
};
use peerproof::firewall::{self, Change, FirewallError, Origin};
use peerproof::log::{Declined, Piece, Unreadable};
use peerproof::reputation::{self, Rechecked, Record, ReputationError};
use peerproof_gateway::{Backend, Events, GatewayConfig, Server};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) const MODEL_ID: &str =
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Nothing in these tests may take longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A job that the test answers by hand.
pub(crate) struct Job {
    pub(crate) spec: JobSpec,
    pub(crate) events: mpsc::Sender<Result<AnswerEvent, AskError>>,
}

impl Job {
    pub(crate) async fn send(&self, event: AnswerEvent) {
        self.events.send(Ok(event)).await.unwrap();
    }

    pub(crate) async fn fail(&self, error: AskError) {
        self.events.send(Err(error)).await.unwrap();
    }

    pub(crate) async fn start(&self) {
        self.send(AnswerEvent::Started { provider: "12D3provider".into(), prompt_tokens: 7 }).await;
    }

    pub(crate) async fn text(&self, text: &str) {
        let text = text.to_owned();
        let delta = AnswerEvent::Delta { text, start: 0, tokens: vec![1], logprobs: vec![] };
        self.send(delta).await;
    }

    /// One token that is spelled so, twice as likely as the runner-up, and the text it releases.
    pub(crate) async fn likely(&self, spelling: &str, text: &str) {
        let report = TokenLogprobs {
            chosen_q16: 45_426,
            top: vec![(1, 45_426), (2, 90_852)],
            spellings: vec![spelling.into(), spelling.into(), b"?".to_vec()],
        };
        let (text, logprobs) = (text.to_owned(), vec![report]);
        self.send(AnswerEvent::Delta { text, start: 0, tokens: vec![1], logprobs }).await;
    }

    pub(crate) async fn done(&self) {
        self.send(AnswerEvent::Checking).await;
        self.send(AnswerEvent::Done(Box::new(outcome("aa")))).await;
    }

    /// A whole answer.
    pub(crate) async fn answer(&self, pieces: &[&str]) {
        self.start().await;
        for piece in pieces {
            self.text(piece).await;
        }
        self.done().await;
    }
}

pub(crate) fn outcome(receipt: &str) -> Outcome {
    let verification = Report {
        level: peerproof::client::Level::Full,
        mode: peerproof::client::Mode::Merkle,
        pending: false,
        audited: true,
        detail: "recomputed by 12D3auditor".into(),
        check_ms: 12,
        priced: None,
    };
    Outcome {
        job_id: "job".into(),
        receipt_id: receipt.into(),
        provider: "12D3provider".into(),
        model_id: MODEL_ID.into(),
        model: "tiny".into(),
        finish_reason: FinishReason::Stop,
        prompt_tokens: 7,
        output_tokens: 3,
        verification,
        reputation: 500,
        first_token_ms: 4,
        total_ms: 40,
        trail: vec!["12D3other: too slow".into()],
    }
}

/// Hands every job to the test.
pub(crate) struct Scripted {
    jobs: mpsc::Sender<Job>,
    models: Mutex<Vec<ServedModel>>,
    refuse: Mutex<Option<AskError>>,
}

impl Backend for Scripted {
    fn ask(&self, spec: JobSpec) -> BoxFuture<'_, Result<Events, AskError>> {
        async move {
            if let Some(error) = self.refuse.lock().unwrap().take() {
                return Err(error);
            }
            let (events, answer) = mpsc::channel(16);
            self.jobs.send(Job { spec, events }).await.unwrap();
            let next =
                |mut answer: mpsc::Receiver<_>| async { Some((answer.recv().await?, answer)) };
            Ok(stream::unfold(answer, next).boxed())
        }
        .boxed()
    }

    fn models(&self) -> BoxFuture<'_, Vec<ServedModel>> {
        let models = self.models.lock().unwrap().clone();
        async { models }.boxed()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        let status = NodeStatus {
            peer: "12D3self".into(),
            roles: vec!["router".into()],
            addresses: vec![],
            serves: vec![],
            models: vec![],
            memory_budget_bytes: 1 << 30,
            evictions: 0,
            peers: 0,
            active_jobs: 0,
            queued_jobs: 0,
            asking: 0,
            shared_bytes: 0,
            log_entries: 0,
            log: Default::default(),
            uptime_s: 1,
        };
        async { status }.boxed()
    }

    fn counters(&self) -> BoxFuture<'_, Counters> {
        async { Counters { failovers: 3, ..Counters::default() } }.boxed()
    }

    fn peers(&self) -> BoxFuture<'_, Vec<PeerStatus>> {
        let peer = PeerStatus {
            peer: "12D3other".into(),
            address: "/ip4/127.0.0.1/udp/1/quic-v1".into(),
            transport: "quic".into(),
            rtt_us: None,
            source: "mdns".into(),
            serves: vec![],
            reputation: 0,
            barred: None,
            record: Record::default(),
        };
        async { vec![peer] }.boxed()
    }

    fn later_check<'a>(
        &'a self,
        job_id: &'a str,
        patience: Duration,
    ) -> BoxFuture<'a, Option<LaterCheck>> {
        let check = LaterCheck {
            job_id: job_id.into(),
            provider: "12D3provider".into(),
            level: Level::Spot,
            state: CheckState::Held,
            detail: format!("waited {} ms", patience.as_millis()),
            file: Some("/papers/1.answer".into()),
            check_ms: 9,
        };
        async move { (job_id == "job").then_some(check) }.boxed()
    }

    fn decide<'a>(
        &'a self,
        peer: &'a str,
        blocked: bool,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Record, ReputationError>> {
        let known = reputation::parse_peer(peer);
        let barred = blocked.then(|| format!("blocked by the user: {reason}"));
        async { known.map(|_| Record { barred, ..Record::default() }) }.boxed()
    }

    fn recheck<'a>(&'a self, peer: &'a str) -> BoxFuture<'a, Result<Rechecked, ReputationError>> {
        let known = reputation::parse_peer(peer);
        let found = Rechecked { refuted: vec!["a receipt".into()], ..Rechecked::default() };
        async { known.map(|_| found) }.boxed()
    }

    fn firewall(&self) -> BoxFuture<'_, Vec<firewall::Line>> {
        let rule = "deny 192.0.2.0/24".to_owned();
        let line = firewall::Line { rule, origin: Origin::Command, decided: Some(3) };
        async { vec![line] }.boxed()
    }

    fn change_firewall<'a>(
        &'a self,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<usize, FirewallError>> {
        let answer = match change {
            Change::Put(_) => Ok(2),
            Change::Remove(subject) => Err(FirewallError::Unknown { subject: subject.to_string() }),
        };
        async { answer }.boxed()
    }

    fn log_piece<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Piece>, Unreadable>> {
        let piece = |bytes: &[u8], is_checkpoint| Piece { bytes: bytes.to_vec(), is_checkpoint };
        let answer = match path {
            "checkpoint" => Ok(Some(piece(b"a note\n", true))),
            "tile/0/000.p/1" => Ok(Some(piece(&[7; 32], false))),
            "tile/entries/x001/000" => Ok(Some(piece(&[0, 1, 9], false))),
            "tile/0/999" => Err(Unreadable::TooFast),
            "tile/0/998" => Err(Unreadable::Failed { message: "the disk is gone".into() }),
            _ => Ok(None),
        };
        async { answer }.boxed()
    }

    /// The body says how it is to be answered: a status, a size.
    fn add_checkpoint<'a>(&'a self, body: &'a [u8]) -> BoxFuture<'a, Result<String, Declined>> {
        let words = String::from_utf8_lossy(body);
        let mut words = words.split(' ');
        let status = words.next().and_then(|word| word.parse().ok()).unwrap_or(200);
        let last = words.next().and_then(|word| Some((word.parse().ok()?, "a note\n".into())));
        let answer = match status {
            200 => Ok("a signature\n".to_owned()),
            status => Err(Declined { status, message: "not this one".into(), last }),
        };
        async { answer }.boxed()
    }
}

/// A running gateway. Dropping it stops it.
pub(crate) struct Fixture {
    pub(crate) address: SocketAddr,
    jobs: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    backend: Arc<Scripted>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

pub(crate) fn config() -> GatewayConfig {
    GatewayConfig::new(([127, 0, 0, 1], 0).into())
}

pub(crate) fn served(name: &str, id: &str) -> ServedModel {
    ServedModel {
        id: id.into(),
        name: name.into(),
        context_length: 2048,
        providers: vec!["12D3provider".into()],
        auditors: vec![],
        prices: vec![],
    }
}

pub(crate) async fn gateway(config: GatewayConfig) -> Fixture {
    let (jobs_in, jobs) = mpsc::channel(64);
    let models = Mutex::new(vec![served("tiny", MODEL_ID)]);
    let backend = Arc::new(Scripted { jobs: jobs_in, models, refuse: Mutex::default() });
    let gateway = Server::bind(Arc::clone(&backend), config).await.unwrap();
    let address = gateway.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async { gateway.run(async { drop(stopped.await) }).await.unwrap() });
    Fixture {
        address,
        jobs: tokio::sync::Mutex::new(jobs),
        backend,
        stop: Some(stop),
        server: Some(server),
    }
}

impl Fixture {
    /// The next job that reached the node.
    pub(crate) async fn job(&self) -> Job {
        soon(async { self.jobs.lock().await.recv().await.unwrap() }).await
    }

    pub(crate) fn backend(&self) -> Arc<Scripted> {
        Arc::clone(&self.backend)
    }

    pub(crate) fn set_models(&self, models: Vec<ServedModel>) {
        *self.backend.models.lock().unwrap() = models;
    }

    pub(crate) fn refuse_next(&self, error: AskError) {
        *self.backend.refuse.lock().unwrap() = Some(error);
    }

    pub(crate) fn stop(&mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        self.server.take().unwrap()
    }

    /// One request on a connection of its own, with its whole answer.
    pub(crate) async fn send(&self, request: &str) -> Answer {
        let mut wire = self.open(request).await;
        wire.rest().await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(&post(path, &body)).await
    }

    /// Sends a request and leaves the connection open.
    pub(crate) async fn open(&self, request: &str) -> Wire {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        Wire { socket, got: Vec::new() }
    }
}

pub(crate) fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// A test that hangs is a test that failed.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("took too long")
}

/// An open connection and what came over it.
pub(crate) struct Wire {
    socket: TcpStream,
    got: Vec<u8>,
}

impl Wire {
    /// Reads until `text` has arrived.
    pub(crate) async fn until(&mut self, text: &str) {
        soon(async {
            while !String::from_utf8_lossy(&self.got).contains(text) {
                let mut buffer = [0; 4096];
                let read = self.socket.read(&mut buffer).await.unwrap();
                assert!(read > 0, "closed before {text:?}: {}", String::from_utf8_lossy(&self.got));
                self.got.extend_from_slice(&buffer[..read]);
            }
        })
        .await;
    }

    /// Reads to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Answer {
        // A reset after the answer is an end too.
        let _ = soon(self.socket.read_to_end(&mut self.got)).await;
        Answer::parse(&self.got)
    }
}

/// A response, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        let chunked = head.contains("transfer-encoding: chunked");
        let body = if chunked { unchunk(body) } else { body.to_owned() };
        Answer { status, head, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or("").to_owned())
    }

    /// The events of a stream: JSON, or a string for anything else.
    pub(crate) fn events(&self) -> Vec<Value> {
        let events =
            self.body.split_terminator("\n\n").map(|event| match event.strip_prefix("data: ") {
                Some(data) => serde_json::from_str(data).unwrap_or_else(|_| data.into()),
                None => event.into(),
            });
        events.collect()
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}
