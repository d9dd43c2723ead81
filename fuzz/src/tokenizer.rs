//! A vocabulary of any kind from choices, and a text under it.

use peerproof_engine::gguf::Gguf;
use peerproof_engine::tokenizer::{Special, TextDecoder, Tokenizer};

use super::Outcome;
use super::choices::Choices;
use super::random::Random;
use super::support::{F32, Writer, words};

const PIECES: &[&str] = &[
    "a",
    "b",
    "c",
    "ab",
    "A",
    "'s",
    "1",
    "23",
    " ",
    "Ġ",
    "▁",
    "\n",
    "Ċ",
    "<s>",
    "<",
    ">",
    "|",
    "<|x|>",
    "é",
    "e\u{301}",
    "日",
    "🦀",
    "Ã",
    "©",
    "<0x41>",
    "<0xF0>",
    "",
    "\u{100000}",
    "\0",
];
const RULES: &[&str] =
    &["gpt-2", "smollm", "llama-bpe", "qwen2", "dbrx", "gpt-4o", "tekken", "default", "other"];

pub(crate) fn run(bytes: &[u8]) -> Outcome {
    let mut choices = Choices(bytes);
    let file = Gguf::parse(vocabulary(&mut choices).bytes()).expect("a file as the format has it");
    let Ok(tokenizer) = Tokenizer::from_gguf(&file) else { return Outcome::Refused };
    let text = match choices.once_in(4) {
        true => String::from_utf8_lossy(choices.0).into_owned(),
        false => choices.text(PIECES, 200),
    };
    let plain = tokenizer.encode(&text, Special::Plain).expect("a short text");
    let parsed = tokenizer.encode(&text, Special::Parse).expect("a short text");
    assert!(plain.iter().chain(&parsed).all(|&token| token < tokenizer.vocabulary()));
    // No plain text becomes structure; what stands for unknown text is none.
    let structure = |&token: &u32| tokenizer.is_control(token) && !is_unknown(&file, token);
    assert!(!plain.iter().any(structure), "{text:?}");
    streams(&tokenizer, &plain);
    if let Ok(shield) = tokenizer.shield([text.as_str()].into_iter()) {
        let marked = shield.mark(&text);
        assert_eq!(shield.remove(&marked), text);
        let shielded = tokenizer.encode_shielded(&marked, Special::Parse, Some(&shield));
        assert_eq!(shielded.expect("a short text"), plain, "{text:?}");
    }
    let any: Vec<u32> = (0..8).map(|_| choices.number()).collect();
    streams(&tokenizer, &any);
    Outcome::Taken
}

fn is_unknown(file: &Gguf, token: u32) -> bool {
    let kinds = file.i32s("tokenizer.ggml.token_type");
    let unknown = kinds.ok().and_then(|mut kinds| kinds.nth(token as usize)) == Some(2);
    let named = file.optional_u32("tokenizer.ggml.unknown_token_id").ok().flatten();
    unknown || named == Some(token)
}

/// Token by token comes the same text as at once.
fn streams(tokenizer: &Tokenizer, tokens: &[u32]) {
    let mut decoder = TextDecoder::default();
    let pushed = tokens.iter().map(|&token| decoder.push(tokenizer.piece(token)));
    let mut text: String = pushed.collect();
    text.push_str(&decoder.finish());
    assert_eq!(text, tokenizer.decode(tokens));
}

fn vocabulary(choices: &mut Choices<'_>) -> Writer {
    let model =
        ["gpt2", "llama", "t5", "bert"][choices.below(13) * 3 / 13 + choices.below(40) / 39];
    let count = choices.below(40) + 1;
    let bytes_too = model != "gpt2" && choices.once_in(2);
    let mut tokens: Vec<String> = (0..count).map(|_| choices.text(PIECES, 3)).collect();
    let mut kinds: Vec<i32> =
        (0..count).map(|_| [1, 1, 1, 1, 2, 3, 4, 5, 6, 7][choices.below(40) * 9 / 40]).collect();
    if choices.once_in(2) {
        kinds.iter_mut().zip(&tokens).for_each(|(kind, token)| {
            *kind = if *kind > 5 || token.is_empty() { 3 } else { *kind };
        });
        let mut seen = std::collections::BTreeSet::new();
        tokens.iter_mut().enumerate().for_each(|(at, token)| {
            if !seen.insert(token.replace('▁', " ")) {
                token.push_str(&format!("x{at}"));
            }
        });
    }
    if bytes_too {
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
        kinds.extend([6; 256]);
    }
    let merges: Vec<String> = (0..choices.below(20))
        .map(|_| {
            let pick = |choices: &mut Choices<'_>| tokens[choices.below(tokens.len())].clone();
            format!("{} {}", pick(choices), pick(choices))
        })
        .collect();
    let mut writer = Writer::default()
        .str("tokenizer.ggml.model", model)
        .str("tokenizer.ggml.pre", RULES[choices.below(RULES.len() * 4) % RULES.len()])
        .strings("tokenizer.ggml.tokens", &tokens)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .strings("tokenizer.ggml.merges", &merges);
    let scores: Vec<u32> = (0..tokens.len())
        .map(|_| match choices.below(30) {
            0 => f32::NAN.to_bits(),
            1 => choices.number(),
            score => (-(score as f32) / 4.0).to_bits(),
        })
        .collect();
    writer = writer.array("tokenizer.ggml.scores", F32, scores.len() as u64, &words(&scores));
    for key in ["unknown_token_id", "bos_token_id", "eos_token_id", "eot_token_id"] {
        if choices.once_in(2) {
            let id = choices.below(48) as u32;
            writer = writer.u32(&format!("tokenizer.ggml.{key}"), id);
        }
    }
    for key in ["add_space_prefix", "remove_extra_whitespaces", "add_bos_token"] {
        if choices.once_in(2) {
            let value = choices.once_in(2);
            writer = writer.bool(&format!("tokenizer.ggml.{key}"), value);
        }
    }
    writer
}

/// Streams of choices whose vocabularies are taken.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let stream = |number| {
        let mut random = Random::new(1, number);
        (0..600).map(|_| random.next() as u8).collect::<Vec<u8>>()
    };
    (0..4_000).map(stream).filter(|bytes| run(bytes) == Outcome::Taken).take(48).collect()
}
