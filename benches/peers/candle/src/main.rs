//! Measures candle's quantised models on a GGUF file, for comparison with Peerproof.
//!
//! `peerproof-peers-candle MODEL.gguf` computes prompts of 128 and 512 tokens and
//! an answer of 128, as candle's own quantised example does (its model code, its
//! kernels, the most probable token next), and prints tokens a second as a JSON
//! line each. Speed doesn't depend on which tokens a prompt has, so they are made
//! up, and there is no tokenizer. The number of threads comes from the
//! environment, as candle takes it (`RAYON_NUM_THREADS`). Deliberately absent:
//! many answers at once, for which candle's quantised models keep no caches.

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_gemma3, quantized_llama};

/// Prompts measured.
const PROMPTS: [usize; 2] = [128, 512];
/// Tokens of the answer.
const ANSWER: usize = 128;
/// Tokens computed before anything is measured, so that memory has been touched.
const WARM_UP: usize = 16;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The families that candle and Peerproof both run.
enum Model {
    Llama(quantized_llama::ModelWeights),
    Gemma(quantized_gemma3::ModelWeights),
}

impl Model {
    fn open(path: &str) -> Result<Self> {
        let mut file = File::open(path)?;
        let content = Content::read(&mut file)?;
        let family = content.metadata.get("general.architecture").map(|name| name.to_string());
        match family.transpose()?.map(String::as_str) {
            Some("llama") => {
                let model =
                    quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
                Ok(Self::Llama(model))
            }
            Some("gemma3") => {
                let model =
                    quantized_gemma3::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
                Ok(Self::Gemma(model))
            }
            other => {
                Err(format!("general.architecture: expected llama or gemma3, got {other:?}").into())
            }
        }
    }

    /// The most probable token after `tokens`, the first of which has the position `at`.
    /// Position 0 drops what was computed before.
    fn next(&mut self, tokens: &[u32], at: usize) -> Result<u32> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Llama(model) => model.forward(&input, at)?,
            Self::Gemma(model) => model.forward(&input, at)?,
        };
        Ok(logits.squeeze(0)?.argmax(0)?.to_scalar::<u32>()?)
    }
}

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|at| 1_000 + at * 7).collect()
}

fn print(what: &str, threads: &str, tokens: usize, start: Instant) {
    let rate = tokens as f64 / start.elapsed().as_secs_f64();
    println!("{{\"name\": \"{what} {tokens}, threads {threads}\", \"rate\": {rate:.2}}}");
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or("usage: peerproof-peers-candle MODEL.gguf")?;
    let threads = std::env::var("RAYON_NUM_THREADS")?;
    let mut model = Model::open(&path)?;
    model.next(&prompt(WARM_UP), 0)?;
    for tokens in PROMPTS {
        let prompt = prompt(tokens);
        let start = Instant::now();
        model.next(&prompt, 0)?;
        print("prefill", &threads, tokens, start);
    }
    let mut token = model.next(&prompt(1), 0)?;
    let start = Instant::now();
    for at in 1..=ANSWER {
        token = model.next(&[token], at)?;
    }
    print("decode", &threads, ANSWER, start);
    Ok(())
}
