//! What happens the moment somebody is barred, or welcome again.
//!
//! Both networks refuse its key, which ends its connections in either
//! direction; jobs with it hear of it from the ledger themselves.

use std::sync::Arc;

use peerproof_net::Handle;
use peerproof_wire::NetworkGroup;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::ledger::{Change, Ledger};

/// Keeps the networks' bans in step with the ledger until `stop` turns true.
pub(super) async fn follow(
    ledger: Arc<Ledger>,
    nets: Vec<Handle>,
    mut stop: watch::Receiver<bool>,
) {
    let mut bars = ledger.bars();
    for (peer, why) in ledger.barred() {
        apply(&nets, &Change { peer, barred: Some(why) }).await;
    }
    loop {
        let change = tokio::select! {
            change = bars.recv() => change,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match change {
            Ok(change) => apply(&nets, &change).await,
            Err(RecvError::Lagged(_)) => {
                for (peer, why) in ledger.barred() {
                    apply(&nets, &Change { peer, barred: Some(why) }).await;
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn apply(nets: &[Handle], change: &Change) {
    for net in nets {
        let done = match &change.barred {
            Some(_) => net.ban(change.peer).await,
            None => net.unban(change.peer).await,
        };
        if let Err(error) = done {
            tracing::warn!(peer = %change.peer, %error, "the network's ban could not be changed");
        }
    }
    match &change.barred {
        Some(why) => tracing::warn!(peer = %change.peer, why, "barred"),
        None => tracing::warn!(peer = %change.peer, "no longer barred"),
    }
}

/// The part of the network a connected peer is reached in.
pub(super) async fn group_of(net: &Handle, peer: peerproof_identity::PeerId) -> NetworkGroup {
    net.ip(peer).await.map(NetworkGroup::of).unwrap_or_default()
}
