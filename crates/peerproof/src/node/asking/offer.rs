//! From a request to a signed offer.

use peerproof_identity::PeerId;
use peerproof_job::router::Options;
use peerproof_wire::job::client_nonce_hash;
use peerproof_wire::{Level as WireLevel, ModelId, Offer, Signed};

use super::SEARCH;
use crate::client::{AskError, JobSpec, Level, Mode, Preference, Prompt};
use crate::home::random_seed;
use crate::node::Inner;

/// A request whose model is known by id, signed.
pub(in crate::node) struct Prepared {
    pub(super) model_name: String,
    pub(super) offer: Signed<Offer>,
    pub(super) client_nonce: [u8; 32],
    pub(super) options: Options,
    pub(super) preference: Preference,
    pub(super) auditor: Option<PeerId>,
    /// The check that follows while the answer is used.
    pub(super) later: Option<WireLevel>,
}

impl Prepared {
    pub(in crate::node) fn max_tokens(&self) -> u32 {
        self.offer.max_tokens
    }

    /// The check that follows the answer, if one does.
    pub(super) fn follows(&self) -> Option<WireLevel> {
        self.later.filter(|level| !matches!(level, WireLevel::Receipt | WireLevel::KOfN))
    }
}

/// Turns a request into a signed offer.
pub(in crate::node) fn prepare(
    inner: &Inner,
    spec: JobSpec,
    model_id: ModelId,
    model_name: String,
) -> Result<Prepared, AskError> {
    let ask = &inner.config.ask;
    let client_nonce = random_seed();
    let level = spec.verification.level;
    let level = match level {
        Level::Receipt => WireLevel::Receipt,
        Level::Sampled => WireLevel::Sampled,
        Level::Spot => WireLevel::Spot,
        Level::Light => WireLevel::Light,
        Level::Full => WireLevel::Full,
        Level::KOfN => WireLevel::KOfN,
    };
    let later = (spec.verification.mode == Mode::FraudProof).then_some(level);
    let (k, n) = spec.verification.k_of_n;
    let auditor = spec
        .verification
        .auditor
        .as_deref()
        .map(|peer| parse_peer("verification.auditor", peer))
        .transpose()?;
    for peer in
        spec.preference.order.iter().chain(&spec.preference.only).chain(&spec.preference.ignore)
    {
        parse_peer("provider", peer)?;
    }
    let offer = Offer {
        model_id,
        prompt: prompt(spec.prompt),
        sampling: spec.sampling,
        max_tokens: spec.max_tokens.unwrap_or(match spec.embed {
            Some(_) => peerproof_wire::limits::MAX_ANSWER_TOKENS,
            None => ask.max_tokens,
        }),
        stop: spec.stop,
        level: if later.is_some() { WireLevel::Receipt } else { level },
        public_nonce: spec.seed.map_or_else(random_seed, |seed| nonce_of_seed(seed, spec.choice)),
        client_nonce_hash: client_nonce_hash(&client_nonce),
        deadline_ms: ask.deadline_ms,
        pooling: spec.embed,
        class: peerproof_wire::Class::Exact,
    };
    let invalid = |message: String| AskError::Invalid { parameter: "request".into(), message };
    let offer = Signed::sign(&inner.session, offer).map_err(|e| invalid(e.to_string()))?;
    let mut options = Options {
        total_ms: ask.deadline_ms,
        search_ms: u64::try_from(SEARCH.as_millis()).unwrap_or(u64::MAX),
        k: usize::from(k),
        n: usize::from(n),
        challenge: ask.challenge,
        ..Options::default()
    };
    if !ask.hedge {
        (options.hedge_accept_ms, options.hedge_token_ms) = (options.total_ms, options.total_ms);
    }
    Ok(Prepared {
        model_name,
        offer,
        client_nonce,
        options,
        preference: spec.preference,
        auditor,
        later,
    })
}

fn prompt(prompt: Prompt) -> peerproof_wire::Prompt {
    match prompt {
        Prompt::Chat(messages) => peerproof_wire::Prompt::Chat(
            messages
                .into_iter()
                .map(|m| peerproof_wire::ChatMessage { role: m.role, content: m.content })
                .collect(),
        ),
        Prompt::Text(text) => peerproof_wire::Prompt::Text(text),
        Prompt::Tokens(ids) => peerproof_wire::Prompt::Tokens(ids),
    }
}

/// The public nonce of a user's seed: the same seed gives the same answer from
/// anyone. Further choices of a request hash their number too, so no choice of
/// one seed is a choice of another.
fn nonce_of_seed(seed: i64, choice: u32) -> [u8; 32] {
    let mut bytes = seed.to_le_bytes().to_vec();
    if choice > 0 {
        bytes.extend_from_slice(&choice.to_le_bytes());
    }
    blake3::derive_key("peerproof public nonce of a user's seed v1", &bytes)
}

fn parse_peer(parameter: &str, peer: &str) -> Result<PeerId, AskError> {
    peer.parse().map_err(|_| AskError::Invalid {
        parameter: parameter.into(),
        message: format!("{peer:?} is not a peer id"),
    })
}
