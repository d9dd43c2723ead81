//! Model files from peers: honest ones, liars of every kind, and ones that go away.
//!
//! Sources are made by hand and announce a file that no engine could run, which
//! is enough for whoever only moves it; one test has a real provider with the
//! real model. Everything is on 127.0.0.1.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]

mod support;

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerproof::config::Config;
use peerproof::fetch::{FetchError, PullSpec};
use peerproof::home::{Environment, Home};
use peerproof::models::{ModelError, Progress, Stage};
use peerproof::{Node, Settings, store};
use peerproof_identity::Keypair;
use peerproof_net::{Address, FrameLimits, FrameStream, Handle, NetConfig, Network};
use peerproof_proof::ranges::{Group, Mode, Shape, Slice, open_bytes, verify};
use peerproof_wire::evidence::{Evidence, LogBody};
use peerproof_wire::{
    Announcement, Digest, INFO_PROTOCOL, InfoReply, InfoRequest, Message as _, ModelId, ModelOffer,
    RANGE_PROTOCOL, RangeFailure, RangeRefusal, RangeReply, RangeRequest, RangeSlice, Signed,
};
use tempfile::TempDir;
use tokio::sync::watch;

const LENGTH: u64 = 5_000_001;
const NAME: &str = "made-up";
const PATIENCE: Duration = Duration::from_secs(60);

/// A model file without keys or tensors, and bytes that belong to none.
fn content() -> &'static [u8] {
    static CONTENT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    CONTENT.get_or_init(|| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([0; 16]);
        bytes.extend((24..LENGTH).map(|index| (index * 7 / 3 + index / 16_384) as u8));
        bytes
    })
}

fn id() -> ModelId {
    ModelId::from_bytes(*blake3::hash(content()).as_bytes())
}

fn honest(request: &RangeRequest) -> RangeSlice {
    let range = request.start..request.start + request.length;
    let slice = open_bytes(Mode::Plain, content(), Group::KIB_16, range).expect("an opening");
    RangeSlice { file_bytes: LENGTH, bytes: slice.bytes, hashes: slice.hashes }
}

/// What a source does with a request.
enum Play {
    Slice(RangeSlice),
    Failure(RangeFailure),
    Raw(Vec<u8>),
    /// Ends its network in the middle of everything.
    Vanish,
}

type Script = Arc<dyn Fn(u64, &RangeRequest) -> Play + Send + Sync>;

/// A source made by hand.
struct Source {
    net: Handle,
    /// Requests it was asked.
    asked: Arc<AtomicU64>,
}

impl Source {
    /// Announces the file with this length, and answers by the script; other requests than the
    /// one for the last byte wait until `gate` is true.
    async fn start(seed: u8, length: u64, gate: watch::Receiver<bool>, script: Script) -> Source {
        let key = Arc::new(Keypair::from_seed(&[seed; 32]));
        let (net, _) = Network::start(&key, NetConfig::loopback()).await.expect("a network");
        announce(&net, Arc::clone(&key), length);
        let name = ("peerproof key of a model name v1", NAME.as_bytes());
        for (tag, name) in [("peerproof key of a served model v1", &id().as_bytes()[..]), name] {
            net.provide(blake3::derive_key(tag, name)).await.expect("provided");
        }
        let limits = FrameLimits { read_timeout: PATIENCE, ..FrameLimits::default() };
        let mut incoming = net.accept(RANGE_PROTOCOL, limits).expect("accepted");
        let asked = Arc::new(AtomicU64::new(0));
        let (counter, own) = (Arc::clone(&asked), net.clone());
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                let (counter, script) = (Arc::clone(&counter), Arc::clone(&script));
                tokio::spawn(talk(own.clone(), stream, counter, gate.clone(), script));
            }
        });
        Source { net, asked }
    }

    async fn address(&self) -> String {
        let addresses = self.net.listen_addresses().await.expect("addresses");
        addresses[0].with_peer(self.net.local_peer()).to_string()
    }

    fn peer(&self) -> String {
        self.net.local_peer().to_string()
    }
}

