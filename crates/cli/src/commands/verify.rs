//! `verify`.

use std::process::ExitCode;

use peerproof::verify::Judgement;

use crate::args::{Place, VerifyArgs};
use crate::output::print_json;

/// Exit code 0 if every piece proves something, 3 if one is sound but proves nothing here, 1 if
/// one is worthless.
pub(crate) fn run(place: &Place, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let store = place.store()?;
    let model =
        args.model.as_deref().map(|name| super::models::ensure(&store, name)).transpose()?;
    let all = peerproof::verify::verify_all(&args.file, &store, model.as_ref())?;
    let single = all.len() == 1;
    let (mut judged, mut worthless) = (Vec::new(), 0);
    for one in all {
        match one {
            Ok(one) => judged.push(one),
            Err(error) if single => return Err(error.into()),
            Err(error) => {
                eprintln!("error: {error}");
                worthless += 1;
            }
        }
    }
    match (args.json, judged.as_slice()) {
        (true, [one]) if single => print_json(one)?,
        (true, many) => print_json(&many)?,
        (false, many) => many.iter().for_each(print),
    }
    let unproven = judged.iter().any(|judged| !judged.proven);
    Ok(match (worthless, unproven) {
        (0, false) => ExitCode::SUCCESS,
        (0, true) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    })
}

fn print(judged: &Judgement) {
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
