//! Runs a target over inputs made from a seed, and keeps what breaks it.
//!
//! ```text
//! peerproof-fuzz <gguf|tokenizer|template|kademlia|ranges> [--seed N] [--from N] [--count N]
//! peerproof-fuzz <gguf|tokenizer|template|kademlia|ranges> --replay FILE...
//! ```
//!
//! The inputs run in a child process that notes the number of each before it runs.
//! Where the child panics, aborts, overflows its stack, takes too much memory or
//! makes no progress, the parent makes that input again, writes it to
//! `fuzz/findings/` and exits 1. A counting allocator holds the bytes alive: what
//! refuses an input may not have taken more than the target allows.

#![allow(unsafe_code, reason = "a global allocator is unsafe by nature")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use peerproof_fuzz::{Outcome, TARGETS, Target};

const USAGE: &str = "usage: peerproof-fuzz <gguf|tokenizer|template|kademlia|ranges> \
                     [--seed N] [--from N] [--count N] | --replay FILE...";
/// Set for the child: the file for numbers.
const NOTES: &str = "PEERPROOF_FUZZ_NOTES";
/// Without a new number for so long, the input is taken to be endless.
const STUCK: Duration = Duration::from_secs(60);

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Which inputs to run.
struct Plan {
    target: Target,
    seed: u64,
    from: u64,
    count: u64,
    replay: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let Some(plan) = plan() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = match std::env::var_os(NOTES) {
        _ if !plan.replay.is_empty() => replay(&plan),
        Some(notes) => run(&plan, PathBuf::from(notes)),
        None => watch(&plan),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan() -> Option<Plan> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next()?;
    let target = TARGETS.into_iter().find(|target| target.name == name)?;
    let mut plan = Plan { target, seed: 1, from: 0, count: 100_000, replay: Vec::new() };
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--seed" => plan.seed = arguments.next()?.parse().ok()?,
            "--from" => plan.from = arguments.next()?.parse().ok()?,
            "--count" => plan.count = arguments.next()?.parse().ok()?,
            "--replay" => plan.replay.extend(arguments.by_ref().map(PathBuf::from)),
            _ => return None,
        }
    }
    Some(plan)
}

/// Runs one input; panics where it takes more memory than the target allows.
fn measured(target: &Target, input: &[u8]) -> Outcome {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let outcome = (target.run)(input);
    let peak = PEAK.load(Relaxed).saturating_sub(before + input.len());
    let allowed = match outcome {
        Outcome::Refused => target.refused_bytes,
        Outcome::Taken => target.taken_bytes,
    };
    assert!(peak <= allowed, "{outcome:?} after {peak} bytes, {allowed} are allowed");
    outcome
}

fn replay(plan: &Plan) -> std::io::Result<bool> {
    for path in &plan.replay {
        let outcome = measured(&plan.target, &std::fs::read(path)?);
        println!("{}: {outcome:?}", path.display());
    }
    Ok(true)
}

/// The child: all inputs, each noted before it runs.
fn run(plan: &Plan, notes: PathBuf) -> std::io::Result<bool> {
    let mut notes = File::options().write(true).open(notes)?;
    let inputs = plan.target.made(plan.seed);
    let mut taken = 0u64;
    for number in plan.from..plan.from + plan.count {
        notes.seek(SeekFrom::Start(0))?;
        notes.write_all(&number.to_le_bytes())?;
        let outcome = measured(&plan.target, &inputs.input(number));
        taken += u64::from(outcome == Outcome::Taken);
    }
    let (name, seed) = (plan.target.name, plan.seed);
    println!("{name}: {} inputs of seed {seed}, {taken} taken, the rest refused", plan.count);
    Ok(true)
}

/// The parent: starts the child and keeps the input it didn't survive.
fn watch(plan: &Plan) -> std::io::Result<bool> {
    let notes = std::env::temp_dir().join(format!(
        "peerproof-fuzz-{}-{}",
        plan.target.name,
        std::process::id()
    ));
    std::fs::write(&notes, plan.from.to_le_bytes())?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(NOTES, &notes)
        .spawn()?;
    let (mut last, mut since) = (plan.from, Instant::now());
    let why = loop {
        if let Some(status) = child.try_wait()? {
            break if status.success() { None } else { Some(status.to_string()) };
        }
        let number = noted(&notes)?;
        if number != last {
            (last, since) = (number, Instant::now());
        } else if since.elapsed() > STUCK {
            child.kill()?;
            child.wait()?;
            break Some(format!("no end after {} s", STUCK.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let number = noted(&notes)?;
    std::fs::remove_file(&notes)?;
    let Some(why) = why else { return Ok(true) };
    let (name, seed) = (plan.target.name, plan.seed);
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/findings"));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}-{seed}-{number}"));
    std::fs::write(&path, plan.target.made(seed).input(number))?;
    eprintln!("{name}: input {number} of seed {seed}: {why}");
    eprintln!("once more: fuzz/run {name} --replay {}", path.display());
    Ok(false)
}

fn noted(notes: &PathBuf) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    File::open(notes)?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
