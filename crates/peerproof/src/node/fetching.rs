//! Getting model files, or pieces of them, from peers.
//!
//! Whoever announces a model (as served or audited) is a source. One fetch is a
//! queue of missing pieces and a few sources that empty it; what each sends is
//! verified against the model's id and written before it counts. A source that
//! sends what is not the model's is given up for good and the log remembers it;
//! one that goes away may come back. Pieces that were on their way wait again,
//! so the rest goes on elsewhere. Partial files outlive the process.
//!
//! [`Fetcher::pull`] makes a whole file of it, [`Fetcher::read`] single ranges.

mod queue;
mod source;

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use peerproof_identity::PeerId;
use peerproof_job::reputation::Fault;
use peerproof_net::Handle;
use peerproof_proof::ranges::{Mode, Shape, Slice, verify};
use peerproof_wire::evidence::{Evidence, LogBody, Observation};
use peerproof_wire::range::RANGE_GROUP_BYTES;
use peerproof_wire::{Announcement, ModelId, RANGE_PROTOCOL, RangeSlice, WeightRange, limits};
use tokio::sync::{Mutex as Turns, mpsc};
use tokio::task::JoinSet;

use self::queue::Queue;
use self::source::{Event, Fetch};
pub(super) use self::source::{Trouble, open_all};
use super::directory::{Directory, Wanted};
use super::ledger::Ledger;
use super::pace::Pace;
use crate::fetch::{Dropped, FetchError, PullSpec, Pulled, SentBy};
use crate::models::{Installed, KNOWN, ModelError, Partial, Progress, Stage, Store, Watch, tree};

/// Watches a fetch, and may stop it; between threads.
pub type FetchWatch<'a> = &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send);

/// Peers that send at once.
const MAX_SOURCES: usize = 8;
/// One search of the network.
const SEARCH: Duration = Duration::from_secs(3);
/// A search that found somebody ends when nobody else was found for so long.
const SETTLE: Duration = Duration::from_millis(1_000);
/// Longest pause between two searches while somebody sends.
const SEARCH_AGAIN: Duration = Duration::from_secs(10);
/// The first such pause, and every one while nobody sends.
const SEARCH_SOON: Duration = Duration::from_secs(1);
/// Searches in a row that may bring nothing before a fetch ends.
const MAX_FRUITLESS: u32 = 3;
/// How often one peer may go away before it is not asked again.
const MAX_ATTEMPTS: u32 = 3;
/// Models that are remembered as withheld.
const MAX_WITHHELD: usize = 1024;
/// How often whoever watches is told.
const TICK: Duration = Duration::from_millis(100);
/// How long others may go on to use a file that is complete.
const ADOPT: Duration = Duration::from_secs(5);
/// Events of sources that wait.
const EVENTS: usize = 64;

/// What a node fetches with.
pub(crate) struct Fetcher {
    net: Handle,
    directory: Directory,
    ledger: Arc<Ledger>,
    store: Store,
    /// Files in the making that somebody uses.
    open: Turns<HashMap<ModelId, Weak<Partial>>>,
    /// Models of which the last fetch found nobody who sends what it took.
    withheld: Mutex<HashSet<ModelId>>,
}

/// What is known of the sources of one fetch.
#[derive(Default)]
struct Book {
    dropped: Vec<Dropped>,
    /// Never to be asked again.
    barred: HashSet<PeerId>,
    attempts: HashMap<PeerId, u32>,
    sent: HashMap<PeerId, u64>,
    /// What they call the model, with how many do.
    names: HashMap<String, usize>,
}

impl Book {
    fn may_try(&self, peer: &PeerId) -> bool {
        !self.barred.contains(peer)
            && self.attempts.get(peer).is_none_or(|attempts| *attempts < MAX_ATTEMPTS)
    }

    fn name(&self) -> Option<&str> {
        let most =
            self.names.iter().max_by_key(|(name, count)| (**count, std::cmp::Reverse(*name)));
        most.map(|(name, _)| name.as_str())
    }

    /// Notes why a peer is given up; a later reason takes the place of an earlier one.
    fn drop_peer(&mut self, peer: PeerId, corrupt: bool, reason: String) {
        let peer = peer.to_string();
        self.dropped.retain(|dropped| dropped.peer != peer);
        self.dropped.push(Dropped { peer, corrupt, reason });
    }
}

/// Somebody who says it has the model.
struct Found {
    peer: PeerId,
    name: String,
    file_bytes: u64,
}

