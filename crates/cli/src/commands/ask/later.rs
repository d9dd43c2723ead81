//! The check that follows an answer which is on the screen already (the mode `fraud_proof`).
//!
//! `ask` stays until it is done, and says what was found. Whoever doesn't want to wait
//! presses Ctrl-C, and is told where the answer's papers lie: with them the check can be
//! made at any later time.

use std::io::{IsTerminal, Write as _, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use peerproof::client::{CheckState, LaterCheck, Level, Outcome};

use crate::api::Api;

/// How long one question to the node waits; a pulse of the progress line.
const PULSE: Duration = Duration::from_secs(3);
/// The same before the answer's papers are on disk.
const FIRST_PULSE: Duration = Duration::from_millis(50);

/// What is said to who leaves now.
static FAREWELL: Mutex<Option<String>> = Mutex::new(None);

/// Ends the process as Ctrl-C does, with a word about a check that is not done.
pub(super) fn leave() -> ! {
    let farewell = FAREWELL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(farewell) = farewell.as_deref() {
        eprintln!("\n{farewell}");
    }
    // Held until the end: two who leave at once say it once.
    std::process::exit(130)
}

/// Makes Ctrl-C [`leave`].
pub(super) fn leave_on_ctrl_c() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            leave();
        }
    });
    Ok(())
}

/// Waits for the check that follows an answer; `None` if none does.
pub(super) fn wait(
    api: &Api,
    outcome: &Outcome,
    stays: bool,
) -> anyhow::Result<Option<LaterCheck>> {
    if !outcome.verification.pending {
        return Ok(None);
    }
    eprintln!("the answer is out; {} of it is under way", what(outcome.verification.level));
    let mut pulse = FIRST_PULSE;
    loop {
        let path = format!("/peerproof/checks/{}?wait_ms={}", outcome.job_id, pulse.as_millis());
        let check: LaterCheck = serde_json::from_value(api.json(&path)?)?;
        if let (Some(file), true) = (&check.file, pulse == FIRST_PULSE) {
            eprintln!("its papers are in {file} until it is done");
            pulse = PULSE;
        }
        *FAREWELL.lock().unwrap_or_else(PoisonError::into_inner) = farewell(&check, stays);
        if check.state != CheckState::Running {
            if stderr().is_terminal() {
                eprint!("\r\x1b[K");
            }
            return Ok(Some(check));
        }
        if stderr().is_terminal() {
            eprint!("\rchecking for {} s (Ctrl-C leaves) ", check.check_ms / 1000);
            let _ = stderr().flush();
        }
    }
}

/// `stays`: whether the node outlives this process, and goes on with the check.
fn farewell(check: &LaterCheck, stays: bool) -> Option<String> {
    let (CheckState::Running, Some(file)) = (check.state, &check.file) else { return None };
    Some(match stays {
        true => format!(
            "the answer was NOT CHECKED while you waited; the running node goes on with it, and bars who lied. Until it is done the papers are in {file}"
        ),
        false => format!(
            "the answer was NOT CHECKED; its papers are in {file}. Whoever has the model can check it at any time: peerproof verify {file}"
        ),
    })
}

fn what(level: Level) -> &'static str {
    match level {
        Level::Sampled => "a check by lot",
        Level::Spot => "a spot audit",
        Level::Light => "a light audit",
        Level::Full => "a full audit",
        Level::Receipt | Level::KOfN => "a check",
    }
}

/// Says what was found.
pub(super) fn print(check: &LaterCheck) {
    let verdict = match check.state {
        CheckState::Held => "checked",
        CheckState::Refuted => "REFUTED",
        CheckState::Doubted => "DOUBTED",
        CheckState::Running | CheckState::Unchecked => "NOT CHECKED",
    };
    println!("{verdict} · {} · after {} ms", check.detail, check.check_ms);
    if let (CheckState::Unchecked, Some(file)) = (check.state, &check.file) {
        println!("the answer's papers are in {file}; with the model: peerproof verify {file}");
    }
}

/// An answer that was found wrong after it was used is an error of the command.
pub(super) fn judge(check: &LaterCheck) -> anyhow::Result<()> {
    let evidence = check.file.as_deref().unwrap_or("none");
    match check.state {
        CheckState::Refuted => bail!(
            "the answer above is WRONG: {}; {} is barred; evidence: {evidence}",
            check.detail,
            check.provider
        ),
        CheckState::Doubted => {
            bail!("the answer above is doubted: {}; its papers: {evidence}", check.detail)
        }
        CheckState::Running | CheckState::Held | CheckState::Unchecked => Ok(()),
    }
}
