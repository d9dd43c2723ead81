//! What can be typed. Parsing ends here: commands get these values and never look at flags again.

mod firewall;
mod sampling;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use peerproof::client::{Level, Mode};
use peerproof::config::Override;

pub(crate) use firewall::FirewallCommand;
pub(crate) use sampling::SamplingArgs;

/// Serve open-weight models to peers, ask peers for answers, and check every answer.
#[derive(Debug, Parser)]
#[command(name = "peerproof", version, about, max_term_width = 100, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Inner loops of the engine, instead of the fastest this processor has.
    #[arg(long, global = true, hide = true, value_enum, env = "PEERPROOF_KERNELS")]
    pub(crate) kernels: Option<Kernels>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Forms of the engine's inner loops; all give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernels {
    Portable,
    Avx2,
    Avx512,
}

impl Kernels {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kernels::Portable => "portable",
            Kernels::Avx2 => "avx2",
            Kernels::Avx512 => "avx512",
        }
    }
}

/// Where a node lives and how it is set.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Folder for key, log, evidence and configuration, instead of the XDG ones.
    #[arg(long, global = true, env = "PEERPROOF_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Folder for model files.
    #[arg(long, global = true, env = "PEERPROOF_CACHE", value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, global = true, env = "PEERPROOF_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set any configuration value, e.g. --set network.port=4001.
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = parse_override)]
    pub(crate) set: Vec<Override>,
    /// Log filter, e.g. info or peerproof_net=debug.
    #[arg(
        long,
        global = true,
        env = "PEERPROOF_LOG",
        value_name = "FILTER",
        default_value = "warn,libp2p_kad=error"
    )]
    pub(crate) log: String,
}

fn parse_override(text: &str) -> Result<Override, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok(Override { name: name.trim().into(), value: value.trim().into() })
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole product on this machine: providers, a router, an answer, its check, a cheat refused.
    Demo(DemoArgs),
    /// Run a node: a router with the OpenAI API on localhost, and a provider if a model is here.
    Up(NodeArgs),
    /// Run a provider: serve models to peers.
    Provide(NodeArgs),
    /// Run a router only: find providers, check answers, offer the OpenAI API on localhost.
    Route(NodeArgs),
    /// Run an auditor: recompute answers that routers ask about.
    Audit(NodeArgs),
    /// Ask once and print the answer, its provider and how it was checked.
    Ask(Box<AskArgs>),
    /// Check an evidence file, or a checkpoint of a log, offline.
    Verify(VerifyArgs),
    /// Fetch, list, check and remove model files.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// List the peers of the running node.
    Peers(ListArgs),
    /// Read this node's append-only log.
    #[command(subcommand)]
    Log(LogCommand),
    /// See whom this node believes and why; block, unblock, export evidence.
    #[command(subcommand)]
    Rep(RepCommand),
    /// See and set who may connect: by address, range, key or reputation.
    #[command(subcommand)]
    Firewall(FirewallCommand),
    /// Show or replace this node's key.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Say what the running node is doing.
    Status(ListArgs),
    /// Find out why peers or models can't be found.
    Doctor(DoctorArgs),
    /// Show and check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Play an attack on finding in made-up networks, beside stock Kademlia.
    Sim(SimArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What to ask.
    #[arg(default_value = "What is the capital of France?")]
    pub(crate) prompt: String,
    /// Keep the temporary homes (logs, evidence) and say where they are.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Reach {
    /// Multiaddr of a peer to start from; may be given several times.
    #[arg(long = "peer", value_name = "MULTIADDR")]
    pub(crate) peers: Vec<String>,
    /// Stay on this machine: 127.0.0.1 only, no mDNS.
    #[arg(long)]
    pub(crate) loopback: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Model to serve or audit with: an installed name, or a path of a GGUF file; may be given several times.
    #[arg(long = "model", value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// UDP and TCP port for peers; 0 lets the system choose.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Address of the HTTP API.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) api: Option<String>,
    /// Compute threads; 0 is one a core.
    #[arg(long)]
    pub(crate) threads: Option<u32>,
    /// Print events as one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Serve dishonestly, for demonstrations: the named cheat under the model's own name.
    #[arg(long, hide = true, value_enum)]
    pub(crate) cheat: Option<Cheat>,
    /// End when standard input ends, so that no node outlives the program that started it.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

/// Ways to cheat that the demonstration can play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cheat {
    /// Leave out the last layers.
    SkipLayers,
}

