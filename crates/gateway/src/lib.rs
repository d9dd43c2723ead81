//! The OpenAI-compatible HTTP API of a node.
//!
//! Programs that speak to OpenAI's API get their answers from the network by
//! changing one URL. A request passes these places in order: `server` accepts
//! the connection; `guard` asks who calls; `routes` finds the endpoint;
//! `request` turns JSON into jobs; `answer` starts them and hands out their
//! events; `reply` gives those OpenAI's shapes; `stream` writes them as
//! server-sent events, or `routes` as one body. `error` is every way to fail.
//!
//! Deliberately absent: choosing providers, checking answers and retrying (the
//! node does that behind [`Backend`]), TLS (a reverse proxy's work), and any
//! state that outlives a request, counters aside. What clients can rely on is
//! written in `docs/openai.md`.

mod answer;
mod app;
mod backend;
mod checks;
mod client;
mod config;
mod embeddings;
mod error;
mod firewall;
mod guard;
mod likelihood;
mod log;
mod metrics;
mod reply;
mod reputation;
mod request;
mod routes;
mod server;
mod stream;

pub use backend::{Backend, Events};
pub use config::{ApiKey, GatewayConfig};
pub use server::Server;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What requests that fail are logged under, for who is told in another way.
pub const FAILURES: &str = "peerproof_gateway::failures";

/// Serves the API for `client` until `shutdown` resolves.
///
/// # Errors
/// As [`Server::bind`], when nothing was answered yet, and [`Server::run`].
pub async fn serve(
    client: peerproof::Client,
    config: GatewayConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), GatewayError> {
    Server::bind(client, config).await?.run(shutdown).await
}

/// Why the gateway cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// A key that can be guessed or not be sent.
    #[error("an API key has {least} to {most} visible ASCII characters without spaces")]
    WeakKey {
        /// Least length.
        least: usize,
        /// Greatest length.
        most: usize,
    },
    /// An open door to the network.
    #[error("{listen} can be reached from other machines: set an API key, or listen on 127.0.0.1")]
    KeyRequired {
        /// The address as configured.
        listen: SocketAddr,
    },
    /// Any website could use this machine.
    #[error(
        "the allowed origin `*` lets every website call this node: set an API key, or list origins"
    )]
    OriginsRequireKey,
    /// A limit that is none.
    #[error("{limit} is {value}; it must be from 1 to {most}")]
    Limit {
        /// Name of the setting.
        limit: &'static str,
        /// As configured.
        value: usize,
        /// Greatest allowed.
        most: usize,
    },
    /// Somebody else listens there.
    #[error("{listen} is taken: another program listens there; stop it, or choose another port")]
    PortTaken {
        /// The address as configured.
        listen: SocketAddr,
    },
    /// The operating system refused the address.
    #[error(
        "cannot listen on {listen}: {source}; choose an address of this machine and a port above 1023"
    )]
    Bind {
        /// The address as configured.
        listen: SocketAddr,
        /// What it said.
        source: io::Error,
    },
    /// No connection can be taken any more.
    #[error("connections are refused by the operating system: {source}; start this node again")]
    Deaf {
        /// What it said.
        source: io::Error,
    },
    /// The configured address is none.
    #[error("api.listen: expected an address and a port such as 127.0.0.1:8311, got {given:?}")]
    Address {
        /// As configured.
        given: String,
    },
    /// The key cannot be read.
    #[error("api.key_file: {path}: {source}")]
    KeyFile {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
