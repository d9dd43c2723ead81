//! Prints prefill and decode speed: `speed <model.gguf> [prompt] [decode]`.

use std::sync::Arc;

use peerproof_engine::bench::speed;
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::transformer::{LoadOptions, Transformer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: speed <model.gguf> [prompt] [decode]")?;
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (prompt, decode) = (number(128)?, number(64)?);
    let start = std::time::Instant::now();
    let model = Arc::new(Transformer::load(&Gguf::open(path)?, &LoadOptions::default())?);
    println!("loaded in {:?}, {} MB of weights", start.elapsed(), model.weight_bytes() / 1_000_000);
    for path in KernelPath::available() {
        for threads in [1, 2] {
            let speed = speed(&model, threads, path, prompt, decode)?;
            println!(
                "{:8} {threads} threads: prefill {prompt} {:7.1} tok/s, decode {:6.1} tok/s",
                path.name(),
                speed.prompt_rate(),
                speed.decode_rate()
            );
        }
    }
    Ok(())
}
