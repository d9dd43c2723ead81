//! `verify`.

use std::process::ExitCode;

use crate::args::{Place, VerifyArgs};
use crate::output::print_json;

/// Exit code 0 if something is proven, 3 if the file is sound but proves nothing here.
pub(crate) fn run(place: &Place, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let store = place.store()?;
    let model =
        args.model.as_deref().map(|name| super::models::ensure(&store, name)).transpose()?;
    let judged = peerproof::verify::verify(&args.file, &store, model.as_ref())?;
    if args.json {
        print_json(&judged)?;
    } else {
        println!("accused    {}", judged.accused);
        println!("kind       {}", judged.kind);
        if let Some(id) = &judged.model_id {
            println!("model      {id}");
        }
        let verdict = if judged.proven { "PROVEN" } else { "not proven" };
        println!("{verdict:10} {}", judged.statement);
        if judged.recomputed {
            println!("           every position was recomputed on this machine");
        }
        for what in &judged.unchecked {
            println!("unchecked  {what}");
        }
    }
    Ok(if judged.proven { ExitCode::SUCCESS } else { ExitCode::from(3) })
}
