//! The numbers of `docs/spec/job.md` are those of the code.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use peerproof_job::limits::*;
use peerproof_job::reputation::Rules;
use peerproof_job::{Fault, auditor, provider, router};

#[test]
fn the_page_says_what_the_code_does() {
    let page = include_str!("../../../docs/spec/job.md");
    let (desk, bench, job) =
        (provider::Config::default(), auditor::Config::default(), router::Options::default());
    let thousands = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for words in [
        format!("every {COMMIT_EVERY}nd token"),
        format!("the last {} offers", thousands(MAX_REMEMBERED_OFFERS)),
        format!(
            "the deadline is {} s to {} h",
            MIN_DEADLINE_MS / 1000,
            desk.max_deadline_ms / 3_600_000
        ),
        format!("(*default* {})", desk.max_per_peer),
        format!("(*default* {} running, {} waiting)", desk.max_running, desk.max_queued),
        format!("At most {MAX_FRAMES_IN_FLIGHT} frames"),
        format!("closed after {} s (*default*)", desk.open_ms / 1000),
        format!("stays open {} s (*default*)", desk.linger_ms / 1000),
        format!(
            "the last {} jobs as far as {} MiB",
            thousands(MAX_FINISHED_JOBS),
            MAX_FINISHED_BYTES >> 20
        ),
        format!("after {} ms and four round trips", job.hedge_accept_ms),
        format!("token {} ms and two round trips", thousands(job.hedge_token_ms as usize)),
        format!(
            "reached in {} s, accepts nothing in {} s",
            job.open_ms / 1000,
            job.accept_ms / 1000
        ),
        format!(
            "no first token in {} s, is silent for {} s",
            job.first_token_ms / 1000,
            job.stall_ms / 1000
        ),
        format!("at most {MAX_ATTEMPTS_PER_PROVIDER} times"),
        format!("{MAX_BUSY_TURNS} answers of this kind"),
        format!("{READ_FLOOR_MS} ms for each token"),
        format!("at most {MAX_ATTEMPTS} attempts (*default* {})", job.max_attempts),
        format!("at most {} s (*default*)", job.total_ms / 1000),
        format!("to `n` providers (*default* {})", job.n),
        format!("or {} s (*default*) after `k` (*default* {}) agree", job.grace_ms / 1000, job.k),
        format!(
            "ask {} times at once and then once in {} s; after twelve sound cases, {} times at once and then once in {} s",
            bench.stranger.burst,
            bench.stranger.refill_ms / 1000,
            bench.known.burst,
            bench.known.refill_ms / 1000
        ),
        format!(
            "ask {} times at once and then once in {} ms",
            bench.group.burst, bench.group.refill_ms
        ),
        format!(
            "{} at once and then once in {} ms for a key",
            bench.draws.burst, bench.draws.refill_ms
        ),
        format!("at most {} good (*default*)", Rules::default().group_cap),
        format!("a half-life of `h` days (*default* {})", Rules::default().half_life_days),
        format!("beyond {MAX_GROUPS_PER_RECORD} groups"),
        format!("{} audit runs, {MAX_QUEUED_AUDITS} wait", bench.max_running),
        format!("{MAX_WAITERS_PER_AUDIT} streams may wait"),
        format!("the last {} verdicts", thousands(MAX_CACHED_VERDICTS)),
    ] {
        assert!(page.contains(&words), "docs/spec/job.md does not say: {words}");
    }
}

#[test]
fn the_page_lists_every_fault() {
    let page = include_str!("../../../docs/spec/job.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for code in
        ["unreachable", "dropped", "stalled", "garbage", "out-of-order", "refused", "minority"]
            .into_iter()
            .chain(["unanswered-challenge", "bindings", "log-proof", "openings", "false-prefix"])
            .chain(["accused", "false-verdict", "false-accusation"])
    {
        let fault = Fault::of_reason(code).unwrap();
        let row = rows.iter().find(|row| row.contains(&format!("`{code}`"))).unwrap();
        assert_eq!(row.contains("barred"), fault.bars(), "{code}");
        assert!(
            fault.bars()
                || row.contains(&format!("{} bad", fault.weight()))
                || row.contains("1, 2 bad"),
            "{code}"
        );
    }
}
