//! The numbering of receipts: one chain, no gap, no number twice.

use peerproof_wire::{Class, Digest, LogBody, LogEntry, ModelId, Receipt, Signed, Stop};

use super::Ended;
use super::stream::Job;

/// Why a log's receipts are not one chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// A number is missing, double or out of order.
    #[error("receipt number: expected {expected}, got {got}")]
    Number {
        /// The next number.
        expected: u64,
        /// The number in the log.
        got: u64,
    },
    /// A receipt does not name the one before it.
    #[error("receipt {number}, previous: expected {expected:?}, got {got:?}")]
    Previous {
        /// Of the receipt.
        number: u64,
        /// Id of the receipt before it in the log.
        expected: Option<Digest>,
        /// Id that it names.
        got: Option<Digest>,
    },
}

/// A receipt without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    offer_id: Digest,
    model_id: ModelId,
    number: u64,
    previous: Option<Digest>,
    prompt_tokens: u32,
    output_tokens: u32,
    stop: Stop,
    output_hash: Digest,
    text_hash: Digest,
    kv_root: Digest,
    class: Class,
    transcript_root: Digest,
    leaves: u32,
}

impl Draft {
    /// The receipt's number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Id of the receipt before it.
    #[must_use]
    pub fn previous(&self) -> Option<Digest> {
        self.previous
    }

    /// The receipt, ready to be signed.
    #[must_use]
    pub fn receipt(self, issued_unix_ms: u64) -> Receipt {
        Receipt {
            offer_id: self.offer_id,
            model_id: self.model_id,
            number: self.number,
            previous: self.previous,
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            stop: self.stop,
            output_hash: self.output_hash,
            text_hash: self.text_hash,
            kv_root: self.kv_root,
            class: self.class,
            transcript_root: self.transcript_root,
            leaves: self.leaves,
            issued_unix_ms,
        }
    }
}

/// The last number given out, and whose it is.
#[derive(Debug, Default)]
pub(super) struct ReceiptBook {
    number: u64,
    last: Option<Digest>,
}

impl ReceiptBook {
    /// Takes an entry of the log into account; gives back the receipt if it is one.
    pub(super) fn replay<'a>(
        &mut self,
        entry: &'a LogEntry,
    ) -> Result<Option<&'a Signed<Receipt>>, BookError> {
        let LogBody::Receipt(receipt) = &entry.body else { return Ok(None) };
        let expected = self.number.saturating_add(1);
        if receipt.number != expected {
            return Err(BookError::Number { expected, got: receipt.number });
        }
        if receipt.previous != self.last {
            return Err(BookError::Previous {
                number: expected,
                expected: self.last,
                got: receipt.previous,
            });
        }
        self.advance(receipt);
        Ok(Some(receipt))
    }

    pub(super) fn advance(&mut self, receipt: &Signed<Receipt>) {
        self.number = receipt.number;
        self.last = Some(receipt.id());
    }

    pub(super) fn draft(&self, job: &Job, ended: &Ended) -> Draft {
        Draft {
            offer_id: job.offer.id(),
            model_id: job.offer.model_id,
            number: self.number.saturating_add(1),
            previous: self.last,
            prompt_tokens: job.prompt_tokens,
            output_tokens: u32::try_from(job.tokens.len()).unwrap_or(u32::MAX),
            stop: ended.stop,
            output_hash: ended.output_hash,
            text_hash: ended.text_hash,
            kv_root: ended.kv_root,
            class: job.offer.class,
            transcript_root: ended.transcript_root,
            leaves: ended.leaves,
        }
    }
}
