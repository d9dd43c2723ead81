//! Folders and configuration of the node a command talks about.

use std::collections::BTreeMap;

use peerproof::config::{Config, Override};
use peerproof::home::{Environment, Home};
use peerproof::models::Store;

use crate::args::{NodeArgs, Place, Reach};

impl Place {
    pub(crate) fn home(&self) -> anyhow::Result<Home> {
        Ok(Home::find(self.home.as_deref(), self.cache.as_deref(), &Environment::read())?)
    }

    /// The merged configuration, with `flags` on top of `--set`.
    pub(crate) fn config(&self, flags: Vec<Override>) -> anyhow::Result<Config> {
        let home = self.home()?;
        let file = self.config.clone().unwrap_or_else(|| home.config_file());
        let environment: BTreeMap<String, String> = std::env::vars().collect();
        let all: Vec<Override> = self.set.iter().cloned().chain(flags).collect();
        Ok(Config::load(&file, self.config.is_some(), &environment, &all)?)
    }

    pub(crate) fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::new(self.home()?.models(), &self.config(Vec::new())?.models.hub))
    }
}

pub(crate) fn set(name: &str, value: impl ToString) -> Override {
    Override { name: name.into(), value: value.to_string() }
}

impl Reach {
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let mut flags = Vec::new();
        if !self.peers.is_empty() {
            flags.push(set("network.peers", self.peers.join(",")));
        }
        if self.loopback {
            flags.push(set("network.loopback", true));
        }
        flags
    }
}

impl NodeArgs {
    pub(crate) fn overrides(&self) -> Vec<Override> {
        let mut flags = self.reach.overrides();
        if !self.models.is_empty() {
            flags.push(set("provide.models", self.models.join(",")));
        }
        flags.extend(self.port.map(|port| set("network.port", port)));
        flags.extend(self.threads.map(|threads| set("provide.threads", threads)));
        flags.extend(self.api.as_ref().map(|api| set("api.listen", api)));
        flags
    }
}
