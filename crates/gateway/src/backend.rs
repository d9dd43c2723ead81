//! What the gateway needs from a node, and nothing else.
//!
//! [`Backend`] is the seam between HTTP and the network: the node's client
//! handle implements it, and tests put scripted answers behind it. Dropping an
//! [`Events`] stream cancels its job.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use peerproof::client::{
    AnswerEvent, AskError, Counters, JobSpec, LaterCheck, NodeStatus, PeerStatus, ServedModel,
};
use peerproof::firewall::{self, Change, FirewallError};
use peerproof::log::{Declined, Piece, Unreadable};
use peerproof::reputation::{Rechecked, Record, ReputationError};

/// The events of one answer. Dropping it cancels the job at the provider too.
pub type Events = BoxStream<'static, Result<AnswerEvent, AskError>>;

/// A node as the gateway sees it.
pub trait Backend: Send + Sync + 'static {
    /// Starts a job.
    fn ask(&self, spec: JobSpec) -> BoxFuture<'_, Result<Events, AskError>>;

    /// The models that can be asked for at this moment.
    fn models(&self) -> BoxFuture<'_, Vec<ServedModel>>;

    /// The state of the node, for readiness and metrics.
    fn status(&self) -> BoxFuture<'_, NodeStatus>;

    /// Counters since the node's start.
    fn counters(&self) -> BoxFuture<'_, Counters>;

    /// The peers this node knows.
    fn peers(&self) -> BoxFuture<'_, Vec<PeerStatus>>;

    /// What became of the check that follows an answer in use: once it has ended, or after
    /// `patience`; `None` if no check of that job is remembered.
    fn later_check<'a>(
        &'a self,
        job_id: &'a str,
        patience: Duration,
    ) -> BoxFuture<'a, Option<LaterCheck>>;

    /// The user's decision about a peer, which is logged: blocked, or no longer.
    fn decide<'a>(
        &'a self,
        peer: &'a str,
        blocked: bool,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Record, ReputationError>>;

    /// A second look at everything a peer is accused of.
    fn recheck<'a>(&'a self, peer: &'a str) -> BoxFuture<'a, Result<Rechecked, ReputationError>>;

    /// The operator's rules about who may connect.
    fn firewall(&self) -> BoxFuture<'_, Vec<firewall::Line>>;

    /// Changes them; gives back how many connections ended by it.
    fn change_firewall<'a>(
        &'a self,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<usize, FirewallError>>;

    /// A piece of the node's log by its path, as C2SP tlog-tiles names it; `None` if there is
    /// no such thing, or not yet.
    fn log_piece<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Piece>, Unreadable>>;

    /// Judges the body of a request to cosign a checkpoint; gives back the signature's line.
    fn add_checkpoint<'a>(&'a self, body: &'a [u8]) -> BoxFuture<'a, Result<String, Declined>>;
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn ask(&self, spec: JobSpec) -> BoxFuture<'_, Result<Events, AskError>> {
        (**self).ask(spec)
    }

    fn models(&self) -> BoxFuture<'_, Vec<ServedModel>> {
        (**self).models()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        (**self).status()
    }

    fn counters(&self) -> BoxFuture<'_, Counters> {
        (**self).counters()
    }

    fn peers(&self) -> BoxFuture<'_, Vec<PeerStatus>> {
        (**self).peers()
    }

    fn later_check<'a>(
        &'a self,
        job_id: &'a str,
        patience: Duration,
    ) -> BoxFuture<'a, Option<LaterCheck>> {
        (**self).later_check(job_id, patience)
    }

    fn decide<'a>(
        &'a self,
        peer: &'a str,
        blocked: bool,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Record, ReputationError>> {
        (**self).decide(peer, blocked, reason)
    }

    fn recheck<'a>(&'a self, peer: &'a str) -> BoxFuture<'a, Result<Rechecked, ReputationError>> {
        (**self).recheck(peer)
    }

    fn firewall(&self) -> BoxFuture<'_, Vec<firewall::Line>> {
        (**self).firewall()
    }

    fn change_firewall<'a>(
        &'a self,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<usize, FirewallError>> {
        (**self).change_firewall(change)
    }

    fn log_piece<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Piece>, Unreadable>> {
        (**self).log_piece(path)
    }

    fn add_checkpoint<'a>(&'a self, body: &'a [u8]) -> BoxFuture<'a, Result<String, Declined>> {
        (**self).add_checkpoint(body)
    }
}
