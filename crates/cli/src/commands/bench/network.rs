//! `bench network`: what the way over the network adds, on loopback, with real nodes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use peerproof::bench::{InProcess, Timed};
use peerproof::client::{AnswerEvent, JobSpec, Level, Prompt, Verification};
use peerproof::home::{Environment, Home};
use peerproof::models::Installed;
use peerproof::{Client, Node, Settings};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::cores;
use super::figures::{Figure, Report, ms, percent, us};
use crate::args::Place;
use crate::place::set;
use crate::stage::{POLL, Stage};

/// A beginning that models go on with for as long as they may.
const PROMPT: &str = "Once upon a time, in a small village by the sea, there lived";
const TOKENS: u32 = 64;
/// Answers in a crowd, and first answers, are short.
const SHORT: u32 = 16;
/// Runs that are not counted.
const WARM_UP: usize = 2;
/// Providers that can't be found by then won't be.
const FOUND: Duration = Duration::from_secs(30);

/// How many providers are asked how many things at once.
#[derive(Clone, Copy)]
pub(super) struct Crowd {
    pub(super) providers: u32,
    pub(super) requests: u32,
}

/// Where, and with which model; `argument` is how the command line names it.
struct Scene<'a> {
    place: &'a Place,
    argument: &'a str,
    model: &'a Installed,
    runtime: Runtime,
}

pub(super) fn run(
    place: &Place,
    argument: &str,
    model: &Installed,
    runs: usize,
    crowd: Crowd,
) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let scene = Scene { place, argument, model, runtime };
    let mut report = Report::new(model);
    let mut threads = vec![1, cores()];
    threads.dedup();
    for threads in threads {
        latency(&scene, threads, runs, &mut report)?;
    }
    first_answer(&scene, runs.div_ceil(3), &mut report)?;
    together(&scene, crowd, &mut report)?;
    Ok(report)
}

/// A router inside this process, in a home that lives as long as it.
struct Router {
    node: Node,
    _home: tempfile::TempDir,
}

impl Scene<'_> {
    fn provider(
        &self,
        stage: &mut Stage,
        name: &str,
        threads: usize,
        peer: Option<&str>,
    ) -> anyhow::Result<String> {
        let threads = threads.to_string();
        let mut arguments = vec!["provide", "--model", self.argument, "--threads", &threads];
        arguments.extend(peer.iter().flat_map(|peer| ["--peer", *peer]));
        stage.start(name, &arguments)?.address()
    }

    fn router(&self, peer: &str) -> anyhow::Result<Router> {
        let folder = tempfile::Builder::new().prefix("peerproof-").tempdir()?;
        let cache = self.place.cache.as_deref();
        let home = Home::find(Some(folder.path()), cache, &Environment::read())?;
        let config =
            self.place.config(vec![set("network.loopback", true), set("network.peers", peer)])?;
        let node = self.runtime.block_on(Node::start(Settings::new(home, config)))?;
        Ok(Router { node, _home: folder })
    }

    fn request(&self, max_tokens: u32) -> JobSpec {
        JobSpec {
            max_tokens: Some(max_tokens),
            verification: Verification { level: Level::Receipt, ..Verification::default() },
            ..JobSpec::new(&self.model.id, Prompt::Text(PROMPT.into()))
        }
    }
}

/// The same question to the engine by a call, and to a provider by the network, in turns.
fn latency(
    scene: &Scene<'_>,
    threads: usize,
    runs: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    eprintln!("latency, threads {threads}");
    let mut stage = Stage::new(scene.place, false)?;
    let address = scene.provider(&mut stage, "provider", threads, None)?;
    let router = scene.router(&address)?;
    let client = router.node.client();
    let direct = InProcess::open(&scene.model.path, threads)?;
    let (mut called, mut asked) = (Vec::new(), Vec::new());
    for run in 0..WARM_UP + runs {
        let by_call = || direct.ask(PROMPT, TOKENS);
        let by_network = || scene.runtime.block_on(ask(&client, scene.request(TOKENS)));
        let (call, network) = match run % 2 {
            0 => (by_call()?, by_network()?),
            _ => {
                let network = by_network()?;
                (by_call()?, network)
            }
        };
        ensure!(
            call.tokens == network.tokens,
            "the network brought another answer than the engine gives"
        );
        if run >= WARM_UP {
            called.push(call);
            asked.push(network);
        }
    }
    scene.runtime.block_on(router.node.shutdown());
    let of = |all: &[Timed], value: fn(&Timed) -> f64| all.iter().map(value).collect::<Vec<_>>();
    let added = |value: fn(&Timed) -> f64| {
        called
            .iter()
            .zip(&asked)
            .map(|(call, network)| value(network) - value(call))
            .collect::<Vec<_>>()
    };
    let first: fn(&Timed) -> f64 = |timed| ms(timed.first_token);
    let each: fn(&Timed) -> f64 = |timed| us(timed.per_token());
    let figure = |what: &str, unit, samples: &[f64]| {
        Figure::new(format!("{what}, threads {threads}"), unit, samples)
    };
    report.add(figure("first token, engine in this process", "ms", &of(&called, first)));
    report.add(figure("first token, over the network", "ms", &of(&asked, first)));
    report.add(figure("added to the first token", "ms", &added(first)).at_most(2.0));
    report.add(figure("each token, engine in this process", "µs", &of(&called, each)));
    report.add(figure("each token, over the network", "µs", &of(&asked, each)));
    report.add(figure("added to each token", "µs", &added(each)).at_most(50.0));
    Ok(())
}

