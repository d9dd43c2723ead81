//! Spot audits: cells of an answer, opened by who holds the model and recomputed
//! by who does not.
//!
//! [`open_cells`] answers requests of the cells protocol: it computes the answer
//! again and opens what is asked for. [`Spots`] is the router's side: it draws
//! cells by the nonce that was secret until the receipt came, asks the provider,
//! fetches the stretches of the model's file that the cells take from whoever
//! shares it, and recomputes. Only what is fetched once more than needed stays:
//! the partial file on disk.
//!
//! Deliberately absent: a judgement of the whole answer. What was not drawn may
//! be wrong.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peerproof_engine::light;
use peerproof_engine::spot::{Checker, SpotError, expose};
use peerproof_identity::{PeerId, PublicKey};
use peerproof_job::reputation::Fault;
use peerproof_job::router::{Audited, Auditor};
use peerproof_net::{FrameLimits, FrameStream, Handle, Incoming};
use peerproof_proof::audit::verify_case;
use peerproof_proof::cells;
use peerproof_proof::cells::Exposure;
use peerproof_proof::receipt::{verify_output_count, verify_terms};
use peerproof_proof::{Transcript, Tree};
use peerproof_wire::audit::AuditFailure;
use peerproof_wire::evidence::{LogBody, Observation};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    CELLS_PROTOCOL, Case, Cell, CellOpening, CellsPart, CellsReply, CellsRequest, Digest, Evidence,
    FraudClaim, FraudProof, Leaf, Message as _, Mismatch, ModelId, limits,
};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;

use super::Inner;
use super::auditing::Replays;
use super::disputing::{self, Matter};
use super::docket::Docket;
use super::fetching::Fetcher;
use super::hearings::{Hearing, Hearings};
use crate::fraud;

/// Cells that a spot audit draws.
pub(crate) const CELLS: u32 = 8;
/// A router that asks for nothing within this time is gone.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other side may take to compute an answer again and to send its cells.
const OPENING: Duration = Duration::from_secs(110);
/// How long reaching it may take.
const REACHING: Duration = Duration::from_secs(3);
/// The longest pause that a busy provider is left before it is asked again.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long whoever asked may take to read what was opened.
const SENDING: Duration = Duration::from_secs(60);
/// How long the weights of a fraud proof may take to come.
const PROVING: Duration = Duration::from_secs(600);
/// Requests that wait, run or are sent at once.
const MAX_REQUESTS: usize = 16;
/// Of one peer.
pub(super) const MAX_REQUESTS_A_PEER: usize = 2;
/// How long a node that stops waits for a fraud proof: whoever asked once and leaves has it then.
pub(super) const PROVING_AT_THE_END: Duration = Duration::from_secs(15);
/// Models whose layers are kept in memory.
const MAX_CHECKERS: usize = 4;
/// The first stretch of a file that is tried for its header.
const FIRST_HEADER_BYTES: u64 = 1 << 20;
/// The longest header that is fetched.
const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Opens cells of the answers that `own` has signed, for whoever asks, until `stop` turns true.
pub(super) async fn open_cells(
    own: PublicKey,
    replays: Arc<Replays>,
    mut incoming: Incoming,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_REQUESTS));
    let peers: Arc<Mutex<HashMap<PeerId, usize>>> = Arc::default();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((_, stream)) => {
                    let guest = Guest::enter(&peers, stream.peer());
                    let (replays, room) = (Arc::clone(&replays), Arc::clone(&room));
                    tasks.spawn(async move { answer(own, &replays, &room, guest, stream).await });
                }
                None => return,
            },
            Some(_) = tasks.join_next() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// Requests of each peer.
pub(super) type Guests = Arc<Mutex<HashMap<PeerId, usize>>>;

/// A peer's request, counted while it lasts.
pub(super) struct Guest {
    peers: Arc<Mutex<HashMap<PeerId, usize>>>,
    peer: PeerId,
    /// How many of this peer's are there, this one included.
    count: usize,
}

impl Guest {
    pub(super) fn enter(peers: &Guests, peer: PeerId) -> Guest {
        let mut counts = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        *count += 1;
        Guest { peers: Arc::clone(peers), peer, count: *count }
    }

