//! `bench quality`: what the integers cost in perplexity and agreement.

use std::path::Path;

use anyhow::Context as _;
use peerproof::bench::{Quality, quality};
use peerproof::models::Installed;

use super::figures::{Figure, Report};
use super::{TEXT, cores};

pub(super) fn run(
    model: &Installed,
    text: Option<&Path>,
    tokens: usize,
    chunk: usize,
) -> anyhow::Result<Report> {
    let own =
        text.map(|path| std::fs::read_to_string(path).with_context(|| path.display().to_string()));
    let text = own.transpose()?;
    let text = text.as_deref().unwrap_or(TEXT);
    let mut done = 0;
    let mut progress = |quality: &Quality| {
        done += quality.tokens;
        eprintln!(
            "{done} tokens: perplexity {:.3}, reference {:.3}",
            quality.perplexity, quality.reference_perplexity
        );
    };
    let parts = quality(&model.path, text, (tokens, chunk), cores(), &mut progress)?;
    let mut report = Report::new(model);
    let predicted: usize = parts.iter().map(|part| part.tokens).sum();
    let mean = |of: fn(&Quality) -> f64| {
        parts.iter().map(|part| of(part) * part.tokens as f64).sum::<f64>() / predicted as f64
    };
    let perplexity = mean(|part| part.perplexity.ln()).exp();
    let reference = mean(|part| part.reference_perplexity.ln()).exp();
    let change = 100.0 * (perplexity / reference - 1.0);
    let divergence: Vec<f64> = parts.iter().map(|part| part.divergence).collect();
    report.add(Figure::new("tokens predicted", "", &[predicted as f64]));
    report.add(Figure::new("perplexity, float reference", "", &[reference]));
    report.add(Figure::new("perplexity", "", &[perplexity]));
    report.add(Figure::new("change of perplexity", "%", &[change]));
    report.add(Figure::new("change of perplexity, either way", "%", &[change.abs()]).at_most(0.2));
    report.add(Figure::new("divergence (KL), mean", "nats", &[mean(|part| part.divergence)]));
    report.add(Figure::new("divergence (KL), by context", "nats", &divergence));
    report.add(Figure::new(
        "same most probable token",
        "%",
        &[100.0 * mean(|part| part.same_best)],
    ));
    Ok(report)
}
