//! What tells one family of models from another, as one table.
//!
//! Every family here is the same transformer: norm, attention, norm, gated feed-
//! forward, with a residual row in between. [`Architecture`] lists the places in
//! which they differ, and [`ALL`] is a row for each; the forward pass, the loader
//! and the float reference read it. Sizes, and whatever a single file of a family
//! chooses, come from the file. Deliberately absent: code for one family alone.

/// A family of models.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// As files name it, and what their keys begin with.
    pub(crate) name: &'static str,
    /// Which dimensions of a head are rotated together.
    pub(crate) pairing: Pairing,
    /// Queries, keys and values have biases.
    pub(crate) biases: bool,
    /// Each query and key head is normalised before it is rotated.
    pub(crate) head_norms: bool,
    /// What attention and feed-forward give is normalised before it is added.
    pub(crate) post_norms: bool,
    /// What the gate goes through.
    pub(crate) activation: Activation,
    /// A token's row is multiplied with the root of its length.
    pub(crate) scaled_embedding: bool,
    /// Query, key and value are one tensor; so are gate and up.
    pub(crate) fused: bool,
    /// Which layers a sliding window holds for.
    pub(crate) windows: Windows,
    /// Soft caps of scores and of logits, where the file doesn't give them.
    pub(crate) caps: Option<[u32; 2]>,
    /// The number of layers of the one size whose scores are scaled by
    /// `width / heads` instead of the dimensions of a head.
    pub(crate) broad: Option<usize>,
}

/// Which two dimensions of a head's `n` rotated ones form pair `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// `2i` and `2i + 1`.
    Adjacent,
    /// `i` and `i + n / 2`.
    Halves,
}

/// What the gate goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
    Gelu,
}

/// Sliding windows, where the file doesn't say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// The length, in positions; 0 for no windows.
    pub(crate) length: u32,
    /// Every so many layers the last one sees everything; 0 where none does.
    pub(crate) period: u32,
    /// The base of rotation in layers with a window, unscaled; `None` where they
    /// are as all others.
    pub(crate) base: Option<u32>,
}

const NO_WINDOWS: Windows = Windows { length: 0, period: 0, base: None };

/// Also Mistral, and whatever else calls itself so.
const LLAMA: Architecture = Architecture {
    name: "llama",
    pairing: Pairing::Adjacent,
    biases: false,
    head_norms: false,
    post_norms: false,
    activation: Activation::Silu,
    scaled_embedding: false,
    fused: false,
    windows: NO_WINDOWS,
    caps: None,
    broad: None,
};

const GEMMA_2: Architecture = Architecture {
    name: "gemma2",
    pairing: Pairing::Halves,
    post_norms: true,
    activation: Activation::Gelu,
    scaled_embedding: true,
    windows: Windows { length: 4096, period: 2, base: None },
    caps: Some([50, 30]),
    broad: Some(46),
    ..LLAMA
};

/// Every family there is, by name.
pub(crate) const ALL: [Architecture; 6] = [
    LLAMA,
    Architecture { name: "qwen2", pairing: Pairing::Halves, biases: true, ..LLAMA },
    Architecture { name: "qwen3", pairing: Pairing::Halves, head_norms: true, ..LLAMA },
    GEMMA_2,
    Architecture {
        name: "gemma3",
        head_norms: true,
        windows: Windows { length: 0, period: 6, base: Some(10_000) },
        caps: None,
        broad: Some(62),
        ..GEMMA_2
    },
    Architecture { name: "phi3", pairing: Pairing::Halves, fused: true, ..LLAMA },
];

/// The names of [`ALL`].
pub(crate) const NAMES: [&str; ALL.len()] = {
    let mut names = [""; ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = ALL[at].name;
        at += 1;
    }
    names
};

impl Architecture {
    /// The family of that name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        static TABLE: [Architecture; 6] = ALL;
        TABLE.iter().find(|family| family.name == name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn names_are_found_and_unique() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(*Architecture::named(name).unwrap(), ALL[at]);
            assert_eq!(NAMES.iter().filter(|other| *other == name).count(), 1);
        }
        assert_eq!(Architecture::named("gemma"), None);
    }
}
