//! Eight paths through the network that share no peer.
//!
//! Each path heads for a point of its own, from seeds of its own, with one question in
//! flight; a peer that one path has asked no other asks (Baumgart & Mies 2007). From an
//! answer a path takes over at most one peer a bucket, counted by common bits with its
//! point, and only peers closer to it than who answered: a liar can't hand over a whole
//! list of accomplices. A path keeps the best four peers it has yet to ask and ends
//! when the four closest that answered are closer than all of these.
//!
//! What all paths saw is kept apart, path by path, so that the caller sees where they
//! disagree. Absent: messages, and what is looked for (`lookup`).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Millis;
use crate::id::{Distance, Key};
use crate::limits::{MAX_PATH_CALLS, PATH_BEST, WALK_TIMEOUT_MS};
use crate::table::Located;

/// What one path saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// Where it headed.
    pub point: Key,
    /// Who answered, closest to the point first.
    pub answered: Vec<Arc<Located>>,
    /// Peers an honest answerer near the point would have named: their number and the
    /// distance of the furthest, by the answer of the closest who gave one.
    pub density: Option<(usize, Distance)>,
    /// Questions sent.
    pub calls: u32,
    /// Questions without an answer.
    pub failed: u32,
    /// Answers that contradicted themselves.
    pub contradictions: u32,
}

#[derive(Debug)]
struct Path {
    report: PathReport,
    /// Yet to be asked, closest first.
    open: Vec<Arc<Located>>,
    asking: Option<Key>,
}

/// The paths of one walk.
///
/// ```
/// use peerproof_discovery::walk::Walk;
/// use peerproof_discovery::{Millis, id::Key};
///
/// let walk = Walk::new(vec![Key::of(b"there"); 8], Vec::new(), Millis(0));
/// assert!(walk.is_over(Millis(0)), "nobody to ask");
/// ```
#[derive(Debug)]
pub struct Walk {
    paths: Vec<Path>,
    deadline: Millis,
}

impl Walk {
    /// Paths to these points; the seeds are dealt out to them in turn.
    #[must_use]
    pub fn new(points: Vec<Key>, seeds: Vec<Arc<Located>>, now: Millis) -> Self {
        let path = |point| Path {
            report: PathReport {
                point,
                answered: Vec::new(),
                density: None,
                calls: 0,
                failed: 0,
                contradictions: 0,
            },
            open: Vec::new(),
            asking: None,
        };
        let mut paths: Vec<Path> = points.into_iter().map(path).collect();
        let count = paths.len().max(1);
        for (at, seed) in seeds.into_iter().enumerate() {
            if let Some(path) = paths.get_mut(at % count) {
                path.keep(seed);
            }
        }
        Self { paths, deadline: now.after(WALK_TIMEOUT_MS) }
    }

    /// Whom each path asks next; `asked` are the peers that somebody asked already, and
    /// grows by those given.
    pub fn poll(&mut self, asked: &mut BTreeSet<Key>, now: Millis) -> Vec<(usize, Arc<Located>)> {
        if now >= self.deadline {
            return Vec::new();
        }
        let mut next = Vec::new();
        for (at, path) in self.paths.iter_mut().enumerate() {
            path.open.retain(|who| !asked.contains(who.key()));
            if path.is_over() || path.asking.is_some() {
                continue;
            }
            let who = path.open.remove(0);
            asked.insert(*who.key());
            path.asking = Some(*who.key());
            path.report.calls += 1;
            next.push((at, who));
        }
        next
    }

    /// Takes an answer: who is closer, as `from` says. Peers in `asked` are passed over.
    pub fn answered(
        &mut self,
        at: usize,
        from: &Arc<Located>,
        closer: &[Arc<Located>],
        asked: &BTreeSet<Key>,
    ) {
        let Some(path) = self.paths.get_mut(at) else { return };
        path.asking = None;
        path.answer(from);
        if contradicts_itself(from, closer) {
            path.report.contradictions += 1;
            return;
        }
        path.note_density(from, closer);
        let point = path.report.point;
        let own = from.key().distance(&point);
        let near = closer.iter().filter(|who| who.key().distance(&point) < own);
        let mut nearer: Vec<&Arc<Located>> =
            near.filter(|who| !asked.contains(who.key())).collect();
        nearer.sort_by_key(|who| who.key().distance(&point));
        let mut last = None;
        for who in nearer {
            let bucket = who.key().distance(&point).leading_zeros();
            if last.replace(bucket) != Some(bucket) {
                path.keep(Arc::clone(who));
            }
        }
    }

    /// A question was not answered.
    pub fn failed(&mut self, at: usize) {
        if let Some(path) = self.paths.get_mut(at) {
            path.asking = None;
            path.report.failed += 1;
        }
    }

    /// Whether no path has anything left to do.
    #[must_use]
    pub fn is_over(&self, now: Millis) -> bool {
        now >= self.deadline
            || self.paths.iter().all(|path| path.asking.is_none() && path.is_over())
    }

    /// When it is over at the latest.
    #[must_use]
    pub const fn deadline(&self) -> Millis {
        self.deadline
    }

    /// What each path saw so far.
    pub fn reports(&self) -> impl Iterator<Item = &PathReport> {
        self.paths.iter().map(|path| &path.report)
    }

    /// The point a path heads for.
    #[must_use]
    pub fn point(&self, at: usize) -> Option<Key> {
        self.paths.get(at).map(|path| path.report.point)
    }
}

/// Whether an answer names its own author or one peer twice: no honest table does.
#[must_use]
pub fn contradicts_itself(from: &Located, closer: &[Arc<Located>]) -> bool {
    let mut seen = BTreeSet::from([*from.key()]);
    !closer.iter().all(|who| seen.insert(*who.key()))
}

impl Path {
    fn is_over(&self) -> bool {
        let Some(next) = self.open.first() else { return true };
        let point = &self.report.point;
        let fourth = self.report.answered.get(PATH_BEST - 1);
        let enough =
            fourth.is_some_and(|fourth| fourth.key().distance(point) < next.key().distance(point));
        enough || self.report.calls >= MAX_PATH_CALLS
    }

    /// Keeps a peer to ask, if it is among the best.
    fn keep(&mut self, who: Arc<Located>) {
        let distance = |who: &Located| who.key().distance(&self.report.point);
        let at = self.open.partition_point(|open| distance(open) < distance(&who));
        if at >= PATH_BEST || self.open.get(at).is_some_and(|open| open.key() == who.key()) {
            return;
        }
        self.open.insert(at, who);
        self.open.truncate(PATH_BEST);
    }

    fn answer(&mut self, from: &Arc<Located>) {
        let distance = |who: &Located| who.key().distance(&self.report.point);
        let at = self.report.answered.partition_point(|who| distance(who) < distance(from));
        self.report.answered.insert(at, Arc::clone(from));
    }

    /// The closest answerer's list says how dense the neighbourhood is.
    fn note_density(&mut self, from: &Arc<Located>, closer: &[Arc<Located>]) {
        let closest = self.report.answered.first().is_some_and(|first| first == from);
        let furthest = closer.iter().map(|who| who.key().distance(&self.report.point)).max();
        if let Some(furthest) = furthest.filter(|_| closest) {
            self.report.density = Some((closer.len(), furthest));
        }
    }
}

#[cfg(test)]
mod tests;