impl Fetcher {
    pub(crate) fn new(
        net: Handle,
        directory: Directory,
        ledger: Arc<Ledger>,
        store: Store,
    ) -> Fetcher {
        let (open, withheld) = Default::default();
        Fetcher { net, directory, ledger, store, open, withheld }
    }

    /// Makes an installed model.
    pub(crate) async fn pull(
        &self,
        id: ModelId,
        spec: &PullSpec,
        watch: FetchWatch<'_>,
    ) -> Result<Pulled, FetchError> {
        if let Some(name) = &spec.name {
            self.store.check_free(name, id)?;
        }
        if let Some(here) = self.installed(id)? {
            let (store, name) = (self.store.clone(), here.name.clone());
            if watched(watch, move |watch| store.verify(&name, watch)).await.is_ok() {
                return Ok(Pulled {
                    model: here,
                    sources: Vec::new(),
                    dropped: Vec::new(),
                    resumed_bytes: 0,
                    fetched_bytes: 0,
                    fetch_ms: 0,
                });
            }
            tracing::warn!(model = here.name, "the installed file is damaged; it is replaced");
        }
        let since = Instant::now();
        let mut book = Book::default();
        let partial = self.begin(id, &mut book, watch).await?;
        let whole = 0..partial.length();
        let missing = self.missing(&partial, vec![whole], watch).await?;
        let lacking: u64 = missing.iter().map(|range| range.end - range.start).sum();
        let resumed = partial.length() - lacking - book.sent.values().sum::<u64>();
        let pace = Arc::new(Pace::new(spec.max_bytes_per_s));
        self.fetch(&partial, &missing, pace, &mut book, watch).await?;
        let fetch_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let fetched_bytes = book.sent.values().sum();
        let name = spec.name.clone().unwrap_or_else(|| self.free_name(id, &book));
        let model = self.adopt(partial, name, watch).await?;
        let sent = book.sent.iter().map(|(peer, bytes)| (*bytes, peer.to_string()));
        let mut sent: Vec<(u64, String)> = sent.filter(|(bytes, _)| *bytes > 0).collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Pulled {
            model,
            sources: sent.into_iter().map(|(bytes, peer)| SentBy { peer, bytes }).collect(),
            dropped: book.dropped,
            resumed_bytes: resumed,
            fetched_bytes,
            fetch_ms,
        })
    }

    /// Whether the last fetch of a model found nobody who sends what it took.
    pub(crate) fn is_withheld(&self, id: ModelId) -> bool {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn note<T>(&self, id: ModelId, fetched: &Result<T, FetchError>) {
        let mut withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        match fetched {
            Err(FetchError::Nobody { .. } | FetchError::NoneLeft { .. }) => {
                if withheld.len() < MAX_WITHHELD {
                    withheld.insert(id);
                }
            }
            _ => {
                withheld.remove(&id);
            }
        }
    }

    /// The bytes of these ranges: of the installed file if there is one, else of the partial
    /// file, with what is missing fetched first.
    pub(crate) async fn read(
        &self,
        id: ModelId,
        ranges: &[Range<u64>],
        watch: FetchWatch<'_>,
    ) -> Result<Vec<Vec<u8>>, FetchError> {
        let read = self.read_or_fetch(id, ranges, watch).await;
        self.note(id, &read);
        read
    }

    async fn read_or_fetch(
        &self,
        id: ModelId,
        ranges: &[Range<u64>],
        watch: FetchWatch<'_>,
    ) -> Result<Vec<Vec<u8>>, FetchError> {
        if let Some(here) = self.installed(id)? {
            let ranges = ranges.to_vec();
            return watched(watch, move |watch| read_installed(&here, id, &ranges, watch)).await;
        }
        let mut book = Book::default();
        let partial = self.begin(id, &mut book, watch).await?;
        let length = partial.length();
        if let Some(bad) = ranges.iter().find(|r| r.start >= r.end || r.end > length) {
            return Err(FetchError::Range { start: bad.start, end: bad.end, length });
        }
        let missing = self.missing(&partial, ranges.to_vec(), watch).await?;
        self.fetch(&partial, &missing, Arc::new(Pace::new(None)), &mut book, watch).await?;
        let ranges = ranges.to_vec();
        let read = watched(watch, move |_| {
            ranges.into_iter().map(|range| partial.read(range)).collect::<Result<Vec<_>, _>>()
        });
        let read: Option<Vec<Vec<u8>>> = read.await?.into_iter().collect();
        // It was there a moment ago: the disk lost it.
        read.ok_or(FetchError::NoneLeft { have: 0, total: length, dropped: book.dropped })
    }

    /// Ranges of a file of `length` bytes as peers open them, each with what proves it, cut into
    /// pieces that fit a reply.
    pub(crate) async fn slices(
        &self,
        id: ModelId,
        length: u64,
        ranges: &[Range<u64>],
    ) -> Result<Vec<WeightRange>, FetchError> {
        let most = limits::MAX_RANGE_BYTES as u64 - RANGE_GROUP_BYTES;
        let cut = |range: &Range<u64>| {
            let (start, end) = (range.start, range.end);
            (start..end).step_by(most as usize).map(move |at| at..end.min(at + most))
        };
        let pieces: Vec<Range<u64>> = ranges.iter().flat_map(cut).collect();
        if let Some(here) = self.slices_here(id, length, &pieces).await? {
            return Ok(here);
        }
        let mut sources = self.search(id);
        let mut dropped = Vec::new();
        while let Some(source) = sources.recv().await {
            match open_all(&self.net, RANGE_PROTOCOL, source.peer, id, length, &pieces).await {
                Ok(slices) => return Ok(slices),
                Err(trouble) => dropped.push(Dropped {
                    peer: source.peer.to_string(),
                    corrupt: matches!(trouble, Trouble::Corrupt(_)),
                    reason: format!("{trouble:?}"),
                }),
            }
        }
        Err(FetchError::NoneLeft { have: 0, total: length, dropped })
    }

    /// The same of what is here: nobody need share a model, least of all who cheated with it.
    async fn slices_here(
        &self,
        id: ModelId,
        length: u64,
        pieces: &[Range<u64>],
    ) -> Result<Option<Vec<WeightRange>>, FetchError> {
        let installed = self.installed(id)?;
        let partial = match installed {
            Some(_) => None,
            None => self.begun(id).await?,
        };
        let pieces = pieces.to_vec();
        let opening = move || -> Result<Option<Vec<WeightRange>>, ModelError> {
            let slices: Option<Vec<Slice>> = match (&installed, &partial) {
                (Some(here), _) if here.bytes == length => {
                    let going_on = &mut |_| ControlFlow::Continue(());
                    open_installed(here, id, &pieces, going_on).map(Some)?
                }
                (_, Some(partial)) if partial.length() == length => pieces
                    .iter()
                    .map(|piece| partial.slice(piece.clone()))
                    .collect::<Result<_, _>>()?,
                _ => None,
            };
            let Some(slices) = slices else { return Ok(None) };
            let opened = pieces.into_iter().zip(slices).map(|(piece, slice)| {
                let Slice { bytes, hashes } = slice;
                let slice = RangeSlice { file_bytes: length, bytes, hashes };
                WeightRange { start: piece.start, length: piece.end - piece.start, slice }
            });
            Ok(Some(opened.collect()))
        };
        let opened = tokio::task::spawn_blocking(opening).await;
        Ok(opened.unwrap_or(Ok(None))?)
    }

    /// How many bytes of a model are here, and how many it has; `None` if nothing was begun.
    pub(crate) async fn held(&self, id: ModelId) -> Result<Option<(u64, u64)>, FetchError> {
        if let Some(here) = self.installed(id)? {
            return Ok(Some((here.bytes, here.bytes)));
        }
        let partial = self.begun(id).await?;
        Ok(partial.map(|partial| (partial.have_bytes(), partial.length())))
    }

    fn installed(&self, id: ModelId) -> Result<Option<Installed>, ModelError> {
        let id = id.to_string();
        Ok(self.store.list()?.into_iter().find(|model| model.id == id))
    }

    /// The partial file, if it was begun.
    async fn begun(&self, id: ModelId) -> Result<Option<Arc<Partial>>, ModelError> {
        let mut open = self.open.lock().await;
        if let Some(partial) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(Some(partial));
        }
        open.retain(|_, partial| partial.strong_count() > 0);
        let partial = self.store.partial(id)?.map(Arc::new);
        if let Some(partial) = &partial {
            open.insert(id, Arc::downgrade(partial));
        }
        Ok(partial)
    }

    /// The partial file, begun if it was not; for that, some peer must prove the length.
    async fn begin(
        &self,
        id: ModelId,
        book: &mut Book,
        watch: FetchWatch<'_>,
    ) -> Result<Arc<Partial>, FetchError> {
        if let Some(partial) = self.begun(id).await? {
            return Ok(partial);
        }
        for _ in 0..MAX_FRUITLESS {
            let mut found = self.search(id);
            loop {
                let Found { peer, name, file_bytes } = tokio::select! {
                    found = found.recv() => match found {
                        Some(found) => found,
                        None => break,
                    },
                    () = tokio::time::sleep(TICK) => {
                        tell(watch, Stage::Fetching, 0, None)?;
                        continue;
                    }
                };
                if !book.may_try(&peer) {
                    continue;
                }
                match self.proven(id, peer, file_bytes).await {
                    Ok((shape, slice)) => {
                        *book.names.entry(name).or_default() += 1;
                        return self.create(id, shape, peer, &slice, book).await;
                    }
                    Err(trouble) => self.give_up(id, peer, trouble, book).await?,
                }
            }
            tokio::time::sleep(SEARCH_SOON).await;
        }
        if book.dropped.is_empty() {
            return Err(FetchError::Nobody { model: id.to_string(), hint: HINT.into() });
        }
        Err(FetchError::NoneLeft { have: 0, total: 0, dropped: std::mem::take(&mut book.dropped) })
    }

    async fn proven(
        &self,
        id: ModelId,
        peer: PeerId,
        length: u64,
    ) -> Result<(Shape, Slice), Trouble> {
        let slice = source::prove_length(&self.net, peer, id, length).await?;
        let wrong = |error: peerproof_proof::ranges::RangeError| {
            Trouble::Corrupt(format!("the announced {length} bytes are not proven: {error}"))
        };
        let shape = Shape::new(length, tree::GROUP).map_err(wrong)?;
        verify(Mode::Plain, &tree::root(id), shape, shape.last(), &slice).map_err(wrong)?;
        Ok((shape, slice))
    }

    async fn create(
        &self,
        id: ModelId,
        shape: Shape,
        peer: PeerId,
        slice: &Slice,
        book: &mut Book,
    ) -> Result<Arc<Partial>, FetchError> {
        let mut open = self.open.lock().await;
        if let Some(partial) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(partial);
        }
        let partial = Arc::new(self.store.begin(id, shape.length())?);
        open.insert(id, Arc::downgrade(&partial));
        match partial.insert(shape.last(), slice) {
            Ok(new) => *book.sent.entry(peer).or_default() += new,
            Err(crate::models::InsertError::Store(error)) => return Err(error.into()),
            // It was verified a moment ago.
            Err(error) => tracing::error!(%error, "a proven range was not taken"),
        }
        Ok(partial)
    }

    async fn missing(
        &self,
        partial: &Arc<Partial>,
        ranges: Vec<Range<u64>>,
        watch: FetchWatch<'_>,
    ) -> Result<Vec<Range<u64>>, FetchError> {
        let partial = Arc::clone(partial);
        watched(watch, move |watch| partial.missing(&ranges, watch)).await
    }

    /// Fetches what is missing, from as many as will send.
    async fn fetch(
        &self,
        partial: &Arc<Partial>,
        missing: &[Range<u64>],
        pace: Arc<Pace>,
        book: &mut Book,
        watch: FetchWatch<'_>,
    ) -> Result<(), FetchError> {
        let queue = Queue::new(missing);
        let (events, mut reports) = mpsc::channel(EVENTS);
        let (net, partial) = (self.net.clone(), Arc::clone(partial));
        let (id, length) = (partial.id(), partial.length());
        let fetch = Arc::new(Fetch { net, partial, queue, pace, events });
        let mut tasks = JoinSet::new();
        let mut active: HashSet<PeerId> = HashSet::new();
        let mut found = self.search(id);
        let mut again: Option<tokio::time::Instant> = None;
        let (mut fruitless, mut pause) = (0, SEARCH_SOON);
        let mut tick = tokio::time::interval(TICK);
        while !(fetch.queue.is_done() && active.is_empty()) {
            tokio::select! {
                next = found.recv(), if again.is_none() && active.len() < MAX_SOURCES => {
                    let Some(source) = next else {
                        again = Some(tokio::time::Instant::now() + pause);
                        pause = (pause * 2).min(SEARCH_AGAIN);
                        continue;
                    };
                    if book.may_try(&source.peer) && self.suits(&source, length, book)
                        && active.insert(source.peer)
                    {
                        tasks.spawn(source::run(Arc::clone(&fetch), source.peer));
                    }
                }
                Some(event) = reports.recv() => match event {
                    Event::Took(peer, bytes) => {
                        *book.sent.entry(peer).or_default() += bytes;
                        fruitless = 0;
                    }
                    Event::Ended(peer, trouble) => {
                        active.remove(&peer);
                        if let Some(trouble) = trouble {
                            self.give_up(id, peer, trouble, book).await?;
                        }
                        // Who is left alone looks for others at once.
                        again = again.map(|at| at.min(tokio::time::Instant::now() + SEARCH_SOON));
                    }
                },
                () = super::sleep_until(again) => {
                    fruitless += u32::from(active.is_empty());
                    if fruitless >= MAX_FRUITLESS {
                        let have = fetch.partial.have_bytes();
                        let dropped = std::mem::take(&mut book.dropped);
                        return Err(FetchError::NoneLeft { have, total: length, dropped });
                    }
                    found = self.search(id);
                    again = None;
                }
                _ = tick.tick() => {
                    tell(watch, Stage::Fetching, fetch.partial.have_bytes(), Some(length))?;
                }
            }
        }
        // Nobody else uses the file from here on.
        while tasks.join_next().await.is_some() {}
        tell(watch, Stage::Fetching, fetch.partial.have_bytes(), Some(length))
    }

    /// Whether an announcement speaks of a file of the proven length.
    fn suits(&self, source: &Found, length: u64, book: &mut Book) -> bool {
        if source.file_bytes != length {
            let reason = format!("announces {} bytes, not {length}", source.file_bytes);
            book.drop_peer(source.peer, false, reason);
            book.barred.insert(source.peer);
            return false;
        }
        *book.names.entry(source.name.clone()).or_default() += 1;
        true
    }

    /// Notes what a peer did. What no honest peer does goes into the log.
    async fn give_up(
        &self,
        id: ModelId,
        peer: PeerId,
        trouble: Trouble,
        book: &mut Book,
    ) -> Result<(), FetchError> {
        match trouble {
            Trouble::Ours(error) => return Err(error.into()),
            Trouble::Passing(why, _) => {
                *book.attempts.entry(peer).or_default() += 1;
                tracing::info!(%peer, why, "a source is gone");
                book.drop_peer(peer, false, why);
            }
            Trouble::Refused(why) => {
                book.barred.insert(peer);
                tracing::info!(%peer, why, "a source refused");
                book.drop_peer(peer, false, why);
            }
            Trouble::Corrupt(why) => {
                book.barred.insert(peer);
                tracing::warn!(%peer, why, "a source sent what is not the model's; it is dropped");
                let reason = format!("{}: a range of model {id}: {why}", Fault::Garbage);
                let seen = Observation::new(peer.public_key(), reason, None);
                let body = LogBody::Evidence(Evidence::Observation(seen));
                let entry = self.ledger.remember(body);
                // What could not be logged is said by the ledger, and does not end the fetch.
                let _ = self.ledger.append(&entry).await;
                book.drop_peer(peer, true, why);
            }
        }
        Ok(())
    }

    /// Those who announce the model, as they are found; once somebody is, the others must
    /// follow soon.
    fn search(&self, id: ModelId) -> mpsc::Receiver<Found> {
        let (sink, sources) = mpsc::channel(EVENTS);
        let search = |wanted| self.directory.search(wanted, SEARCH, true);
        let (mut served, mut audited) = (search(Wanted::Served(id)), search(Wanted::Audited(id)));
        tokio::spawn(async move {
            let mut settled = None;
            let (mut more, mut more_audited) = (true, true);
            while more || more_audited {
                let found = tokio::select! {
                    found = served.recv(), if more => {
                        more = found.is_some();
                        found
                    }
                    found = audited.recv(), if more_audited => {
                        more_audited = found.is_some();
                        found
                    }
                    () = super::sleep_until(settled) => return,
                };
                let Some((peer, known)) = found else { continue };
                settled = Some(tokio::time::Instant::now() + SETTLE);
                if let Some(source) = announced(peer, &known.announcement, id)
                    && sink.send(source).await.is_err()
                {
                    return;
                }
            }
        });
        sources
    }

    /// What peers call it, if that can be a name here and nothing else has it.
    fn free_name(&self, id: ModelId, book: &Book) -> String {
        let digits = &id.to_string()[..8];
        let pinned = KNOWN.iter().find(|known| known.id == id.to_string()).map(|known| known.name);
        let name = pinned.or(book.name()).unwrap_or("model");
        let names = [name.to_owned(), format!("{name}-{digits}"), format!("model-{digits}")];
        let free = names.into_iter().find(|name| self.store.check_free(name, id).is_ok());
        free.unwrap_or_else(|| format!("model-{digits}"))
    }

    async fn adopt(
        &self,
        partial: Arc<Partial>,
        name: String,
        watch: FetchWatch<'_>,
    ) -> Result<Installed, FetchError> {
        self.open.lock().await.remove(&partial.id());
        let since = Instant::now();
        // A slow source's last piece may be being written, or another fetch reads a range.
        while Arc::strong_count(&partial) > 1 && since.elapsed() < ADOPT {
            tokio::time::sleep(TICK).await;
        }
        let busy = || ModelError::Busy { name: name.clone() };
        let partial = Arc::try_unwrap(partial).map_err(|_| busy())?;
        let (store, name) = (self.store.clone(), name.clone());
        watched(watch, move |watch| store.adopt(partial, &name, "peers".into(), watch)).await
    }
}

