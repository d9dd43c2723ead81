//! Cheats of the computation, played with a real model.
//!
//! A cheater answers an offer with one thing computed otherwise, commits to what
//! it computed, and opens its cells consistently. Every answer is audited in full.
//! Of the first, every cell is opened and judged once; spot audits of it are then
//! draws from those cells, by nonces as a router would have them. Everything is
//! made from fixed seeds: the same file gives the same counts again. Each cell is judged by the
//! products that the cheater shows, too.
//! Deliberately absent: the network, and cheats of the protocol, which the
//! simulator plays.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerproof_engine::cheats::{Cheat, Cheater, Forged};
use peerproof_engine::execute::Replayer;
use peerproof_engine::light::LightChecker;
use peerproof_engine::spot::{Checker, SpotError};
use peerproof_identity::Keypair;
use peerproof_proof::cells;
use peerproof_proof::receipt::{Answer, Place, build};
use peerproof_proof::{Transcript, Tree, audit};
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Case, Cell, Level, Message as _, Mismatch, Offer, Outcome, Prompt, Sampling, Signed,
};

use super::lighting::light_of;
use super::proving::{checker, load, stretch};
use super::{BenchError, EARLIER_RECEIPTS, ISSUED_UNIX_MS, Subject, engine};
use crate::node::CELLS;

/// Hot enough that the most probable token is often not the one drawn.
const TEMPERATURE_Q16: u32 = 3 << 15;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Trying {
    /// Tokens of prompt and answer.
    pub shape: (usize, u32),
    /// Answers of each cheat.
    pub answers: u32,
    /// Spot audits of the first.
    pub spots: u32,
    /// Threads that check.
    pub threads: usize,
}

/// What came of one cheat.
#[derive(Clone, Debug)]
pub struct Cheated {
    /// The cheat.
    pub cheat: &'static str,
    /// Whether it is one: the honest provider is tried as the others are.
    pub lies: bool,
    /// Answers.
    pub answers: u32,
    /// Those that failed a full audit.
    pub caught: u32,
    /// Time of a full audit.
    pub full: Duration,
    /// Cells of the first answer.
    pub cells: u32,
    /// Those that do not follow from the model.
    pub wrong: u32,
    /// Those of them that light audits refuse, by the products that the cheater's weights give.
    pub lit: u32,
    /// Spot audits of the first answer.
    pub spots: u32,
    /// Those that found a wrong cell.
    pub spotted: u32,
    /// Time of a spot audit with the layers loaded.
    pub spot: Duration,
    /// Bytes of its openings.
    pub spot_bytes: u64,
    /// Honest answers that failed, and cells that were found wrong where nobody lied.
    pub false_accusations: u32,
}

impl Cheated {
    /// The share of spot audits that must find a wrong cell: `1 - (1 - f)^8`, with `f` the share
    /// of wrong cells.
    #[must_use]
    pub fn odds(&self) -> f64 {
        let right = 1.0 - f64::from(self.wrong) / f64::from(self.cells.max(1));
        1.0 - right.powi(CELLS as i32)
    }

    /// Whether full audits caught every cheat, spot audits as many as they must within four
    /// standard deviations, light audits refuse every wrong cell, and nobody was accused falsely.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let (odds, spots) = (self.odds(), f64::from(self.spots.max(1)));
        let found = f64::from(self.spotted) / spots;
        // Cells are drawn without putting back, which finds a little more than the formula.
        let room = 4.0 * (odds * (1.0 - odds) / spots).sqrt() + 0.01;
        let caught = self.caught == if self.lies { self.answers } else { 0 };
        caught
            && (self.wrong > 0) == self.lies
            && self.lit == self.wrong
            && (found - odds).abs() <= room
            && self.false_accusations == 0
    }
}

/// Who checks, and what the model's file says.
struct Bench {
    subject: Subject,
    file: Vec<u8>,
    replayer: Replayer,
    checker: Checker,
    light: LightChecker,
    tokens: Vec<u32>,
    trying: Trying,
}

/// An answer and what its provider opens it with.
struct Answered<'a> {
    case: &'a Case,
    tree: &'a Tree,
    forged: &'a Forged,
}

/// What judging all cells of an answer has shown.
#[derive(Default)]
struct Judged {
    wrong: BTreeSet<Cell>,
    lit: u32,
    accused: u32,
    spent: Duration,
    bytes: u64,
}

/// Plays every cheat of the computation that the model at `path` allows, with prompts from
/// `text`; `done` hears of each.
///
/// # Errors
/// The file can't be used, the text is too short, or a cell can't be judged.
pub fn cheats(
    path: &Path,
    text: &str,
    trying: Trying,
    done: &mut dyn FnMut(&Cheated),
) -> Result<Vec<Cheated>, BenchError> {
    let bench = Bench::open(path, text, trying)?;
    let mut rows = Vec::new();
    for kind in 0..KINDS {
        if let Some(row) = bench.try_all(kind)? {
            done(&row);
            rows.push(row);
        }
    }
    Ok(rows)
}

