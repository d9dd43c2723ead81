//! What an answer and its check cost: prices as providers announce them, and estimates.
//!
//! There is no money in this network. A price is what work costs who does it: time,
//! measured by itself on its own machine, and bytes that move. [`Price::estimate`] turns a
//! price into the cost of one answer at one level; `docs/spec/wire.md` (Price) has the
//! rule. An operator may announce terms beside it, a number and its unit, which are
//! shown and mean nothing here.

use serde::{Deserialize, Serialize};

use crate::client::{Level, Mode};

/// Cells that a spot audit opens.
const CELLS: u64 = 8;

/// What work with a model costs a peer. 0 is not measured yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Microseconds to make one token of an answer.
    pub token_us: u32,
    /// Microseconds to recompute one position.
    pub replay_us: u32,
    /// Microseconds, for one position of an answer, to open cells of it.
    pub opening_us: u32,
    /// Bytes of an opened cell.
    pub cell_bytes: u32,
    /// The operator's terms for a million tokens, in `unit`.
    pub per_million: u64,
    /// The unit of that number; empty without terms.
    pub unit: String,
}

/// What one answer costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Milliseconds to make the answer, by all who make it.
    pub answer_ms: u64,
    /// Milliseconds that its check takes the provider.
    pub provider_ms: u64,
    /// Milliseconds that its check takes whoever recomputes, on a machine like the provider's.
    pub auditor_ms: u64,
    /// Bytes that its check moves, once the router has the layers it takes.
    pub check_bytes: u64,
    /// By the operator's terms, with their unit; absent without terms.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terms: Option<String>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How it is checked.
    pub level: Level,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Share of answers that the level `sampled` audits.
    pub audit_per_mille: u32,
    /// Providers that the level `k_of_n` asks.
    pub n: u8,
}

impl From<&peerproof_wire::Price> for Price {
    fn from(price: &peerproof_wire::Price) -> Price {
        Price {
            token_us: price.token_us,
            replay_us: price.replay_us,
            opening_us: price.opening_us,
            cell_bytes: price.cell_bytes,
            per_million: price.per_million,
            unit: price.unit.clone(),
        }
    }
}

impl Price {
    /// What an answer costs by this price; `None` if the time of a token is not known.
    #[must_use]
    pub fn estimate(&self, asked: &Asked) -> Option<Cost> {
        if self.token_us == 0 {
            return None;
        }
        let (prompt, output) = (u64::from(asked.prompt_tokens), u64::from(asked.output_tokens));
        let positions = prompt + output;
        let ms = |units: u64, each: u32| (units * u64::from(each)).div_ceil(1_000);
        let full = ms(positions, self.replay_us);
        let answers = if asked.level == Level::KOfN { u64::from(asked.n) } else { 1 };
        let mut cost = Cost { answer_ms: answers * ms(output, self.token_us), ..Cost::default() };
        match asked.level {
            Level::Receipt | Level::KOfN => {}
            Level::Sampled => {
                cost.auditor_ms = (full * u64::from(asked.audit_per_mille)).div_ceil(1_000);
            }
            Level::Full => cost.auditor_ms = full,
            _ => {
                cost.provider_ms = ms(positions, self.opening_us);
                cost.check_bytes = CELLS * u64::from(self.cell_bytes);
            }
        }
        if self.per_million > 0 {
            let tokens = u128::from(answers * positions);
            let micro = tokens * u128::from(self.per_million);
            cost.terms =
                Some(format!("{}.{:06} {}", micro / 1_000_000, micro % 1_000_000, self.unit));
        }
        Some(cost)
    }
}

impl Cost {
    /// One line for a person.
    #[must_use]
    pub fn line(&self, mode: Mode) -> String {
        let mut parts = vec![format!("{} ms to answer", self.answer_ms)];
        if self.provider_ms > 0 {
            parts.push(format!("{} ms of its provider to be checked", self.provider_ms));
        }
        if self.auditor_ms > 0 {
            parts.push(format!("{} ms of who recomputes it", self.auditor_ms));
        }
        if self.check_bytes > 0 {
            parts.push(format!("{} bytes for that", self.check_bytes));
        }
        if mode == Mode::FraudProof && parts.len() > 1 {
            parts.push("the check after the answer".into());
        }
        parts.extend(self.terms.clone());
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_costs_what_its_check_takes() {
        let price = Price {
            token_us: 10_000,
            replay_us: 2_000,
            opening_us: 3_000,
            cell_bytes: 50_000,
            per_million: 25,
            unit: "beans".into(),
        };
        let asked = |level| Asked {
            level,
            prompt_tokens: 64,
            output_tokens: 256,
            audit_per_mille: 50,
            n: 3,
        };
        let cost = |level| {
            let cost = price.estimate(&asked(level)).expect("it is known");
            (cost.answer_ms, cost.provider_ms, cost.auditor_ms, cost.check_bytes)
        };
        assert_eq!(cost(Level::Receipt), (2_560, 0, 0, 0));
        assert_eq!(cost(Level::Sampled), (2_560, 0, 32, 0));
        assert_eq!(cost(Level::Full), (2_560, 0, 640, 0));
        assert_eq!(cost(Level::Spot), (2_560, 960, 0, 400_000));
        assert_eq!(cost(Level::KOfN), (7_680, 0, 0, 0));
        let terms = price.estimate(&asked(Level::Full)).and_then(|cost| cost.terms);
        assert_eq!(terms.as_deref(), Some("0.008000 beans"), "320 tokens");
        assert_eq!(Price::default().estimate(&asked(Level::Full)), None);
    }
}
