//! Prometheus text: what the gateway counts itself, and the node's counters.
//!
//! Labels come from finite sets only (route patterns, known methods, status
//! codes, levels), so no request can grow the series. Prompts, names of
//! models and peer ids are deliberately absent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peerproof::client::{Counters, EngineFigures, HeldModel, Level, NodeStatus, Outcome};

/// Upper edges in milliseconds, for all histograms.
const EDGES_MS: [u64; 14] =
    [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000];

/// How an answer ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Answered,
    Failed,
    Refused,
    Cancelled,
}

impl Ending {
    fn label(self) -> &'static str {
        match self {
            Ending::Answered => "answered",
            Ending::Failed => "failed",
            Ending::Refused => "refused",
            Ending::Cancelled => "cancelled",
        }
    }
}

/// Everything the gateway counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(String, &'static str, u16), u64>>,
    answers: Mutex<BTreeMap<Ending, u64>>,
    verifications: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    first_token: Histogram,
    duration: Histogram,
    check: Histogram,
}

impl Metrics {
    /// A response went out; `pattern` is the route's pattern, never the raw path.
    pub(crate) fn request(&self, pattern: &str, method: &str, status: u16) {
        let key = (pattern.to_owned(), known_method(method), status);
        *lock(&self.requests).entry(key).or_default() += 1;
    }

    /// The first text of an answer arrived.
    pub(crate) fn first_token(&self, after: Duration) {
        self.first_token.observe(after);
    }

    /// An answer was delivered with its checks passed.
    pub(crate) fn outcome(&self, outcome: &Outcome) {
        let report = &outcome.verification;
        let audited = if report.audited { "audited" } else { "unaudited" };
        *lock(&self.verifications).entry((level(report.level), audited)).or_default() += 1;
        self.prompt_tokens.fetch_add(outcome.prompt_tokens.into(), Ordering::Relaxed);
        self.completion_tokens.fetch_add(outcome.output_tokens.into(), Ordering::Relaxed);
        self.check.observe(Duration::from_millis(report.check_ms.into()));
    }

    /// A request for an answer is over.
    pub(crate) fn ended(&self, ending: Ending, after: Duration) {
        *lock(&self.answers).entry(ending).or_default() += 1;
        self.duration.observe(after);
    }

    /// All series, in Prometheus text format 0.0.4.
    pub(crate) fn render(&self, running: usize, status: &NodeStatus, node: &Counters) -> String {
        let mut out = Page(String::with_capacity(8 << 10));
        self.render_gateway(&mut out, running);
        render_node(&mut out, status, node);
        render_models(&mut out, status);
        out.0
    }

    fn render_gateway(&self, out: &mut Page, running: usize) {
        out.head("peerproof_http_requests_total", "counter", "Responses by route pattern.");
        for ((path, method, status), count) in lock(&self.requests).iter() {
            let labels = format!("{{path=\"{path}\",method=\"{method}\",status=\"{status}\"}}");
            out.sample("peerproof_http_requests_total", &labels, count);
        }
        out.head("peerproof_answers_total", "counter", "Requests for an answer by their end.");
        for (ending, count) in lock(&self.answers).iter() {
            let labels = format!("{{outcome=\"{}\"}}", ending.label());
            out.sample("peerproof_answers_total", &labels, count);
        }
        out.head("peerproof_verifications_total", "counter", "Answers that passed, by check.");
        for ((level, outcome), count) in lock(&self.verifications).iter() {
            let labels = format!("{{level=\"{level}\",outcome=\"{outcome}\"}}");
            out.sample("peerproof_verifications_total", &labels, count);
        }
        out.one("peerproof_answers_in_flight", "gauge", "Answers under way.", running);
        let tokens = self.prompt_tokens.load(Ordering::Relaxed);
        out.one("peerproof_prompt_tokens_total", "counter", "Tokens of prompts answered.", tokens);
        let tokens = self.completion_tokens.load(Ordering::Relaxed);
        out.one("peerproof_completion_tokens_total", "counter", "Tokens of answers.", tokens);
        let help = "From the request to the first text.";
        self.first_token.render(out, "peerproof_time_to_first_token_seconds", help);
        let help = "From the request to the end of the answer.";
        self.duration.render(out, "peerproof_answer_duration_seconds", help);
        let help = "Time that checking an answer took.";
        self.check.render(out, "peerproof_verification_duration_seconds", help);
    }
}

