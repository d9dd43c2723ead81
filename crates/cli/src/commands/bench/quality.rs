//! `bench quality`: what the integers cost in perplexity and agreement.

use std::path::Path;

use peerproof::bench::{Quality, Scope, quality};
use peerproof::models::Installed;

use super::cores;
use super::figures::{Figure, Report};

/// The part of the text to compare on, in tokens, tokens a context, and contexts before it.
pub(super) struct Part {
    pub(super) tokens: usize,
    pub(super) context: usize,
    pub(super) skip: usize,
}

pub(super) fn run(
    model: &Installed,
    text: &str,
    Part { tokens, context, skip }: Part,
    base: Option<&Path>,
) -> anyhow::Result<Report> {
    let mut done = 0;
    let mut progress = |of: usize, so_far: &Quality| {
        done += 1;
        eprintln!(
            "context {done} of {of}: perplexity {:.3}, reference {:.3}, divergence {:.2e}",
            so_far.perplexity, so_far.reference_perplexity, so_far.divergence
        );
    };
    let scope = Scope { text, tokens, context, skip, threads: cores(), base };
    let compared = quality(&model.path, &scope, &mut progress)?;
    let mut report = Report::new(model);
    summary(&mut report, "", &compared.all);
    let divergence: Vec<f64> = compared.contexts.iter().map(|part| part.divergence).collect();
    report.add(Figure::new("divergence (KL), by context", "nats", &divergence));
    summary(&mut report, "second halves: ", &compared.second_half);
    Ok(report)
}

fn summary(report: &mut Report, which: &str, quality: &Quality) {
    let mut add = |what: &str, unit, value: f64| {
        report.add(Figure::new(format!("{which}{what}"), unit, &[value]));
    };
    let change = 100.0 * quality.perplexity_change();
    add("tokens predicted", "", quality.tokens as f64);
    add("perplexity, float reference", "", quality.reference_perplexity);
    add("perplexity", "", quality.perplexity);
    add("change of perplexity", "%", change);
    add("divergence (KL), mean", "nats", quality.divergence);
    add("same most probable token", "%", 100.0 * quality.same_best);
    let either = format!("{which}change of perplexity, either way");
    report.add(Figure::new(either, "%", &[change.abs()]).at_most(0.2));
}
