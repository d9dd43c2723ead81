//! `models pull` from peers: a router made for it, or beside the node that runs in this home.

use std::path::Path;

use anyhow::{Context as _, bail};
use peerproof::fetch::{PullSpec, Pulled};
use peerproof::home::{Environment, Home};
use peerproof::models::ModelId;
use peerproof::{Node, Settings};

use crate::args::{Place, PullArgs};
use crate::output::{self, Bar};

use super::ask::is_in_use;

/// Whether these arguments mean peers: an id, or anything they are named for.
pub(super) fn means_peers(args: &PullArgs) -> bool {
    args.from_peers || !args.reach.peers.is_empty() || args.source.parse::<ModelId>().is_ok()
}

/// Pulls, and says who sent what on standard error.
pub(super) fn pull(place: &Place, args: &PullArgs) -> anyhow::Result<Pulled> {
    let settings = Settings::new(place.home()?, place.config(args.reach.overrides())?);
    output::stop_on_ctrl_c()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let pulled = runtime.block_on(async {
        let (node, _folder) = start(settings).await?;
        let pulled = with(&node, args).await;
        node.shutdown().await;
        pulled
    })?;
    if !args.json {
        tell(&pulled);
    }
    Ok(pulled)
}

/// A node in this home; if one is running there already, one in a folder that goes away, since
/// two can't write one log. The model files are the same.
async fn start(settings: Settings) -> anyhow::Result<(Node, Option<tempfile::TempDir>)> {
    match Node::start(settings.clone()).await {
        Err(error) if is_in_use(&error) => {
            let folder = tempfile::Builder::new().prefix("peerproof-").tempdir()?;
            let models = settings.home.models();
            let cache = models.parent().unwrap_or(Path::new("."));
            let home = Home::find(Some(folder.path()), Some(cache), &Environment::read())?;
            eprintln!(
                "a node is running in this home: what this pull meets is not kept in its log"
            );
            Ok((Node::start(Settings { home, ..settings }).await?, Some(folder)))
        }
        started => Ok((started?, None)),
    }
}

async fn with(node: &Node, args: &PullArgs) -> anyhow::Result<Pulled> {
    let client = node.client();
    let id = match &args.id {
        Some(id) => id.parse::<ModelId>().context("--id")?.to_string(),
        None => client.model_id(&args.source).await?,
    };
    let is_name = args.source.parse::<ModelId>().is_err();
    match args.source.parse::<ModelId>() {
        Ok(asked) if asked.to_string() != id => {
            bail!("--id {id} is not the model asked for, {asked}")
        }
        Ok(_) => {}
        Err(_) => eprintln!("{} is model {id}", args.source),
    }
    let name =
        args.name.clone().or_else(|| (is_name && args.id.is_some()).then(|| args.source.clone()));
    let spec = PullSpec {
        model: id.clone(),
        name,
        max_bytes_per_s: args.max_rate.map(|mib| (mib * f64::from(1 << 20)) as u64),
    };
    let shown = if is_name { args.source.as_str() } else { &id[..12] };
    let mut bar = Bar::new(shown);
    let pulled = client.pull(&spec, &mut |progress| bar.report(progress)).await;
    bar.finish();
    Ok(pulled?)
}

fn tell(pulled: &Pulled) {
    if pulled.fetched_bytes == 0 && pulled.resumed_bytes == 0 {
        eprintln!("{}: is here already and intact", pulled.model.name);
        return;
    }
    if pulled.resumed_bytes > 0 {
        eprintln!("{} were here from before", output::bytes(pulled.resumed_bytes));
    }
    let rate = pulled.fetched_bytes * 1000 / pulled.fetch_ms.max(1);
    eprintln!(
        "{} fetched and checked in {:.1} s, {}/s",
        output::bytes(pulled.fetched_bytes),
        pulled.fetch_ms as f64 / 1000.0,
        output::bytes(rate)
    );
    for sent in &pulled.sources {
        eprintln!("  {:>10}  from {}", output::bytes(sent.bytes), sent.peer);
    }
    for dropped in &pulled.dropped {
        let what = if dropped.corrupt { "sent what is not the model's" } else { "was left" };
        eprintln!("  {} {what}: {}", dropped.peer, dropped.reason);
    }
}
