//! Figures: samples, their medians, and the goals they are held against.

use std::fmt;
use std::time::Duration;

use peerproof::models::Installed;
use serde::Serialize;

/// Everything one command measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    model: String,
    model_id: String,
    file_bytes: u64,
    pub(super) figures: Vec<Figure>,
    /// What no figure says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernels: &'static str,
}

impl Report {
    pub(super) fn new(model: &Installed) -> Report {
        let machine = Machine {
            processor: processor(),
            cores: super::cores(),
            kernels: peerproof::bench::kernels(),
        };
        Report {
            machine,
            model: model.name.clone(),
            model_id: model.id.clone(),
            file_bytes: model.bytes,
            figures: vec![],
            notes: vec![],
        }
    }

    pub(super) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub(super) fn note(&mut self, note: &'static str) {
        self.notes.push(note);
    }
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned());
    name.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// One measured quantity.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    name: String,
    unit: &'static str,
    median: f64,
    lowest: f64,
    highest: f64,
    samples: usize,
    /// The most that the median should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

impl Figure {
    /// A figure of at least one sample.
    pub(super) fn new(name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Figure {
        let sorted = sorted(samples);
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        Figure {
            name: name.into(),
            unit,
            median: median(samples),
            lowest: end(sorted.first()),
            highest: end(sorted.last()),
            samples: samples.len(),
            goal: None,
            met: None,
        }
    }

    /// Holds the median against the most that it should be.
    pub(super) fn at_most(mut self, goal: f64) -> Figure {
        self.met = Some(self.median <= goal);
        self.goal = Some(goal);
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernels } = &self.machine;
        writeln!(f, "{processor}, {cores} cores, {kernels} kernels")?;
        writeln!(f, "{} ({}), {} bytes\n", self.model, &self.model_id, self.file_bytes)?;
        let head =
            format!("{:52} {:>10} {:8} {:>21} {:>4}", "", "median", "", "lowest … highest", "n");
        writeln!(f, "{head}  goal")?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = format!("{} … {}", number(self.lowest), number(self.highest));
        write!(
            f,
            "{:52} {:>10} {:8} {range:>21} {:>4}  ",
            self.name,
            number(self.median),
            self.unit,
            self.samples
        )?;
        let Some(goal) = self.goal else { return Ok(()) };
        let met = if self.met == Some(true) { "met" } else { "missed" };
        write!(f, "≤ {}: {met}", number(goal))
    }
}

/// Four significant digits, and no more than are there.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v == v.trunc() && v < 1e12 => 0,
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        v if v >= 0.1 => 3,
        _ => return format!("{value:.2e}"),
    };
    format!("{value:.digits$}")
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(samples: &[f64]) -> f64 {
    let sorted = sorted(samples);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

pub(super) fn ms(duration: Duration) -> f64 {
    1e3 * duration.as_secs_f64()
}

pub(super) fn us(duration: Duration) -> f64 {
    1e6 * duration.as_secs_f64()
}

/// `part` of `whole`, in percent.
pub(super) fn percent(part: f64, whole: f64) -> f64 {
    100.0 * part / whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_in_the_middle() {
        for (samples, expected) in
            [(&[3.0][..], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 9.0], 3.0)]
        {
            assert_eq!(median(samples), expected, "{samples:?}");
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn goals_are_held_against_the_median() {
        let met = |goal| Figure::new("x", "ms", &[1.0, 2.0, 90.0]).at_most(goal).met;
        assert_eq!(met(2.0), Some(true));
        assert_eq!(met(1.9), Some(false));
    }

    #[test]
    fn numbers_keep_their_digits() {
        let cases = [
            (0.0, "0"),
            (512.0, "512"),
            (1234.56, "1235"),
            (123.45, "123.5"),
            (12.345, "12.35"),
            (1.2345, "1.234"),
            (0.5, "0.500"),
            (0.000_024, "2.40e-5"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }
}
