//! `models`.

use std::path::Path;

use anyhow::Context as _;
use peerproof::models::{Installed, KNOWN, Source, Store};
use serde::Serialize;
use serde_json::json;

use crate::args::{ListArgs, ModelsCommand, Place};
use crate::output::{self, Bar, print_json};

pub(crate) fn run(place: &Place, command: ModelsCommand) -> anyhow::Result<()> {
    let store = place.store()?;
    match command {
        ModelsCommand::Pull { source, name, id } => {
            let source: Source = source.parse()?;
            let id = id.map(|id| id.parse()).transpose().context("--id")?;
            output::stop_on_ctrl_c()?;
            let name = name.unwrap_or_else(|| source.default_name());
            let model = pull(&store, &source, &name, id)?;
            println!("{}  {}  {}", model.name, output::bytes(model.bytes), model.id);
        }
        ModelsCommand::Ls(args) => list(&store, &args)?,
        ModelsCommand::Show { name, json } => show(&store.find(&name)?, json)?,
        ModelsCommand::Verify { name } => verify(&store, name.as_deref())?,
        ModelsCommand::Prepare(args) => super::prepare::run(place, &store, &args)?,
        ModelsCommand::Rm { name } => remove(&store, &name)?,
    }
    Ok(())
}

/// The model file a name or path stands for, pulled first if it is a known one.
pub(crate) fn ensure(store: &Store, name: &str) -> anyhow::Result<Installed> {
    if Path::new(name).extension().is_some_and(|e| e == "gguf") && Path::new(name).is_file() {
        let mut bar = Bar::new(name);
        let id = peerproof::models::hash_file(Path::new(name), &mut |p| bar.report(p))?;
        bar.finish();
        return Ok(Installed {
            name: Source::Path(name.into()).default_name(),
            id: id.to_string(),
            bytes: std::fs::metadata(name)?.len(),
            source: name.into(),
            path: name.into(),
        });
    }
    match store.find(name) {
        Ok(model) => Ok(model),
        Err(_) if KNOWN.iter().any(|known| known.name == name) => {
            pull(store, &name.parse()?, name, None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Pulls with a progress bar, and says first what the weights may be used for.
fn pull(
    store: &Store,
    source: &Source,
    name: &str,
    id: Option<peerproof::models::ModelId>,
) -> anyhow::Result<Installed> {
    if let Source::Known(known) = source
        && let Some(known) = KNOWN.iter().find(|k| k.name == *known)
    {
        eprintln!("{name}: licence of the weights: {}", known.licence);
    }
    let mut bar = Bar::new(name);
    let pulled = store.pull(source, Some(name), id, &mut |p| bar.report(p));
    bar.finish();
    Ok(pulled?)
}

/// A model, and what it can't be used for.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    installed: &'a Installed,
    /// Why it takes no chats though it has a chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_trouble: Option<String>,
}

impl<'a> Listed<'a> {
    fn new(installed: &'a Installed) -> Self {
        Self { installed, chat_trouble: peerproof::models::chat_trouble(installed) }
    }
}

fn remove(store: &Store, name: &str) -> anyhow::Result<()> {
    if let Some(part) = store.discard(name)? {
        println!("removed {} of {}", output::bytes(part.have_bytes), part.id);
        return Ok(());
    }
    let model = store.remove(name)?;
    println!("removed {} ({})", model.name, output::bytes(model.bytes));
    Ok(())
}

fn list(store: &Store, args: &ListArgs) -> anyhow::Result<()> {
    let models = store.list()?;
    if args.json {
        let whole = models.iter().map(|model| json!(Listed::new(model)));
        let parts = store.unfinished().into_iter().map(|part| {
            let mut listed = json!(part);
            listed["unfinished"] = json!(true);
            listed
        });
        return print_json(&whole.chain(parts).collect::<Vec<_>>());
    }
    for model in models.iter().map(Listed::new) {
        let Listed { installed: Installed { name, bytes, id, source, .. }, chat_trouble } = model;
        println!("{name:24} {:>10}  {id}  {source}", output::bytes(*bytes));
        if let Some(trouble) = chat_trouble {
            println!("{:24} for texts only, not for chats: {trouble}", "");
        }
    }
    let unfinished = store.unfinished();
    for part in &unfinished {
        println!(
            "{:24} {:>10}  {}  unfinished, {} are here; `peerproof models pull` goes on",
            "–",
            output::bytes(part.bytes),
            part.id,
            output::bytes(part.have_bytes)
        );
    }
    if models.is_empty() && unfinished.is_empty() {
        println!("no models here; run: peerproof models pull {}", peerproof::models::DEFAULT_MODEL);
    }
    Ok(())
}

fn show(model: &Installed, json: bool) -> anyhow::Result<()> {
    let card = peerproof::models::card(model)?;
    if json {
        return print_json(&card);
    }
    println!(
        "{}",
        serde_json::to_value(&card)?.as_object().map_or_else(String::new, |card| {
            let rows = card.iter().map(|(key, value)| match value.as_str() {
                Some(text) => format!("{key:16} {text}"),
                None => format!("{key:16} {value}"),
            });
            rows.collect::<Vec<_>>().join("\n")
        })
    );
    Ok(())
}

fn verify(store: &Store, name: Option<&str>) -> anyhow::Result<()> {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => store.list()?.into_iter().map(|model| model.name).collect(),
    };
    output::stop_on_ctrl_c()?;
    for name in names {
        let mut bar = Bar::new(&name);
        let checked = store.verify(&name, &mut |p| bar.report(p));
        bar.finish();
        println!("{name}: {} is intact", checked?.id);
    }
    Ok(())
}
