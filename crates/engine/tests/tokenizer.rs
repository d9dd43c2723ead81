//! The tokenizer of the default model against a second, naive implementation
//! of the same rules, and small hand-made tokenizers against bad files.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashMap;
use std::sync::LazyLock;

use peerproof_engine::gguf::Gguf;
use peerproof_engine::tokenizer::{Special, TextDecoder, Tokenizer, TokenizerError};
use proptest::prelude::*;
use support::Writer;

struct Real {
    tokenizer: Tokenizer,
    naive: Naive,
}

static REAL: LazyLock<Real> = LazyLock::new(|| {
    let file = Gguf::open(support::real_model()).unwrap();
    Real { tokenizer: Tokenizer::from_gguf(&file).unwrap(), naive: Naive::new(&file) }
});

/// Byte-level BPE by the book: repeatedly join the pair of lowest rank,
/// leftmost first, over bytes instead of the alphabet's characters.
struct Naive {
    ids: HashMap<Vec<u8>, u32>,
    ranks: HashMap<(Vec<u8>, Vec<u8>), usize>,
}

/// The bytes that a byte-level token stands for, by the definition in GPT-2.
fn raw(token: &[u8]) -> Vec<u8> {
    let printable = |b: &u8| (33..127).contains(b) || (161..173).contains(b) || *b >= 174;
    let others: Vec<u8> = (0..=255).filter(|b| !printable(b)).collect();
    let byte = |c: char| match u32::from(c) {
        code @ 256.. => others[code as usize - 256],
        code => code as u8,
    };
    std::str::from_utf8(token).unwrap().chars().map(byte).collect()
}

impl Naive {
    fn new(file: &Gguf) -> Self {
        let kinds = file.i32s("tokenizer.ggml.token_type").unwrap();
        let tokens = file.strings("tokenizer.ggml.tokens").unwrap().zip(kinds).enumerate();
        let normal = tokens.filter(|(_, (_, kind))| *kind == 1);
        let pair = |merge: &[u8]| {
            let space = merge.iter().position(|b| *b == b' ').unwrap();
            (raw(&merge[..space]), raw(&merge[space + 1..]))
        };
        let merges = file.strings("tokenizer.ggml.merges").unwrap().enumerate();
        Self {
            ids: normal.map(|(id, (token, _))| (raw(token), id as u32)).collect(),
            ranks: merges.map(|(rank, merge)| (pair(merge), rank)).collect(),
        }
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        words(text).iter().flat_map(|word| self.merge(word)).collect()
    }

    fn merge(&self, word: &str) -> Vec<u32> {
        let known = word.bytes().map(|b| vec![b]).filter(|b| self.ids.contains_key(b));
        let mut parts: Vec<Vec<u8>> = known.collect();
        let rank = |pair: &[Vec<u8>]| self.ranks.get(&(pair[0].clone(), pair[1].clone())).copied();
        while let Some((_, at)) =
            parts.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min()
        {
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
        parts.iter().map(|part| self.ids[part]).collect()
    }
}

/// The `smollm` split by hand: each digit alone, then GPT-2's rule on the rest.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut run = String::new();
    for c in text.chars() {
        if c.is_numeric() {
            gpt2_words(&run, &mut words);
            run.clear();
            words.push(c.to_string());
        } else {
            run.push(c);
        }
    }
    gpt2_words(&run, &mut words);
    words
}

fn gpt2_words(text: &str, words: &mut Vec<String>) {
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let end = word_end(&chars, at);
        words.push(chars[at..end].iter().collect());
        at = end;
    }
}

fn word_end(chars: &[char], at: usize) -> usize {
    for ending in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        let length = ending.len();
        if chars[at..].iter().take(length).copied().eq(ending.chars()) {
            return at + length;
        }
    }
    let body = at + usize::from(chars[at] == ' ');
    for class in [is_letter, is_sign] {
        let length = chars[body..].iter().take_while(|c| class(**c)).count();
        if length > 0 {
            return body + length;
        }
    }
    let spaces = chars[at..].iter().take_while(|c| c.is_whitespace()).count();
    // The last space before a word belongs to that word.
    if at + spaces < chars.len() && spaces > 1 { at + spaces - 1 } else { at + spaces }
}

/// Good enough for the alphabets that the tests use.
fn is_letter(c: char) -> bool {
    c.is_alphabetic()
}

fn is_sign(c: char) -> bool {
    !c.is_alphabetic() && !c.is_numeric() && !c.is_whitespace()
}

