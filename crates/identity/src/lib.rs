//! Who is speaking, and what they signed.
//!
//! A node is an Ed25519 key. From a 32-byte seed come a [`Keypair`], its
//! [`PublicKey`], the [`PeerId`] under which the network knows it, and a
//! separate [`vrf`] key for draws that nobody can steer. Every signature made
//! here names the kind of statement it covers (a [`Domain`]), so a signature
//! over one kind never passes for another.
//!
//! Seeds come in as arguments: this crate draws no randomness, opens no key
//! file and knows no network. Where a key is kept, and when it is replaced, is
//! decided above.
//!
//! ```
//! use peerproof_identity::{Domain, Keypair};
//!
//! let key = Keypair::from_seed(&[7; 32]);
//! let signature = key.sign(Domain::Offer, b"what I want");
//! let public = key.public();
//! assert!(public.verify(Domain::Offer, b"what I want", &signature).is_ok());
//! assert!(public.verify(Domain::Receipt, b"what I want", &signature).is_err());
//! ```

mod domain;
mod key;
mod peer_id;
mod signature;
pub mod vrf;

pub use domain::Domain;
pub use key::{KeyError, Keypair, PublicKey};
pub use peer_id::{PeerId, PeerIdError};
pub use signature::{NoteError, Signature, SignatureError};