    /// How many of this peer's there were as it came, this one included.
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// What went wrong with another's openings.
pub(super) enum Trouble {
    /// None came.
    Unanswered(String),
    /// None comes before so long.
    Busy(Duration),
    /// What came is none.
    Wrong(String),
}

impl Trouble {
    /// What it amounts to in an audit of the one who was to open.
    pub(super) fn blame(self) -> Audited {
        let (fault, detail) = match self {
            Trouble::Unanswered(detail) => (Fault::Unanswered, detail),
            // `ask` comes again.
            Trouble::Busy(_) => {
                (Fault::Unanswered, "the provider has no room for cells".to_owned())
            }
            Trouble::Wrong(detail) => (Fault::Openings, detail),
        };
        Audited::Breach { fault, detail }
    }
}

/// One request and its openings.
async fn answer(
    own: PublicKey,
    replays: &Replays,
    room: &Semaphore,
    guest: Guest,
    mut stream: FrameStream,
) {
    let reply = match prepare(own, replays, room, &guest, &mut stream).await {
        Ok(None) => return,
        Ok(Some((_place, openings))) => {
            let sent = tokio::time::timeout(SENDING, send(&mut stream, &openings)).await;
            sent.unwrap_or_else(|_| Err("whoever asked reads too slowly".into()))
        }
        Err(failure) => match CellsReply::Failure(failure).encode() {
            Ok(frame) => stream.send(&frame).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
    };
    match reply {
        Ok(()) => drop(stream.finish().await),
        Err(error) => tracing::debug!(peer = %guest.peer, error, "cells were not sent"),
    }
}

/// The openings asked for, encoded, and the place that they take until they are sent;
/// `None` if nobody asked.
async fn prepare<'a>(
    own: PublicKey,
    replays: &Replays,
    room: &'a Semaphore,
    guest: &Guest,
    stream: &mut FrameStream,
) -> Result<Option<(SemaphorePermit<'a>, Vec<Vec<u8>>)>, AuditFailure> {
    let busy = |why: &str| AuditFailure { retry_after_ms: 1_000, ..AuditFailure::new(why) };
    // Read in any case: a stream that is dropped with bytes unread breaks, and the reply is lost.
    let Ok(Some(frame)) = stream.recv().await else { return Ok(None) };
    if guest.count > MAX_REQUESTS_A_PEER {
        return Err(busy("this peer's other requests come first"));
    }
    let request = CellsRequest::decode(&frame).map_err(|e| AuditFailure::new(e.to_string()))?;
    check_request(own, &request.case, &request.client_nonce).map_err(AuditFailure::new)?;
    let place = room.try_acquire().map_err(|_| busy("too many requests for cells"))?;
    let CellsRequest { case, cells, products, .. } = request;
    let model = case.offer.model_id;
    let opened = replays.replay(Arc::new(case), move |replayer, case| {
        let begun = Instant::now();
        let opened = open(replayer, case, &cells, products).map_err(|error| error.to_string())?;
        let bytes = opened.iter().map(|opening| opening.len() as u64).sum();
        let counted = cells.len() as u64;
        Ok((opened, begun.elapsed(), u64::from(case.receipt.leaves), counted, bytes))
    });
    match opened.await {
        Some(Ok((opened, spent, positions, cells, bytes))) => {
            if let Some(held) = replays.held(model) {
                held.costs.opened(spent, positions, cells, bytes);
            }
            Ok(Some((place, opened)))
        }
        Some(Err(why)) => Err(AuditFailure::new(why)),
        None => Err(AuditFailure::new(format!("model {model} is not held here"))),
    }
}

/// That a case is this node's to open, and asked about by its router.
pub(super) fn check_request(
    own: PublicKey,
    case: &Case,
    client_nonce: &[u8; 32],
) -> Result<(), String> {
    // Anybody can sign a receipt; to open strangers' would be to compute for whoever asks.
    if case.receipt.key() != own {
        return Err("only answers that this node has signed are opened".into());
    }
    let offer = &case.offer;
    if client_nonce_hash(client_nonce) != offer.client_nonce_hash {
        return Err("the nonce is not the one hidden in the offer".into());
    }
    if offer.pooling.is_some() {
        return Err("cells of embeddings are not opened: audit them in full".into());
    }
    verify_papers(case).map_err(|error| error.to_string())
}

/// That offer, receipt and tokens belong together, which takes no model.
fn verify_papers(case: &Case) -> Result<(), Box<dyn std::error::Error>> {
    let Case { offer, receipt, tokens } = case;
    verify_case(offer, receipt, tokens)?;
    verify_terms(offer, receipt)?;
    Ok(verify_output_count(receipt, tokens)?)
}

/// Computes the answer again and opens cells of it.
pub(crate) fn open(
    replayer: &peerproof_engine::execute::Replayer,
    case: &Case,
    cells: &[Cell],
    products: bool,
) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let shape = replayer.model().transformer().shape();
    let dimensions = peerproof_engine::spot::dimensions(shape);
    let most = if products { light::most_products(shape) } else { 0 };
    if cells.len() > cells::at_once(&case.receipt, &dimensions, most) as usize {
        return Err("these cells read more keys and values than are sent at once".into());
    }
    let (leaves, exposure, tree) = recompute(replayer, case, cells)?;
    let mut openings = Vec::new();
    for exposed in &exposure.exposed {
        let mut opening = cells::open(&tree, &leaves, &dimensions, &exposure, exposed)?;
        if products {
            let shown = light::shown_products(replayer.model().transformer(), exposed)?;
            opening.products = shown.iter().flat_map(|product| product.to_le_bytes()).collect();
        }
        openings.push(opening.encode()?);
    }
    Ok(openings)
}

