//! Several providers, one offer: agreement is equality.
//!
//! Honest answers to one offer are the same bytes, down to the transcript's
//! root, so receipts either say the same or somebody is wrong. With a majority
//! the odd ones are named; without one everybody is a suspect. A majority is a
//! reason to audit the odd one and no proof against it: two liars outvote an
//! honest provider.

use peerproof_identity::PublicKey;
use peerproof_wire::{Digest, Receipt, Signed};

use crate::transcript::stop_code;

/// How the receipts of several providers compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// All say the same.
    Unanimous,
    /// More than half say the same.
    Majority {
        /// Those that agree, in the order given.
        agreed: Vec<PublicKey>,
        /// Those that differ from them, in the order given.
        odd: Vec<Odd>,
    },
    /// No answer has more than half of the receipts.
    Split,
}

/// A provider whose receipt differs from the majority's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Odd {
    /// Whose receipt it is.
    pub provider: PublicKey,
    /// The first field that differs.
    pub field: &'static str,
}

/// Why receipts cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementError {
    /// Agreement takes at least two.
    #[error("receipts to compare: expected at least 2, got {got}")]
    TooFew {
        /// How many there are.
        got: usize,
    },
    /// All receipts must answer one offer.
    #[error("receipt {index} to compare: expected offer {expected}, got {got}")]
    Offer {
        /// Which receipt.
        index: usize,
        /// The first receipt's offer.
        expected: Digest,
        /// This receipt's offer.
        got: Digest,
    },
    /// A provider has one voice.
    #[error(
        "receipt {index} to compare: expected a provider of its own, got another receipt of {got}"
    )]
    SameProvider {
        /// Which receipt.
        index: usize,
        /// The provider that is there already.
        got: PublicKey,
    },
}

/// Compares receipts of different providers for one offer.
pub fn compare(receipts: &[Signed<Receipt>]) -> Result<Agreement, AgreementError> {
    verify_comparable(receipts)?;
    let supporters =
        |one: &Receipt| receipts.iter().filter(|other| said(other) == said(one)).count();
    let Some(model) = receipts.iter().find(|one| supporters(one) * 2 > receipts.len()) else {
        return Ok(Agreement::Split);
    };
    let (mut agreed, mut odd) = (Vec::new(), Vec::new());
    for receipt in receipts {
        match first_difference(model, receipt) {
            None => agreed.push(receipt.key()),
            Some(field) => odd.push(Odd { provider: receipt.key(), field }),
        }
    }
    Ok(if odd.is_empty() { Agreement::Unanimous } else { Agreement::Majority { agreed, odd } })
}

fn verify_comparable(receipts: &[Signed<Receipt>]) -> Result<(), AgreementError> {
    let [first, ..] = receipts else {
        return Err(AgreementError::TooFew { got: 0 });
    };
    if receipts.len() < 2 {
        return Err(AgreementError::TooFew { got: receipts.len() });
    }
    for (index, receipt) in receipts.iter().enumerate() {
        if receipt.offer_id != first.offer_id {
            return Err(AgreementError::Offer {
                index,
                expected: first.offer_id,
                got: receipt.offer_id,
            });
        }
        if receipts[..index].iter().any(|before| before.key() == receipt.key()) {
            return Err(AgreementError::SameProvider { index, got: receipt.key() });
        }
    }
    Ok(())
}

/// What a receipt says about the answer, field by field; what it says about its
/// issuer (number, predecessor, time) is left out.
fn said(receipt: &Receipt) -> [(&'static str, Vec<u8>); 8] {
    [
        ("prompt tokens", receipt.prompt_tokens.to_le_bytes().to_vec()),
        ("output tokens", receipt.output_tokens.to_le_bytes().to_vec()),
        ("stop", vec![stop_code(receipt.stop)]),
        ("output hash", receipt.output_hash.as_bytes().to_vec()),
        ("text hash", receipt.text_hash.as_bytes().to_vec()),
        ("keys and values", receipt.kv_root.as_bytes().to_vec()),
        ("leaves", receipt.leaves.to_le_bytes().to_vec()),
        ("transcript root", receipt.transcript_root.as_bytes().to_vec()),
    ]
}

fn first_difference(one: &Receipt, other: &Receipt) -> Option<&'static str> {
    said(one).into_iter().zip(said(other)).find_map(|(one, other)| (one != other).then_some(one.0))
}
