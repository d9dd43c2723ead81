//! Sockets and timers: everything of libp2p, behind types of our own.
//!
//! [`Network::start`] puts QUIC and TCP transports, identification, pings,
//! local discovery and a Kademlia table of our own name into one task, the
//! swarm task, and returns a [`Handle`] to ask with and [`Events`] to listen
//! to. A node lets itself be found with [`Handle::provide`], finds others with
//! [`Handle::search`], and talks over a [`FrameStream`]: length-prefixed
//! frames, a size limit and a deadline each, back-pressure from the reader to
//! the sender. [`Handle::gossip`] passes proofs on from peer to peer. Every ceiling has a name in [`limits`].
//!
//! A byte's way in: socket, libp2p connection task, stream, [`FrameReader`],
//! the application; the swarm task is not on it. A command's way: [`Handle`],
//! bounded queue, swarm task, one-shot answer.
//!
//! Absent on purpose: what the frames mean, whom to trust, whom to choose.
//! Nothing of libp2p appears in the public interface, because its interface
//! breaks about yearly. Absent so far: relays, hole punching, AutoNAT, and the
//! defences against an adversary who grinds identities near a key.
//!
//! ```
//! use std::time::Duration;
//! use peerproof_identity::Keypair;
//! use peerproof_net::{FrameLimits, NetConfig, Network};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (alice, _) = Network::start(&Keypair::from_seed(&[1; 32]), NetConfig::loopback()).await?;
//! let (bob, _) = Network::start(&Keypair::from_seed(&[2; 32]), NetConfig::loopback()).await?;
//! let mut incoming = bob.accept("/example/1", FrameLimits::default())?;
//!
//! let peer = alice.dial(bob.listen_addresses().await?[0].clone()).await?;
//! let wait = Duration::from_secs(5);
//! let mut asking = alice.open(peer, "/example/1", wait, FrameLimits::default()).await?;
//! asking.send(b"hello").await?;
//!
//! let (_, mut answering) = incoming.next().await.ok_or("stopped")?;
//! assert_eq!(answering.recv().await?.as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```

mod address;
mod behaviour;
mod book;
mod command;
mod config;
mod diagnose;
mod driver;
mod error;
mod events;
mod failure;
mod firewall;
mod frames;
mod gate;
mod gossip;
mod handle;
pub mod limits;
mod metrics;
mod network;
mod seeds;
mod streams;

pub use address::{Address, AddressError, Transport};
pub use command::{PathKind, PeerInfo};
pub use config::NetConfig;
pub use diagnose::{Diagnosis, Interface, Listener, Mdns, Seed};
pub use error::{DialError, DialReason, FrameError, NetError, OpenError};
pub use events::{Event, Events, Source};
pub use firewall::{RuleAtWork, Scores};
pub use frames::{FrameLimits, FrameReader, FrameStream, FrameWriter};
pub use gossip::{Gossip, Heard, Judgement};
pub use handle::{Handle, Incoming, Providers};
pub use limits::Limits;
pub use metrics::Metrics;
pub use network::Network;
pub use peerproof_discovery::gate::RuleList;
