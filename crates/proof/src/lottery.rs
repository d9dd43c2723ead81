//! Who audits between strangers, drawn so that nobody can steer it.
//!
//! An auditor's VRF key turns a transcript's root and the offer it answers into
//! an output that nobody, the auditor included, could choose, and that nobody
//! else could foresee. The output decides three things: whether this auditor
//! looks at all ([`Ticket::wins`]), which of several auditors looks
//! ([`choose`]), and which positions are opened
//! ([`positions_by_lot`](crate::challenge::positions_by_lot)).
//!
//! A provider that knew the auditors' secret keys could try roots until none
//! of them looks; an auditor that could pick its key after the root is known
//! could pick its output. So the key must be the one the auditor announced
//! before, which is the caller's to check.

use peerproof_identity::vrf::{Output, Proof, Public, Secret, VrfError};
use peerproof_wire::{Digest, Receipt};

/// How often something is done, as a fraction of 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

/// A rate above one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rate: expected at most {expected} (65,536 is always), got {got}")]
pub struct RateError {
    /// The largest rate.
    pub expected: u32,
    /// The rate that came.
    pub got: u32,
}

impl Rate {
    /// Not once.
    pub const NEVER: Self = Self(0);
    /// Every time.
    pub const ALWAYS: Self = Self(1 << 16);

    /// A rate of `q16` in 65,536.
    pub fn from_q16(q16: u32) -> Result<Self, RateError> {
        if q16 <= Self::ALWAYS.0 {
            Ok(Self(q16))
        } else {
            Err(RateError { expected: Self::ALWAYS.0, got: q16 })
        }
    }

    /// The rate in 65,536ths.
    #[must_use]
    pub fn q16(self) -> u32 {
        self.0
    }
}

/// What one auditor drew for one receipt.
///
/// ```
/// use peerproof_identity::Keypair;
/// use peerproof_proof::lottery::{Rate, Ticket, choose};
/// # use peerproof_wire::{Digest, ModelId, Receipt, Stop};
/// # let digest = Digest::from_bytes([1; 32]);
/// # let receipt = Receipt {
/// #     offer_id: digest, model_id: ModelId::from_bytes([2; 32]), number: 1, previous: None,
/// #     prompt_tokens: 1, output_tokens: 1, stop: Stop::Length, output_hash: digest,
/// #     text_hash: digest, transcript_root: digest, leaves: 2,
/// #     kv_root: digest, issued_unix_ms: 0, class: peerproof_wire::Class::Exact,
/// # };
/// let auditors = [7, 8].map(|seed| Keypair::from_seed(&[seed; 32]).vrf());
/// let mut tickets = Vec::new();
/// for auditor in &auditors {
///     let drawn = Ticket::draw(auditor, &receipt)?;
///     // What anyone who hears of it checks:
///     tickets.push(Ticket::verify(&auditor.public(), drawn.proof(), &receipt)?);
/// }
/// let looks = choose(&tickets).expect("there are two");
/// assert!(looks.wins(Rate::ALWAYS));
/// # Ok::<(), peerproof_identity::vrf::VrfError>(())
/// ```
///
/// It can only be drawn or verified, so a ticket in hand is a true one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    key: Public,
    proof: Proof,
    output: Output,
}

impl Ticket {
    /// Draws with an auditor's secret key.
    pub fn draw(secret: &Secret, receipt: &Receipt) -> Result<Self, VrfError> {
        Self::draw_over(secret, &receipt.transcript_root, &receipt.offer_id)
    }

    /// Draws for a receipt of which only the root and the offer's id are known.
    pub fn draw_over(secret: &Secret, root: &Digest, offer_id: &Digest) -> Result<Self, VrfError> {
        let (output, proof) = secret.prove(&alpha(root, offer_id))?;
        Ok(Self { key: secret.public(), proof, output })
    }

    /// Checks what another auditor says it drew.
    pub fn verify(key: &Public, proof: &Proof, receipt: &Receipt) -> Result<Self, VrfError> {
        let output = key.verify(&alpha(&receipt.transcript_root, &receipt.offer_id), proof)?;
        Ok(Self { key: *key, proof: *proof, output })
    }

    /// The auditor's VRF key.
    #[must_use]
    pub fn key(&self) -> &Public {
        &self.key
    }

    /// The proof to hand on with a verdict.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The 64 bytes drawn.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The output as a fraction of 65,536, to compare with a [`Rate`].
    #[must_use]
    pub fn lot_q16(&self) -> u32 {
        (self.output.lot() >> 48) as u32
    }

    /// Whether this auditor is to look, if it looks at `rate`.
    #[must_use]
    pub fn wins(&self, rate: Rate) -> bool {
        self.lot_q16() < rate.q16()
    }
}

/// The one of several auditors that is to look: the smallest output, read as a
/// byte string; equal outputs by the smaller key.
#[must_use]
pub fn choose(tickets: &[Ticket]) -> Option<&Ticket> {
    tickets.iter().min_by_key(|ticket| (*ticket.output.as_bytes(), *ticket.key.as_bytes()))
}

/// What the VRF is applied to. The offer's id keeps two offers apart; the root
/// is known only once the provider has committed itself.
fn alpha(root: &Digest, offer_id: &Digest) -> Vec<u8> {
    let mut alpha = b"peerproof audit lottery v1\0".to_vec();
    alpha.extend_from_slice(root.as_bytes());
    alpha.extend_from_slice(offer_id.as_bytes());
    alpha
}
