//! Probabilities in the format of `llama-perplexity --kl-divergence-base`.
//!
//! A header with the tokens, then for every scored position the logarithms of
//! all probabilities: two `f32`, a step and the lowest, and 16 bits each above
//! it, as many steps; what is 16 nats below the best counts as the lowest. All
//! little-endian. Deliberately absent: reading it.

const MAGIC: &[u8; 8] = b"_logits_";
/// The format keeps nothing that is less probable than the best by more nats.
const RANGE: f32 = 16.0;

/// Everything before the rows. The tokens are those of `contexts` contexts.
pub(super) fn head(context: usize, vocabulary: usize, contexts: usize, tokens: &[u32]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for size in [context, vocabulary, contexts] {
        bytes.extend_from_slice(&(size as u32).to_le_bytes());
    }
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

/// Appends the row of one position.
pub(super) fn put_row(logits: &[f32], out: &mut Vec<u8>) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let min = logits.iter().copied().fold(f32::INFINITY, f32::min).max(max - RANGE);
    let total: f64 = logits.iter().map(|&l| f64::from((l - max).exp())).sum();
    let step = (max - min) / f32::from(u16::MAX);
    let lowest = min - max - total.ln() as f32;
    out.extend_from_slice(&step.to_le_bytes());
    out.extend_from_slice(&lowest.to_le_bytes());
    // A float above zero becomes the integer it is nearest to; one below becomes 0.
    let steps = |l: f32| if step > 0.0 { ((l - min) / step).round_ties_even() as u16 } else { 0 };
    out.extend(logits.iter().flat_map(|&l| steps(l).to_le_bytes()));
    if logits.len() % 2 == 1 {
        out.extend_from_slice(&[0; 2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_as_logarithms_of_probabilities() {
        let logits = [1.5f32, -30.0, 0.25, 1.0, -2.0];
        let mut row = Vec::new();
        put_row(&logits, &mut row);
        assert_eq!(row.len(), 8 + 2 * 6);
        let float =
            |at: usize| f32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        let (step, lowest) = (float(0), float(4));
        let total: f32 = logits.iter().map(|l| l.exp()).sum();
        for (at, logit) in logits.iter().enumerate() {
            let steps = u16::from_le_bytes([row[8 + 2 * at], row[9 + 2 * at]]);
            let got = f32::from(steps) * step + lowest;
            let want = (logit.max(1.5 - RANGE)) - total.ln();
            assert!((got - want).abs() < 2e-4, "{at}: {got} {want}");
        }
    }

    #[test]
    fn the_head_holds_sizes_and_tokens() {
        let bytes = head(2, 10, 1, &[7, 9]);
        assert_eq!(bytes[..8], *MAGIC);
        let rest: Vec<u8> = [2u32, 10, 1, 7, 9].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(bytes[8..], rest[..]);
    }
}
