//! `ask`: through the node that runs in this home, or through one made for this question.

mod later;
mod price;

use std::io::{ErrorKind, IsTerminal, Read as _, Write as _, stderr, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use peerproof::client::{LaterCheck, Level, Outcome};
use peerproof::home::HomeError;
use peerproof::store::StoreError;
use peerproof::{Node, NodeError, Settings};
use serde_json::{Value, json};

use super::prepare;
use crate::api::{Api, Piece, request, summary};
use crate::args::{AskArgs, Place};
use crate::output::print_json;
use crate::place::set;

/// How long another process in the same home is waited for.
const WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(place: &Place, mut args: AskArgs) -> anyhow::Result<ExitCode> {
    if args.prompt == "-" {
        args.prompt.clear();
        std::io::stdin().read_to_string(&mut args.prompt).context("standard input")?;
    }
    match Api::of_running_node(place)? {
        Some(api) if args.reach.peers.is_empty() && !args.reach.loopback => {
            later::leave_on_ctrl_c()?;
            answer(&api, &args, true)?;
        }
        Some(_) => anyhow::bail!(
            "a node is running in this home, so --peer and --loopback have no effect on it; leave them out, or choose another --home"
        ),
        None => with_own_node(place, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a router with nothing but this question in mind.
fn with_own_node(place: &Place, args: AskArgs) -> anyhow::Result<()> {
    let mut flags = args.reach.overrides();
    flags.push(set("api.listen", "127.0.0.1:0"));
    let mut settings = Settings::new(place.home()?, place.config(flags)?);
    settings.hold = place.store()?.list()?;
    let key_file = settings.config.api.key_file.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let gateway = peerproof_gateway::GatewayConfig::from_settings(&settings)?;
        let node = start(settings).await?;
        if args.verify == Some(Level::Light) && args.auditor.is_none() {
            prepare::before_asking(&node.client(), &args.model).await;
        }
        let server = peerproof_gateway::Server::bind(node.client(), gateway).await?;
        let api = Api::at(&server.url()).with_key_file(&key_file)?;
        let serving = tokio::spawn(server.run(std::future::pending()));
        let asking = tokio::task::spawn_blocking(move || answer(&api, &args, false));
        let result = tokio::select! {
            result = asking => result.context("asking")?,
            _ = tokio::signal::ctrl_c() => later::leave(),
        };
        serving.abort();
        node.shutdown().await;
        result
    })
}

/// Starts the node once no other question holds the home.
async fn start(settings: Settings) -> anyhow::Result<Node> {
    let since = Instant::now();
    loop {
        match Node::start(settings.clone()).await {
            Err(error) if is_in_use(&error) && since.elapsed() < WAIT => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) if is_in_use(&error) => {
                return Err(error).with_context(|| {
                    format!("waited {} s for another process in this home", WAIT.as_secs())
                });
            }
            other => return Ok(other?),
        }
    }
}

/// Whether another process of this home makes its key or writes its log.
fn is_in_use(error: &NodeError) -> bool {
    match error {
        NodeError::Store(StoreError::Locked { .. }) => true,
        NodeError::Home(HomeError::Io { source, .. }) => source.kind() == ErrorKind::AlreadyExists,
        _ => false,
    }
}

/// One of the answers to the question.
#[derive(Default)]
struct Choice {
    text: String,
    likely: Vec<Value>,
    outcome: Option<Value>,
}

/// `stays`: whether the node outlives this question.
fn answer(api: &Api, args: &AskArgs, stays: bool) -> anyhow::Result<()> {
    let before = price::before(api, args, stays);
    if let (Some(before), false) = (&before, args.json) {
        eprintln!("{}", before.line());
    }
    let count = args.sampling.n as usize;
    let mut choices: Vec<Choice> = (0..count).map(|_| Choice::default()).collect();
    // Several answers at once would run into each other: each is printed when all are there.
    let prints = !args.json && count == 1;
    let mut waiting = Waiting::default();
    let result = api.ask(&request(args, &args.prompt), &mut |piece| {
        waiting.show(&piece);
        let index = match &piece {
            Piece::Meanwhile(_) => return Ok(()),
            Piece::Text(index, _) | Piece::Likely(index, _) | Piece::Done(index, _) => *index,
        };
        let choice = choices.get_mut(index).context("an answer that nobody asked for")?;
        match piece {
            Piece::Meanwhile(_) => {}
            Piece::Text(_, piece) => {
                if prints {
                    print!("{piece}");
                    stdout().flush()?;
                }
                choice.text.push_str(&piece);
            }
            Piece::Likely(_, tokens) => choice.likely.extend(tokens),
            Piece::Done(_, outcome) => choice.outcome = Some(*outcome),
        }
        Ok(())
    });
    waiting.end();
    if prints && !choices[0].text.is_empty() {
        println!();
    }
    result?;
    let outcomes = choices.iter().map(|choice| {
        let outcome = choice.outcome.clone().context("the answer has no receipt")?;
        Ok(serde_json::from_value(outcome)?)
    });
    let outcomes: Vec<Outcome> = outcomes.collect::<anyhow::Result<_>>()?;
    if !args.json {
        for (index, (choice, outcome)) in choices.iter().zip(&outcomes).enumerate() {
            if !prints {
                println!("{}[{index}] {}", if index > 0 { "\n" } else { "" }, choice.text);
            }
            choice.likely.iter().for_each(|token| println!("{}", likelihood(token)));
            print_summary(outcome);
            if let (Some(cost), true) = (&outcome.verification.priced, before.is_some()) {
                eprintln!("cost: {}", cost.line(outcome.verification.mode));
            }
        }
    }
    let waited = outcomes.iter().map(|outcome| later::wait(api, outcome, stays));
    let checks: Vec<Option<LaterCheck>> = waited.collect::<anyhow::Result<_>>()?;
    match args.json {
        true => print_json(&with_estimate(as_json(choices, &checks)?, before))?,
        false => checks.iter().flatten().for_each(later::print),
    }
    checks.iter().flatten().try_for_each(later::judge)
}

/// One line of a terminal that says what happens before there is text.
#[derive(Default)]
struct Waiting {
    shown: bool,
}

impl Waiting {
    fn show(&mut self, piece: &Piece) {
        let Piece::Meanwhile(what) = piece else { return self.end() };
        if stderr().is_terminal() {
            self.shown = true;
            eprint!("\r\x1b[2K{what}");
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[2K");
        }
    }
}

/// The estimate beside one answer, or in each of several.
fn with_estimate(mut answers: Value, before: Option<price::Estimate>) -> Value {
    let Some(before) = before else { return answers };
    match &mut answers {
        Value::Array(all) => all.iter_mut().for_each(|one| one["estimate"] = json!(before)),
        one => one["estimate"] = json!(before),
    }
    answers
}

/// One answer as an object, several as a list of such.
fn as_json(choices: Vec<Choice>, checks: &[Option<LaterCheck>]) -> anyhow::Result<Value> {
    let mut all = Vec::with_capacity(choices.len());
    for (choice, check) in choices.into_iter().zip(checks) {
        let outcome = choice.outcome.context("the answer has no receipt")?;
        let mut one = json!({ "text": choice.text, "outcome": outcome });
        if !choice.likely.is_empty() {
            one["logprobs"] = choice.likely.into();
        }
        if let Some(check) = check {
            one["check"] = json!(check);
        }
        all.push(one);
    }
    match all.len() {
        1 => Ok(all.remove(0)),
        _ => Ok(all.into()),
    }
}

/// A token with its probability, then the likeliest ones with theirs.
fn likelihood(token: &Value) -> String {
    let one = |token: &Value| {
        let share = 100.0 * token["logprob"].as_f64().unwrap_or(f64::NEG_INFINITY).exp();
        format!("{share:6.2} % {}", token["token"])
    };
    let top = token["top_logprobs"].as_array().into_iter().flatten().map(one);
    std::iter::once(one(token)).chain(top).collect::<Vec<_>>().join("  |")
}

fn print_summary(outcome: &Outcome) {
    let line = summary(outcome);
    if stdout().is_terminal() { println!("\x1b[2m{line}\x1b[0m") } else { println!("{line}") }
}
