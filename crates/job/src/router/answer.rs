//! What was passed on so far, and whose it is.

use peerproof_identity::PeerId;
use peerproof_wire::TokenLogprobs;

use super::lane::Lane;
use super::{Out, Segment};
use crate::planted::planted;
use crate::time::Millis;

/// INVARIANT: grows only at its end, so no token is passed on twice or left out.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) tokens: Vec<u32>,
    pub(super) text: String,
    pub(super) logprobs: Vec<TokenLogprobs>,
    pub(super) segments: Vec<Segment>,
    pub(super) first_token_at: Option<Millis>,
}

impl Answer {
    /// Grows to what `lane` has, which continues it. Returns what is new, to be passed on.
    pub(super) fn grow(&mut self, lane: &Lane, now: Millis) -> Out {
        let from = lane.candidate.peer;
        let switched = self.segments.last().is_some_and(|last| last.provider != from);
        let again = usize::from(switched && planted("a token is passed on twice"));
        let start = self.tokens.len().saturating_sub(again) as u32;
        if self.segments.last().is_none_or(|last| last.provider != from) {
            self.segments.push(Segment { provider: from, start });
        }
        self.first_token_at.get_or_insert(now);
        let text = lane.text.as_deref().unwrap_or_default();
        let tokens = lane.tokens.get(start as usize..).unwrap_or_default().to_vec();
        let text = text.get(self.text.len()..).unwrap_or_default().to_owned();
        let logprobs = lane.logprobs.get(self.logprobs.len()..).unwrap_or_default().to_vec();
        self.tokens.extend_from_slice(&tokens);
        self.text.push_str(&text);
        self.logprobs.extend_from_slice(&logprobs);
        Out::Emit { start, tokens, text, logprobs }
    }

    /// Whose token stands at `index`.
    pub(super) fn author(&self, index: usize) -> Option<PeerId> {
        let before = self.segments.iter().rev().find(|segment| segment.start as usize <= index);
        before.map(|segment| segment.provider)
    }

    /// Who sent the token at `index`, and who continued after it.
    pub(super) fn authors_from(&self, index: usize) -> impl Iterator<Item = PeerId> {
        let before = self.segments.iter().rposition(|segment| segment.start as usize <= index);
        self.segments.iter().skip(before.unwrap_or(0)).map(|segment| segment.provider)
    }

    /// Index of the first token that differs from `other`.
    pub(super) fn departs_from(&self, other: &[u32]) -> usize {
        let same = self.tokens.iter().zip(other).take_while(|(ours, theirs)| ours == theirs);
        same.count()
    }
}