/// How many cheats there are.
pub const KINDS: u32 = 8;

impl Bench {
    fn open(path: &Path, text: &str, trying: Trying) -> Result<Bench, BenchError> {
        let subject = Subject::open(path)?;
        let model = Arc::clone(&subject.model);
        let file = std::fs::read(path).map_err(engine("model file"))?;
        let checker = checker(&file, model.id())?;
        for layer in 0..=checker.dimensions().layers {
            load(&checker, &file, layer)?;
        }
        let light = light_of(&file, model.id())?;
        let tokens = subject.encode(text)?;
        if tokens.len() < trying.shape.0 {
            return Err(BenchError::Short { expected: trying.shape.0, got: tokens.len() });
        }
        let replayer = Replayer::new(model, trying.threads).map_err(engine("replayer"))?;
        Ok(Bench { subject, file, replayer, checker, light, tokens, trying })
    }

    fn cheat(&self, kind: u32, answer: u32) -> Cheat {
        let (prompt, layers) = (self.trying.shape.0, self.checker.dimensions().layers);
        let tampered =
            Cell { position: (5 * answer + 3) % prompt as u32, layer: (7 * answer + 2) % layers };
        match kind {
            0 => Cheat::Honest,
            1 => Cheat::OtherModel,
            2 => Cheat::FewerLayers((layers as usize).saturating_sub(2).max(1)),
            3 => Cheat::CoarseWeights,
            4 => Cheat::CoarseCache,
            5 => Cheat::OneCell(tampered),
            6 => Cheat::ShortContext((prompt / 2).max(1)),
            _ => Cheat::OtherDraws,
        }
    }

    /// All answers of one cheat; `None` if the file doesn't allow it.
    fn try_all(&self, kind: u32) -> Result<Option<Cheated>, BenchError> {
        let Trying { answers, spots, .. } = self.trying;
        let first = self.cheat(kind, 0);
        let (cheat, lies) = (first.name(), first != Cheat::Honest);
        let (full, spot) = Default::default();
        let mut row = Cheated {
            cheat,
            lies,
            answers,
            caught: 0,
            full,
            cells: 0,
            wrong: 0,
            lit: 0,
            spots,
            spotted: 0,
            spot,
            spot_bytes: 0,
            false_accusations: 0,
        };
        let Some(mut cheater) = self.cheater(first)? else { return Ok(None) };
        for answer in 0..answers {
            if self.cheat(kind, answer) != self.cheat(kind, answer.saturating_sub(1)) {
                let Some(next) = self.cheater(self.cheat(kind, answer))? else { return Ok(None) };
                cheater = next;
            }
            let offer = self.offer(answer)?;
            let forged = cheater.answer(&offer).map_err(engine("answer"))?;
            let (case, tree) = commit(offer, &forged)?;
            let start = Instant::now();
            let auditor = Keypair::from_seed(&[3; 32]).public();
            let findings = audit(&self.replayer, &case, None, &auditor).map_err(engine("audit"))?;
            row.full += start.elapsed() / answers.max(1);
            row.caught += u32::from(findings.outcome != Outcome::Pass);
            if answer == 0 {
                let answer = Answered { case: &case, tree: &tree, forged: &forged };
                self.spot(&mut row, first, &cheater, &answer)?;
            }
        }
        if !lies {
            row.false_accusations += row.caught;
        }
        Ok(Some(row))
    }

    fn cheater(&self, cheat: Cheat) -> Result<Option<Cheater>, BenchError> {
        Cheater::new(&self.file, Arc::clone(&self.subject.model), cheat).map_err(engine("cheat"))
    }