fn render_node(out: &mut Page, status: &NodeStatus, node: &Counters) {
    out.head("peerproof_jobs_total", "counter", "Jobs asked for by this node, by their end.");
    for (ending, count) in
        [("answered", node.answered), ("failed", node.failed), ("refused", node.refused)]
    {
        out.sample("peerproof_jobs_total", &format!("{{outcome=\"{ending}\"}}"), count);
    }
    for (name, help, value) in [
        ("peerproof_failovers_total", "Times another provider continued.", node.failovers),
        ("peerproof_audits_total", "Audits done or ordered.", node.audits),
        ("peerproof_received_tokens_total", "Tokens received from providers.", node.tokens_in),
        ("peerproof_served_tokens_total", "Tokens served as a provider.", node.tokens_out),
        ("peerproof_dial_failures_total", "Dial failures.", node.dial_failures),
        (
            "peerproof_shared_bytes_total",
            "Bytes of model files sent to others.",
            status.shared_bytes,
        ),
        ("peerproof_model_evictions_total", "Models let go for others.", status.evictions),
    ] {
        out.one(name, "counter", help, value);
    }
    let seconds = seconds(node.audit_ms);
    out.one("peerproof_audit_seconds_total", "counter", "Time spent in audits.", seconds);
    for (name, help, value) in [
        ("peerproof_peers", "Connected peers.", status.peers as u64),
        ("peerproof_jobs_asking", "Jobs under way as a router.", status.asking.into()),
        ("peerproof_jobs_serving", "Jobs running as a provider.", status.active_jobs.into()),
        ("peerproof_jobs_queued", "Jobs waiting as a provider.", status.queued_jobs.into()),
        ("peerproof_log_entries", "Entries of the transparency log.", status.log_entries),
        ("peerproof_uptime_seconds", "Since the node's start.", status.uptime_s),
    ] {
        out.one(name, "gauge", help, value);
    }
}

fn render_models<'a>(out: &mut Page, status: &'a NodeStatus) {
    let name = "peerproof_model_loaded_bytes";
    out.head(name, "gauge", "Memory of a model that is held; 0 while it is not open.");
    for model in &status.models {
        // Names of files may hold anything; ids are hexadecimal.
        let labels = format!("{{model_id=\"{}\"}}", model.id);
        out.sample(name, &labels, model.loaded_bytes.unwrap_or(0));
    }
    let engine = |model: &'a HeldModel| Some((model.id.as_str(), model.engine.as_ref()?));
    render_engines(out, status.models.iter().filter_map(engine));
    let (name, help) = ("peerproof_memory_budget_bytes", "Memory that models may take.");
    out.one(name, "gauge", help, status.memory_budget_bytes);
}

/// A family of samples of the engines: name, kind, help, and the figure it shows.
type EngineSample = (&'static str, &'static str, &'static str, fn(&EngineFigures) -> u64);

const ENGINE_SAMPLES: [EngineSample; 12] = [
    ("jobs_active", "gauge", "Answers in the making.", |f| f.jobs_active),
    ("jobs_waiting", "gauge", "Jobs that wait for the engine.", |f| f.jobs_waiting),
    ("batch_tokens", "gauge", "Tokens of the last forward pass.", |f| f.batch_tokens),
    ("passes_total", "counter", "Forward passes.", |f| f.passes),
    ("computed_tokens_total", "counter", "Tokens computed.", |f| f.computed_tokens),
    ("reused_tokens_total", "counter", "Tokens taken over from kept pages.", |f| f.reused_tokens),
    ("page_bytes", "gauge", "Size of a page of the cache.", |f| f.page_bytes),
    ("pages_used", "gauge", "Pages in use.", |f| f.pages_used),
    ("pages_kept", "gauge", "Pages kept for the same clients.", |f| f.pages_kept),
    ("pages_free", "gauge", "Pages that may still be made.", |f| {
        f.pages.saturating_sub(f.pages_used + f.pages_kept)
    }),
    ("pages_evicted_total", "counter", "Kept pages given up.", |f| f.pages_evicted),
    ("jobs_set_back_total", "counter", "Jobs that gave pages to older ones.", |f| f.jobs_set_back),
];

/// Figures of engines, each with its model's id.
fn render_engines<'a>(
    out: &mut Page,
    engines: impl Iterator<Item = (&'a str, &'a EngineFigures)> + Clone,
) {
    for (name, kind, help, figure) in ENGINE_SAMPLES {
        let name = format!("peerproof_engine_{name}");
        out.head(&name, kind, help);
        for (model, figures) in engines.clone() {
            out.sample(&name, &format!("{{model_id=\"{model}\"}}"), figure(figures));
        }
    }
}

