//! What work with a model costs this node, as it goes: the prices that it announces.
//!
//! Answers that are made, replays and openings report here what they took and how much
//! they were; a price is their quotient. Older work counts half after each
//! [`MEMORY`] units, so that a price follows the machine. Nothing is measured for its own
//! sake: a node that has answered nothing announces no price. Absent: money.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peerproof_wire::Price;

/// Units after which what was added so far counts half.
const MEMORY: u64 = 1 << 14;

/// A sum and what it was for.
#[derive(Debug, Default)]
struct Mean {
    sum: u64,
    units: u64,
}

impl Mean {
    fn add(&mut self, amount: u64, units: u64) {
        if self.units >= MEMORY {
            self.sum /= 2;
            self.units /= 2;
        }
        self.sum = self.sum.saturating_add(amount);
        self.units = self.units.saturating_add(units);
    }

    /// At least 1 once something was added; 0 before.
    fn each(&self) -> u32 {
        let each = self.sum.checked_div(self.units).map_or(0, |each| each.max(1));
        u32::try_from(each).unwrap_or(u32::MAX)
    }
}

#[derive(Debug, Default)]
struct Means {
    token_us: Mean,
    replay_us: Mean,
    opening_us: Mean,
    cell_bytes: Mean,
}

/// What work with one model has cost.
#[derive(Debug, Default)]
pub(crate) struct Costs(Mutex<Means>);

fn micros(spent: Duration) -> u64 {
    u64::try_from(spent.as_micros()).unwrap_or(u64::MAX)
}

impl Costs {
    fn with(&self, add: impl FnOnce(&mut Means)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// So many tokens of an answer were made.
    pub(crate) fn made(&self, spent: Duration, tokens: u64) {
        self.with(|means| means.token_us.add(micros(spent), tokens));
    }

    /// So many positions were recomputed.
    pub(crate) fn replayed(&self, spent: Duration, positions: u64) {
        self.with(|means| means.replay_us.add(micros(spent), positions));
    }

    /// Cells of an answer of so many positions were opened.
    pub(crate) fn opened(&self, spent: Duration, positions: u64, cells: u64, bytes: u64) {
        self.with(|means| {
            means.opening_us.add(micros(spent), positions);
            means.cell_bytes.add(bytes, cells);
        });
    }

    /// The price to announce, with the operator's terms; `None` if there is nothing to say.
    pub(crate) fn price(&self, per_million: u64, unit: &str) -> Option<Price> {
        let means = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let price = Price {
            token_us: means.token_us.each(),
            replay_us: means.replay_us.each(),
            opening_us: means.opening_us.each(),
            cell_bytes: means.cell_bytes.each(),
            per_million,
            unit: unit.to_owned(),
        };
        (price != Price::default()).then_some(price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_what_was_measured_and_follows_it() {
        let costs = Costs::default();
        assert_eq!(costs.price(0, ""), None);
        let terms = costs.price(3, "beans").expect("terms");
        assert_eq!((terms.token_us, terms.per_million, &*terms.unit), (0, 3, "beans"));
        costs.made(Duration::from_millis(100), 10);
        costs.replayed(Duration::from_millis(30), 15);
        costs.opened(Duration::from_millis(60), 20, 8, 8_000);
        let price = costs.price(0, "").expect("measured");
        let figures = (price.token_us, price.replay_us, price.opening_us, price.cell_bytes);
        assert_eq!(figures, (10_000, 2_000, 3_000, 1_000));
        for _ in 0..200 {
            costs.made(Duration::from_millis(1_000), 1_000);
        }
        let price = costs.price(0, "").expect("measured");
        assert!(price.token_us < 1_010, "{price:?}: the machine got faster");
    }
}
