//! The library face of Peerproof: start a [`Node`], ask with its [`Client`], [`verify`] what is left.
//!
//! Everything below this crate is either pure or does one kind of work; here it
//! is wired together. [`home`] and [`config`] say where and how, [`models`]
//! brings model files, [`store`] keeps the log, `node` runs the roles.
//! Deliberately absent: HTTP for clients (the gateway's) and anything printed.
//!
//! ```no_run
//! use std::collections::BTreeMap;
//! use peerproof::client::{JobSpec, Prompt};
//! use peerproof::{Node, Settings, config::Config, home::{Environment, Home}};
//!
//! # async fn hello() -> Result<(), Box<dyn std::error::Error>> {
//! let home = Home::find(None, None, &Environment::read())?;
//! let config = Config::load(&home.config_file(), false, &BTreeMap::new(), &[])?;
//! let node = Node::start(Settings::new(home, config)).await?;
//! let question = JobSpec::new("smollm2-135m", Prompt::Text("Hello, inference:".into()));
//! let (text, outcome) = node.client().ask(question).await?.text().await?;
//! println!("{text}\n{} by {}", outcome.verification.detail, outcome.provider);
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod bench;
pub mod client;
pub mod config;
pub mod dispute;
pub mod evidence;
pub mod fetch;
pub mod firewall;
pub mod fraud;
pub mod home;
pub mod light;
mod lock;
pub mod log;
pub mod models;
mod node;
pub mod papers;
pub mod portable;
pub mod price;
pub mod reputation;
pub mod store;
pub mod verify;

pub use node::{Client, FetchWatch, Node, NodeError, Settings};
pub use peerproof_identity::PeerId;
pub use peerproof_wire::Evidence;
/// What [`Client::diagnose`] says.
pub mod net {
    pub use peerproof_net::{Diagnosis, Interface, Listener, Mdns, Seed};
}
