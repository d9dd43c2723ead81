//! The node's client handle as a [`Backend`]: names and types only.

use std::time::Duration;

use futures::future::{BoxFuture, ready};
use futures::{FutureExt, StreamExt, stream};
use peerproof::Client;
use peerproof::client::{
    AskError, Counters, JobSpec, LaterCheck, NodeStatus, PeerStatus, ServedModel,
};
use peerproof::firewall::{self, Change, FirewallError};
use peerproof::log::{Declined, Piece, Unreadable};
use peerproof::reputation::{Rechecked, Record, ReputationError};

use crate::backend::{Backend, Events};

impl Backend for Client {
    fn ask(&self, spec: JobSpec) -> BoxFuture<'_, Result<Events, AskError>> {
        async move {
            let answer = Client::ask(self, spec).await?;
            let events = stream::unfold(answer, |mut answer| async move {
                let event = answer.next().await?;
                Some((event, answer))
            });
            Ok(events.boxed())
        }
        .boxed()
    }

    fn models(&self) -> BoxFuture<'_, Vec<ServedModel>> {
        ready(Client::models(self)).boxed()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        Client::status(self).boxed()
    }

    fn counters(&self) -> BoxFuture<'_, Counters> {
        ready(Client::counters(self)).boxed()
    }

    fn peers(&self) -> BoxFuture<'_, Vec<PeerStatus>> {
        Client::peers(self).boxed()
    }

    fn later_check<'a>(
        &'a self,
        job_id: &'a str,
        patience: Duration,
    ) -> BoxFuture<'a, Option<LaterCheck>> {
        Client::later_check(self, job_id, patience).boxed()
    }

    fn decide<'a>(
        &'a self,
        peer: &'a str,
        blocked: bool,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<Record, ReputationError>> {
        Client::decide(self, peer, blocked, reason).boxed()
    }

    fn recheck<'a>(&'a self, peer: &'a str) -> BoxFuture<'a, Result<Rechecked, ReputationError>> {
        Client::recheck(self, peer).boxed()
    }

    fn firewall(&self) -> BoxFuture<'_, Vec<firewall::Line>> {
        Client::firewall(self).boxed()
    }

    fn change_firewall<'a>(
        &'a self,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<usize, FirewallError>> {
        Client::change_firewall(self, change).boxed()
    }

    fn log_piece<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Piece>, Unreadable>> {
        Client::log_piece(self, path).boxed()
    }

    fn add_checkpoint<'a>(&'a self, body: &'a [u8]) -> BoxFuture<'a, Result<String, Declined>> {
        Client::add_checkpoint(self, body).boxed()
    }
}
