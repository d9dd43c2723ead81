//! The seed of an answer's sampling.
//!
//! It covers the request and nothing else: no byte of it is the provider's, so
//! a provider cannot try seeds until an answer pleases it; and none is the
//! router's key, its client nonce or its deadline, so a request repeated with
//! the same public nonce has the same answer from anyone, at any time.

use peerproof_wire::{ARITHMETIC, Digest, LogitBias, Offer, Prompt, Sampling};

use crate::hash::Tagged;

/// The seed that every draw of the answer to `offer` comes from.
#[must_use]
pub fn sampling_seed(offer: &Offer) -> Digest {
    let hash =
        Tagged::new("peerproof sampling seed v1").u32(ARITHMETIC).fixed(offer.model_id.as_bytes());
    let hash = absorb_prompt(hash, &offer.prompt)
        .u32(offer.sampling.temperature_q16)
        .u32(offer.sampling.top_k)
        .u32(offer.sampling.top_p_q16)
        .u32(offer.max_tokens)
        .u64(offer.stop.len() as u64);
    let hash = offer
        .stop
        .iter()
        .fold(hash, |hash, stop| hash.sized(stop.as_bytes()))
        .fixed(&offer.public_nonce);
    absorb_rules(hash, &offer.sampling).finish()
}

/// The random number that draws the token with this index in the answer, as the
/// arithmetic defines it: the first eight bytes of BLAKE3 over seed and index.
/// It follows from the offer alone, so a router without the model can tell a
/// provider that made up its own.
#[must_use]
pub fn draw(seed: &Digest, index: u64) -> u64 {
    let mut first = [0; 8];
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed.as_bytes()).update(&index.to_le_bytes());
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

/// The rules beyond temperature, top-k and top-p: nothing if all are off. What
/// comes before ends in a field of fixed length, so no two offers share bytes.
fn absorb_rules(hash: Tagged, sampling: &Sampling) -> Tagged {
    // Exhaustive: a rule that is added must be added here too.
    let Sampling {
        temperature_q16,
        top_k,
        top_p_q16,
        min_p_q16,
        repetition_q16,
        presence_q16,
        frequency_q16,
        bias,
        constraint,
        logprobs,
    } = sampling;
    let (temperature_q16, top_k, top_p_q16) = (*temperature_q16, *top_k, *top_p_q16);
    let plain = Sampling { temperature_q16, top_k, top_p_q16, ..Sampling::GREEDY };
    if *sampling == (Sampling { logprobs: *logprobs, ..plain }) {
        return hash;
    }
    let hash = hash
        .u8(1)
        .u32(*min_p_q16)
        .u32(*repetition_q16)
        .fixed(&presence_q16.to_le_bytes())
        .fixed(&frequency_q16.to_le_bytes())
        .u64(bias.len() as u64);
    let hash = bias.iter().fold(hash, |hash, LogitBias { token, bias_q16 }| {
        hash.u32(*token).fixed(&bias_q16.to_le_bytes())
    });
    match constraint {
        None => hash.u8(0),
        Some(constraint) => {
            let hash = hash.u8(constraint.kind()).sized(constraint.text().as_bytes());
            hash.sized(constraint.rules.as_bytes())
        }
    }
}

fn absorb_prompt(hash: Tagged, prompt: &Prompt) -> Tagged {
    match prompt {
        Prompt::Chat(messages) => {
            messages.iter().fold(hash.u8(1).u64(messages.len() as u64), |hash, message| {
                hash.sized(message.role.as_bytes()).sized(message.content.as_bytes())
            })
        }
        Prompt::Text(text) => hash.u8(2).sized(text.as_bytes()),
        Prompt::Tokens(ids) => hash.u8(3).tokens(ids),
    }
}