async fn ask(client: &Client, request: JobSpec) -> anyhow::Result<Timed> {
    let start = Instant::now();
    let mut answer = client.ask(request).await?;
    let mut timed = Timed { first_token: Duration::ZERO, rest: Duration::ZERO, tokens: Vec::new() };
    while let Some(event) = answer.next().await {
        if let AnswerEvent::Delta { tokens, .. } = event? {
            let at = start.elapsed();
            if timed.tokens.is_empty() {
                timed.first_token = at;
            }
            timed.rest = at - timed.first_token;
            timed.tokens.extend(tokens);
        }
    }
    Ok(timed)
}

/// From starting the program to a checked answer, with a provider that runs already.
fn first_answer(scene: &Scene<'_>, runs: usize, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("first answer");
    let mut stage = Stage::new(scene.place, false)?;
    let address = scene.provider(&mut stage, "provider", 0, None)?;
    let levels = [("receipt", false), ("full", true)];
    let mut times = [Vec::new(), Vec::new()];
    for run in 0..runs {
        for ((level, audited), times) in levels.iter().zip(&mut times) {
            let home = format!("router {run} {level}");
            times.push(ms(one_answer(&stage, &home, &address, scene.model, (level, *audited))?));
        }
    }
    for ((level, _), times) in levels.iter().zip(&times) {
        let name = format!("router start to first answer, level {level}");
        report.add(Figure::new(name, "ms", times).at_most(1000.0));
    }
    Ok(())
}

fn one_answer(
    stage: &Stage,
    home: &str,
    address: &str,
    model: &Installed,
    (level, audited): (&str, bool),
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut child = stage
        .command(home)
        .args(["ask", PROMPT, "--loopback", "--json", "--peer", address, "--verify", level])
        .args(["--model", &model.id, "--max-tokens", &SHORT.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a router")?;
    let output = child.stdout.take().context("no standard output")?;
    let answer = serde_json::Deserializer::from_reader(output).into_iter::<Value>().next();
    let took = start.elapsed();
    let status = child.wait()?;
    let answer = answer.context("no answer")??;
    ensure!(status.success(), "the router ended with {status}");
    ensure!(
        answer["outcome"]["verification"]["audited"] == audited,
        "the answer was not checked as asked: {answer}"
    );
    Ok(took)
}

/// Many requests at once over many providers.
fn together(scene: &Scene<'_>, crowd: Crowd, report: &mut Report) -> anyhow::Result<()> {
    let mut stage = Stage::new(scene.place, false)?;
    let first = scene.provider(&mut stage, "provider 1", 1, None)?;
    for number in 2..=crowd.providers {
        eprintln!("starting provider {number} of {}", crowd.providers);
        scene.provider(&mut stage, &format!("provider {number}"), 1, Some(&first))?;
    }
    let router = scene.router(&first)?;
    let client = router.node.client();
    find_all(scene, &client, crowd.providers as usize)?;
    eprintln!("{} requests", crowd.requests);
    let start = Instant::now();
    let answers =
        scene.runtime.block_on(crowd_answers(&client, || scene.request(SHORT), crowd.requests));
    let whole = start.elapsed();
    scene.runtime.block_on(router.node.shutdown());
    let (mut times, mut errors, mut busiest) = (Vec::new(), 0, std::collections::HashMap::new());
    for answer in answers {
        match answer {
            Ok((took, provider)) => {
                times.push(ms(took));
                *busiest.entry(provider).or_insert(0u32) += 1;
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                errors += 1;
            }
        }
    }
    let what = format!("{} requests over {} providers", crowd.requests, crowd.providers);
    report.add(Figure::new(format!("{what}: errors"), "", &[f64::from(errors)]).at_most(0.0));
    report.add(Figure::new(format!("{what}: all done"), "ms", &[ms(whole)]));
    report.add(Figure::new(format!("{what}: one answer"), "ms", &times));
    let shares: Vec<f64> =
        busiest.values().map(|n| percent(f64::from(*n), f64::from(crowd.requests))).collect();
    report.add(Figure::new(format!("{what}: share of a provider"), "%", &shares));
    Ok(())
}

fn find_all(scene: &Scene<'_>, client: &Client, providers: usize) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        scene.runtime.block_on(client.find(&scene.model.id))?;
        let found = client
            .models()
            .iter()
            .filter(|m| m.id == scene.model.id)
            .map(|m| m.providers.len())
            .sum::<usize>();
        if found >= providers {
            return Ok(());
        }
        ensure!(since.elapsed() < FOUND, "{found} of {providers} providers were found");
        std::thread::sleep(POLL);
    }
}

async fn crowd_answers(
    client: &Client,
    request: impl Fn() -> JobSpec,
    count: u32,
) -> Vec<anyhow::Result<(Duration, String)>> {
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let (client, request) = (client.clone(), request());
        asking.spawn(async move {
            let start = Instant::now();
            let (_, outcome) = client.ask(request).await?.text().await?;
            Ok((start.elapsed(), outcome.provider))
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asking.join_next().await {
        answers.push(answer.unwrap_or_else(|error| Err(error.into())));
    }
    answers
}
