//! How likely tokens were, in OpenAI's two shapes.
//!
//! A job reports negative natural logarithms at 2^-16; here they become the
//! `logprobs` of a choice: a list of tokens in a chat, parallel lists in a text
//! completion, where each token also has its offset in characters from the
//! choice's beginning. A token that is no UTF-8 by itself is written as
//! OpenAI writes it, `bytes:` and its bytes. Nothing is computed but the sign.

use peerproof::client::TokenLogprobs;
use serde_json::{Map, Value, json};

use crate::request::Shape;

/// The reports of one choice, rendered piece by piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Likelihood {
    shape: Shape,
    /// Characters of the tokens so far.
    offset: usize,
}

impl Likelihood {
    pub(crate) fn new(shape: Shape) -> Likelihood {
        Likelihood { shape, offset: 0 }
    }

    /// `logprobs` of the next tokens; null without reports.
    pub(crate) fn next(&mut self, reports: &[TokenLogprobs]) -> Value {
        match (reports, self.shape) {
            ([], _) => Value::Null,
            (_, Shape::Chat) => json!({
                "content": reports.iter().map(entry).collect::<Vec<_>>(),
                "refusal": null,
            }),
            (_, Shape::Text) => self.lists(reports),
        }
    }

    fn lists(&mut self, reports: &[TokenLogprobs]) -> Value {
        let mut offsets = Vec::with_capacity(reports.len());
        let mut tokens = Vec::with_capacity(reports.len());
        for report in reports {
            let token = written(chosen(report));
            offsets.push(self.offset);
            self.offset += token.chars().count();
            tokens.push(token);
        }
        json!({
            "tokens": tokens,
            "token_logprobs": reports.iter().map(|r| logprob(r.chosen_q16)).collect::<Vec<_>>(),
            "top_logprobs": reports.iter().map(likeliest).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}

/// A token of a chat, with the likeliest ones.
fn entry(report: &TokenLogprobs) -> Value {
    let mut all = token(chosen(report), report.chosen_q16);
    let top = report.top.iter().zip(report.spellings.iter().skip(1));
    all["top_logprobs"] = top.map(|(&(_, value), spelling)| token(spelling, value)).collect();
    all
}

fn token(spelling: &[u8], value_q16: u32) -> Value {
    json!({"token": written(spelling), "logprob": logprob(value_q16), "bytes": spelling})
}

/// The likeliest tokens of a place by name, and the chosen one. Of tokens that
/// are written alike the likeliest counts.
fn likeliest(report: &TokenLogprobs) -> Value {
    let mut named = Map::new();
    let top = report.top.iter().zip(report.spellings.iter().skip(1));
    for (&(_, value), spelling) in top {
        named.entry(written(spelling)).or_insert_with(|| logprob(value).into());
    }
    named.entry(written(chosen(report))).or_insert_with(|| logprob(report.chosen_q16).into());
    named.into()
}

fn chosen(report: &TokenLogprobs) -> &[u8] {
    report.spellings.first().map_or(&[], Vec::as_slice)
}

fn logprob(value_q16: u32) -> f64 {
    0.0 - f64::from(value_q16) / 65_536.0
}

fn written(spelling: &[u8]) -> String {
    match std::str::from_utf8(spelling) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let bytes = spelling.iter().map(|byte| format!("\\x{byte:02x}"));
            std::iter::once("bytes:".to_owned()).chain(bytes).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(chosen_q16: u32, top: &[(u32, u32)], spellings: &[&[u8]]) -> TokenLogprobs {
        TokenLogprobs {
            chosen_q16,
            top: top.to_vec(),
            spellings: spellings.iter().map(|bytes| bytes.to_vec()).collect(),
        }
    }

    fn reports() -> Vec<TokenLogprobs> {
        vec![
            report(32_768, &[(7, 32_768), (8, 98_304)], &[b"\xc3\xa9t", b"\xc3\xa9t", b" the"]),
            report(65_536, &[(9, 0), (5, 16_384)], &[b"\xf0\x9f", b" a", b" a"]),
        ]
    }

    #[test]
    fn a_chat_has_a_list_of_tokens() {
        let wanted = json!({"refusal": null, "content": [
            {"token": "ét", "logprob": -0.5, "bytes": [195, 169, 116], "top_logprobs": [
                {"token": "ét", "logprob": -0.5, "bytes": [195, 169, 116]},
                {"token": " the", "logprob": -1.5, "bytes": [32, 116, 104, 101]},
            ]},
            {"token": "bytes:\\xf0\\x9f", "logprob": -1.0, "bytes": [240, 159], "top_logprobs": [
                {"token": " a", "logprob": 0.0, "bytes": [32, 97]},
                {"token": " a", "logprob": -0.25, "bytes": [32, 97]},
            ]},
        ]});
        assert_eq!(Likelihood::new(Shape::Chat).next(&reports()), wanted);
        assert_eq!(Likelihood::new(Shape::Chat).next(&[]), Value::Null);
    }

    #[test]
    fn a_text_has_parallel_lists_whose_offsets_go_on() {
        let mut likelihood = Likelihood::new(Shape::Text);
        let wanted = json!({
            "tokens": ["ét", "bytes:\\xf0\\x9f"],
            "token_logprobs": [-0.5, -1.0],
            "top_logprobs": [
                {"ét": -0.5, " the": -1.5},
                {" a": 0.0, "bytes:\\xf0\\x9f": -1.0},
            ],
            "text_offset": [0, 2],
        });
        assert_eq!(likelihood.next(&reports()), wanted);
        assert_eq!(likelihood.next(&[]), Value::Null);
        let next = likelihood.next(&[report(0, &[], &[b"."])]);
        let wanted = json!({
            "tokens": ["."], "token_logprobs": [0.0], "top_logprobs": [{".": 0.0}],
            "text_offset": [16],
        });
        assert_eq!(next, wanted);
    }
}
