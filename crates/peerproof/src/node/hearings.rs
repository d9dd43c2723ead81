//! Who is being heard: an accused whose cell is narrowed to one operation with its help.
//!
//! It is barred the moment the cell is seen not to hold: no job goes to it. Only the end of its
//! connections waits until it has been heard, since it could not answer otherwise.

use std::collections::HashMap;

use peerproof_identity::PeerId;
use tokio::sync::watch;

/// All hearings of a node.
#[derive(Debug, Default)]
pub(super) struct Hearings(watch::Sender<HashMap<PeerId, usize>>);

impl Hearings {
    /// Hears a peer until the guard is dropped.
    pub(super) fn begin(&self, peer: PeerId) -> Hearing {
        self.0.send_modify(|heard| *heard.entry(peer).or_default() += 1);
        Hearing { hearings: self.0.clone(), peer }
    }

    /// Whether a peer is being heard.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.0.borrow().contains_key(peer)
    }

    /// Waits until a peer isn't heard any more.
    pub(super) async fn over(&self, peer: PeerId) {
        let _ = self.0.subscribe().wait_for(|heard| !heard.contains_key(&peer)).await;
    }
}

/// One hearing.
#[derive(Debug)]
pub(super) struct Hearing {
    hearings: watch::Sender<HashMap<PeerId, usize>>,
    peer: PeerId,
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.hearings.send_modify(|heard| {
            if let Some(count) = heard.get_mut(&self.peer) {
                *count -= 1;
                if *count == 0 {
                    heard.remove(&self.peer);
                }
            }
        });
    }
}
