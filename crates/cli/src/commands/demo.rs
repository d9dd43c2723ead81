//! `demo`: the whole product on one machine, as separate processes on loopback.
//!
//! An auditor, two honest providers and a cheating one start in homes of their
//! own; the providers know only the auditor's address. A router that knows no
//! provider's address finds them, answers, and checks. Then the question is
//! steered to the cheat, whose answer must be refused. Everything that was
//! started is stopped when [`Stage`] goes out of scope, and ends by itself if
//! this process dies, since each child watches its standard input.

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use peerproof::client::Outcome;
use peerproof::models::DEFAULT_MODEL;
use serde_json::{Value, json};

use super::models;
use crate::api::{Api, Piece, short, summary};
use crate::args::{DemoArgs, Place};
use crate::output::{self, stopped};
use crate::stage::{POLL, Running, Stage};

/// Providers that can't be found by then won't be.
const FOUND: Duration = Duration::from_secs(20);
/// Enough for a sentence or two.
const MAX_TOKENS: u32 = 64;

pub(crate) fn run(place: &Place, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    output::stop_on_ctrl_c()?;
    match show(place, args) {
        // Whatever failed, it failed because everything was told to end.
        Err(_) if stopped() => {
            eprintln!("\nstopped");
            Ok(ExitCode::from(130))
        }
        result => result,
    }
}

fn show(place: &Place, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let model = models::ensure(&place.store()?, DEFAULT_MODEL)?;
    let card = peerproof::models::card(&model)?;
    println!(
        "Each of the four processes that run {} takes {} for its weights, {} to work in, and {} for each token in its cache.",
        model.name,
        output::bytes(card.weights_bytes.unwrap_or(model.bytes)),
        output::bytes(card.scratch_bytes.unwrap_or(0)),
        output::bytes(card.cache_bytes_per_token.unwrap_or(0)),
    );
    let mut stage = Stage::new(place, args.keep)?;
    let meeting_point = start(&mut stage, "auditor", &["audit"])?;
    let peer = meeting_point.address()?;
    let honest = [
        start(&mut stage, "provider 1", &["provide", "--peer", &peer])?,
        start(&mut stage, "provider 2", &["provide", "--peer", &peer])?,
    ];
    let cheat =
        start(&mut stage, "provider 3", &["provide", "--peer", &peer, "--cheat", "skip-layers"])?;
    let router = start(&mut stage, "router", &["route", "--peer", &peer])?;
    println!(
        "Provider 3 serves the same name and secretly leaves out the model's last four layers.\nThe router knows only the auditor's address.\n"
    );
    let api = Api::at(&router.api);
    let expected: Vec<&str> =
        honest.iter().chain([&cheat]).map(|node| node.peer.as_str()).collect();
    wait_for_providers(&api, &expected)?;
    let honest = [honest[0].peer.as_str(), honest[1].peer.as_str()];

    println!("\nQuestion: {}", args.prompt);
    print!("Answer:   ");
    let (_, outcome) = ask(&api, &args.prompt, &honest)?;
    println!("{}\n", summary(&outcome));

    println!("The same question to provider 3 ({}):", short(&cheat.peer));
    let Err(refusal) = ask(&api, &args.prompt, &[&cheat.peer]) else {
        bail!("the cheat was not refused");
    };
    ensure!(!stopped(), "interrupted");
    println!("\nRefused: {refusal}\n");
    let evidence = stage.evidence("router")?;
    println!("$ peerproof verify {}", evidence.display());
    let verified = stage.peerproof(&["verify", &evidence.display().to_string()])?;
    ensure!(verified, "the evidence was not confirmed");
    barred(&api, &cheat.peer)?;
    stage.stop();
    Ok(ExitCode::SUCCESS)
}

/// The first question names the honest providers only to keep the demonstration in its order.
fn ask(api: &Api, prompt: &str, providers: &[&str]) -> anyhow::Result<(String, Outcome)> {
    let request = json!({
        "model": DEFAULT_MODEL,
        "messages": [{ "role": "user", "content": prompt }],
        "stream": true,
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "verification": { "level": "full" },
        "provider": { "only": providers },
    });
    let (mut text, mut done) = (String::new(), None);
    api.ask(&request, &mut |piece| {
        ensure!(!stopped(), "interrupted");
        match piece {
            Piece::Text(_, piece) => {
                print!("{piece}");
                stdout().flush()?;
                text.push_str(&piece);
            }
            Piece::Meanwhile(_) | Piece::Likely(..) => {}
            Piece::Done(_, outcome) => done = Some(serde_json::from_value(*outcome)?),
        }
        Ok(())
    })
    .inspect_err(|_| println!())?;
    println!();
    Ok((text, done.context("the answer has no receipt")?))
}

fn wait_for_providers(api: &Api, expected: &[&str]) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        ensure!(!stopped(), "interrupted");
        let models = api.json("/peerproof/models")?;
        let found: Vec<&str> = models
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|model| model["providers"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        if expected.iter().all(|peer| found.contains(peer)) {
            println!(
                "The router found {} providers after {} ms.",
                expected.len(),
                since.elapsed().as_millis()
            );
            return Ok(());
        }
        ensure!(
            since.elapsed() < FOUND,
            "the router found {} of {} providers",
            found.len(),
            expected.len()
        );
        std::thread::sleep(POLL);
    }
}

fn barred(api: &Api, cheat: &str) -> anyhow::Result<()> {
    let peers = api.peers()?;
    let reason = peers.iter().find(|peer| peer.peer == cheat).and_then(|peer| peer.barred.clone());
    let reason = reason.context("the cheat is not barred")?;
    println!("\nProvider 3 is barred ({reason}) and won't be asked again.");
    Ok(())
}

fn start(stage: &mut Stage, name: &str, arguments: &[&str]) -> anyhow::Result<Running> {
    let running = stage.start(name, arguments)?;
    println!("{name:11} {}", running.peer);
    Ok(running)
}
