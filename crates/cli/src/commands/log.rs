//! `log show`, `verify`, `status` and `witnesses`: offline, beside a running node or without one.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use peerproof::home::Home;
use peerproof::log::{Line, cosigners, describe};
use peerproof::store::{self, Contents};
use serde_json::json;

use crate::args::{LogCommand, Place};
use crate::output::{print_json, print_json_line};

pub(crate) fn run(place: &Place, command: LogCommand) -> anyhow::Result<ExitCode> {
    let home = place.home()?;
    match command {
        LogCommand::Show { last, json } => show(&home, last, json),
        LogCommand::Verify(args) => verify(&home, args.json),
        LogCommand::Status(args) => status(&home, args.json),
        LogCommand::Witnesses(args) => witnesses(&home, args.json),
    }
}

/// The log of the current key.
fn open(home: &Home) -> anyhow::Result<Option<Contents>> {
    let key = home.key()?.public();
    let dir = home.log(&key.peer_id());
    if !dir.exists() {
        return Ok(None);
    }
    let contents = store::read_of(&dir, &key).with_context(|| dir.display().to_string())?;
    Ok(Some(contents))
}

fn show(home: &Home, last: usize, json: bool) -> anyhow::Result<ExitCode> {
    let Some(log) = open(home)? else {
        println!("the log is empty");
        return Ok(ExitCode::SUCCESS);
    };
    let skip = usize::try_from(log.len()).unwrap_or(usize::MAX).saturating_sub(last);
    for (index, entry) in log.entries().skip(skip) {
        let Line { unix_ms, kind, text, details } = describe(&entry?);
        if json {
            print_json_line(
                &json!({ "index": index, "unix_ms": unix_ms, "kind": kind, "entry": details }),
            )?;
        } else {
            println!("{index:6}  {}  {kind:9} {text}", time(unix_ms));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 1 if anything is damaged.
fn verify(home: &Home, json: bool) -> anyhow::Result<ExitCode> {
    let Some(log) = open(home)? else {
        println!("the log is empty");
        return Ok(ExitCode::SUCCESS);
    };
    let damage = log.verified.as_ref().err().map(ToString::to_string);
    let entries = log.len();
    let unreadable =
        log.entries().find_map(|(index, entry)| Some(format!("entry {index}: {}", entry.err()?)));
    let fault = damage.or(unreadable).or_else(|| behind(&home.log(&log.peer), &log));
    if json {
        let root = log.checkpoint().map(|c| hex(c.root()));
        print_json(
            &json!({ "peer": log.peer.to_string(), "entries": entries, "root": root, "fault": fault }),
        )?;
    } else {
        println!("log of    {}", log.peer);
        println!("entries   {entries}");
        if let Some(checkpoint) = log.checkpoint() {
            println!("root      {}", hex(checkpoint.root()));
        }
        match &fault {
            None => println!("every record, hash and signature holds"),
            Some(fault) => println!("DAMAGED   {fault}"),
        }
    }
    Ok(if fault.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong if others have seen another log than this.
fn behind(dir: &Path, log: &Contents) -> Option<String> {
    let seen = store::cosigned::read(dir, &log.peer.public_key()).ok()??;
    match log.reader().root(seen.size()) {
        Ok(root) if root == *seen.root() => None,
        Ok(_) => Some(format!(
            "others have seen {} entries of this log, and other ones: this is a second history",
            seen.size()
        )),
        Err(_) => Some(format!(
            "others have seen {} entries of this log, here are {}: this is an older copy",
            seen.size(),
            log.len()
        )),
    }
}

/// The newest checkpoint that others cosigned or showed, and who cosigned it.
fn seen(home: &Home) -> anyhow::Result<(u64, Vec<(String, u64)>)> {
    let key = home.key()?.public();
    let note = store::cosigned::read(&home.log(&key.peer_id()), &key)?;
    let named = |(peer, unix_s): (_, u64)| (ToString::to_string(&peer), unix_s);
    Ok(note.map_or((0, Vec::new()), |note| {
        (note.size(), cosigners(&note).into_iter().map(named).collect())
    }))
}

fn status(home: &Home, json: bool) -> anyhow::Result<ExitCode> {
    let Some(log) = open(home)? else {
        println!("the log is empty");
        return Ok(ExitCode::SUCCESS);
    };
    let (cosigned, by) = seen(home)?;
    let fault = behind(&home.log(&log.peer), &log);
    if json {
        print_json(&json!({
            "peer": log.peer.to_string(),
            "entries": log.len(),
            "root": log.checkpoint().map(|c| hex(c.root())),
            "cosigned_entries": cosigned,
            "cosigners": by.len(),
            "fault": fault,
        }))?;
    } else {
        println!("log of    {}", log.peer);
        println!("entries   {}", log.len());
        match by.len() {
            0 => println!("witnesses none: who holds no checkpoint of it would miss an older copy"),
            count => println!("witnesses {count}, up to entry {cosigned}"),
        }
        if let Some(fault) = &fault {
            println!("FENCED    {fault}; restore the newest copy, or: peerproof keys rotate");
        }
    }
    Ok(if fault.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn witnesses(home: &Home, json: bool) -> anyhow::Result<ExitCode> {
    let (size, by) = seen(home)?;
    if json {
        let all: Vec<_> = by.iter().map(|(peer, s)| json!({ "peer": peer, "unix_s": s })).collect();
        print_json(&json!({ "entries": size, "cosigners": all }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if by.is_empty() {
        println!(
            "nobody has cosigned this log; a provider or auditor asks the peers it is connected with"
        );
    }
    for (peer, unix_s) in by {
        println!("{peer}  {size} entries  {}", time(unix_s.saturating_mul(1000)));
    }
    Ok(ExitCode::SUCCESS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Date and time in UTC.
pub(super) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Gregorian date of a day counted from 1970-01-01: whole 400-year cycles of 146,097 days
/// that begin in March, so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, of_cycle) = (shifted / 146_097, shifted % 146_097);
    let year_of = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year_of + year_of / 4 - year_of / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (cycle * 400 + year_of + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_000, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
            (1_767_225_599_999, "2025-12-31 23:59:59"),
        ];
        for (unix_ms, expected) in cases {
            assert_eq!(time(unix_ms), expected);
        }
    }
}
