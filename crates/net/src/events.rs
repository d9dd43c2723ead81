//! What the network tells the application unasked.
//!
//! The queue is bounded and the swarm task never waits for it: what doesn't
//! fit is counted, and the reader learns from [`Event::Missed`] that it should
//! look at [`crate::Handle::peers`] again.

use std::sync::Arc;

use peerproof_identity::PeerId;
use tokio::sync::mpsc;

use crate::Address;
use crate::limits::EVENT_QUEUE;
use crate::metrics::{Counters, count};

/// How a peer became known, the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// It answered on the local network.
    Mdns,
    /// Another peer told of it, or a search found it.
    Kad,
    /// A person or a configuration named its address.
    Given,
    /// It connected to us.
    Inbound,
}

impl Source {
    /// A short label, as `--json` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mdns => "mdns",
            Self::Kad => "kad",
            Self::Given => "given",
            Self::Inbound => "inbound",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// This node can be reached at one more address.
    ListenAddress(Address),
    /// This node can't be reached there any more.
    ListenAddressLost(Address),
    /// A peer was heard of at an address. It has proved nothing.
    PeerFound {
        /// Who it claims to be.
        peer: PeerId,
        /// Where.
        address: Address,
        /// From whom we know.
        source: Source,
    },
    /// The first connection to a peer stands; its key is proved.
    PeerConnected {
        /// Who.
        peer: PeerId,
        /// Where.
        address: Address,
    },
    /// The last connection to a peer ended.
    PeerDisconnected {
        /// Who.
        peer: PeerId,
    },
    /// The reader was too slow for that many events.
    Missed(u64),
}

/// The reading end.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` after the network has stopped.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// The writing end. Never blocks.
#[derive(Debug)]
pub(crate) struct EventSink {
    queue: mpsc::Sender<Event>,
    missed: u64,
    counters: Arc<Counters>,
}

pub(crate) fn channel(counters: Arc<Counters>) -> (EventSink, Events) {
    let (queue, reader) = mpsc::channel(EVENT_QUEUE);
    let sink = EventSink { queue, missed: 0, counters };
    (sink, Events(reader))
}

impl EventSink {
    pub(crate) fn emit(&mut self, event: Event) {
        if self.missed > 0 && self.queue.try_send(Event::Missed(self.missed)).is_ok() {
            self.missed = 0;
        }
        if self.queue.try_send(event).is_err() {
            self.missed = self.missed.saturating_add(1);
            count(&self.counters.events_dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed() {
        let (mut sink, mut events) = channel(Arc::default());
        for _ in 0..EVENT_QUEUE + 3 {
            sink.emit(Event::Missed(0));
        }
        for _ in 0..EVENT_QUEUE {
            events.next().await.unwrap();
        }
        let address: Address = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        sink.emit(Event::ListenAddress(address.clone()));
        assert_eq!(events.next().await, Some(Event::Missed(3)));
        assert_eq!(events.next().await, Some(Event::ListenAddress(address)));
    }
}
