//! Finding peers when many of them lie, as state machines.
//!
//! - [`id`]: the 256-bit key space of libp2p's Kademlia, distances and buckets;
//! - [`subnet`]: which addresses count as one neighbourhood or one network;
//! - [`Chance`]: choices drawn from entropy that came in as an argument;
//! - [`message`]: questions and answers in the bytes of libp2p's Kademlia;
//! - [`record`]: what a key says of itself, signed, with an end;
//! - [`table`], [`walk`], [`density`]: whom a node knows, eight paths through the
//!   network, and how large it is;
//! - [`lookup`]: finding and keeping records and providers in the region of a key;
//! - [`store`]: what is kept for others;
//! - [`node`]: all of it as one machine, [`Discovery`];
//! - [`places`]: hosts, groups, and which addresses can be reached at all;
//! - [`gate`]: the operator's rules, judged before a handshake;
//! - [`addresses`]: where peers may be, which of them were tried, whom to call;
//! - [`topics`]: who serves what, at registrars that make a flood wait;
//! - [`slots`]: who keeps a connection when there are more who want one;
//! - [`private`]: topics that only those find who share a secret;
//! - [`puzzle`]: what a registration costs while a registrar has a queue;
//! - [`rates`]: how often a peer and its subnet may ask.
//!
//! Time ([`Millis`]) and randomness come in as arguments, everything that is kept
//! has a bound.
//!
//! Absent on purpose: sockets, clocks, disks and libp2p. What needs one is asked
//! for by an effect and answered by an event.

pub mod addresses;
mod chance;
mod crowd;
pub mod density;
pub mod gate;
pub mod id;
pub mod limits;
pub mod lookup;
pub mod message;
pub mod node;
pub mod places;
pub mod private;
pub mod puzzle;
pub mod rates;
pub mod record;
pub mod slots;
pub mod store;
pub mod subnet;
pub mod table;
mod time;
pub mod topics;
pub mod walk;

pub use chance::Chance;
pub use node::Discovery;
pub use time::Millis;