#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The question; `-` reads it from standard input.
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Model name or id.
    #[arg(long, default_value = peerproof::models::DEFAULT_MODEL)]
    pub(crate) model: String,
    /// What the model is told before the question.
    #[arg(long)]
    pub(crate) system: Option<String>,
    /// Let the model go on with the prompt as it stands, not answer it as a message; for models
    /// without a chat template.
    #[arg(long, conflicts_with_all = ["system", "logprobs", "json_schema"])]
    pub(crate) text: bool,
    /// How the answer is checked: receipt, sampled, light, spot, full or k_of_n.
    #[arg(long)]
    pub(crate) verify: Option<Level>,
    /// When: merkle, before the answer counts; or fraud_proof, while it is used: the answer is
    /// printed at once, and the command stays until its check is done.
    #[arg(long)]
    pub(crate) mode: Option<Mode>,
    /// For k_of_n: how many must agree, of how many asked.
    #[arg(long, value_name = "K/N", value_parser = parse_k_of_n, default_value = "2/3")]
    pub(crate) agree: (u8, u8),
    /// Peer id of the auditor to use.
    #[arg(long, value_name = "PEER")]
    pub(crate) auditor: Option<String>,
    /// Peer id of the provider to use, and no other.
    #[arg(long, value_name = "PEER")]
    pub(crate) provider: Vec<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_k_of_n(text: &str) -> Result<(u8, u8), String> {
    let parsed = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((k, n)) if 1 <= k && k <= n && n <= 16 => Ok((k, n)),
        _ => Err("expected K/N with 1 ≤ K ≤ N ≤ 16, e.g. 2/3".into()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// An evidence file, a bundle of evidence as `rep export` writes it, a fraud proof, the papers
    /// of an answer, or a checkpoint of a log.
    pub(crate) file: PathBuf,
    /// Model to recompute with, if it is not installed under its id.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Model that should be found.
    #[arg(long, default_value = peerproof::models::DEFAULT_MODEL)]
    pub(crate) model: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Fetch a model: a known name, a path of a .gguf file, or hub:OWNER/REPOSITORY/FILE.gguf[@REVISION].
    Pull {
        /// Where it comes from.
        source: String,
        /// Name to install it under.
        #[arg(long)]
        name: Option<String>,
        /// Model id (BLAKE3) that the file must have.
        #[arg(long)]
        id: Option<String>,
    },
    /// List installed models.
    Ls(ListArgs),
    /// Show one model: id, architecture, context, template.
    Show {
        /// Name, or the first digits of the id.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hash a model again and compare with the id of its pull.
    Verify {
        /// Name; all models if none is given.
        name: Option<String>,
    },
    /// Make what light audits of a model take: reads its file once, installed here or shared by peers, and keeps a hundredth of it.
    Prepare(PrepareArgs),
    /// Delete a model.
    Rm {
        /// Name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// Installed name, known name, name that peers announce, or id.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// List entries, newest last.
    Show {
        /// How many at most.
        #[arg(long, default_value_t = 50)]
        last: usize,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Check every byte, hash and signature, and that it is what witnesses saw.
    Verify(ListArgs),
    /// Print its size, and up to where others vouch for it.
    Status(ListArgs),
    /// List who cosigned the newest checkpoint that others have seen.
    Witnesses(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepCommand {
    /// List everybody the log speaks of: score, volume, audits, faults, network group, bars.
    Show(ListArgs),
    /// Print the arithmetic behind a score, entry by entry.
    Explain {
        /// Peer id, or its last letters as `rep show` prints them.
        peer: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Never ask this peer again, and drop what runs with it.
    Block {
        /// Peer id, or its last letters.
        peer: String,
        /// Why; it is kept in the log.
        #[arg(long, default_value = "")]
        reason: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lift every bar against this peer; what it did counts on as faults that fade.
    Unblock {
        /// Peer id, or its last letters.
        peer: String,
        /// Why; it is kept in the log.
        #[arg(long, default_value = "")]
        reason: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Recompute what this peer is accused of; a receipt that passes no longer counts against it.
    Recheck {
        /// Peer id, or its last letters.
        peer: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write the evidence about a peer into a file that anyone can check with `peerproof verify`.
    Export {
        /// Peer id, or its last letters.
        peer: String,
        /// The file, instead of one named after the peer.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Print the peer id and where the key lies.
    Show(ListArgs),
    /// Replace the key; the old one is kept beside it.
    Rotate(ListArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its value, as TOML.
    Show,
    /// Check the configuration without starting anything.
    Check,
    /// Print where the configuration is read from.
    Path,
}

#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// A plan; `list` shows their names, `all` plays each.
    pub(crate) plan: Option<String>,
    /// A file that names a plan and sizes, such as those in `scenarios/`.
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    /// Honest nodes of a network [default: 1000].
    #[arg(long)]
    pub(crate) nodes: Option<usize>,
    /// Networks [default: 4].
    #[arg(long)]
    pub(crate) networks: Option<u64>,
    /// Keys published in each network [default: 5].
    #[arg(long)]
    pub(crate) keys: Option<u64>,
    /// Readers of each key [default: 10].
    #[arg(long)]
    pub(crate) readers: Option<u64>,
    /// The same seed plays the same again [default: 1].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Decode and prefill speed, batches, answers under load, commitment, audit, cold start and
    /// memory, with one and two threads.
    Engine {
        /// Model to measure: an installed name, or a path of a GGUF file.
        #[arg(long, default_value = peerproof::models::DEFAULT_MODEL)]
        model: String,
        /// How often each figure is measured, in turns.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
        /// Measure decode, prefill and batches only.
        #[arg(long)]
        speed_only: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Perplexity and agreement with the float reference on a text.
    Quality {
        /// Model to measure: an installed name, or a path of a GGUF file.
        #[arg(long, default_value = peerproof::models::DEFAULT_MODEL)]
        model: String,
        /// UTF-8 text; a novel in the public domain if none is given, which cargo fetches.
        #[arg(long)]
        text: Option<PathBuf>,
        /// Tokens to compare, rounded up to whole contexts.
        #[arg(long, default_value_t = 50_000)]
        tokens: usize,
        /// Tokens that share a context.
        #[arg(long, default_value_t = 512)]
        chunk: usize,
        /// Leave out the first contexts of the text: a long comparison can be made in pieces.
        #[arg(long, value_name = "CONTEXTS", default_value_t = 0)]
        skip: usize,
        /// Also write the float model's probabilities, as llama-perplexity --kl-divergence-base reads them.
        #[arg(long, value_name = "FILE")]
        base: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Latency the network adds, time to the first verified answer, and concurrent requests, on loopback.
    Network {
        /// Model to measure with: an installed name, or a path of a GGUF file.
        #[arg(long, default_value = peerproof::models::DEFAULT_MODEL)]
        model: String,
        /// How often each latency is measured, in turns.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
        /// Providers that are asked at once.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        providers: u32,
        /// Requests at once over those providers.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        requests: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The goals of proof of inference, each with this machine's figure: commitment, receipt, audits, fraud proof.
    Proof {
        /// Model to measure: an installed name, or a path of a GGUF file.
        #[arg(long, default_value = peerproof::models::DEFAULT_MODEL)]
        model: String,
        /// How often commitment and full audit are measured, in turns.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
        /// Spot audits of one answer, each of cells drawn anew.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        sets: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Every cheat and how often it was caught: those of the protocol in simulated worlds, those of the computation with a real model.
    Cheats {
        /// Model that cheats of the computation pretend to run: an installed name, or a path of a GGUF file.
        #[arg(long, default_value = peerproof::models::DEFAULT_MODEL)]
        model: String,
        /// Answers of each cheat of the computation; 0 leaves them out.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
        answers: u32,
        /// Worlds in which each cheat is tried.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        trials: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Open a model and answer one token: what `engine` starts to measure a cold start.
    #[command(hide = true)]
    Cold {
        /// A GGUF file.
        file: PathBuf,
        /// Compute threads.
        #[arg(long)]
        threads: usize,
    },
}