/// Computes an answer again, which must lead to its receipt, and takes out what cells read and
/// gave.
pub(super) fn recompute(
    replayer: &peerproof_engine::execute::Replayer,
    case: &Case,
    cells: &[Cell],
) -> Result<(Vec<Leaf>, Exposure, Tree), Box<dyn std::error::Error>> {
    let Case { offer, receipt, tokens } = case;
    let positions = replayer.model().prompt_tokens(&offer.prompt)?.len() + tokens.len() - 1;
    if positions + 1 != receipt.leaves as usize {
        return Err("the receipt counts other tokens of the prompt than this model".into());
    }
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut take = |step: peerproof_proof::Step| leaves.push(step.into());
    let given_up = AtomicBool::new(false);
    let exposure = expose(replayer, &given_up, offer, tokens, cells, &mut take)?;
    let mut transcript = Transcript::new();
    leaves.iter().try_for_each(|leaf| transcript.push(leaf))?;
    let kv_root = cells::kv_root(&exposure.kv_layers);
    let tree =
        transcript.close_with(receipt.stop, receipt.output_tokens, &receipt.text_hash, &kv_root)?;
    if tree.root() != receipt.transcript_root {
        return Err("the receipt has another root than this model gives".into());
    }
    Ok((leaves, exposure, tree))
}

