//! What an answer will cost, as far as providers have announced it, before it is asked for.
//!
//! A price is what work costs who does it (`docs/spec/wire.md`, Price). The tokens of the
//! prompt are guessed from its length, those of the answer are the most that are asked for.

use std::time::{Duration, Instant};

use peerproof::client::{Cost, Level, Mode, ServedModel};
use peerproof::price::Asked;
use serde::Serialize;

use crate::api::Api;
use crate::args::AskArgs;

/// A node that was made for this question is left so long to hear of prices; it looks for
/// providers meanwhile.
const PATIENCE: Duration = Duration::from_millis(600);
const POLL: Duration = Duration::from_millis(50);
/// Bytes of text that are about a token.
const BYTES_A_TOKEN: usize = 4;

/// The range of what providers announce for a question.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Estimate {
    mode: Mode,
    level: Level,
    /// Most tokens of the answer, which the figures are for.
    output_tokens: u32,
    /// Providers with a price.
    providers: usize,
    /// The least and the most time that the answer takes of them.
    least: Cost,
    most: Cost,
}

impl Estimate {
    pub(super) fn line(&self) -> String {
        let (tokens, mode) = (self.output_tokens, self.mode);
        match self.least == self.most {
            true => format!("for {tokens} tokens, about {}", self.least.line(mode)),
            false => format!(
                "for {tokens} tokens, of {} providers the least: {}; the most: {}",
                self.providers,
                self.least.line(mode),
                self.most.line(mode)
            ),
        }
    }
}

/// What an answer will cost; `None` if nobody has announced a price.
pub(super) fn before(api: &Api, args: &AskArgs, stays: bool) -> Option<Estimate> {
    let since = Instant::now();
    let model = loop {
        let models = api.json("/peerproof/models").ok()?;
        let models: Vec<ServedModel> = serde_json::from_value(models).ok()?;
        let found = models.into_iter().find(|m| m.name == args.model || m.id == args.model);
        if found.is_some() || stays || since.elapsed() > PATIENCE {
            break found?;
        }
        std::thread::sleep(POLL);
    };
    let output_tokens = args.sampling.max_tokens.unwrap_or(256);
    let asked = Asked {
        level: args.verify.unwrap_or_default(),
        prompt_tokens: u32::try_from(args.prompt.len() / BYTES_A_TOKEN).ok()?.max(1),
        output_tokens,
        // A newcomer's; one with a record is audited less.
        audit_per_mille: 500,
        n: args.agree.1,
    };
    let only = |peer: &str| args.provider.is_empty() || args.provider.iter().any(|p| p == peer);
    let serves = |peer: &String| model.providers.contains(peer) && only(peer);
    let offered = model.prices.iter().filter(|price| serves(&price.peer));
    let mut costs: Vec<Cost> = offered.filter_map(|it| it.price.estimate(&asked)).collect();
    costs.sort_by_key(|cost| cost.answer_ms);
    Some(Estimate {
        mode: args.mode.unwrap_or_default(),
        level: asked.level,
        output_tokens,
        providers: costs.len(),
        least: costs.first()?.clone(),
        most: costs.last()?.clone(),
    })
}
