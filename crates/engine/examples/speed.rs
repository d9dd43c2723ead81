//! Prints prefill and decode speed: `speed <model.gguf> [prompt] [decode] [kernels] [times]`.
//! With `times`, nothing is done but that prompt and those tokens, so often, in one
//! thread: something to point a profiler at.
//!
//! Beside tokens a second, as a clock on the wall sees them, stand tokens a second
//! of processor time, where the system tells it: on a machine that others use as
//! well, that is the figure that says more.

use std::sync::Arc;

use peerproof_engine::bench::{batch, speed};
use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::transformer::{LoadOptions, Transformer};

/// Sequences decoded together.
const BATCHES: [usize; 2] = [8, 32];
/// Tokens of each of their answers.
const ANSWER: usize = 16;

/// Seconds of processor time that this thread has had.
fn processor_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path =
        arguments.next().ok_or("usage: speed <model.gguf> [prompt] [decode] [kernels] [times]")?;
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<usize>());
    let (prompt, decode) = (number(128)?, number(64)?);
    let only = arguments.next();
    let times = arguments.next().map(|text| text.parse::<usize>()).transpose()?;
    let start = std::time::Instant::now();
    let model = Arc::new(Transformer::load(&Gguf::open(path)?, &LoadOptions::default())?);
    println!("loaded in {:?}, {} MB of weights", start.elapsed(), model.weight_bytes() / 1_000_000);
    for path in KernelPath::available() {
        if only.as_deref().is_some_and(|name| name != path.name()) {
            continue;
        }
        if let Some(times) = times {
            for _ in 0..times {
                speed(&model, 1, path, prompt, decode)?;
            }
            continue;
        }
        for threads in [1, 2] {
            let speed = speed(&model, threads, path, prompt, decode)?;
            println!(
                "{:8} {threads} threads: prefill {prompt} {:7.1} tok/s, decode {:6.1} tok/s",
                path.name(),
                speed.prompt_rate(),
                speed.decode_rate()
            );
        }
        of_processor_time(&model, path, prompt, decode)?;
    }
    Ok(())
}

/// One thread's figures, each the difference of a long run and a short one.
fn of_processor_time(
    model: &Arc<Transformer>,
    path: KernelPath,
    prompt: usize,
    decode: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let spent = |work: &dyn Fn() -> Result<(), peerproof_engine::forward::ForwardError>| {
        let before = processor_time();
        work()?;
        Ok::<_, Box<dyn std::error::Error>>(
            before.zip(processor_time()).map_or(f64::NAN, |(before, after)| after - before),
        )
    };
    let decoded = |tokens| spent(&|| speed(model, 1, path, 1, tokens).map(drop));
    let rate = decode as f64 / (decoded(decode)? - decoded(0)?);
    println!("{:8} of processor time: decode {rate:7.1} tok/s", path.name());
    let rate =
        prompt as f64 / (spent(&|| speed(model, 1, path, prompt, 0).map(drop))? - decoded(0)?);
    println!("{:8} of processor time: prefill {prompt} {rate:7.1} tok/s", path.name());
    for sequences in BATCHES {
        let answered =
            |tokens| spent(&|| batch(model, (1, path), sequences, (1, tokens)).map(drop));
        let rate = (sequences * ANSWER) as f64 / (answered(ANSWER)? - answered(0)?);
        println!("{:8} of processor time: {sequences} answers {rate:7.1} tok/s", path.name());
    }
    Ok(())
}
