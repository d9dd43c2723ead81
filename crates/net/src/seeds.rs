//! Bootstrap addresses: dialled at once, and again for as long as they fail.
//!
//! One small task an address. It ends with the network: it holds only a weak
//! reference, so it keeps nothing alive.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use crate::diagnose::Seed;
use crate::handle::WeakHandle;
use crate::limits::{BOOTSTRAP_GAP, BOOTSTRAP_GAP_MAX};
use crate::{Address, NetError};

/// How the bootstrap addresses fare, for the diagnosis.
#[derive(Debug, Default)]
pub(crate) struct Seeds(Mutex<Vec<Seed>>);

impl Seeds {
    pub(crate) fn new(addresses: &[Address]) -> Arc<Self> {
        let seeds = addresses.iter().map(|address| Seed {
            address: address.clone(),
            peer: None,
            connected: false,
            attempts: 0,
            error: None,
        });
        Arc::new(Self(Mutex::new(seeds.collect())))
    }

    pub(crate) fn snapshot(&self) -> Vec<Seed> {
        let seeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seeds.clone()
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seed)) {
        let mut seeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seed) = seeds.get_mut(index) {
            change(seed);
        }
    }
}

/// Starts the tasks.
pub(crate) fn spawn(seeds: &Arc<Seeds>, addresses: Vec<Address>, handle: &WeakHandle) {
    for (index, address) in addresses.into_iter().enumerate() {
        let seeds = Arc::clone(seeds);
        let handle = handle.clone();
        tokio::spawn(async move {
            // The network has stopped: nothing is left to do.
            let _ = tend(&seeds, index, address, &handle).await;
        });
    }
}

async fn tend(
    seeds: &Seeds,
    index: usize,
    address: Address,
    handle: &WeakHandle,
) -> Result<(), NetError> {
    let mut gap = BOOTSTRAP_GAP;
    loop {
        let dialled = handle.upgrade()?.dial(address.clone()).await;
        match dialled {
            Ok(peer) => {
                seeds.update(index, |seed| {
                    seed.attempts += 1;
                    seed.peer = Some(peer);
                    seed.connected = true;
                    seed.error = None;
                });
                let gone = handle.upgrade()?.gone(peer).await?;
                // Waits without a handle: the network may stop meanwhile.
                gone.await.map_err(|_| NetError::Stopped)?;
                seeds.update(index, |seed| seed.connected = false);
                gap = BOOTSTRAP_GAP;
            }
            Err(error) => seeds.update(index, |seed| {
                seed.attempts += 1;
                seed.connected = false;
                seed.error = Some(error);
            }),
        }
        sleep(gap).await;
        gap = next_gap(gap);
    }
}

fn next_gap(gap: Duration) -> Duration {
    (gap * 2).min(BOOTSTRAP_GAP_MAX)
}
