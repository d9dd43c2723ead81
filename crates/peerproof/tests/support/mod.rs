//! The default model, where tests find it.

use std::path::PathBuf;
use std::sync::OnceLock;

use peerproof::models::Installed;

/// The default model as a node's store would list it; read and hashed once.
pub(crate) fn model() -> &'static Installed {
    static MODEL: OnceLock<Installed> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = std::env::var_os("PEERPROOF_TEST_MODEL").map_or_else(cached, PathBuf::from);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: run `cargo run --release -- models pull smollm2-135m` first",
                path.display()
            )
        });
        Installed {
            name: "smollm2-135m".into(),
            id: blake3::hash(&bytes).to_hex().to_string(),
            bytes: bytes.len() as u64,
            source: path.display().to_string(),
            path,
        }
    })
}

fn cached() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    cache.join("peerproof/models/smollm2-135m.gguf")
}
