//! `bench engine`: speed, commitment, audit, cold start.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use peerproof::bench::{Committing, Crowd, InProcess, Subject};
use peerproof::models::Installed;
use serde_json::{Value, json};

use super::figures::{Figure, Report, median, ms, percent, us};
use super::{TEXT, cores, thread_counts};

/// Tokens of a decode: as many as the usual comparison takes, after an empty context.
const DECODE: usize = 128;
const PREFILLS: [usize; 2] = [128, 512];
/// Prompt and answer of the audit that is measured.
pub(super) const AUDIT: (usize, u32) = (64, 256);
/// The share of answers that is audited.
const SAMPLED: f64 = 0.05;
/// Tokens of each kind, with commitment and without, a run.
const PAIRS: usize = 64;
/// Sequences computed together, and requests at once.
const BATCHES: [usize; 2] = [8, 32];
/// Prompt and answer of each.
const BATCH: (usize, usize) = (128, 64);
const COLD_PROMPT: &str = "The capital of France is";

pub(super) fn run(model: &Installed, runs: usize, speed_only: bool) -> anyhow::Result<Report> {
    let subject = Subject::open(&model.path)?;
    let mut report = Report::new(model);
    speed(&subject, runs, &mut report)?;
    batches(&subject, runs, &mut report)?;
    crowds(model, runs, &mut report)?;
    if !speed_only {
        commitment(&subject, runs, &mut report)?;
        audit(&subject, runs, &mut report)?;
        drop(subject);
        start(model, runs, &mut report)?;
    }
    Ok(report)
}

fn speed(subject: &Subject, runs: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    for run in 0..runs {
        eprintln!("speed, run {} of {runs}", run + 1);
        let mut row = 0;
        let mut keep = |name: String, rate: f64| {
            if run == 0 {
                rows.push((name, Vec::new()));
            }
            rows[row].1.push(rate);
            row += 1;
        };
        for threads in thread_counts() {
            let rate = subject.speed(threads, 1, DECODE)?.decode_rate();
            keep(format!("decode {DECODE}, threads {threads}"), rate);
            for prompt in PREFILLS {
                let rate = subject.speed(threads, prompt, 0)?.prompt_rate();
                keep(format!("prefill {prompt}, threads {threads}"), rate);
            }
        }
    }
    rows.iter().for_each(|(name, rates)| report.add(Figure::new(name, "tok/s", rates)));
    Ok(())
}

/// The forward pass alone: all prompts, then all answers, a token of each at a time.
fn batches(subject: &Subject, runs: usize, report: &mut Report) -> anyhow::Result<()> {
    for threads in thread_counts() {
        for sequences in BATCHES {
            eprintln!("batch of {sequences}, threads {threads}");
            let measured = (0..runs)
                .map(|_| subject.batch(threads, sequences, BATCH.0, BATCH.1))
                .collect::<Result<Vec<_>, _>>()?;
            let mut add = |what: &str, of: fn(&peerproof::bench::Batch) -> f64| {
                let name = format!("batch {sequences}, {what}, threads {threads}");
                report.add(Figure::new(
                    name,
                    "tok/s",
                    &measured.iter().map(of).collect::<Vec<_>>(),
                ));
            };
            add("prompts and answers", peerproof::bench::Batch::total_rate);
            add("answers", peerproof::bench::Batch::answer_rate);
        }
    }
    Ok(())
}

/// The service as it serves: requests at once, sampled and with every step's digests.
fn crowds(model: &Installed, runs: usize, report: &mut Report) -> anyhow::Result<()> {
    let (prompt, answer) = BATCH;
    for requests in BATCHES {
        eprintln!("{requests} requests at once");
        let crowd = Crowd::open(&model.path, cores(), requests)?;
        let served = (0..runs)
            .map(|_| crowd.ask(TEXT, requests, (prompt, answer as u32)))
            .collect::<Result<Vec<_>, _>>()?;
        let rates: Vec<f64> = served.iter().map(peerproof::bench::Served::total_rate).collect();
        report.add(Figure::new(
            format!("{requests} requests, prompts and answers"),
            "tok/s",
            &rates,
        ));
        let firsts: Vec<f64> =
            served.iter().flat_map(|served| &served.first_tokens).map(|t| ms(*t)).collect();
        report.add(Figure::new(format!("{requests} requests, first token"), "ms", &firsts));
    }
    Ok(())
}

pub(super) fn commitment(
    subject: &Subject,
    runs: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    for threads in thread_counts() {
        eprintln!("commitment, threads {threads}");
        let mut all = Committing::default();
        let mut shares = Vec::new();
        for _ in 0..runs {
            let Committing { bare, committed, hashing } =
                subject.committing(threads, AUDIT.0, PAIRS)?;
            let middle = |tokens: &[std::time::Duration]| {
                median(&tokens.iter().map(|t| us(*t)).collect::<Vec<_>>())
            };
            shares.push(percent(middle(&committed) - middle(&bare), middle(&bare)));
            all.bare.extend(bare);
            all.hashing.extend(hashing);
        }
        let micros =
            |tokens: &[std::time::Duration]| tokens.iter().map(|t| us(*t)).collect::<Vec<_>>();
        let (bare, hashing) = (micros(&all.bare), micros(&all.hashing));
        let whole = median(&bare);
        let timed: Vec<f64> = hashing.iter().map(|hashing| percent(*hashing, whole)).collect();
        report.add(Figure::new(
            format!("decode without commitment, threads {threads}"),
            "µs/token",
            &bare,
        ));
        report.add(Figure::new(format!("hashing for it, threads {threads}"), "µs/token", &hashing));
        report.add(
            Figure::new(format!("hashing, share of decode, threads {threads}"), "%", &timed)
                .at_most(2.0),
        );
        report.add(
            Figure::new(format!("slowdown of committed tokens, threads {threads}"), "%", &shares)
                .at_most(2.0),
        );
    }
    Ok(())
}

