//! What a person sees: log lines, progress bars, JSON.

use std::io::{IsTerminal, stderr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use peerproof::models::{Progress, Stage};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// Sends log lines to standard error: text on a terminal, one JSON object a line elsewhere.
pub(crate) fn start_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    if stderr().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().init();
    }
}

pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(crate) fn print_json_line(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// Bytes with a binary prefix.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// Signals closer together than this are one press of Ctrl-C.
const SAME_PRESS: Duration = Duration::from_millis(300);

static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C end what reports its progress, which then cleans up; a second one ends the process.
pub(crate) fn stop_on_ctrl_c() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut first: Option<Instant> = None;
            while tokio::signal::ctrl_c().await.is_ok() {
                STOP.store(true, Ordering::Relaxed);
                // Some senders signal a process and its group: that is one Ctrl-C.
                if first.get_or_insert_with(Instant::now).elapsed() > SAME_PRESS {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

/// Whether Ctrl-C was pressed.
pub(crate) fn stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// A progress bar on a terminal; a line a stage and a quarter elsewhere.
pub(crate) struct Bar {
    bar: ProgressBar,
    name: String,
    stage: Option<Stage>,
    quarter: u64,
}

impl Bar {
    pub(crate) fn new(name: &str) -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        let style =
            "{msg:20} [{bar:40}] {bytes:>10} / {total_bytes:10} {bytes_per_sec:>12} {eta:>4}";
        bar.set_style(
            ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Bar { bar, name: name.to_owned(), stage: None, quarter: 0 }
    }

    pub(crate) fn report(&mut self, progress: Progress) -> ControlFlow<()> {
        if self.stage != Some(progress.stage) {
            self.stage = Some(progress.stage);
            self.quarter = 0;
            self.bar.reset();
            self.bar.set_message(format!("{} {}", verb(progress.stage), self.name));
            if !stderr().is_terminal() && progress.stage == Stage::Fetching {
                eprintln!("{} {} …", verb(progress.stage), self.name);
            }
        }
        if let Some(total) = progress.total {
            self.bar.set_length(total);
            let quarter = (4 * progress.done).checked_div(total).unwrap_or(4);
            if quarter > self.quarter
                && !stderr().is_terminal()
                && progress.stage == Stage::Fetching
            {
                eprintln!("{} {}: {} %", verb(progress.stage), self.name, 25 * quarter);
            }
            self.quarter = self.quarter.max(quarter);
        }
        self.bar.set_position(progress.done);
        if STOP.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Fetching => "fetching",
        Stage::Storing => "storing",
        Stage::Hashing => "checking",
    }
}
