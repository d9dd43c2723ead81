//! `models prepare`: what light audits take of a model, made before the first of them.
//!
//! A node in a temporary home does it, so that it gets in nobody's way; what it makes lies in
//! the cache folder, where every node of this user looks.

use std::io::{IsTerminal as _, stderr};
use std::ops::ControlFlow;

use anyhow::Context as _;
use peerproof::home::{Environment, Home};
use peerproof::light::Prepared;
use peerproof::models::Store;
use peerproof::{Client, Node, Settings};

use crate::args::{Place, PrepareArgs};
use crate::output::{self, print_json, stopped};
use crate::place::set;

pub(crate) fn run(place: &Place, store: &Store, args: &PrepareArgs) -> anyhow::Result<()> {
    output::stop_on_ctrl_c()?;
    let prepared = prepare(place, store, args)?;
    if args.json {
        return print_json(&prepared);
    }
    let Prepared { model, path, bytes, read_bytes, made, ms } = prepared;
    if made {
        let (kept, read, s) = (output::bytes(bytes), output::bytes(read_bytes), ms / 1000);
        println!("{model}: {kept} kept of {read} that were read, in {s}.{} s", ms % 1000 / 100);
    } else {
        println!("{model}: {} were there already", output::bytes(bytes));
    }
    println!("{} (nobody else may read it)", path.display());
    Ok(())
}

fn prepare(place: &Place, store: &Store, args: &PrepareArgs) -> anyhow::Result<Prepared> {
    let installed = store.find(&args.name).ok();
    let mut reach = args.reach.clone();
    // Nobody is asked for what is here.
    reach.loopback |= installed.is_some();
    let mut flags = reach.overrides();
    flags.extend([set("network.port", 0), set("api.listen", "127.0.0.1:0")]);
    if installed.is_some() {
        flags.push(set("network.mdns", false));
    }
    let folder = tempfile::Builder::new().prefix("peerproof-").tempdir()?;
    let models = place.home()?.models();
    let cache = models.parent().context("the models' folder has none around it")?;
    let home = Home::find(Some(folder.path()), Some(cache), &Environment::read())?;
    let settings = Settings::new(home, place.config(flags)?);
    let name = installed.map_or_else(|| args.name.clone(), |model| model.id);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = Node::start(settings).await?;
        let client = node.client();
        let mut tell = |done: u32, of: u32| {
            report(&args.name, done, of);
            if stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let prepared = client.prepare(&name, &mut tell).await;
        clear_line();
        node.shutdown().await;
        Ok(prepared?)
    })
}

/// Makes what a light audit takes before the question is asked, so that nobody wonders what is
/// waited for. If that fails the audit tries again, and says why it was not done.
pub(crate) async fn before_asking(client: &Client, model: &str) {
    let mut tell = |done: u32, of: u32| {
        report(model, done, of);
        ControlFlow::Continue(())
    };
    let prepared = client.prepare(model, &mut tell).await;
    clear_line();
    if let Err(error) = prepared {
        eprintln!("{error}");
    }
}

fn clear_line() {
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

/// A line that is written over on a terminal, one for each quarter elsewhere.
fn report(name: &str, done: u32, of: u32) {
    if stderr().is_terminal() {
        eprint!("\rpreparing {name}: {done} of {of} parts\x1b[K");
    } else if of > 0 && (done == 0 || 4 * done / of > 4 * (done - 1) / of) {
        eprintln!("preparing {name}: {done} of {of} parts");
    }
}