async fn talk(
    net: Handle,
    mut stream: FrameStream,
    counter: Arc<AtomicU64>,
    mut gate: watch::Receiver<bool>,
    script: Script,
) {
    while let Ok(Some(frame)) = stream.recv().await {
        let request = RangeRequest::decode(&frame).expect("a request");
        assert_eq!(request.model_id, id());
        let count = counter.fetch_add(1, Ordering::SeqCst);
        if request.start < LENGTH - 1 {
            let _ = gate.wait_for(|open| *open).await;
        }
        let reply = match script(count, &request) {
            Play::Slice(slice) => RangeReply::Slice(slice),
            Play::Failure(failure) => RangeReply::Failure(failure),
            Play::Raw(bytes) => {
                stream.send_raw(&bytes).await;
                continue;
            }
            Play::Vanish => return net.shutdown().await,
        };
        if stream.send(&reply.encode().expect("a reply")).await.is_err() {
            return;
        }
    }
}

fn announce(net: &Handle, key: Arc<Keypair>, file_bytes: u64) {
    let mut questions = net.accept(INFO_PROTOCOL, FrameLimits::default()).expect("accepted");
    tokio::spawn(async move {
        while let Some((_, mut stream)) = questions.next().await {
            let Ok(Some(frame)) = stream.recv().await else { continue };
            let offer = ModelOffer {
                model_id: id(),
                name: NAME.into(),
                architecture: "llama".into(),
                quantisation: "Q4_1".into(),
                context_length: 1,
                file_bytes,
                class: peerproof_wire::Class::Exact,
                declared_tps: 0,
                price: None,
            };
            let says = Announcement {
                serves: vec![offer],
                audits: vec![],
                active_jobs: 0,
                queued_jobs: 0,
                max_jobs: 1,
                vrf_key: key.vrf().public(),
                issued_unix_ms: 0,
                nonce: InfoRequest::decode(&frame).expect("a question").nonce,
                software: "source/1".into(),
            };
            let announcement = Signed::sign(&key, says).expect("signed");
            let _ = stream.send(&InfoReply { announcement }.encode().expect("encoded")).await;
            let _ = stream.finish().await;
        }
    });
}

fn open_gate() -> watch::Receiver<bool> {
    watch::channel(true).1
}

async fn honest_source(seed: u8) -> Source {
    Source::start(seed, LENGTH, open_gate(), Arc::new(|_, r| Play::Slice(honest(r)))).await
}

fn settings(home: &Path, peers: Vec<String>) -> Settings {
    let mut config = Config::default();
    config.network.loopback = true;
    config.network.mdns = false;
    config.network.peers = peers;
    let cache = home.join("cache");
    let home = Home::find(Some(home), Some(&cache), &Environment::read()).expect("a home");
    Settings::new(home, config)
}

async fn router(home: &TempDir, sources: &[&Source]) -> Node {
    let mut peers = Vec::new();
    for source in sources {
        peers.push(source.address().await);
    }
    Node::start(settings(home.path(), peers)).await.expect("a node")
}

fn by_id() -> PullSpec {
    PullSpec { model: id().to_string(), ..PullSpec::default() }
}

fn on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Reasons of the observations in a home's log, with whom they name.
fn observations(home: &TempDir) -> Vec<(String, String)> {
    let home = settings(home.path(), vec![]).home;
    let peer = home.key().expect("a key").public().peer_id();
    let read = store::read(&home.log(&peer)).expect("a log");
    let seen = read.entries().filter_map(|(_, entry)| match entry.expect("an entry").body {
        LogBody::Evidence(Evidence::Observation(seen)) => {
            Some((seen.provider.peer_id().to_string(), seen.reason))
        }
        _ => None,
    });
    seen.collect()
}

fn flipped(request: &RangeRequest) -> RangeSlice {
    let mut slice = honest(request);
    let middle = slice.bytes.len() / 2;
    slice.bytes[middle] ^= 1;
    slice
}

