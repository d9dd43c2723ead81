//! Receipts: how a provider writes one, and what ties it to offer and answer.
//!
//! A provider closes its transcript, takes its [`Place`] in the chain of its
//! receipts and [`build`]s the statement it signs. A router that has the answer
//! in hand checks with [`verify_bindings`] that the receipt speaks of this
//! offer, these tokens and this text, and that its numbers add up. No model is
//! needed for that, and nothing is proven by it about the model: that is what
//! an audit is for.

use peerproof_identity::PublicKey;
use peerproof_wire::{
    Class, Commitment, Digest, Offer, Prompt, Receipt, Signed, Stop, TokenLogprobs,
};

use crate::embedding;
use crate::hash::Tagged;
use crate::statistical::transcript;
use crate::transcript::Tree;

/// A field of a receipt, as errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// Id of the offer.
    OfferId,
    /// Id of the model.
    ModelId,
    /// Number of the receipt.
    Number,
    /// Id of the receipt before.
    Previous,
    /// Tokens of the prompt.
    PromptTokens,
    /// Tokens of the answer.
    OutputTokens,
    /// Hash of the answer's token ids.
    OutputHash,
    /// Hash of the answer's text.
    TextHash,
    /// Leaves of the transcript.
    Leaves,
    /// Class of the answer, 0 exact, 1 statistical.
    Class,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OfferId => "offer id",
            Self::ModelId => "model id",
            Self::Number => "number",
            Self::Previous => "predecessor",
            Self::PromptTokens => "prompt tokens",
            Self::OutputTokens => "output tokens",
            Self::OutputHash => "output hash",
            Self::TextHash => "text hash",
            Self::Leaves => "leaves",
            Self::Class => "class (0 exact, 1 statistical)",
        })
    }
}

/// What in a receipt contradicts its offer or the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// The receipt is signed by another key than the provider's.
    #[error("receipt signer: expected {expected}, got {got}")]
    Signer {
        /// The provider that was asked.
        expected: PublicKey,
        /// The key that signed.
        got: PublicKey,
    },
    /// A digest differs.
    #[error("receipt {field}: expected {expected}, got {got}")]
    Digest {
        /// Which one.
        field: Field,
        /// What offer or answer give.
        expected: Digest,
        /// What the receipt says.
        got: Digest,
    },
    /// A number differs.
    #[error("receipt {field}: expected {expected}, got {got}")]
    Number {
        /// Which one.
        field: Field,
        /// What offer or answer give.
        expected: u64,
        /// What the receipt says.
        got: u64,
    },
    /// A number is outside of what the offer allows.
    #[error("receipt {field}: expected {least} to {most}, got {got}")]
    Range {
        /// Which one.
        field: Field,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
        /// What the receipt says.
        got: u64,
    },
    /// Only the first receipt has no predecessor.
    #[error("receipt {number} predecessor: expected {expected}, got none")]
    Previous {
        /// The receipt's number.
        number: u64,
        /// The id of the receipt before.
        expected: Digest,
    },
    /// An answer that ended by length has the length the offer allows.
    #[error("receipt stop by length: expected after {expected} tokens, got it after {got}")]
    StopLength {
        /// The offer's limit.
        expected: u32,
        /// The answer's length.
        got: u32,
    },
    /// The receipt says a stop string ended the answer, and the offer has none.
    #[error("receipt stop: expected no stop string, since the offer has none, got one")]
    StopString,
    /// Reports and tokens are not as many.
    #[error("reports of probabilities: expected {expected}, one a token, got {got}")]
    Reports {
        /// Tokens of the answer.
        expected: usize,
        /// Reports.
        got: usize,
    },
    /// A root, the receipt's or one sent on the way, does not cover tokens and reports.
    #[error("root over tokens and reports: expected {expected}, got {got}")]
    Root {
        /// As tokens and reports give it.
        expected: Digest,
        /// As committed to.
        got: Digest,
    },
    /// An embedding ends by itself.
    #[error("receipt stop: expected the end of the embedding, got {got:?}")]
    StopEmbedding {
        /// What the receipt says.
        got: Stop,
    },
    /// A running commitment cannot be one of this receipt's transcript.
    #[error(
        "running commitment {index}: expected more than {after} and less than {before} leaves, got {got}"
    )]
    Commitment {
        /// Which of those seen.
        index: usize,
        /// Leaves of the commitment before.
        after: u32,
        /// Leaves of the receipt.
        before: u32,
        /// Leaves of this one.
        got: u32,
    },
}

