//! `verify`.

use std::process::ExitCode;

use peerproof::Evidence;
use peerproof::verify::{AnswerJudgement, Judgement};

use crate::args::{Place, VerifyArgs};
use crate::output::print_json;

/// What a checkpoint covers and who vouches for it; whether the log holds it is for `log verify`.
fn show_checkpoint(note: &peerproof::verify::Vouched, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_json(note)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("log of     {}", note.log);
    println!("entries    {}", note.entries);
    println!("root       {}", note.root);
    println!("SIGNED     by the log's own key");
    for witness in &note.cosigners {
        println!("cosigned   by {} at {} s since 1970", witness.peer, witness.unix_s);
    }
    if note.cosigners.is_empty() {
        println!("unchecked  whether the log shows everybody the same; nobody has cosigned this");
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 0 if the answer holds, 3 if nothing was recomputed, 1 if it is wrong: the evidence
/// is then a file.
fn show_answer(
    place: &Place,
    judged: &AnswerJudgement,
    evidence: Option<&Evidence>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let folder = place.home()?.evidence();
    let file = evidence.map(|it| peerproof::evidence::write(&folder, it)).transpose()?;
    if json {
        let mut said = serde_json::to_value(judged)?;
        said["evidence"] = serde_json::json!(file);
        print_json(&said)?;
    } else {
        println!("provider   {}", judged.provider);
        println!("job        {}", judged.job_id);
        println!("model      {}", judged.model_id);
        let verdict = match judged.holds {
            Some(true) => "HOLDS",
            Some(false) => "WRONG",
            None => "unchecked",
        };
        println!("{verdict:10} {}", judged.statement);
        if let Some(file) = &file {
            println!("evidence   {}", file.display());
        }
        if judged.holds.is_none() {
            println!("           next: peerproof models pull {} --from-peers", judged.model_id);
        }
    }
    Ok(match judged.holds {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::FAILURE,
        None => ExitCode::from(3),
    })
}

/// Exit code 0 if every piece proves something, 3 if one is sound but proves nothing here, 1 if
/// one is worthless.
pub(crate) fn run(place: &Place, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    if let Some(note) = peerproof::verify::checkpoint(&args.file)? {
        return show_checkpoint(&note, args.json);
    }
    let store = place.store()?;
    let model =
        args.model.as_deref().map(|name| super::models::ensure(&store, name)).transpose()?;
    if let Some((judged, evidence)) = peerproof::verify::answer(&args.file, &store, model.as_ref())?
    {
        return show_answer(place, &judged, evidence.as_ref(), args.json);
    }
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