/// What to do if nobody has a model.
const HINT: &str = "start `peerproof up` where the model is, and name that node with --peer if it is not found by itself; `peerproof doctor` says what is in the way";

fn announced(peer: PeerId, announcement: &Announcement, id: ModelId) -> Option<Found> {
    let mut offers = announcement.serves.iter().chain(&announcement.audits);
    let offer = offers.find(|offer| offer.model_id == id)?;
    Some(Found { peer, name: offer.name.clone(), file_bytes: offer.file_bytes })
}

fn tell(
    watch: FetchWatch<'_>,
    stage: Stage,
    done: u64,
    total: Option<u64>,
) -> Result<(), FetchError> {
    match watch(Progress { stage, done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ModelError::Cancelled.into()),
    }
}

/// Runs what blocks on a thread of its own, and passes on what it reports.
async fn watched<T: Send + 'static>(
    watch: FetchWatch<'_>,
    work: impl FnOnce(Watch<'_>) -> Result<T, ModelError> + Send + 'static,
) -> Result<T, FetchError> {
    let stop = Arc::new(AtomicBool::new(false));
    let latest = Arc::new(Mutex::new(None));
    let (told, news) = (Arc::clone(&stop), Arc::clone(&latest));
    let mut working = tokio::task::spawn_blocking(move || {
        work(&mut |progress| {
            *news.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
            match told.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
    });
    loop {
        let ended = tokio::time::timeout(TICK, &mut working).await;
        let progress = latest.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(progress) = progress
            && watch(progress).is_break()
        {
            stop.store(true, Ordering::Relaxed);
        }
        if let Ok(ended) = ended {
            let failed = |error| ModelError::Io {
                path: "a thread".into(),
                source: std::io::Error::other(error),
            };
            return Ok(ended.map_err(failed)??);
        }
    }
}

/// Ranges of an installed file, compared with its tree.
fn read_installed(
    model: &Installed,
    id: ModelId,
    ranges: &[Range<u64>],
    watch: Watch<'_>,
) -> Result<Vec<Vec<u8>>, ModelError> {
    let opened = open_installed(model, id, ranges, watch)?;
    let inner = |(range, slice): (&Range<u64>, Slice)| {
        let from = (range.start % tree::GROUP.bytes()) as usize;
        slice.bytes[from..from + (range.end - range.start) as usize].to_vec()
    };
    Ok(ranges.iter().zip(opened).map(inner).collect())
}

/// Openings of ranges of an installed file, each with what leads to the id.
fn open_installed(
    model: &Installed,
    id: ModelId,
    ranges: &[Range<u64>],
    watch: Watch<'_>,
) -> Result<Vec<Slice>, ModelError> {
    use std::os::unix::fs::FileExt as _;
    let io = |source| ModelError::Io { path: model.path.clone(), source };
    let tree = tree::of(&model.path, id, watch)?;
    let file = std::fs::File::open(&model.path).map_err(io)?;
    let open = |range: &Range<u64>| {
        let slice = tree.open(range.clone(), |at, buffer| {
            file.read_exact_at(buffer, at).map_err(OpenError::Io)
        });
        slice.map_err(|error: OpenError| match error {
            OpenError::Io(source) => io(source),
            OpenError::Range(error) => io(std::io::Error::other(error)),
        })
    };
    ranges.iter().map(open).collect()
}

enum OpenError {
    Range(peerproof_proof::ranges::RangeError),
    Io(std::io::Error),
}

impl From<peerproof_proof::ranges::RangeError> for OpenError {
    fn from(error: peerproof_proof::ranges::RangeError) -> OpenError {
        OpenError::Range(error)
    }
}