const TEXTS: [&str; 12] = [
    "Hello world, it's 2026!",
    "The quick brown fox jumps over the lazy dog.",
    "Größe, Straße, naïve café: œuvre.",
    "Привет, как дела? Γειά σου Κόσμε",
    "日本語のテキスト。中文文本，没有空格",
    "🦀 🚀👩‍👩‍👧‍👦 emoji in a row 🎉🎉",
    "  leading, trailing  \t\n\n  and   runs   ",
    "fn main() { println!(\"{}\", 12_345 + 0x1F); }",
    "1234567890 3.14159 ½ ٣ Ⅷ",
    "we'll they've I'm don't he'd you're it's 'sup",
    "\r\n\r\n a\u{00a0}b\u{3000}c",
    "",
];

#[test]
fn both_implementations_agree() {
    for text in TEXTS {
        let tokens = REAL.tokenizer.encode(text, Special::Plain).unwrap();
        assert_eq!(tokens, REAL.naive.encode(text), "{text:?}");
        assert_eq!(REAL.tokenizer.decode(&tokens), text);
    }
}

#[test]
fn digits_stand_alone() {
    let tokens = REAL.tokenizer.encode("in 2026", Special::Plain).unwrap();
    let spelled: Vec<&[u8]> = tokens.iter().map(|&t| REAL.tokenizer.spelling(t)).collect();
    assert_eq!(spelled, [&b"in"[..], b" ", b"2", b"0", b"2", b"6"]);
}

#[test]
fn the_default_models_special_tokens() {
    let tokenizer = &REAL.tokenizer;
    assert_eq!(tokenizer.vocabulary(), 49_152);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(2), false));
    assert_eq!(tokenizer.end_tokens(), [0, 2]);
    assert!(tokenizer.is_control(1) && tokenizer.is_end(2) && !tokenizer.is_end(1));
    assert_eq!((tokenizer.piece(2), tokenizer.spelling(2)), (&b""[..], &b"<|im_end|>"[..]));
    assert_eq!(tokenizer.find("<|im_start|>"), Some(1));
    assert_eq!(tokenizer.piece(u32::MAX), b"");
}

#[test]
fn control_tokens_are_parsed_only_where_allowed() {
    let text = "a<|im_end|>\n<|im_start|>";
    let parsed = REAL.tokenizer.encode(text, Special::Parse).unwrap();
    assert_eq!((parsed[1], *parsed.last().unwrap()), (2, 1));
    let plain = REAL.tokenizer.encode(text, Special::Plain).unwrap();
    assert!(plain.iter().all(|&token| !REAL.tokenizer.is_control(token)));
    assert_eq!(REAL.tokenizer.decode(&plain), text);
}

#[test]
fn a_shielded_text_is_encoded_as_plainly_as_without() {
    let content = "x <|im_end|> <<|im_start|>y";
    let shield = REAL.tokenizer.shield([content].into_iter()).unwrap();
    let text = format!("<|im_start|>user\n{}<|im_end|>", shield.mark(content));
    let tokens = REAL.tokenizer.encode_shielded(&text, Special::Parse, Some(&shield)).unwrap();
    let control: Vec<u32> =
        tokens.iter().copied().filter(|&t| REAL.tokenizer.is_control(t)).collect();
    assert_eq!(control, [1, 2]);
    assert_eq!(REAL.tokenizer.decode(&tokens), format!("user\n{content}"));
}

#[test]
fn a_text_above_the_cap_is_refused() {
    let long = "x".repeat(peerproof_engine::tokenizer::MAX_TEXT_BYTES + 1);
    let error = REAL.tokenizer.encode(&long, Special::Plain).unwrap_err();
    assert!(matches!(error, TokenizerError::TooLong { got, .. } if got == long.len()));
}

/// Text of the kinds people write.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z']{1,9}",
        "[0-9]{1,4}",
        "[ \\t\\r\\n]{1,4}",
        "[.,;:!?<>|_{}()]{1,3}",
        "[äöüßéñçœ]{1,3}",
        "[а-я]{1,6}",
        "[一-十]{1,4}",
        "[ぁ-ん]{1,4}",
        "[😀-😎]{1,2}",
        Just("<|im_end|>".to_owned()),
        Just("'ll".to_owned()),
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn text_comes_back(text in text()) {
        let tokens = REAL.tokenizer.encode(&text, Special::Plain).unwrap();
        prop_assert_eq!(&tokens, &REAL.naive.encode(&text));
        prop_assert!(tokens.iter().all(|&t| !REAL.tokenizer.is_control(t)));
        prop_assert_eq!(REAL.tokenizer.decode(&tokens), text.as_str());
        let mut decoder = TextDecoder::default();
        let streamed: String =
            tokens.iter().map(|&t| decoder.push(REAL.tokenizer.piece(t))).collect();
        prop_assert_eq!(streamed + &decoder.finish(), text);
    }

    #[test]
    fn any_text_and_any_ids_are_taken(text in any::<String>(), ids: Vec<u32>) {
        REAL.tokenizer.encode(&text, Special::Parse).unwrap();
        let _ = REAL.tokenizer.decode(&ids);
    }
}

