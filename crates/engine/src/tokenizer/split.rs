//! How text is cut into words before merging: the rules GGUF knows by name.

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split as Cut, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

/// A split rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// GPT-2's: contractions, words, numbers, signs, each with its space.
    Gpt2,
    /// Every digit for itself, the rest as GPT-2.
    SmolLm,
    /// Llama 3's: numbers in threes, line breaks kept with what they end.
    Llama3,
    /// Qwen 2's: as Llama 3's with single digits, after Unicode composition.
    Qwen2,
    /// Phi 4's: as Llama 3's, but words are always merged.
    Dbrx,
    /// GPT-4o's: words also end where capitals begin; numbers in threes.
    Gpt4o,
    /// Mistral's since Nemo: as GPT-4o's with single digits and no contractions.
    Tekken,
}

/// The names that files use. `default` and a missing name stand in files made
/// before the key existed, whose tokenizers split as GPT-2 did.
const NAMES: [(&str, Split); 12] = [
    ("smollm", Split::SmolLm),
    ("starcoder", Split::SmolLm),
    ("llama-bpe", Split::Llama3),
    ("llama-v3", Split::Llama3),
    ("llama3", Split::Llama3),
    ("qwen2", Split::Qwen2),
    ("deepseek-r1-qwen", Split::Qwen2),
    ("dbrx", Split::Dbrx),
    ("gpt-4o", Split::Gpt4o),
    ("tekken", Split::Tekken),
    ("gpt-2", Split::Gpt2),
    ("default", Split::Gpt2),
];

/// English endings that are words of their own.
const ENDINGS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";

/// The words of Llama 3 and Qwen 2; they differ in how numbers are cut.
fn pattern(number: &str) -> String {
    [
        ENDINGS,
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        number,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
    .join("|")
}

/// The words of GPT-4o and Tekken: capitals, then small letters.
fn cased_pattern(number: &str, ending: &str) -> String {
    const LARGE: &str = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
    const SMALL: &str = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
    [
        &format!(r"[^\r\n\p{{L}}\p{{N}}]?{LARGE}*{SMALL}+{ending}"),
        &format!(r"[^\r\n\p{{L}}\p{{N}}]?{LARGE}+{SMALL}*{ending}"),
        number,
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
    .join("|")
}

impl Split {
    /// The rule a file calls by that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, split)| *split)
    }

    /// Every known name, for a message.
    pub(super) fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// Whether a bare text begins with BOS where the file doesn't say.
    pub(super) fn adds_bos(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// Whether a word that is a token as a whole is taken without merging.
    pub(super) fn ignores_merges(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// Puts the rule before the merging.
    pub(super) fn build(self, bpe: BPE) -> Tokenizer {
        let mut tokenizer = Tokenizer::new(bpe);
        let parts: Vec<PreTokenizerWrapper> = match self {
            Self::Gpt2 => vec![ByteLevel::new(false, false, true).into()],
            Self::SmolLm => {
                vec![Digits::new(true).into(), ByteLevel::new(false, false, true).into()]
            }
            Self::Llama3 | Self::Dbrx => regex(pattern(r"\p{N}{1,3}")),
            Self::Qwen2 => {
                tokenizer.with_normalizer(Some(NFC));
                regex(pattern(r"\p{N}"))
            }
            Self::Gpt4o => regex(cased_pattern(r"\p{N}{1,3}", &format!("{ENDINGS}?"))),
            Self::Tekken => regex(cased_pattern(r"\p{N}", "")),
        };
        tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
        tokenizer
    }
}

fn regex(pattern: String) -> Vec<PreTokenizerWrapper> {
    let cut = Cut::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false)
        .unwrap_or_else(|error| unreachable!("a constant pattern is valid: {error}"));
    vec![cut.into(), ByteLevel::new(false, false, false).into()]
}