pub(super) fn audit(subject: &Subject, runs: usize, report: &mut Report) -> anyhow::Result<()> {
    let (prompt, answer) = AUDIT;
    for threads in thread_counts() {
        eprintln!("audit, threads {threads}");
        let audited = subject.audited(threads, TEXT, AUDIT, runs)?;
        let of = |value: fn(&peerproof::bench::Audited) -> f64| {
            audited.iter().map(value).collect::<Vec<_>>()
        };
        let figure = |what: &str, unit, samples: &[f64]| {
            Figure::new(format!("{what}, threads {threads}"), unit, samples)
        };
        report.add(figure(
            &format!("making {prompt} + {answer} tokens"),
            "ms",
            &of(|a| ms(a.generation)),
        ));
        report.add(figure("full audit of them", "ms", &of(|a| ms(a.audit))));
        let shares = of(|a| percent(ms(a.audit), ms(a.generation)));
        report.add(figure("audit, share of making", "%", &shares).at_most(30.0));
        let sampled: Vec<f64> = shares.iter().map(|share| SAMPLED * share).collect();
        report.add(figure("the same, one answer in 20 audited", "%", &sampled).at_most(1.5));
        if threads == 1 {
            report.add(
                Figure::new("receipt", "bytes", &of(|a| a.receipt_bytes as f64)).at_most(600.0),
            );
            report.add(Figure::new(
                "receipt with key and signature",
                "bytes",
                &of(|a| a.signed_bytes as f64),
            ));
            report.add(
                Figure::new("kept by the provider", "bytes/token", &of(|a| a.kept_bytes))
                    .at_most(48.0),
            );
        }
    }
    Ok(())
}

/// A process of its own for every sample, with the file in the system's cache and without.
fn start(model: &Installed, runs: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut starts = [Vec::new(), Vec::new()];
    for run in 0..runs {
        eprintln!("cold start, run {} of {runs}", run + 1);
        if forget(&model.path) {
            starts[1].push(one_start(&model.path)?);
        }
        starts[0].push(one_start(&model.path)?);
    }
    let of = |starts: &[Value], key: &str| {
        starts.iter().filter_map(|start| start[key].as_f64()).collect::<Vec<_>>()
    };
    for (starts, place) in starts.iter().zip(["file in memory", "file on disk"]) {
        if starts.is_empty() {
            continue;
        }
        report.add(Figure::new(format!("load, {place}"), "ms", &of(starts, "load_ms")));
        report.add(
            Figure::new(
                format!("process start to first token, {place}"),
                "ms",
                &of(starts, "first_token_ms"),
            )
            .at_most(1000.0),
        );
        report.add(Figure::new(
            format!("read from disk meanwhile, {place}"),
            "MiB",
            &of(starts, "read_mib"),
        ));
    }
    let peaks = of(&starts[0], "peak_bytes");
    let ratios: Vec<f64> = peaks.iter().map(|peak| peak / model.bytes as f64).collect();
    report.add(Figure::new(
        "peak memory",
        "MiB",
        &peaks.iter().map(|peak| peak / f64::from(1 << 20)).collect::<Vec<_>>(),
    ));
    report.add(Figure::new("peak memory / file", "", &ratios).at_most(1.3));
    Ok(())
}

/// Asks the system to drop the file from its cache, where there is a `dd` that can.
fn forget(file: &Path) -> bool {
    let mut source = std::ffi::OsString::from("if=");
    source.push(file);
    let dd =
        Command::new("dd").arg(source).args(["iflag=nocache", "count=0", "status=none"]).status();
    dd.is_ok_and(|status| status.success())
}

fn one_start(file: &Path) -> anyhow::Result<Value> {
    let start = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "cold"])
        .arg(file)
        .args(["--threads", &cores().to_string()])
        .env("PEERPROOF_KERNELS", peerproof::bench::kernels())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a process")?;
    let mut line = String::new();
    let read = child.stdout.take().map(|output| BufReader::new(output).read_line(&mut line));
    let first_token = start.elapsed();
    let status = child.wait()?;
    read.context("no standard output")??;
    anyhow::ensure!(status.success(), "the process ended with {status}");
    let mut measured: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    measured["first_token_ms"] = json!(ms(first_token));
    Ok(measured)
}

/// The other side of [`one_start`]: a line as soon as there is a token.
pub(super) fn cold(file: &Path, threads: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    let engine = InProcess::open(file, threads)?;
    let load = start.elapsed();
    engine.ask(COLD_PROMPT, 1)?;
    crate::output::print_json_line(&json!({
        "load_ms": ms(load),
        "peak_bytes": own("status", "VmHWM:").map(|kib| 1024 * kib),
        "read_mib": own("io", "read_bytes:").map(|bytes| bytes as f64 / f64::from(1 << 20)),
    }))
}

/// A number that the system keeps about this process.
fn own(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}
