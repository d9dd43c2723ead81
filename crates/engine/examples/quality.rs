//! Prints what the integers cost against floats: `quality <model.gguf> <text> [tokens]`.

use std::sync::Arc;

use peerproof_engine::gguf::Gguf;
use peerproof_engine::reference::compare;
use peerproof_engine::tokenizer::{Special, Tokenizer};
use peerproof_engine::transformer::{LoadOptions, Transformer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: quality <model.gguf> <text> <tokens>");
    let (path, text, count) = (next()?, std::fs::read_to_string(next()?)?, next()?.parse()?);
    let gguf = Gguf::open(path)?;
    let model = Arc::new(Transformer::load(&gguf, &LoadOptions::default())?);
    let mut tokens = Tokenizer::from_gguf(&gguf)?.encode(&text, Special::Parse)?;
    tokens.truncate(count);
    let start = std::time::Instant::now();
    let quality = compare(&gguf, &model, &tokens, 2)?;
    println!("{quality:?}");
    println!("perplexity {:+.4} %, {:?}", 100.0 * quality.perplexity_change(), start.elapsed());
    Ok(())
}