/// Hash of an answer's token ids.
#[must_use]
pub fn output_hash(tokens: &[u32]) -> Digest {
    Tagged::new("peerproof output v1").tokens(tokens).finish()
}

/// Hash of an answer's text, where no probabilities are reported beside it.
#[must_use]
pub fn text_hash(text: &str) -> Digest {
    shown_hash(text, &[])
}

/// Hash of all that is shown of an answer: its text, and what is reported of
/// its tokens' probabilities, one report a token, if the offer asks for that.
#[must_use]
pub fn shown_hash(text: &str, logprobs: &[TokenLogprobs]) -> Digest {
    let hash = Tagged::new("peerproof text v1").sized(text.as_bytes());
    logprobs.iter().fold(hash, absorb_report).finish()
}

fn absorb_report(hash: Tagged, report: &TokenLogprobs) -> Tagged {
    let mut spellings = report.spellings.iter().map(Vec::as_slice);
    let mut spelling = || spellings.next().unwrap_or_default();
    let hash = hash.u32(report.chosen_q16).sized(spelling()).u64(report.top.len() as u64);
    report
        .top
        .iter()
        .fold(hash, |hash, (token, value_q16)| hash.u32(*token).u32(*value_q16).sized(spelling()))
}

/// Where a receipt stands in the chain of its issuer's receipts.
///
/// ```
/// use peerproof_proof::receipt::Place;
/// use peerproof_wire::Digest;
///
/// assert_eq!(Place::FIRST.number(), 1);
/// assert_eq!(Place::after(41, Digest::from_bytes([1; 32])).number(), 42);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    number: u64,
    previous: Option<Digest>,
}

impl Place {
    /// The place of a key's first receipt.
    pub const FIRST: Self = Self { number: 1, previous: None };

    /// The place after the receipt with this number and id.
    #[must_use]
    pub fn after(number: u64, id: Digest) -> Self {
        Self { number: number.saturating_add(1), previous: Some(id) }
    }

    /// The number of the receipt at this place.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// A finished answer, as its provider or its recipient has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// All its token ids.
    pub tokens: &'a [u32],
    /// Its text.
    pub text: &'a str,
    /// One for each token if the offer asks for them, else none.
    pub logprobs: &'a [TokenLogprobs],
}

/// Writes the receipt for an answer whose transcript is closed over `kv_root`.
///
/// The numbers are taken from the transcript and checked against the offer, so
/// a provider does not sign what a router would refuse.
pub fn build(
    offer: &Signed<Offer>,
    answer: Answer<'_>,
    stop: Stop,
    (tree, kv_root): (&Tree, Digest),
    place: Place,
    issued_unix_ms: u64,
) -> Result<Receipt, BindingError> {
    let output_tokens = answer.tokens.len() as u32;
    let own = if offer.pooling.is_some() { 1 } else { output_tokens };
    let receipt = Receipt {
        offer_id: offer.id(),
        model_id: offer.model_id,
        number: place.number,
        previous: place.previous,
        prompt_tokens: tree.leaves().saturating_sub(own),
        output_tokens,
        stop,
        output_hash: output_hash(answer.tokens),
        text_hash: shown_hash(answer.text, answer.logprobs),
        transcript_root: tree.root(),
        leaves: tree.leaves(),
        kv_root,
        class: offer.class,
        issued_unix_ms,
    };
    verify_terms(offer, &receipt)?;
    Ok(receipt)
}

/// Checks that a receipt is this provider's statement about this offer and this
/// answer, and that the running commitments seen on the way can be its
/// transcript's. Whether their roots are takes the hashes of the leaves, see
/// [`verify_openings`](crate::challenge::verify_openings).
pub fn verify_bindings(
    offer: &Signed<Offer>,
    receipt: &Signed<Receipt>,
    provider: &PublicKey,
    answer: Answer<'_>,
    commitments: &[Commitment],
) -> Result<(), BindingError> {
    if receipt.key() != *provider {
        return Err(BindingError::Signer { expected: *provider, got: receipt.key() });
    }
    verify_offer_named(offer, receipt)?;
    verify_terms(offer, receipt)?;
    verify_output_count(receipt, answer.tokens)?;
    verify_output_hash(receipt, answer.tokens)?;
    let shown = shown_hash(answer.text, answer.logprobs);
    same_digest(Field::TextHash, shown, receipt.text_hash)?;
    if offer.pooling.is_some() {
        let said = text_hash(&embedding::text(answer.tokens));
        same_digest(Field::TextHash, said, receipt.text_hash)?;
    }
    verify_commitments(receipt, commitments)?;
    if offer.class == Class::Statistical {
        transcript::verify(receipt, answer.tokens, answer.logprobs, commitments)?;
    }
    Ok(())
}