/// A tokenizer of letters `a` to `c`, one merge and one control token.
fn tiny() -> Writer {
    Writer::default()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", "gpt-2")
        .strings("tokenizer.ggml.tokens", &["a", "b", "c", "ab", "<s>"])
        .i32s("tokenizer.ggml.token_type", &[1, 1, 1, 1, 3])
        .strings("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.bos_token_id", 4)
        .bool("tokenizer.ggml.add_bos_token", true)
}

fn build(writer: &Writer) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_gguf(&Gguf::parse(writer.bytes()).unwrap())
}

#[test]
fn a_tiny_tokenizer_works() {
    let tokenizer = build(&tiny()).unwrap();
    assert_eq!(tokenizer.encode("abcab<s>", Special::Parse).unwrap(), [3, 2, 3, 4]);
    assert_eq!(tokenizer.encode("xcx", Special::Plain).unwrap(), [2]);
    assert!(tokenizer.adds_bos());
}

#[test]
fn bad_tokenizers_are_refused_by_key() {
    let base = || Writer::default().str("tokenizer.ggml.model", "gpt2");
    let with = |tokens: &[&str], kinds: &[i32], merges: &[&str]| {
        base()
            .strings("tokenizer.ggml.tokens", tokens)
            .i32s("tokenizer.ggml.token_type", kinds)
            .strings("tokenizer.ggml.merges", merges)
    };
    let long = "a".repeat(5_000);
    for (writer, words) in [
        (Writer::default(), ["tokenizer.ggml.model", "no key"]),
        (Writer::default().str("tokenizer.ggml.model", "bert"), ["gpt2", "bert"]),
        (base().str("tokenizer.ggml.pre", "poro"), ["smollm", "poro"]),
        (base(), ["tokenizer.ggml.tokens", "no key"]),
        (base().u32("tokenizer.ggml.tokens", 1), ["tokenizer.ggml.tokens", "U32"]),
        (with(&[], &[], &[]), ["tokenizer.ggml.tokens", "got 0"]),
        (with(&["a"], &[1, 1], &[]), ["tokenizer.ggml.token_type", "got 2"]),
        (with(&["a"], &[9], &[]), ["tokenizer.ggml.token_type", "got 9"]),
        (with(&["a", "a"], &[1, 1], &[]), ["tokenizer.ggml.tokens", "once"]),
        (with(&[&long], &[1], &[]), ["tokenizer.ggml.tokens", "5000"]),
        (with(&["a"], &[1], &["ab"]), ["tokenizer.ggml.merges", "space"]),
        (with(&["a"], &[1], &["a b"]), ["tokenizer.ggml.merges", "b"]),
        (with(&["a", "aa"], &[1, 3], &["a a"]), ["tokenizer.ggml.merges", "aa"]),
        (with(&["a"], &[1], &[]).u32("tokenizer.ggml.eos_token_id", 1), ["eos_token_id", "got 1"]),
    ] {
        let message = build(&writer).map(drop).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message:?} lacks {words:?}");
    }
}

proptest! {
    /// Any vocabulary either is refused or encodes any text without a panic.
    #[test]
    fn hostile_tokenizers_never_panic(
        tokens in proptest::collection::vec("[abĠ<>|]{0,3}", 0..8),
        kinds in proptest::collection::vec(0..7i32, 8),
        merges in proptest::collection::vec("[abĠ ]{0,4}", 0..6),
        split in prop_oneof![Just("gpt-2"), Just("smollm"), Just("llama-bpe"), Just("qwen2")],
        end in 0..9u32,
        text in "[abx <>|1\\n]{0,24}",
    ) {
        let writer = Writer::default()
            .str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", split)
            .strings("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &kinds[..tokens.len()])
            .strings("tokenizer.ggml.merges", &merges)
            .u32("tokenizer.ggml.eos_token_id", end);
        if let Ok(tokenizer) = build(&writer) {
            for special in [Special::Plain, Special::Parse] {
                let encoded = tokenizer.encode(&text, special).unwrap();
                prop_assert!(encoded.iter().all(|&token| token < tokenizer.vocabulary()));
                prop_assert!(tokenizer.decode(&encoded).len() <= text.len());
            }
        }
    }
}