/// Counts by fixed edges.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; EDGES_MS.len()],
    count: AtomicU64,
    sum_ms: AtomicU64,
}

impl Histogram {
    fn observe(&self, value: Duration) {
        let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        if let Some(i) = EDGES_MS.iter().position(|edge| ms <= *edge) {
            self.buckets[i].fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ms.fetch_add(ms, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn render(&self, out: &mut Page, name: &str, help: &str) {
        out.head(name, "histogram", help);
        let mut below = 0;
        for (edge, bucket) in EDGES_MS.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            out.sample(&format!("{name}_bucket"), &format!("{{le=\"{}\"}}", seconds(*edge)), below);
        }
        let count = self.count.load(Ordering::Relaxed).max(below);
        out.sample(&format!("{name}_bucket"), "{le=\"+Inf\"}", count);
        out.sample(&format!("{name}_sum"), "", seconds(self.sum_ms.load(Ordering::Relaxed)));
        out.sample(&format!("{name}_count"), "", count);
    }
}

/// Lines of the exposition format. Writing to a string cannot fail.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, kind, help);
        self.sample(name, "", value);
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Receipt => "receipt",
        Level::Sampled => "sampled",
        Level::Spot => "spot",
        Level::Light => "light",
        Level::Full => "full",
        Level::KOfN => "k_of_n",
    }
}

fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("OTHER")
}

/// Counters stay right if a holder panicked between two increments.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_in_infinity() {
        let histogram = Histogram::default();
        for ms in [1, 5, 6, 400_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let mut page = Page(String::new());
        histogram.render(&mut page, "x", "y");
        for line in [
            "x_bucket{le=\"0.005\"} 2",
            "x_bucket{le=\"0.01\"} 3",
            "x_bucket{le=\"300\"} 3",
            "x_bucket{le=\"+Inf\"} 4",
            "x_sum 400.012",
            "x_count 4",
        ] {
            assert!(page.0.lines().any(|l| l == line), "{line} not in\n{}", page.0);
        }
    }

    #[test]
    fn engines_show_their_pages_and_batches() {
        let figures = EngineFigures {
            batch_tokens: 9,
            pages: 10,
            pages_used: 4,
            pages_kept: 1,
            reused_tokens: 64,
            ..EngineFigures::default()
        };
        let mut page = Page(String::new());
        render_engines(&mut page, [("ab", &figures)].into_iter());
        for line in [
            "# TYPE peerproof_engine_batch_tokens gauge",
            "peerproof_engine_batch_tokens{model_id=\"ab\"} 9",
            "peerproof_engine_pages_used{model_id=\"ab\"} 4",
            "peerproof_engine_pages_free{model_id=\"ab\"} 5",
            "peerproof_engine_reused_tokens_total{model_id=\"ab\"} 64",
        ] {
            assert!(page.0.lines().any(|l| l == line), "{line} not in\n{}", page.0);
        }
    }

    #[test]
    fn made_up_methods_share_one_series() {
        let metrics = Metrics::default();
        metrics.request("/v1/models", "BREW", 405);
        metrics.request("/v1/models", "STEEP", 405);
        assert_eq!(lock(&metrics.requests).len(), 1);
    }
}
