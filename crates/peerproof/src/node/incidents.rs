//! What happens the moment somebody is barred, or welcome again.
//!
//! Both networks refuse its key, which ends its connections in either
//! direction; jobs with it hear of it from the ledger themselves. Whoever is being heard
//! ([`Hearings`]) is refused when that is over, if it is still barred then.

use std::sync::Arc;

use peerproof_net::Handle;
use peerproof_wire::NetworkGroup;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::hearings::Hearings;
use super::ledger::{Change, Ledger};

/// Keeps the networks' bans in step with the ledger until `stop` turns true.
pub(super) async fn follow(
    ledger: Arc<Ledger>,
    nets: Vec<Handle>,
    hearings: Arc<Hearings>,
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
            Ok(change) if change.barred.is_some() && hearings.has(&change.peer) => {
                let (hearings, nets) = (Arc::clone(&hearings), nets.clone());
                let ledger = Arc::clone(&ledger);
                tokio::spawn(async move {
                    hearings.over(change.peer).await;
                    if ledger.barred().iter().any(|(peer, _)| *peer == change.peer) {
                        apply(&nets, &change).await;
                    }
                });
            }
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