    /// Judges all cells of an answer, and counts what spot audits would have found.
    fn spot(
        &self,
        row: &mut Cheated,
        cheat: Cheat,
        cheater: &Cheater,
        answer: &Answered<'_>,
    ) -> Result<(), BenchError> {
        let case = answer.case;
        let layers = self.checker.dimensions().layers;
        let (offer, receipt) = (&case.offer, &case.receipt);
        row.cells = cells::count(offer, receipt, layers) as u32;
        let all = cells::drawn(&[0; 32], offer, receipt, layers, row.cells);
        let all = Vec::from_iter(all);
        for (token, range) in self.light.missing_rows(case, &all).map_err(engine("rows"))? {
            self.light.take_row(token, stretch(&self.file, &range)).map_err(engine("rows"))?;
        }
        let part = all.len().div_ceil(self.trying.threads.max(1)).max(1);
        let judged = std::thread::scope(|scope| {
            let judge = |cells| scope.spawn(move || self.judge(cheat, cheater, answer, cells));
            let threads: Vec<_> = all.chunks(part).map(judge).collect();
            let gone = |_| Err(engine("cells")("a thread panicked"));
            let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(gone));
            joined.collect::<Result<Vec<Judged>, BenchError>>()
        })?;
        let wrong: BTreeSet<Cell> = judged.iter().flat_map(|one| &one.wrong).copied().collect();
        row.wrong = wrong.len() as u32;
        row.lit = judged.iter().map(|one| one.lit).sum();
        row.false_accusations += judged.iter().map(|one| one.accused).sum::<u32>();
        let spent: Duration = judged.iter().map(|one| one.spent).sum();
        row.spot = spent * CELLS / row.cells.max(1);
        let bytes: u64 = judged.iter().map(|one| one.bytes).sum();
        row.spot_bytes = bytes * u64::from(CELLS) / u64::from(row.cells.max(1));
        for at in 0..row.spots {
            let nonce = seed("spot audit", at);
            let drawn = cells::drawn(&nonce, offer, receipt, layers, CELLS);
            row.spotted += u32::from(!drawn.is_disjoint(&wrong));
        }
        Ok(())
    }

    fn judge(
        &self,
        cheat: Cheat,
        cheater: &Cheater,
        answer: &Answered<'_>,
        cells: &[Cell],
    ) -> Result<Judged, BenchError> {
        let Answered { case, tree, forged } = *answer;
        let (dimensions, exposure) = (self.checker.dimensions(), forged.exposure());
        let mut judged = Judged::default();
        for &cell in cells {
            let first = self.checker.first_read(cell).map_err(engine("cell"))?;
            let exposed = forged.exposed(cell, first);
            let mut opening = cells::open(tree, &forged.leaves, &dimensions, &exposure, &exposed)
                .map_err(engine("opening"))?;
            judged.bytes += opening.encode().map_err(engine("opening"))?.len() as u64;
            let start = Instant::now();
            let found = self.checker.judge(case, &opening);
            judged.spent += start.elapsed();
            let found = is_refused(found)?;
            let products = cheater.products(&exposed).map_err(engine("products"))?;
            opening.products = products.iter().flat_map(|it| it.to_le_bytes()).collect();
            let lit = is_refused(self.light.judge(case, &opening))?;
            let right = !cheat.lies_in(cell, dimensions.layers);
            judged.accused += u32::from(right && (found || lit));
            judged.lit += u32::from(found && lit);
            if found {
                judged.wrong.insert(cell);
            }
        }
        Ok(judged)
    }

    fn offer(&self, answer: u32) -> Result<Signed<Offer>, BenchError> {
        let (prompt, max_tokens) = self.trying.shape;
        let last = self.tokens.len() - prompt;
        let start = (answer as usize * prompt).min(last);
        let offer = Offer {
            model_id: self.subject.model.id(),
            prompt: Prompt::Tokens(self.tokens[start..start + prompt].to_vec()),
            sampling: Sampling { temperature_q16: TEMPERATURE_Q16, ..Sampling::GREEDY },
            max_tokens,
            stop: Vec::new(),
            level: Level::Full,
            public_nonce: seed("public nonce", answer),
            client_nonce_hash: client_nonce_hash(&seed("client nonce", answer)),
            deadline_ms: 60_000,
            pooling: None,
            class: peerproof_wire::Class::Exact,
        };
        Signed::sign(&Keypair::from_seed(&[1; 32]), offer).map_err(engine("offer"))
    }
}

/// Whether a cell was found to be wrong, or what was shown of it not to belong to it.
fn is_refused(judged: Result<Option<Mismatch>, SpotError>) -> Result<bool, BenchError> {
    match judged {
        Ok(found) => Ok(found.is_some()),
        Err(SpotError::Opening(_) | SpotError::Products { .. }) => Ok(true),
        Err(error) => Err(engine("cell")(error)),
    }
}

/// Signs what a cheater has computed.
fn commit(offer: Signed<Offer>, forged: &Forged) -> Result<(Case, Tree), BenchError> {
    let mut transcript = Transcript::new();
    let pushed = forged.leaves.iter().try_for_each(|leaf| transcript.push(leaf));
    pushed.map_err(engine("transcript"))?;
    let kv_root = cells::kv_root(&forged.exposure().kv_layers);
    let Forged { tokens, text, stop, .. } = forged;
    let tree = transcript
        .close(*stop, tokens.len() as u32, text, &kv_root)
        .map_err(engine("transcript"))?;
    let answer = Answer { tokens, text, logprobs: &[] };
    let place = Place::after(EARLIER_RECEIPTS, offer.id());
    let receipt = build(&offer, answer, *stop, (&tree, kv_root), place, ISSUED_UNIX_MS)
        .map_err(engine("receipt"))?;
    let receipt =
        Signed::sign(&Keypair::from_seed(&[2; 32]), receipt).map_err(engine("receipt"))?;
    Ok((Case { offer, receipt, tokens: tokens.clone() }, tree))
}

/// Thirty-two bytes that are always the same for a purpose and a number.
fn seed(purpose: &str, number: u32) -> [u8; 32] {
    *blake3::Hasher::new()
        .update(purpose.as_bytes())
        .update(&number.to_le_bytes())
        .finalize()
        .as_bytes()
}
