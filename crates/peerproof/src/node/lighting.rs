//! Light audits: cells of an answer checked by the products of their matrices, by a router
//! that keeps secret combinations of the model's rows and no weights.
//!
//! What is kept is made once for a model, from the installed file or from ranges that peers
//! share, each verified and forgotten ([`Lights::prepare`]); it lies in the cache folder for
//! its owner alone. An audit draws cells as a spot audit does, asks for their products,
//! too, and checks them. Products that are refused lead to a spot audit of their cell
//! (`spotting`), which others can follow.
//! Deliberately absent: the check itself (`engine::light`).

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peerproof_engine::light::{LightChecker, Sketches};
use peerproof_engine::spot::{Checker, SpotError};
use peerproof_job::reputation::Fault;
use peerproof_job::router::{Audited, Auditor};
use peerproof_proof::cells;
use peerproof_wire::{Case, Cell, CellOpening, CellsRequest, Message as _, Mismatch, ModelId};
use tokio::sync::{Mutex as Turns, watch};

use super::Inner;
use super::fetching::Fetcher;
use super::spotting::{self, CELLS, Spots, Wrong, load, read};
use crate::home::{make_private_dir, random_seed};
use crate::light::Prepared;
use crate::store::write_atomic;

/// How long an audit waits for what it takes of the model to be made.
const PREPARING: Duration = Duration::from_secs(100);
/// How often a part of a model is asked for before it is given up.
const ATTEMPTS: u32 = 4;
/// The pause behind an attempt that failed.
const PAUSE: Duration = Duration::from_secs(2);
/// Models that are ready in memory.
const MAX_MODELS: usize = 4;
/// The longest file of sketches that is read.
const MAX_KEPT_BYTES: u64 = 8 << 30;

/// How far a model's preparation is: parts that are done, of how many.
pub(crate) type Parts = (u32, u32);

/// What light audits keep of models.
pub(crate) struct Lights {
    /// Where it lies.
    dir: PathBuf,
    ready: Mutex<HashMap<ModelId, Arc<LightChecker>>>,
    /// One model is made at a time.
    turn: Turns<()>,
    /// How far that is.
    parts: watch::Sender<Parts>,
}

impl Lights {
    pub(crate) fn new(dir: PathBuf) -> Lights {
        let (ready, turn, parts) = (Mutex::default(), Turns::default(), watch::Sender::default());
        Lights { dir, ready, turn, parts }
    }

    /// How far the model is that is being made.
    pub(crate) fn parts(&self) -> watch::Receiver<Parts> {
        self.parts.subscribe()
    }

    fn path(&self, id: ModelId) -> PathBuf {
        self.dir.join(format!("{id}.sketches"))
    }

    fn known(&self, id: ModelId) -> Option<Arc<LightChecker>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What light audits of a model take: as it was kept, else made now.
    pub(crate) async fn prepare(
        &self,
        spots: &Spots,
        fetcher: &Fetcher,
        id: ModelId,
    ) -> Result<(Arc<LightChecker>, Prepared), String> {
        let since = Instant::now();
        let path = self.path(id);
        let prepared = |light: &LightChecker, read_bytes, made| Prepared {
            model: id.to_string(),
            path: path.clone(),
            bytes: light.bytes() as u64,
            read_bytes,
            made,
            ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        if let Some(light) = self.known(id) {
            let prepared = prepared(&light, 0, false);
            return Ok((light, prepared));
        }
        let _turn = self.turn.lock().await;
        if let Some(light) = self.known(id) {
            let prepared = prepared(&light, 0, false);
            return Ok((light, prepared));
        }
        let checker = spots.checker(fetcher, id).await?;
        let kept = {
            let (checker, path) = (Arc::clone(&checker), path.clone());
            tokio::task::spawn_blocking(move || kept(checker, &path)).await
        };
        let (light, fetched, made) = match kept.map_err(|e| e.to_string())?? {
            Some(light) => (light, 0, false),
            None => {
                let (sketches, fetched) = self.make(fetcher, &checker, id).await?;
                let (dir, path) = (self.dir.clone(), path.clone());
                let keep = move || keep(checker, sketches, &dir, &path);
                let light =
                    tokio::task::spawn_blocking(keep).await.map_err(|e| e.to_string())??;
                (light, fetched, true)
            }
        };
        let prepared = prepared(&light, fetched, made);
        let light = Arc::new(light);
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= MAX_MODELS {
            ready.clear();
        }
        ready.insert(id, Arc::clone(&light));
        Ok((light, prepared))
    }

    /// Makes it part by part. Gives how many bytes of the file were read, too.
    async fn make(
        &self,
        fetcher: &Fetcher,
        checker: &Arc<Checker>,
        id: ModelId,
    ) -> Result<(Sketches, u64), String> {
        let all = checker.dimensions().layers + 1;
        let (mut sketches, mut fetched) = (LightChecker::begin(checker, random_seed()), 0);
        while let Some(at) = sketches.missing() {
            self.parts.send_replace((at, all));
            tracing::info!(model = %id, part = at + 1, of = all, "preparing light audits");
            let ranges = LightChecker::ranges(checker, at).map_err(|e| e.to_string())?;
            fetched += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
            let parts = part(fetcher, checker, id, &ranges).await?;
            let checker = Arc::clone(checker);
            let take = move || {
                let lent = spotting::lent(&parts);
                let taken = LightChecker::take(&checker, &mut sketches, at, &lent);
                taken.map(|()| sketches).map_err(|e| e.to_string())
            };
            sketches = tokio::task::spawn_blocking(take).await.map_err(|e| e.to_string())??;
        }
        self.parts.send_replace((all, all));
        Ok((sketches, fetched))
    }
}

/// What was kept of a model, if it is there and sound.
fn kept(checker: Arc<Checker>, path: &Path) -> Result<Option<LightChecker>, String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::metadata(path) {
        Ok(found) if found.len() > MAX_KEPT_BYTES => return Ok(None),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            tracing::warn!(path = %path.display(), "others could read this secret; it is made anew");
            return Ok(None);
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(said(error)),
    }
    let bytes = std::fs::read(path).map_err(said)?;
    match LightChecker::load(checker, &bytes).map_err(|e| e.to_string())? {
        Ok(light) => Ok(Some(light)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was kept is made anew");
            Ok(None)
        }
    }
}

