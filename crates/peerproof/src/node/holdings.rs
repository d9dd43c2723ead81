//! The model files this node holds, opened when they are first needed.
//!
//! A provider opens what it serves at start; a router opens a model only for
//! its first audit. Each file is opened once, and all roles share it.

use std::sync::Arc;

use peerproof_engine::model::Model;
use peerproof_engine::transformer::LoadOptions;
use peerproof_wire::{ModelId, ModelOffer};
use tokio::sync::OnceCell;

use super::NodeError;
use crate::models::Installed;

/// One model file.
pub(crate) struct Held {
    pub(crate) installed: Installed,
    pub(crate) id: ModelId,
    options: LoadOptions,
    model: OnceCell<Arc<Model>>,
}

impl Held {
    pub(crate) fn new(installed: Installed, options: LoadOptions) -> Result<Held, NodeError> {
        let id = installed.id.parse().map_err(|_| NodeError::Model {
            name: installed.name.clone(),
            message: format!(
                "the recorded id {} is not one; run: peerproof models verify {}",
                installed.id, installed.name
            ),
        })?;
        Ok(Held { installed, id, options, model: OnceCell::new() })
    }

    /// The opened model; opening takes a good part of a second and happens once.
    pub(crate) async fn open(&self) -> Result<Arc<Model>, NodeError> {
        let open = || async {
            let (path, options) = (self.installed.path.clone(), self.options);
            let opening = tokio::task::spawn_blocking(move || Model::open(&path, &options));
            let failed =
                |message: String| NodeError::Model { name: self.installed.name.clone(), message };
            let model = opening
                .await
                .map_err(|e| failed(e.to_string()))?
                .map_err(|e| failed(e.to_string()))?;
            if model.id() != self.id {
                return Err(failed(format!(
                    "the file has changed since it was pulled: expected id {}, got {}; run: peerproof models pull {}",
                    self.id,
                    model.id(),
                    self.installed.name
                )));
            }
            Ok(model)
        };
        self.model.get_or_try_init(open).await.cloned()
    }

    /// What is announced of it.
    pub(crate) async fn offer(&self) -> Result<ModelOffer, NodeError> {
        let model = self.open().await?;
        Ok(ModelOffer {
            model_id: self.id,
            name: self.installed.name.clone(),
            architecture: model.architecture().to_owned(),
            quantisation: model.quantisation().to_owned(),
            context_length: u32::try_from(model.context_length()).unwrap_or(u32::MAX),
            file_bytes: self.installed.bytes,
        })
    }
}

/// Every model file of this node.
#[derive(Default)]
pub(crate) struct Holdings(Vec<Arc<Held>>);

impl Holdings {
    /// Adds files, each once.
    pub(crate) fn add(
        &mut self,
        models: &[Installed],
        options: &LoadOptions,
    ) -> Result<Vec<Arc<Held>>, NodeError> {
        let mut added = Vec::new();
        for model in models {
            let known = self.0.iter().find(|held| held.installed.id == model.id).cloned();
            let held = match known {
                Some(held) => held,
                None => {
                    let held = Arc::new(Held::new(model.clone(), *options)?);
                    self.0.push(Arc::clone(&held));
                    held
                }
            };
            added.push(held);
        }
        Ok(added)
    }

    pub(crate) fn by_id(&self, id: ModelId) -> Option<&Arc<Held>> {
        self.0.iter().find(|held| held.id == id)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Held>> {
        self.0.iter().find(|held| held.installed.name == name)
    }
}
