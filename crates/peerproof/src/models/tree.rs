//! The tree beside a model file, from which its ranges are opened.
//!
//! `NAME.tree` beside `NAME.gguf`: the values of the file's groups of 16 KiB,
//! 0.2 % of its size. It is built in one pass over the file when a range is first
//! needed, and kept; a tree that does not lead to the model's id is never used.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use peerproof_proof::ranges::{Builder, Group, Mode, Shape, Tree};
use peerproof_wire::{Digest, ModelId};

use super::{ModelError, Progress, Stage, Watch};
use crate::store::write_atomic;

/// What model files are opened in.
pub(crate) const GROUP: Group = Group::KIB_16;

/// The model id as the hash that it is.
pub(crate) fn root(id: ModelId) -> Digest {
    Digest::from_bytes(*id.as_bytes())
}

/// Where the tree of a model file is kept.
pub(super) fn path_of(model: &Path) -> PathBuf {
    model.with_extension("tree")
}

/// The tree of a model file: the kept one if it is there and right, else a new one, which is
/// then kept if the folder can be written.
///
/// # Errors
/// The file can't be read or is another one, or `watch` stops it.
pub(crate) fn of(model: &Path, id: ModelId, watch: Watch<'_>) -> Result<Tree, ModelError> {
    if let Some(tree) = load(model, id) {
        return Ok(tree);
    }
    let tree = build(model, watch)?;
    if tree.root() != root(id) {
        return Err(ModelError::Changed {
            path: model.to_owned(),
            expected: id.to_string(),
            got: tree.root().to_string(),
        });
    }
    keep(model, &tree);
    Ok(tree)
}

fn load(model: &Path, id: ModelId) -> Option<Tree> {
    let shape = Shape::new(fs::metadata(model).ok()?.len(), GROUP).ok()?;
    let path = path_of(model);
    // Nothing is read that can't be the tree of this file.
    let least = shape.groups().checked_mul(32)?;
    let length = fs::metadata(&path).ok()?.len();
    if !(least..least + 256).contains(&length) {
        return None;
    }
    let bytes = fs::read(&path).ok()?;
    let tree = Tree::from_bytes(Mode::Plain, &root(id), shape, &bytes);
    tree.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "built again")).ok()
}

/// Reads a file once.
pub(super) fn build(model: &Path, watch: Watch<'_>) -> Result<Tree, ModelError> {
    let io = |source| ModelError::Io { path: model.to_owned(), source };
    let mut file = File::open(model).map_err(io)?;
    let total = Some(file.metadata().map_err(io)?.len());
    let mut builder = Builder::new(Mode::Plain, GROUP);
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let n = file.read(&mut buffer).map_err(io)?;
        if n == 0 {
            break;
        }
        builder.update(&buffer[..n]);
        done += n as u64;
        if watch(Progress { stage: Stage::Hashing, done, total }).is_break() {
            return Err(ModelError::Cancelled);
        }
    }
    builder.finish().map_err(|error| io(std::io::Error::other(error)))
}

/// Keeps a tree; without it, it is built again when it is needed.
pub(super) fn keep(model: &Path, tree: &Tree) {
    let path = path_of(model);
    if let Err(error) = write_atomic(&path, &tree.to_bytes(), 0o644) {
        tracing::debug!(path = %path.display(), %error, "the tree of a model was not kept");
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    #[test]
    fn a_tree_is_kept_and_a_damaged_one_is_built_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = dir.path().join("m.gguf");
        let bytes: Vec<u8> = (0..100_000_u32).map(|index| (index / 7) as u8).collect();
        fs::write(&model, &bytes).expect("written");
        let id = ModelId::from_bytes(*blake3::hash(&bytes).as_bytes());
        let mut passes = 0;
        let mut tree = || {
            let mut hashed = false;
            let tree = of(&model, id, &mut |_| {
                hashed = true;
                ControlFlow::Continue(())
            });
            passes += usize::from(hashed);
            (tree.expect("a tree"), passes)
        };
        let (first, passes) = tree();
        assert_eq!((first.root(), passes), (root(id), 1));
        let (again, passes) = tree();
        assert_eq!((again, passes), (first.clone(), 1), "the kept tree is used");
        let mut stored = fs::read(path_of(&model)).expect("kept");
        stored[70] ^= 1;
        fs::write(path_of(&model), &stored).expect("written");
        let (rebuilt, passes) = tree();
        assert_eq!((rebuilt, passes), (first, 2), "a damaged tree is not");

        fs::write(&model, &bytes[1..]).expect("written");
        let changed = of(&model, id, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(changed, Err(ModelError::Changed { .. })));
    }
}
