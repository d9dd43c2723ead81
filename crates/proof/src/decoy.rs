//! Receipts known to be wrong, to see whether an auditor looks.
//!
//! A router that has no model cannot tell a lazy "passed" from an honest one;
//! but it can ask about a receipt that it made itself and that no honest
//! auditor passes. [`plant`] takes a case that was audited, signs its offer
//! anew, alters one token, and signs a receipt over a root that nobody
//! computed, with a key that signs nothing else. The papers hang together, so
//! only a recomputation tells. All randomness comes in as an argument.
//!
//! Absent: making it look like the work of a provider that the auditor knows,
//! which would take that provider's key.

use peerproof_identity::Keypair;
use peerproof_wire::{Case, Digest, Offer, Receipt, Signed};

use crate::receipt::output_hash;

/// A case that hangs together and fails every honest audit; `None` if the answer has no tokens
/// to alter. `router` signs the offer, as it signs its others; `entropy` is 32 fresh bytes.
///
/// ```no_run
/// # fn ask_an_auditor(_: &peerproof_wire::Case) -> bool { false }
/// # fn example(audited: &peerproof_wire::Case, session: &peerproof_identity::Keypair) {
/// use peerproof_proof::decoy::plant;
///
/// let entropy = [7; 32]; // from the operating system
/// if let Some(case) = plant(audited, session, &entropy, 1_790_000_000_000) {
///     assert!(!ask_an_auditor(&case), "an auditor that passes this does not look");
/// }
/// # }
/// ```
#[must_use]
pub fn plant(
    audited: &Case,
    router: &Keypair,
    entropy: &[u8; 32],
    issued_unix_ms: u64,
) -> Option<Case> {
    let bytes = |what: &str| *blake3::keyed_hash(entropy, what.as_bytes()).as_bytes();
    let number = |what: &str| {
        let [a, b, c, d, e, f, g, h, ..] = bytes(what);
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    };
    let was = audited.offer.statement();
    if audited.tokens.is_empty() || was.pooling.is_some() {
        return None;
    }
    let offer = Offer {
        public_nonce: bytes("public nonce"),
        client_nonce_hash: Digest::from_bytes(bytes("client nonce hash")),
        ..was.clone()
    };
    let offer = Signed::sign(router, offer).ok()?;
    let mut tokens = audited.tokens.clone();
    let at = (number("which token") % tokens.len() as u64) as usize;
    // A smaller id is one of the vocabulary too, whatever the model.
    tokens[at] = match tokens[at] {
        0 => 1,
        token => token - 1 - (number("how") % u64::from(token.min(997))) as u32,
    };
    let place = 1 + number("number") % 4096;
    let receipt = Receipt {
        offer_id: offer.id(),
        number: place,
        previous: (place > 1).then(|| Digest::from_bytes(bytes("previous"))),
        output_hash: output_hash(&tokens),
        text_hash: Digest::from_bytes(bytes("text hash")),
        transcript_root: Digest::from_bytes(bytes("root")),
        issued_unix_ms,
        ..audited.receipt.statement().clone()
    };
    let provider = Keypair::from_seed(&bytes("provider"));
    let receipt = Signed::sign(&provider, receipt).ok()?;
    Some(Case { offer, receipt, tokens })
}
