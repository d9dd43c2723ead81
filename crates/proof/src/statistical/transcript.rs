//! What a provider of the statistical class commits to: its tokens and its figures.
//!
//! The transcript has the shape of an exact one, `p + a` leaves, so running
//! commitments and receipts count alike. A leaf that draws a token holds the
//! token and the report of it, without spellings; one that draws none holds its
//! position only, since nothing that happened there can be shown. Whoever has
//! the answer with its reports can build the whole tree, without a model.
//! Deliberately absent: states, logits, keys and values.

use peerproof_wire::{Commitment, Digest, Receipt, Stop, TokenLogprobs};

use crate::hash::Tagged;
use crate::receipt::BindingError;
use crate::transcript::{COMMIT_EVERY, Transcript, TranscriptError, Tree};

/// The kv root of a receipt behind which there are no keys and values.
pub const NO_KV_ROOT: Digest = Digest::from_bytes([0; 32]);

/// Hash of the leaf at `position`, which draws `token`, or none.
#[must_use]
pub fn leaf_hash(position: u32, drawn: Option<(u32, &TokenLogprobs)>) -> Digest {
    let hash = Tagged::new("peerproof statistical leaf v1").u32(position);
    let Some((token, report)) = drawn else { return hash.u8(0).finish() };
    let hash = hash.u8(1).u32(token).u32(report.chosen_q16).u64(report.top.len() as u64);
    report.top.iter().fold(hash, |hash, (id, value)| hash.u32(*id).u32(*value)).finish()
}

/// A transcript that grows while an engine of another kind answers.
#[derive(Clone, Debug)]
pub struct Ledger {
    transcript: Transcript,
    tokens: u32,
}

impl Ledger {
    /// Behind a prompt of so many tokens.
    ///
    /// # Errors
    /// The prompt is longer than a transcript can be.
    pub fn new(prompt_tokens: u32) -> Result<Self, TranscriptError> {
        let mut transcript = Transcript::new();
        for position in 0..prompt_tokens.saturating_sub(1) {
            transcript.push_hash(leaf_hash(position, None))?;
        }
        Ok(Self { transcript, tokens: 0 })
    }

    /// Takes the next token; gives the running commitment if one is due behind it.
    ///
    /// # Errors
    /// The transcript is as long as one can be.
    pub fn push(
        &mut self,
        token: u32,
        report: &TokenLogprobs,
    ) -> Result<Option<Commitment>, TranscriptError> {
        let position = self.transcript.leaves();
        self.transcript.push_hash(leaf_hash(position, Some((token, report))))?;
        self.tokens += 1;
        let due = self.tokens.is_multiple_of(COMMIT_EVERY);
        Ok(due.then(|| self.transcript.commitment()))
    }

    /// Closes it over the hash of all that is shown of the answer.
    ///
    /// # Errors
    /// The transcript is as long as one can be.
    pub fn close(self, stop: Stop, shown: &Digest) -> Result<Tree, TranscriptError> {
        self.transcript.close_with(stop, self.tokens, shown, &NO_KV_ROOT)
    }
}

/// Checks that a receipt's root, and the running commitments seen on the way,
/// cover these tokens and these figures.
///
/// # Errors
/// Names what differs.
pub fn verify(
    receipt: &Receipt,
    tokens: &[u32],
    reports: &[TokenLogprobs],
    commitments: &[Commitment],
) -> Result<(), BindingError> {
    let counted = BindingError::Reports { expected: tokens.len(), got: reports.len() };
    if tokens.len() != reports.len() {
        return Err(counted);
    }
    let build = || {
        let mut ledger = Ledger::new(receipt.prompt_tokens)?;
        for (token, report) in tokens.iter().zip(reports) {
            ledger.push(*token, report)?;
        }
        ledger.close(receipt.stop, &receipt.text_hash)
    };
    // More leaves than there can be are more than the receipt's terms allow.
    let tree = build().map_err(|_: TranscriptError| counted)?;
    let expected = tree.root();
    if expected != receipt.transcript_root || receipt.kv_root != NO_KV_ROOT {
        return Err(BindingError::Root { expected, got: receipt.transcript_root });
    }
    let odd = |seen: &&Commitment| tree.root_at(seen.leaves) != Ok(seen.root);
    match commitments.iter().find(odd) {
        None => Ok(()),
        Some(seen) => Err(BindingError::Root {
            expected: tree.root_at(seen.leaves).unwrap_or(expected),
            got: seen.root,
        }),
    }
}

