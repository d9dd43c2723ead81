//! Checks that follow answers in use: what became of each, for whoever asks.
//!
//! An entry begins before its answer is given out and ends with its check. Those
//! that ended are remembered, a bounded number of them, in memory; what they found
//! lies in the log and in files. Absent: the checks themselves (`asking`).

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::client::{CheckState, LaterCheck, Level};

/// Checks that are remembered; the oldest go first.
const MAX_CHECKS: usize = 4096;
/// The longest that a question may wait for its answer.
const MAX_WAIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Table {
    by_job: HashMap<String, (LaterCheck, Instant)>,
    /// Oldest first.
    order: VecDeque<String>,
}

/// Checks under way and done.
#[derive(Default)]
pub(super) struct Checks {
    table: Mutex<Table>,
    changed: Notify,
}

impl Checks {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A check will follow this answer.
    pub(super) fn begin(&self, job_id: String, provider: String, level: Level) {
        let mut table = self.table();
        if table.order.len() >= MAX_CHECKS
            && let Some(oldest) = table.order.pop_front()
        {
            table.by_job.remove(&oldest);
        }
        let (state, detail) = (CheckState::Running, "the check is under way".to_owned());
        let check = LaterCheck {
            job_id: job_id.clone(),
            provider,
            level,
            state,
            detail,
            file: None,
            check_ms: 0,
        };
        if table.by_job.insert(job_id.clone(), (check, Instant::now())).is_none() {
            table.order.push_back(job_id);
        }
    }

    /// The papers of the answer lie there.
    pub(super) fn papers(&self, job_id: &str, file: &Path) {
        if let Some((check, _)) = self.table().by_job.get_mut(job_id) {
            check.file = Some(file.display().to_string());
        }
    }

    /// It ended so. A file replaces the one named so far; without one that stays.
    pub(super) fn end(
        &self,
        job_id: &str,
        state: CheckState,
        detail: String,
        file: Option<PathBuf>,
    ) {
        if let Some((check, begun)) = self.table().by_job.get_mut(job_id) {
            check.check_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
            (check.state, check.detail) = (state, detail);
            match (state, file) {
                (CheckState::Held, _) => check.file = None,
                (_, Some(file)) => check.file = Some(file.display().to_string()),
                (_, None) => {}
            }
        }
        self.changed.notify_waiters();
    }

    fn look(&self, job_id: &str) -> Option<LaterCheck> {
        let table = self.table();
        let (check, begun) = table.by_job.get(job_id)?;
        let mut check = check.clone();
        if check.state == CheckState::Running {
            check.check_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        }
        Some(check)
    }

    /// How far the check of a job is, once it has ended or `patience` is over.
    pub(super) async fn wait(&self, job_id: &str, patience: Duration) -> Option<LaterCheck> {
        let until = tokio::time::Instant::now() + patience.min(MAX_WAIT);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on nothing is missed, whatever `look` sees.
            changed.as_mut().enable();
            let check = self.look(job_id)?;
            let ended = check.state != CheckState::Running;
            if ended || tokio::time::timeout_at(until, changed).await.is_err() {
                return Some(check);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_of_the_end_and_what_is_remembered_is_bounded() {
        let checks = std::sync::Arc::new(Checks::default());
        checks.begin("job".into(), "peer".into(), Level::Spot);
        checks.papers("job", Path::new("papers"));
        let running = checks.wait("job", Duration::ZERO).await.expect("it is known");
        assert_eq!((running.state, running.file.as_deref()), (CheckState::Running, Some("papers")));
        let waiting = tokio::spawn({
            let checks = std::sync::Arc::clone(&checks);
            async move { checks.wait("job", MAX_WAIT).await }
        });
        tokio::task::yield_now().await;
        checks.end("job", CheckState::Refuted, "layer 3".into(), Some("evidence".into()));
        let ended = waiting.await.expect("it ends").expect("it is known");
        assert_eq!((ended.state, ended.file.as_deref()), (CheckState::Refuted, Some("evidence")));
        assert!(checks.wait("another", MAX_WAIT).await.is_none());

        for number in 0..MAX_CHECKS {
            checks.begin(number.to_string(), "peer".into(), Level::Full);
        }
        let table = checks.table();
        assert_eq!((table.by_job.len(), table.order.len()), (MAX_CHECKS, MAX_CHECKS));
        assert!(!table.by_job.contains_key("job"), "the oldest went");
    }
}