/// Checks that a receipt names this offer.
pub fn verify_offer_named(offer: &Signed<Offer>, receipt: &Receipt) -> Result<(), BindingError> {
    same_digest(Field::OfferId, offer.id(), receipt.offer_id)
}

/// Checks that a receipt names the offer's model.
pub fn verify_model_named(offer: &Offer, receipt: &Receipt) -> Result<(), BindingError> {
    same_digest(
        Field::ModelId,
        Digest::from_bytes(*offer.model_id.as_bytes()),
        Digest::from_bytes(*receipt.model_id.as_bytes()),
    )
}

/// Checks that a receipt covers these tokens.
pub fn verify_output_hash(receipt: &Receipt, tokens: &[u32]) -> Result<(), BindingError> {
    same_digest(Field::OutputHash, output_hash(tokens), receipt.output_hash)
}

/// Checks what a receipt says against the terms of the offer it names. A signed
/// receipt that fails here convicts its signer without any model.
pub fn verify_terms(offer: &Offer, receipt: &Receipt) -> Result<(), BindingError> {
    verify_model_named(offer, receipt)?;
    same_number(Field::Class, offer.class as u64, receipt.class as u64)?;
    match &offer.prompt {
        Prompt::Tokens(ids) => {
            same_number(Field::PromptTokens, ids.len() as u64, receipt.prompt_tokens.into())?;
        }
        Prompt::Chat(_) | Prompt::Text(_) => {
            in_range(Field::PromptTokens, 1, u32::MAX.into(), receipt.prompt_tokens.into())?;
        }
    }
    in_range(Field::OutputTokens, 1, offer.max_tokens.into(), receipt.output_tokens.into())?;
    // An embedding is made from the prompt's positions; no component has one of its own.
    let own = if offer.pooling.is_some() { 1 } else { receipt.output_tokens };
    let leaves = u64::from(receipt.prompt_tokens) + u64::from(own);
    same_number(Field::Leaves, leaves, receipt.leaves.into())?;
    verify_stop(offer, receipt)
}

/// Checks that a receipt counts these tokens.
pub fn verify_output_count(receipt: &Receipt, tokens: &[u32]) -> Result<(), BindingError> {
    same_number(Field::OutputTokens, tokens.len() as u64, receipt.output_tokens.into())
}

fn verify_stop(offer: &Offer, receipt: &Receipt) -> Result<(), BindingError> {
    match receipt.stop {
        stop if offer.pooling.is_some() && stop != Stop::EndOfText => {
            Err(BindingError::StopEmbedding { got: stop })
        }
        Stop::Length if receipt.output_tokens != offer.max_tokens => {
            Err(BindingError::StopLength { expected: offer.max_tokens, got: receipt.output_tokens })
        }
        Stop::StopString if offer.stop.is_empty() => Err(BindingError::StopString),
        _ => Ok(()),
    }
}

fn verify_commitments(receipt: &Receipt, commitments: &[Commitment]) -> Result<(), BindingError> {
    let mut after = 0;
    for (index, commitment) in commitments.iter().enumerate() {
        if commitment.leaves <= after || commitment.leaves >= receipt.leaves {
            return Err(BindingError::Commitment {
                index,
                after,
                before: receipt.leaves,
                got: commitment.leaves,
            });
        }
        after = commitment.leaves;
    }
    Ok(())
}

/// Checks that `next` follows `previous` in one provider's chain.
pub fn verify_successor(
    previous: &Signed<Receipt>,
    next: &Signed<Receipt>,
) -> Result<(), BindingError> {
    if next.key() != previous.key() {
        return Err(BindingError::Signer { expected: previous.key(), got: next.key() });
    }
    same_number(Field::Number, previous.number.saturating_add(1), next.number)?;
    match next.previous {
        Some(got) => same_digest(Field::Previous, previous.id(), got),
        None => Err(BindingError::Previous { number: next.number, expected: previous.id() }),
    }
}

fn same_digest(field: Field, expected: Digest, got: Digest) -> Result<(), BindingError> {
    if expected == got { Ok(()) } else { Err(BindingError::Digest { field, expected, got }) }
}

fn same_number(field: Field, expected: u64, got: u64) -> Result<(), BindingError> {
    if expected == got { Ok(()) } else { Err(BindingError::Number { field, expected, got }) }
}

fn in_range(field: Field, least: u64, most: u64, got: u64) -> Result<(), BindingError> {
    if (least..=most).contains(&got) {
        Ok(())
    } else {
        Err(BindingError::Range { field, least, most, got })
    }
}