/// Every kind of reply that no honest source gives.
fn lies() -> Vec<(&'static str, Script)> {
    fn lie(change: fn(&mut RangeSlice)) -> Script {
        Arc::new(move |_, request| {
            let mut slice = honest(request);
            change(&mut slice);
            Play::Slice(slice)
        })
    }
    let raw = |bytes: Vec<u8>| -> Script { Arc::new(move |_, _| Play::Raw(bytes.clone())) };
    vec![
        ("a byte", Arc::new(|_, request| Play::Slice(flipped(request)))),
        ("a hash", lie(|slice| slice.hashes[0] = Digest::from_bytes([1; 32]))),
        ("a hash more", lie(|slice| slice.hashes.push(slice.hashes[0]))),
        ("a hash less", lie(|slice| slice.hashes.truncate(slice.hashes.len() - 1))),
        ("a byte less", lie(|slice| slice.bytes.truncate(slice.bytes.len() - 1))),
        ("another length", lie(|slice| slice.file_bytes += 1)),
        (
            "another range",
            Arc::new(|_, request| {
                let start = if request.start == 0 { 16_384 } else { 0 };
                Play::Slice(honest(&RangeRequest { start, ..request.clone() }))
            }),
        ),
        ("a frame too long", raw(vec![0xff, 0xff, 0xff, 0x7f, 0, 0])),
        ("no message", raw(vec![3, 9, 9, 9])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn liars_of_every_kind_are_dropped_and_the_download_goes_on_elsewhere() {
    let home = TempDir::new().expect("a folder");
    let (open, gate) = watch::channel(false);
    let honest_one = Source::start(1, LENGTH, gate, Arc::new(|_, r| Play::Slice(honest(r)))).await;
    let mut liars = Vec::new();
    for (index, (_, script)) in lies().into_iter().enumerate() {
        liars.push(Source::start(2 + index as u8, LENGTH, open_gate(), script).await);
    }
    // One that takes the truth with it, and one that announces another length.
    let vanishing: Script = Arc::new(|count, request| match count {
        0 => Play::Slice(honest(request)),
        _ => Play::Vanish,
    });
    let gone = Source::start(40, LENGTH, open_gate(), vanishing).await;
    let boaster: Script =
        Arc::new(|_, _| Play::Failure(RangeFailure::new(RangeRefusal::OutOfRange, "no such byte")));
    let boaster = Source::start(41, LENGTH + 1, open_gate(), boaster).await;
    let mut all: Vec<&Source> = liars.iter().collect();
    all.extend([&gone, &boaster, &honest_one]);
    let node = router(&home, &all).await;
    let client = node.client();
    let pulling = tokio::spawn(async move { client.pull(&by_id(), &mut on).await });
    // The honest one sends nothing but the length before everybody else was asked.
    let asked = async {
        let waited: Vec<&Source> = liars.iter().chain([&gone]).collect();
        while waited.iter().any(|source| source.asked.load(Ordering::SeqCst) == 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("everybody was asked");
    open.send(true).expect("the honest one listens");
    let pulled = pulling.await.expect("ran").expect("pulled");

    assert_eq!(std::fs::read(&pulled.model.path).expect("read"), content());
    assert_eq!((pulled.model.name.as_str(), pulled.model.bytes), (NAME, LENGTH));
    assert!(pulled.sources.iter().any(|sent| sent.peer == honest_one.peer() && sent.bytes > 0));
    let observed = observations(&home);
    for (liar, (what, _)) in liars.iter().zip(lies()) {
        let dropped = pulled.dropped.iter().find(|dropped| dropped.peer == liar.peer());
        assert!(dropped.is_some_and(|dropped| dropped.corrupt), "{what}: {dropped:?}");
        assert!(
            observed.iter().any(|(peer, why)| *peer == liar.peer() && why.starts_with("garbage: ")),
            "{what}: {observed:?}"
        );
    }
    let of = |source: &Source| pulled.dropped.iter().find(|d| d.peer == source.peer());
    assert!(of(&gone).is_none_or(|gone| !gone.corrupt), "who goes away is no liar");
    assert!(of(&boaster).is_none_or(|boaster| boaster.reason.contains("byte")));
    assert!(of(&honest_one).is_none());
    assert!(observed.iter().all(|(peer, _)| *peer != gone.peer() && *peer != honest_one.peer()));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_pull_goes_on_from_there_and_a_second_one_has_nothing_to_do() {
    let home = TempDir::new().expect("a folder");
    let source = honest_source(50).await;
    let node = router(&home, &[&source]).await;
    let slow = PullSpec { max_bytes_per_s: Some(8 << 20), ..by_id() };
    let stop = |progress: Progress| match progress {
        Progress { stage: Stage::Fetching, done, .. } if done > 1_000_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let stopped = node.client().pull(&slow, &mut { stop }).await;
    assert!(matches!(stopped, Err(FetchError::Model(ModelError::Cancelled))), "{stopped:?}");
    let model = id().to_string();
    let (have, total) = node.client().held(&model).await.expect("looked").expect("begun");
    assert!((1_000_000..LENGTH).contains(&have) && total == LENGTH, "{have} of {total}");
    node.shutdown().await;

    // Another process.
    let node = router(&home, &[&source]).await;
    let named = PullSpec { name: Some("mine".into()), model: NAME.into(), ..PullSpec::default() };
    let pulled = node.client().pull(&named, &mut on).await.expect("pulled");
    assert!(pulled.resumed_bytes >= have, "{} of {have}", pulled.resumed_bytes);
    assert_eq!(pulled.resumed_bytes + pulled.fetched_bytes, LENGTH);
    assert_eq!(std::fs::read(&pulled.model.path).expect("read"), content());
    let asked = source.asked.load(Ordering::SeqCst);
    let again = node.client().pull(&by_id(), &mut on).await.expect("there");
    assert_eq!((again.model.name.as_str(), again.fetched_bytes), ("mine", 0));
    assert_eq!(source.asked.load(Ordering::SeqCst), asked, "nobody was asked");
    let taken = PullSpec { model: "5f".repeat(32), name: Some("mine".into()), ..by_id() };
    let taken = node.client().pull(&taken, &mut on).await;
    assert!(matches!(taken, Err(FetchError::Model(ModelError::Taken { .. }))), "{taken:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_ranges_are_fetched_once_and_kept() {
    let home = TempDir::new().expect("a folder");
    let source = honest_source(60).await;
    let asked: Arc<Mutex<Vec<Range<u64>>>> = Arc::default();
    let noting = Arc::clone(&asked);
    let script: Script = Arc::new(move |_, request| {
        noting.lock().expect("noted").push(request.start..request.start + request.length);
        Play::Slice(honest(request))
    });
    let noted = Source::start(61, LENGTH, open_gate(), script).await;
    source.net.shutdown().await;
    let node = router(&home, &[&noted]).await;
    let client = node.client();
    let model = id().to_string();
    assert_eq!(client.held(&model).await.expect("looked"), None);
    let ranges = [100_000..150_000, 3_000_000..3_000_001];
    let read = client.ranges(&model, &ranges, &mut on).await.expect("read");
    assert_eq!(read, ranges.clone().map(|r| content()[r.start as usize..r.end as usize].to_vec()));
    let mut wanted = asked.lock().expect("noted").clone();
    wanted.sort_by_key(|range| range.start);
    assert_eq!(wanted, [98_304..163_840, 2_998_272..3_014_656, LENGTH - 1..LENGTH]);
    // What is here needs nobody.
    noted.net.shutdown().await;
    let again = client.ranges(&model, &[120_000..130_000], &mut on).await.expect("kept");
    assert_eq!(again, [content()[120_000..130_000].to_vec()]);
    let (have, total) = client.held(&model).await.expect("looked").expect("begun");
    assert_eq!((have, total), (65_536 + 16_384 + LENGTH % 16_384, LENGTH));
    for bad in [5..5, LENGTH - 1..LENGTH + 1] {
        let refused = client.ranges(&model, &[bad], &mut on).await;
        assert!(matches!(refused, Err(FetchError::Range { .. })), "{refused:?}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_left_the_error_says_who_was_asked_and_keeps_what_came() {
    let home = TempDir::new().expect("a folder");
    let refusing: Script = Arc::new(|count, request| match count {
        0 => Play::Slice(honest(request)),
        1 => Play::Failure(RangeFailure::new(RangeRefusal::Broken, "the disk is gone")),
        _ => Play::Failure(RangeFailure {
            retry_after_ms: 1,
            ..RangeFailure::new(RangeRefusal::Busy, "not now")
        }),
    });
    let refusing = Source::start(70, LENGTH, open_gate(), refusing).await;
    let boaster = Source::start(
        71,
        LENGTH + 20_000,
        open_gate(),
        Arc::new(|_, _| Play::Failure(RangeFailure::new(RangeRefusal::OutOfRange, "no such byte"))),
    )
    .await;
    let node = router(&home, &[&refusing, &boaster]).await;
    let error = node.client().pull(&by_id(), &mut on).await.expect_err("nobody is left");
    let FetchError::NoneLeft { have, total, dropped } = &error else { panic!("{error}") };
    assert_eq!((*have, *total), (LENGTH % 16_384, LENGTH));
    assert!(dropped.iter().any(|d| d.reason == "the disk is gone" && !d.corrupt), "{dropped:?}");
    assert!(error.to_string().contains("run the command again"), "{error}");
    assert_eq!(observations(&home), [], "who refuses is no liar");
    node.shutdown().await;
}

/// A stranger asks a real provider by hand, and a second machine reads pieces of the real model.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_shares_what_it_serves() {
    let (home, second) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    // The tree is kept beside the model, which here lies in the test's own folder.
    let mut model = support::model().clone();
    let path = home.path().join("smollm2-135m.gguf");
    std::os::unix::fs::symlink(&model.path, &path).expect("linked");
    model.path = path;
    let mut settings_here = settings(home.path(), vec![]);
    settings_here.config.provide.threads = 1;
    settings_here.config.provide.kv_mib = 64;
    settings_here.config.share.max_rate_mib = 0;
    let provider = Node::start(Settings { serve: vec![model.clone()], ..settings_here });
    let provider = provider.await.expect("a provider");
    let address = provider.status().addresses[0].clone();
    ask_by_hand(&address, &model).await;
    assert!(model.path.with_extension("tree").is_file());

    let node = Node::start(settings(second.path(), vec![address])).await.expect("a node");
    let client = node.client();
    let ranges = [0..1_000_000, 50_000_000..50_500_000];
    let read = client.ranges(&model.id, &ranges, &mut on).await.expect("read");
    let whole = std::fs::read(&model.path).expect("read");
    assert_eq!(read, ranges.map(|range| whole[range.start as usize..range.end as usize].to_vec()));
    assert!(provider.status().shared_bytes > 1_500_000, "{}", provider.status().shared_bytes);
    // Whoever has the file reads it there.
    let length = model.bytes;
    std::fs::create_dir_all(second.path().join("cache/models")).expect("made");
    let installed = second.path().join("cache/models/here.gguf");
    std::os::unix::fs::symlink(&model.path, installed).expect("linked");
    provider.shutdown().await;
    assert_eq!(client.held(&model.id).await.expect("looked"), Some((length, length)));
    let read = client.ranges(&model.id, &[9_000_000..9_000_100], &mut on).await.expect("read");
    assert_eq!(read, [whole[9_000_000..9_000_100].to_vec()]);
    node.shutdown().await;
}

async fn ask_by_hand(address: &str, model: &peerproof::models::Installed) {
    let key = Keypair::from_seed(&[80; 32]);
    let (net, _) = Network::start(&key, NetConfig::loopback()).await.expect("a network");
    let peer = net.dial(address.parse::<Address>().expect("an address")).await.expect("dialled");
    let open = || net.open(peer, RANGE_PROTOCOL, PATIENCE, FrameLimits::default());
    let mut stream = open().await.expect("a stream");
    let model_id: ModelId = model.id.parse().expect("an id");
    let mut ask = async |model_id, start, length| {
        let request = RangeRequest { model_id, start, length };
        stream.send(&request.encode().expect("encoded")).await.expect("sent");
        let frame = stream.recv().await.expect("received").expect("a frame");
        RangeReply::decode(&frame).expect("a reply")
    };
    let refused = |reply: RangeReply| match reply {
        RangeReply::Failure(failure) => failure.code,
        RangeReply::Slice(_) => panic!("a slice"),
    };
    assert_eq!(refused(ask(id(), 0, 1).await), RangeRefusal::NotHeld);
    let outside = ask(model_id, model.bytes - 5, 6).await;
    assert_eq!(refused(outside), RangeRefusal::OutOfRange);
    // The stream goes on after a refusal.
    let RangeReply::Slice(slice) = ask(model_id, model.bytes - 5, 5).await else {
        panic!("refused")
    };
    let shape = Shape::new(slice.file_bytes, Group::KIB_16).expect("a length");
    let opened = Slice { bytes: slice.bytes, hashes: slice.hashes };
    let root = Digest::from_bytes(*model_id.as_bytes());
    let range = model.bytes - 5..model.bytes;
    verify(Mode::Plain, &root, shape, range, &opened).expect("verified");

    // What is no request ends its stream, and nothing else.
    let mut bad = open().await.expect("a stream");
    bad.send(b"no request").await.expect("sent");
    assert!(!matches!(bad.recv().await, Ok(Some(_))));
    // Streams beyond a peer's share are closed, not served.
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(open().await.expect("a stream"));
    }
    let mut served = 0;
    for stream in &mut held {
        let request = RangeRequest { model_id, start: 0, length: 1 };
        let sent = stream.send(&request.encode().expect("encoded")).await.is_ok();
        served += u32::from(sent && matches!(stream.recv().await, Ok(Some(_))));
    }
    assert!((1..12).contains(&served), "{served} streams of one peer were served");
    net.shutdown().await;
}