#[cfg(test)]
mod tests {
    use peerproof_identity::Keypair;
    use peerproof_wire::job::client_nonce_hash;
    use peerproof_wire::{Class, Level, ModelId, Offer, Prompt, Sampling, Signed};

    use super::*;
    use crate::receipt::{Answer, Place, build, shown_hash, verify_bindings};

    fn report(n: u32) -> TokenLogprobs {
        let top: Vec<(u32, u32)> = (0..20).map(|at| (at, 9_000 * (at + 1) + n)).collect();
        TokenLogprobs { chosen_q16: n, top, spellings: vec![Vec::new(); 21] }
    }

    #[test]
    fn a_receipt_covers_every_figure_and_every_token() {
        let offer = Offer {
            model_id: ModelId::from_bytes([1; 32]),
            prompt: Prompt::Tokens(vec![5, 6, 7]),
            sampling: Sampling { logprobs: Some(20), ..Sampling::GREEDY },
            max_tokens: 40,
            stop: vec![],
            level: Level::Full,
            public_nonce: [2; 32],
            client_nonce_hash: client_nonce_hash(&[3; 32]),
            deadline_ms: 1_000,
            pooling: None,
            class: Class::Statistical,
        };
        let offer = Signed::sign(&Keypair::from_seed(&[4; 32]), offer).expect("an offer");
        let tokens: Vec<u32> = (0..40).collect();
        let logprobs: Vec<TokenLogprobs> = tokens.iter().map(|n| report(*n)).collect();
        let mut ledger = Ledger::new(3).expect("room");
        let seen: Vec<Commitment> = (tokens.iter().zip(&logprobs))
            .filter_map(|(token, report)| ledger.push(*token, report).expect("room"))
            .collect();
        assert_eq!(seen.iter().map(|it| it.leaves).collect::<Vec<_>>(), [34]);
        let tree = ledger.close(Stop::Length, &shown_hash("x", &logprobs)).expect("room");
        let answer = Answer { tokens: &tokens, text: "x", logprobs: &logprobs };
        let made = build(&offer, answer, Stop::Length, (&tree, NO_KV_ROOT), Place::FIRST, 0);
        let key = Keypair::from_seed(&[5; 32]);
        let receipt = Signed::sign(&key, made.expect("terms hold")).expect("a receipt");
        let check = |answer: Answer<'_>, seen: &[Commitment]| {
            verify_bindings(&offer, &receipt, &key.public(), answer, seen)
        };
        assert_eq!(check(answer, &seen), Ok(()));
        let lie = Commitment { root: NO_KV_ROOT, ..seen[0] };
        assert!(matches!(check(answer, &[lie]), Err(BindingError::Root { .. })));
        // Figures alone, with the text hash that goes with them.
        for at in [0, 20, 39] {
            let mut other = logprobs.clone();
            other[at].top[19].1 += 1;
            assert!(matches!(
                verify(&receipt, &tokens, &other, &[]),
                Err(BindingError::Root { .. })
            ));
            assert!(check(Answer { logprobs: &other, ..answer }, &seen).is_err());
        }
        let fewer = verify(&receipt, &tokens, &logprobs[1..], &[]);
        assert_eq!(fewer, Err(BindingError::Reports { expected: 40, got: 39 }));
    }
}
