//! What a model file's header tells of a model: the card that `models show` prints.
//!
//! The file's header is read, its weights stay where they are. Deliberately absent:
//! whether the weights can be used, which opening the model says.

use std::path::PathBuf;

use peerproof_engine::gguf::{Gguf, GgufError};
use peerproof_engine::template::ChatTemplate;
use peerproof_engine::transformer::Transformer;
use serde::Serialize;

use super::{Installed, ModelError};

const TEMPLATE: &str = "tokenizer.chat_template";

/// What a model file says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// Short name.
    pub name: String,
    /// Model id, 64 hex digits.
    pub id: String,
    /// Size of the file.
    pub bytes: u64,
    /// Where it came from.
    pub source: String,
    /// The file.
    pub path: PathBuf,
    /// What the file calls itself.
    pub title: String,
    /// Family.
    pub architecture: String,
    /// Most tokens of prompt and answer together.
    pub context_length: u32,
    /// Tensors in the file.
    pub tensors: usize,
    /// Whether it takes chats: it has a chat template that can be used.
    pub chat: bool,
    /// Why it takes none, though it has a template.
    pub chat_trouble: Option<String>,
    /// Memory of its weights once they are loaded; like the next two absent where
    /// the engine can't run the file.
    pub weights_bytes: Option<u64>,
    /// Memory of the cache for each token of a conversation.
    pub cache_bytes_per_token: Option<u64>,
    /// Memory that a forward pass works in.
    pub scratch_bytes: Option<u64>,
}

/// Reads a model file's header.
///
/// # Errors
/// When the file is not a valid GGUF file; the error names the key or tensor.
pub fn card(model: &Installed) -> Result<Card, ModelError> {
    let broken = |error: GgufError| ModelError::Gguf {
        path: model.path.clone(),
        message: error.to_string(),
    };
    let file = Gguf::open(&model.path).map_err(broken)?;
    let text = |key: &str| {
        Ok::<_, ModelError>(file.optional_str(key).map_err(broken)?.unwrap_or("").to_owned())
    };
    let architecture = text("general.architecture")?;
    let context = file.optional_u32(&format!("{architecture}.context_length")).map_err(broken)?;
    let needs = Transformer::estimate(&file).ok();
    let template = file.optional_str(TEMPLATE).map_err(broken)?;
    let chat_trouble = template.and_then(trouble_of);
    Ok(Card {
        name: model.name.clone(),
        id: model.id.clone(),
        bytes: model.bytes,
        source: model.source.clone(),
        path: model.path.clone(),
        title: text("general.name")?,
        context_length: context.unwrap_or(0),
        tensors: file.tensors().count(),
        chat: template.is_some() && chat_trouble.is_none(),
        chat_trouble,
        architecture,
        weights_bytes: needs.map(|needs| needs.weights),
        cache_bytes_per_token: needs.map(|needs| needs.kv_per_position),
        scratch_bytes: needs.map(|needs| needs.scratch + needs.logits),
    })
}

/// Why a model takes no chats though its file has a chat template; a file that can't be read has
/// other troubles, and says them when it is opened.
#[must_use]
pub fn chat_trouble(model: &Installed) -> Option<String> {
    let file = Gguf::open(&model.path).ok()?;
    trouble_of(file.optional_str(TEMPLATE).ok()??)
}

/// What is wrong with a template; which tokens begin and end texts makes no difference to that.
fn trouble_of(template: &str) -> Option<String> {
    ChatTemplate::new(template, "", "").err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    /// A file of one key, the chat template.
    fn model(dir: &tempfile::TempDir, template: &str) -> Installed {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        for text in [TEMPLATE, template] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
            if text == TEMPLATE {
                bytes.extend(8_u32.to_le_bytes());
            }
        }
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, &bytes).unwrap();
        Installed {
            name: "model".into(),
            id: String::new(),
            bytes: bytes.len() as u64,
            source: String::new(),
            path,
        }
    }

    #[test]
    fn a_template_that_nobody_can_use_is_told_on_the_card() {
        let dir = tempfile::tempdir().unwrap();
        let good = model(&dir, "{% for m in messages %}{{ m.content }}{% endfor %}");
        let known = card(&good).unwrap();
        assert_eq!((known.chat, known.chat_trouble), (true, None));
        assert_eq!(chat_trouble(&good), None);

        let dated = model(&dir, "{{ strftime_now('%Y') }}");
        let known = card(&dated).unwrap();
        assert!(!known.chat);
        assert!(known.chat_trouble.unwrap().contains("strftime_now"));
        assert!(chat_trouble(&dated).unwrap().contains("strftime_now"));
    }
}