/// Writes what was made, for its owner alone.
fn keep(
    checker: Arc<Checker>,
    sketches: Sketches,
    dir: &Path,
    path: &Path,
) -> Result<LightChecker, String> {
    make_private_dir(dir).map_err(|e| e.to_string())?;
    let bytes = sketches.to_bytes().ok_or("a part of the model is missing")?;
    write_atomic(path, &bytes, 0o600).map_err(|e| e.to_string())?;
    LightChecker::new(checker, sketches).map_err(|e| e.to_string())
}

/// Verified stretches of a model's file that nothing keeps: of the installed file, else as
/// peers send them.
async fn part(
    fetcher: &Fetcher,
    checker: &Checker,
    id: ModelId,
    ranges: &[std::ops::Range<u64>],
) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let here = fetcher.held(id).await.map_err(|e| e.to_string())?;
    if here.is_some_and(|(have, whole)| have == whole) {
        return read(fetcher, id, ranges.to_vec()).await;
    }
    let mut attempt = 1;
    let slices = loop {
        match fetcher.slices(id, checker.file_bytes(), ranges).await {
            Ok(slices) => break slices,
            Err(error) if attempt == ATTEMPTS => return Err(error.to_string()),
            Err(error) => tracing::debug!(%error, "a part of the model did not come"),
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    };
    let bytes = |range: peerproof_wire::WeightRange| {
        let skip = (range.start % peerproof_wire::range::RANGE_GROUP_BYTES) as usize;
        let bytes = range.slice.bytes.get(skip..skip + range.length as usize);
        // It was verified, so it covers its range.
        Ok((range.start, bytes.ok_or("a verified slice is too short")?.to_vec()))
    };
    slices.into_iter().map(bytes).collect()
}

/// Audits an answer by the products of drawn cells. Who is found out is convicted by a file,
/// as after a spot audit.
pub(crate) async fn audit(inner: &Arc<Inner>, case: &Arc<Case>, nonce: [u8; 32]) -> Audited {
    let light = match light_of(inner, case.offer.model_id).await {
        Ok(light) => light,
        Err(why) => return Audited::Unavailable(why),
    };
    let (offer, receipt, checker) = (&case.offer, &case.receipt, light.checker());
    let dimensions = checker.dimensions();
    let wanted = CELLS.min(cells::at_once(receipt, &dimensions, light.most_products()));
    if wanted == 0 {
        let why = "a cell of so long an answer takes more than is sent at once";
        return Audited::Unavailable(why.into());
    }
    let cells: Vec<Cell> =
        cells::drawn(&nonce, offer, receipt, dimensions.layers, wanted).into_iter().collect();
    let request =
        CellsRequest { case: Case::clone(case), client_nonce: nonce, cells, products: true };
    let (rows, opened) = tokio::join!(
        rows(&inner.fetcher, &light, case, &request.cells),
        inner.spots.ask(receipt.key().peer_id(), &request)
    );
    let openings = match opened {
        Ok(openings) => openings,
        Err(trouble) => return trouble.blame(),
    };
    if let Err(why) = rows {
        return Audited::Unavailable(why);
    }
    let judging = {
        let (light, case, cells) = (Arc::clone(&light), Arc::clone(case), request.cells);
        tokio::task::spawn_blocking(move || judge(&light, &case, &cells, openings)).await
    };
    let judged = match judging {
        Ok(judged) => judged,
        Err(error) => return Audited::Unavailable(error.to_string()),
    };
    match judged {
        Judged::Unable(why) => Audited::Unavailable(why),
        Judged::Refused(detail) => Audited::Breach { fault: Fault::Openings, detail },
        Judged::Hold(held) => {
            Audited::Light { held, of: cells::count(offer, receipt, dimensions.layers) }
        }
        Judged::Doubted { opening, what } => {
            doubted(inner, &light, case, (opening, nonce), &what).await
        }
        Judged::Differs(mismatch, opening) => {
            let checker = Arc::clone(light.checker());
            spotting::convict(inner, Wrong::new(checker, case, opening, nonce));
            Audited::Failed { by: Auditor::Local, mismatch, verdicts: Vec::new() }
        }
    }
}

