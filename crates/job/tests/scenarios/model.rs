//! A made-up model: what it answers, how its text is released, how a provider lies about it.

use peerproof_identity::Keypair;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{
    Digest, FailureCode, Level, ModelId, Offer, Prompt, Sampling, Signed, TokenLogprobs,
};

pub(crate) const MODEL: ModelId = ModelId::from_bytes([0xaa; 32]);
pub(crate) const NONCE: [u8; 32] = [3; 32];
pub(crate) const PROMPT_TOKENS: u32 = 7;
/// What a provider does wrong. Numbers count tokens of the answer that it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Honest,
    /// Cannot be reached.
    Unreachable,
    /// Opens a stream and says nothing.
    Mute,
    /// Accepts and says nothing.
    AcceptsOnly,
    /// The process dies.
    DiesAt(u32),
    /// The process is stopped: connections stay, nothing comes.
    StallsAt(u32),
    /// Sends bytes that are no frame.
    GarbageAt(u32),
    /// Sends one frame twice.
    Doubles(u32),
    /// Sends two frames in the wrong order.
    Swaps(u32),
    /// Leaves out a frame.
    Skips(u32),
    /// Computes another token from this index on.
    CheatsFrom(u32),
    /// Computes other tokens, and dies at this index.
    CheatsThenDies(u32),
    /// Goes on after the end of the answer.
    Pads,
    /// Changes text in flight, not what it signs.
    FalseText,
    /// Changes reported probabilities in flight, not what it signs.
    FalseReports,
    /// Leaves out the probabilities that were asked for.
    NoReports,
    /// Leaves out its commitments.
    NoCommitments,
    /// Refuses with this code.
    Refuses(FailureCode),
    /// Is busy this often, then honest.
    BusyTimes(u32),
    /// Shows a receipt that another key signed.
    OthersReceipt,
    /// Shows a receipt for another offer.
    OtherOffer,
    /// Cannot prove the place of its receipt.
    FalseLogProof,
    /// Delivers, then opens nothing.
    NoOpenings,
    /// Opens leaves of something else.
    FalseOpenings,
}

pub(crate) fn offer(router: &Keypair, level: Level, max_tokens: u32) -> Signed<Offer> {
    ending_offer(router, level, max_tokens, 0)
}

/// An offer whose answer ends after `ends_at` tokens; 0 goes on to the limit.
pub(crate) fn ending_offer(
    router: &Keypair,
    level: Level,
    max_tokens: u32,
    ends_at: u32,
) -> Signed<Offer> {
    let offer = Offer {
        model_id: MODEL,
        prompt: Prompt::Text("Once upon a time".into()),
        sampling: Sampling { top_k: ends_at, ..Sampling::GREEDY },
        max_tokens,
        stop: vec![],
        level,
        public_nonce: [2; 32],
        client_nonce_hash: client_nonce_hash(&NONCE),
        deadline_ms: 600_000,
        pooling: None,
        class: peerproof_wire::Class::Exact,
    };
    Signed::sign(router, offer).unwrap()
}

pub(crate) fn hash(label: &str, bytes: &[u8]) -> Digest {
    let mut all = label.as_bytes().to_vec();
    all.extend_from_slice(bytes);
    Digest::from_bytes(sha(&all))
}

/// A toy hash: the tests need distinct values, not strength.
fn sha(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for (index, byte) in bytes.iter().chain(&[0; 32]).enumerate() {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        out[index % 32] ^= (state >> 24) as u8;
    }
    out
}

pub(crate) fn hash_tokens(tokens: &[u32]) -> Digest {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    hash("tokens", &bytes)
}

/// Hash of text and reports together.
pub(crate) fn hash_shown(text: &str, logprobs: &[TokenLogprobs]) -> Digest {
    hash("text", format!("{text:?} {logprobs:?}").as_bytes())
}

/// What the model reports of these tokens, if the offer asks.
pub(crate) fn reports(offer: &Offer, tokens: &[u32]) -> Vec<TokenLogprobs> {
    let report = |token: &u32| TokenLogprobs {
        chosen_q16: token % 1000,
        top: vec![(*token, token % 1000)],
        spellings: vec![token.to_string().into_bytes(); 2],
    };
    offer.sampling.logprobs.map_or(vec![], |_| tokens.iter().map(report).collect())
}

/// The answer the model gives: as long as it may be, or `top_k` tokens if that is set.
pub(crate) fn reference(offer: &Offer) -> Vec<u32> {
    let mut tokens = longest(offer);
    if offer.sampling.top_k > 0 {
        tokens.truncate(offer.sampling.top_k as usize);
    }
    tokens
}

fn longest(offer: &Offer) -> Vec<u32> {
    (0..offer.max_tokens).map(|index| index.wrapping_mul(2_654_435_761) % 50_000).collect()
}

/// The text after the first `count` of `tokens`, of which there are `all`:
/// words are held back until a pair is complete, and released at the end.
pub(crate) fn text_of(tokens: &[u32], count: usize, all: usize) -> String {
    let released = if count == all { count } else { count / 2 * 2 };
    tokens[..released].iter().map(|token| format!("{token} ")).collect()
}

pub(crate) fn answer_of(script: Script, offer: &Offer) -> Vec<u32> {
    let mut tokens = if script == Script::Pads { longest(offer) } else { reference(offer) };
    let from = match script {
        Script::CheatsFrom(from) => Some(from),
        Script::CheatsThenDies(_) => Some(0),
        _ => None,
    };
    if let Some(from) = from {
        tokens.iter_mut().skip(from as usize).for_each(|token| *token += 1);
    }
    tokens
}
