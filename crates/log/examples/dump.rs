//! Writes a log of so many entries as the files that others would fetch of it.
//!
//! `dump FOLDER ENTRIES`: `checkpoint` (cosigned by one witness), `tile/…`, the
//! two verifier keys in `keys`, and an earlier checkpoint in `earlier`. Food for
//! implementations that are not ours; see `interop/log/`.
#![allow(clippy::disallowed_methods, reason = "an example writes files")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use peerproof_identity::Keypair;
use peerproof_log::memory::MemoryStorage;
use peerproof_log::note::key_hash_of;
use peerproof_log::{Log, Resource, Tile, Witness, witness};

/// 2026-01-01, the time of the cosignature.
const TIME: u64 = 1_767_225_600;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(entries)) = (arguments.next(), arguments.next()) else {
        return Err("usage: dump FOLDER ENTRIES".into());
    };
    let (folder, entries) = (Path::new(&folder), entries.parse::<u64>()?);
    let (key, other) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]));
    let names = [
        (peerproof_log::origin(&key.public().peer_id()), 1, key.public()),
        (witness::name(&other.public().peer_id()), 4, other.public()),
    ];
    let mut log = Log::open(MemoryStorage::default(), Arc::new(key))?;
    let mut witness = Witness::new(Arc::new(other), []);
    for from in (0..entries).step_by(1000) {
        let batch: Vec<_> =
            (from..entries.min(from + 1000)).map(|entry| format!("entry {entry}")).collect();
        log.append(&batch)?;
        if from == 0 {
            write(&folder.join("earlier"), note(&log)?.as_bytes())?;
        }
    }
    let advance = witness.consider(&log.add_checkpoint(0)?)?;
    let line = witness.cosign(advance, TIME)?;
    write(&folder.join("checkpoint"), format!("{}{line}\n", note(&log)?).as_bytes())?;

    let tiles = (0..8).flat_map(|level| (0..).map_while(move |i| Tile::in_tree(level, i, entries)));
    let bundles = (0..).map_while(|index| Tile::in_tree(0, index, entries));
    for resource in tiles.map(Resource::Hashes).chain(bundles.map(Resource::Entries)) {
        let bytes = log.resource(&resource)?.ok_or_else(|| format!("{resource} is not there"))?;
        write(&folder.join(resource.to_string()), &bytes)?;
    }
    let keys: String = names
        .iter()
        .map(|(name, kind, key)| {
            let hash = u32::from_be_bytes(key_hash_of(name, *kind, key));
            let material = [[*kind].as_slice(), key.as_bytes()].concat();
            format!("{name}+{hash:08x}+{}\n", BASE64.encode(material))
        })
        .collect();
    write(&folder.join("keys"), keys.as_bytes())?;
    Ok(())
}

fn note(log: &Log<MemoryStorage>) -> Result<&str, Box<dyn Error>> {
    Ok(log.checkpoint().ok_or("no checkpoint")?.note())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    Ok(fs::write(path, bytes)?)
}