/// What light audits of a model take, made now if it has to be; that goes on if it takes longer
/// than anybody waits for.
async fn light_of(inner: &Arc<Inner>, id: ModelId) -> Result<Arc<LightChecker>, String> {
    let making = {
        let inner = Arc::clone(inner);
        tokio::spawn(async move { inner.lights.prepare(&inner.spots, &inner.fetcher, id).await })
    };
    match tokio::time::timeout(PREPARING, making).await {
        Ok(Ok(made)) => made.map(|(light, _)| light),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            let (done, of) = *inner.lights.parts().borrow();
            Err(format!(
                "light audits of this model are being prepared ({done} of {of} parts are there): \
                 ask again later, or run: peerproof models prepare {id}"
            ))
        }
    }
}

/// Gets the embeddings that cells take and that are not here.
async fn rows(
    fetcher: &Fetcher,
    light: &LightChecker,
    case: &Case,
    cells: &[Cell],
) -> Result<(), String> {
    let missing = light.missing_rows(case, cells).map_err(|e| e.to_string())?;
    let ranges = missing.iter().map(|(_, range)| range.clone()).collect();
    let parts = read(fetcher, case.offer.model_id, ranges).await?;
    for ((token, _), (_, bytes)) in missing.iter().zip(parts) {
        light.take_row(*token, &bytes).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A cell whose products were refused, judged by its weights: by what others can judge.
async fn doubted(
    inner: &Arc<Inner>,
    light: &LightChecker,
    case: &Arc<Case>,
    (opening, nonce): (Box<CellOpening>, [u8; 32]),
    what: &str,
) -> Audited {
    let checker = Arc::clone(light.checker());
    let blamed = |more: &str| {
        let detail = format!("{what}; {more}");
        Audited::Breach { fault: Fault::Openings, detail }
    };
    if let Err(why) = load(&inner.fetcher, &checker, case, &[opening.cell]).await {
        return blamed(&format!("the weights to judge its cell by did not come: {why}"));
    }
    let judged = {
        let (checker, case, opening) = (Arc::clone(&checker), Arc::clone(case), opening.clone());
        tokio::task::spawn_blocking(move || checker.judge(&case, &opening)).await
    };
    match judged {
        Ok(Ok(Some(mismatch))) => {
            spotting::convict(inner, Wrong::new(checker, case, opening, nonce));
            Audited::Failed { by: Auditor::Local, mismatch, verdicts: Vec::new() }
        }
        Ok(Ok(None)) => blamed("by its weights the cell holds"),
        Ok(Err(error)) => blamed(&error.to_string()),
        Err(error) => Audited::Unavailable(error.to_string()),
    }
}

/// What products of cells have shown.
pub(crate) enum Judged {
    /// So many cells, all of which hold.
    Hold(u32),
    /// One does not follow from the model.
    Differs(Mismatch, Box<CellOpening>),
    /// The products shown with one are not its matrices'; its opening without them.
    Doubted {
        /// The opening.
        opening: Box<CellOpening>,
        /// In words.
        what: String,
    },
    /// What was opened is not what was committed to.
    Refused(String),
    /// Nothing.
    Unable(String),
}

pub(crate) fn judge(
    light: &LightChecker,
    case: &Case,
    cells: &[Cell],
    openings: Vec<Vec<u8>>,
) -> Judged {
    for (cell, bytes) in cells.iter().zip(&openings) {
        let mut opening = match CellOpening::decode(bytes) {
            Ok(opening) if opening.cell == *cell => opening,
            Ok(_) => return Judged::Refused("another cell was opened than asked for".into()),
            Err(error) => return Judged::Refused(error.to_string()),
        };
        let judged = light.judge(case, &opening);
        // Nobody else has a use for them.
        opening.products.clear();
        let opening = Box::new(opening);
        match judged {
            Ok(None) => {}
            Ok(Some(mismatch)) => return Judged::Differs(mismatch, opening),
            Err(SpotError::Opening(error)) => return Judged::Refused(error.to_string()),
            Err(error @ SpotError::Products { .. }) => {
                return Judged::Doubted { opening, what: error.to_string() };
            }
            Err(error) => return Judged::Unable(error.to_string()),
        }
    }
    Judged::Hold(cells.len() as u32)
}
