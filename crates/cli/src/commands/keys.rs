//! `keys`.

use serde_json::json;

use crate::args::{KeysCommand, Place};
use crate::output::print_json;

pub(crate) fn run(place: &Place, command: KeysCommand) -> anyhow::Result<()> {
    let home = place.home()?;
    match command {
        KeysCommand::Show(args) => {
            let peer = home.key()?.public().peer_id().to_string();
            let file = home.key_file();
            if args.json {
                return print_json(&json!({ "peer": peer, "file": file }));
            }
            println!("{peer}\n{}", file.display());
        }
        KeysCommand::Rotate(args) => {
            let (old, new) = home.rotate_key()?;
            let (old, new) = (old.to_string(), new.to_string());
            if args.json {
                return print_json(&json!({ "old": old, "new": new }));
            }
            println!("old {old}\nnew {new}");
            println!(
                "The record earned under the old key stays with it; restart the node to use the new one."
            );
        }
    }
    Ok(())
}