async fn send(stream: &mut FrameStream, openings: &[Vec<u8>]) -> Result<(), String> {
    for opening in openings {
        let mut left = opening.len() as u64;
        for bytes in opening.chunks(limits::MAX_CELLS_PART_BYTES) {
            left -= bytes.len() as u64;
            let part = CellsReply::Part(CellsPart { left, bytes: bytes.to_vec() });
            let frame = part.encode().map_err(|e| e.to_string())?;
            stream.send(&frame).await.map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// Audits an answer by spots. Who is found out is convicted by a file, too, which nothing
/// waits for.
pub(crate) async fn audit(inner: &Arc<Inner>, case: &Arc<Case>, nonce: [u8; 32]) -> Audited {
    let (audited, wrong) = inner.spots.run(&inner.fetcher, case, nonce).await;
    if let Some(wrong) = wrong {
        convict(inner, wrong);
    }
    audited
}

/// Begins to write a proof against who committed to a wrong cell.
pub(super) fn convict(inner: &Arc<Inner>, wrong: Wrong) {
    let inner = Arc::clone(inner);
    inner.spots.proving.fetch_add(1, Ordering::Relaxed);
    // Before anybody hears of the verdict, which bars it.
    let hearing = inner.spots.hearings.begin(wrong.case.receipt.key().peer_id());
    tokio::spawn(async move {
        inner.spots.convict(&inner.fetcher, wrong, hearing).await;
        inner.spots.proving.fetch_sub(1, Ordering::Relaxed);
    });
}

/// Who answers with a model owes ranges of its file to who wants to check the answer, unless
/// somebody else sends them: nobody can check cells otherwise. An answer that went unchecked for
/// that says so, and counts against its provider like an opening that was not given.
pub(super) async fn hold_to_account(inner: &Inner, case: &Case, audited: Audited) -> Audited {
    let Audited::Unavailable(why) = audited else { return audited };
    if !inner.fetcher.is_withheld(case.offer.model_id) {
        return Audited::Unavailable(why);
    }
    let said = "its provider sends no ranges of the model's file, nor does anybody else, which \
                counts against it";
    let reason = format!("{}: answers with a model and sends no ranges of it", Fault::Unanswered);
    let seen = Observation::new(case.receipt.key(), reason, None);
    let entry = inner.ledger.remember(LogBody::Evidence(Evidence::Observation(seen)));
    if let Err(error) = inner.ledger.append(&entry).await {
        tracing::warn!(%error, "what a provider withheld could not be logged");
    }
    Audited::Unavailable(format!("{said}: {why}"))
}

/// What a router audits by spots with.
pub(crate) struct Spots {
    net: Handle,
    /// Folder of evidence files.
    evidence: PathBuf,
    /// Models with the layers that were needed so far.
    checkers: Mutex<HashMap<ModelId, Arc<Checker>>>,
    /// Fraud proofs that are being written.
    proving: AtomicUsize,
    /// Where they go from here.
    docket: Arc<Docket>,
    /// Whom a dispute is held with.
    pub(super) hearings: Arc<Hearings>,
}

impl Spots {
    pub(crate) fn new(net: Handle, evidence: PathBuf, docket: Arc<Docket>) -> Spots {
        let (checkers, proving, hearings) = Default::default();
        Spots { net, evidence, checkers, proving, docket, hearings }
    }

    /// Whether fraud proofs are being written.
    pub(super) fn is_proving(&self) -> bool {
        self.proving.load(Ordering::Relaxed) > 0
    }

    /// Has the provider open the cells that the nonce draws, and recomputes them. Gives the
    /// cell that does not hold, too, for [`Spots::convict`].
    pub(crate) async fn run(
        &self,
        fetcher: &Fetcher,
        case: &Arc<Case>,
        client_nonce: [u8; 32],
    ) -> (Audited, Option<Wrong>) {
        let mut wrong = None;
        let audited = self.audit(fetcher, case, client_nonce, &mut wrong).await;
        (audited, wrong)
    }

    async fn audit(
        &self,
        fetcher: &Fetcher,
        case: &Arc<Case>,
        client_nonce: [u8; 32],
        wrong: &mut Option<Wrong>,
    ) -> Audited {
        let checker = match self.checker(fetcher, case.offer.model_id).await {
            Ok(checker) => checker,
            Err(why) => return Audited::Unavailable(why),
        };
        let layers = checker.dimensions().layers;
        let (offer, receipt) = (&case.offer, &case.receipt);
        let wanted = CELLS.min(cells::at_once(receipt, &checker.dimensions(), 0));
        if wanted == 0 {
            let why =
                "a cell of so long an answer reads more keys and values than are sent at once";
            return Audited::Unavailable(why.into());
        }
        let cells: Vec<Cell> =
            cells::drawn(&client_nonce, offer, receipt, layers, wanted).into_iter().collect();
        let request =
            CellsRequest { case: Case::clone(case), client_nonce, cells, products: false };
        let provider = receipt.key().peer_id();
        let (loaded, opened) = tokio::join!(
            load(fetcher, &checker, case, &request.cells),
            self.ask(provider, &request)
        );
        let openings = match opened {
            Ok(openings) => openings,
            Err(trouble) => return trouble.blame(),
        };
        if let Err(why) = loaded {
            return Audited::Unavailable(why);
        }
        let judged = {
            let (checker, case) = (Arc::clone(&checker), Arc::clone(case));
            let cells = request.cells.clone();
            tokio::task::spawn_blocking(move || judge(&checker, &case, &cells, openings)).await
        };
        match judged {
            Err(error) => Audited::Unavailable(error.to_string()),
            Ok(Judged::Unable(why)) => Audited::Unavailable(why),
            Ok(Judged::Refused(detail)) => Audited::Breach { fault: Fault::Openings, detail },
            Ok(Judged::Hold(held)) => {
                Audited::Spot { held, of: cells::count(offer, receipt, layers) }
            }
            Ok(Judged::Differs(mismatch, opening)) => {
                *wrong = Some(Wrong::new(checker, case, opening, client_nonce));
                Audited::Failed { by: Auditor::Local, mismatch, verdicts: Vec::new() }
            }
        }
    }

    /// The model's checker, made of its header if there is none yet.
    pub(super) async fn checker(
        &self,
        fetcher: &Fetcher,
        id: ModelId,
    ) -> Result<Arc<Checker>, String> {
        let known = |spots: &Spots| {
            spots.checkers.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
        };
        if let Some(checker) = known(self) {
            return Ok(checker);
        }
        let mut wanted = FIRST_HEADER_BYTES;
        let (length, needed) = loop {
            let (length, beginning) = beginning(fetcher, id, wanted).await?;
            match Checker::needed(length, &beginning).map_err(|e| e.to_string())? {
                Some(needed) => break (length, needed),
                None if wanted >= MAX_HEADER_BYTES.min(length) => {
                    return Err("the model file's header is too long to be fetched".into());
                }
                None => wanted *= 2,
            }
        };
        let parts = read(fetcher, id, needed).await?;
        let open = move || Checker::open(length, id, &lent(&parts)).map_err(|e| e.to_string());
        let opened = tokio::task::spawn_blocking(open).await.map_err(|e| e.to_string())??;
        let checker = Arc::new(opened);
        let mut checkers = self.checkers.lock().unwrap_or_else(PoisonError::into_inner);
        // Their layers are in memory; what they were made of is on disk.
        if checkers.len() >= MAX_CHECKERS && !checkers.contains_key(&id) {
            checkers.clear();
        }
        Ok(Arc::clone(checkers.entry(id).or_insert(checker)))
    }

    /// All openings asked for, within [`OPENING`] and [`limits::MAX_CELL_BYTES`].
    pub(super) async fn ask(
        &self,
        peer: PeerId,
        request: &CellsRequest,
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        let asking = async {
            loop {
                match self.talk(peer, request).await {
                    Err(Trouble::Busy(pause)) => tokio::time::sleep(pause).await,
                    settled => return settled,
                }
            }
        };
        let asked = tokio::time::timeout(OPENING, asking).await;
        let late = format!("the provider opened no cells within {} s", OPENING.as_secs());
        asked.unwrap_or(Err(Trouble::Unanswered(late)))
    }

    async fn talk(&self, peer: PeerId, request: &CellsRequest) -> Result<Vec<Vec<u8>>, Trouble> {
        let unanswered = |why: &dyn std::fmt::Display| {
            Trouble::Unanswered(format!("the provider does not open cells: {why}"))
        };
        let limits = FrameLimits { read_timeout: OPENING, ..FrameLimits::default() };
        let open = self.net.open(peer, CELLS_PROTOCOL, REACHING, limits);
        let mut stream = open.await.map_err(|e| unanswered(&e))?;
        let frame = request.encode().map_err(|e| unanswered(&e))?;
        stream.send(&frame).await.map_err(|e| unanswered(&e))?;
        let (mut openings, mut room) = (Vec::new(), limits::MAX_CELL_BYTES as u64);
        while openings.len() < request.cells.len() {
            let opening = opening(&mut stream, room).await?;
            room -= opening.len() as u64;
            openings.push(opening);
        }
        Ok(openings)
    }

    /// Writes a proof that convinces whoever has neither the model nor a reason to trust this
    /// node. Takes as long as those take who send the weights, so nothing may wait for it.
    async fn convict(&self, fetcher: &Fetcher, wrong: Wrong, hearing: Hearing) {
        let Wrong { checker, case, opening, client_nonce } = wrong;
        let matter = Matter { checker: &checker, case: &case, opening: &opening, client_nonce };
        let accused = case.receipt.key().peer_id();
        let heard = async {
            self.narrow(fetcher, matter).await;
            drop(hearing);
        };
        let by_cell = async {
            let claim = self.convict_by_cell(fetcher, &checker, &case, &opening).await;
            let Some(claim) = claim else { return };
            // What the docket finds ends the accused's connections.
            let _ = tokio::time::timeout(HEARING, self.hearings.over(accused)).await;
            self.docket.found(Evidence::Fraud(claim)).await;
        };
        tokio::join!(by_cell, heard);
    }

    /// Writes the proof of one operation, if the accused helps to find it.
    async fn narrow(&self, fetcher: &Fetcher, matter: Matter<'_>) {
        let written = async {
            let proof = disputing::dispute(&self.net, fetcher, matter).await?;
            let dir = self.evidence.clone();
            let write = move || crate::dispute::write(&dir, &proof).map_err(|e| e.to_string());
            tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?
        };
        let written = tokio::time::timeout(PROVING, written).await;
        match written.unwrap_or_else(|_| Err("the dispute took too long".into())) {
            Ok(path) => tracing::info!(path = %path.display(), "a dispute was proven"),
            Err(error) => {
                tracing::info!(error, "a dispute was left unanswered: the whole cell is shown");
            }
        }
    }

    /// Writes the proof of the whole cell, which takes nobody's help but that of who has the
    /// weights.
    async fn convict_by_cell(
        &self,
        fetcher: &Fetcher,
        checker: &Checker,
        case: &Case,
        opening: &CellOpening,
    ) -> Option<FraudClaim> {
        let written = async {
            let ranges = checker.evidence_ranges(opening.cell.layer).map_err(|e| e.to_string())?;
            let id = case.offer.model_id;
            let weights = fetcher.slices(id, checker.file_bytes(), &ranges).await;
            let weights = weights.map_err(|e| e.to_string())?;
            let proof = FraudProof { case: case.clone(), opening: opening.clone(), weights };
            let dir = self.evidence.clone();
            let write = move || keep(&dir, &proof).map_err(|e| e.to_string());
            tokio::task::spawn_blocking(write).await.map_err(|e| e.to_string())?
        };
        let written = tokio::time::timeout(PROVING, written).await;
        match written.unwrap_or_else(|_| Err("the weights did not come in time".into())) {
            Ok((path, claim)) => {
                tracing::info!(path = %path.display(), "a fraud proof was written");
                Some(claim)
            }
            Err(error) => {
                tracing::warn!(error, "no fraud proof could be written");
                None
            }
        }
    }
}

/// Writes a proof into a folder, and says what others are told of it.
fn keep(dir: &Path, proof: &FraudProof) -> Result<(PathBuf, FraudClaim), fraud::FraudError> {
    let bytes = fraud::to_bytes(proof)?;
    let claim = FraudClaim {
        accused: proof.case.receipt.key(),
        job: proof.case.offer.id(),
        file: Digest::from_bytes(*blake3::hash(&bytes).as_bytes()),
        bytes: bytes.len() as u64,
    };
    Ok((fraud::write_bytes(dir, &bytes)?, claim))
}

/// One opening of at most `room` bytes, put together of its parts.
async fn opening(stream: &mut FrameStream, room: u64) -> Result<Vec<u8>, Trouble> {
    let unanswered = |why: &dyn std::fmt::Display| {
        Trouble::Unanswered(format!("the provider does not open cells: {why}"))
    };
    let mut opening: Vec<u8> = Vec::new();
    let mut whole = None;
    loop {
        let frame = stream.recv().await.map_err(|e| unanswered(&e))?;
        let frame = frame.ok_or_else(|| unanswered(&"it closed the stream"))?;
        let part = match CellsReply::decode(&frame) {
            Ok(CellsReply::Part(part)) => part,
            Ok(CellsReply::Failure(AuditFailure { message, retry_after_ms: 0 })) => {
                return Err(unanswered(&message));
            }
            Ok(CellsReply::Failure(failure)) => {
                let pause = Duration::from_millis(failure.retry_after_ms).min(MAX_PAUSE);
                return Err(Trouble::Busy(pause));
            }
            Err(error) => return Err(Trouble::Wrong(error.to_string())),
        };
        opening.extend_from_slice(&part.bytes);
        let total = opening.len() as u64 + part.left;
        if total > room || *whole.get_or_insert(total) != total {
            return Err(Trouble::Wrong("the parts of an opening don't add up".into()));
        }
        if part.left == 0 {
            return Ok(opening);
        }
    }
}

/// How long others are not told of a written proof while the accused is being heard.
const HEARING: Duration = Duration::from_secs(10);

/// A cell that does not follow from the model.
pub(crate) struct Wrong {
    checker: Arc<Checker>,
    case: Arc<Case>,
    opening: Box<CellOpening>,
    client_nonce: [u8; 32],
}

impl Wrong {
    pub(super) fn new(
        checker: Arc<Checker>,
        case: &Arc<Case>,
        opening: Box<CellOpening>,
        client_nonce: [u8; 32],
    ) -> Wrong {
        Wrong { checker, case: Arc::clone(case), opening, client_nonce }
    }
}

/// What recomputing the cells of an answer has shown.
pub(crate) enum Judged {
    /// So many, all of which hold.
    Hold(u32),
    /// One does not follow from the model.
    Differs(Mismatch, Box<CellOpening>),
    /// What was opened is not what was committed to.
    Refused(String),
    /// Nothing.
    Unable(String),
}

pub(crate) fn judge(
    checker: &Checker,
    case: &Case,
    cells: &[Cell],
    openings: Vec<Vec<u8>>,
) -> Judged {
    for (cell, bytes) in cells.iter().zip(&openings) {
        let opening = match CellOpening::decode(bytes) {
            Ok(opening) if opening.cell == *cell && opening.products.is_empty() => opening,
            Ok(_) => return Judged::Refused("something else was opened than asked for".into()),
            Err(error) => return Judged::Refused(error.to_string()),
        };
        match checker.judge(case, &opening) {
            Ok(None) => {}
            Ok(Some(mismatch)) => return Judged::Differs(mismatch, Box::new(opening)),
            Err(error @ SpotError::Opening(_)) => return Judged::Refused(error.to_string()),
            Err(error) => return Judged::Unable(error.to_string()),
        }
    }
    Judged::Hold(cells.len() as u32)
}

/// Loads what cells take and is not loaded yet.
pub(super) async fn load(
    fetcher: &Fetcher,
    checker: &Arc<Checker>,
    case: &Case,
    cells: &[Cell],
) -> Result<(), String> {
    for layer in cells.iter().map(|cell| cell.layer) {
        if checker.has(layer) {
            continue;
        }
        let ranges = checker.ranges(layer).map_err(|e| e.to_string())?;
        let parts = read(fetcher, case.offer.model_id, ranges).await?;
        let checker = Arc::clone(checker);
        let load = move || checker.load(layer, &lent(&parts)).map_err(|e| e.to_string());
        tokio::task::spawn_blocking(load).await.map_err(|e| e.to_string())??;
    }
    Ok(())
}

/// A file's length and its first bytes, or all of it.
async fn beginning(fetcher: &Fetcher, id: ModelId, bytes: u64) -> Result<(u64, Vec<u8>), String> {
    let mut watch = |_| std::ops::ControlFlow::Continue(());
    let read = fetcher.read(id, std::slice::from_ref(&(0..bytes)), &mut watch).await;
    let read = match read {
        Err(crate::fetch::FetchError::Range { length, .. }) if length > 0 => {
            fetcher.read(id, std::slice::from_ref(&(0..length)), &mut watch).await
        }
        read => read,
    };
    let beginning = read.map_err(|e| e.to_string())?.pop().unwrap_or_default();
    let held = fetcher.held(id).await.map_err(|e| e.to_string())?;
    let (_, length) = held.ok_or("the model file is gone")?;
    Ok((length, beginning))
}

pub(super) async fn read(
    fetcher: &Fetcher,
    id: ModelId,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let mut watch = |_| std::ops::ControlFlow::Continue(());
    let parts = fetcher.read(id, &ranges, &mut watch).await.map_err(|e| e.to_string())?;
    Ok(ranges.iter().map(|range| range.start).zip(parts).collect())
}

pub(super) fn lent(parts: &[(u64, Vec<u8>)]) -> Vec<(u64, &[u8])> {
    parts.iter().map(|(start, bytes)| (*start, &bytes[..])).collect()
}
