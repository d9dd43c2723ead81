//! The integer weights of the real models beside their dequantised floats.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use peerproof_engine::gguf::{GgmlType, Gguf};
use peerproof_engine::reference::weight_error;

/// The largest difference between a weight and its integer, in parts of the
/// largest weight, for each format that the file has.
fn errors(path: std::path::PathBuf) -> Vec<(GgmlType, f64)> {
    let gguf = Gguf::open(path).unwrap();
    let mut errors: Vec<(GgmlType, f64)> = Vec::new();
    for tensor in gguf.tensors() {
        let error = weight_error(&tensor).unwrap();
        match errors.iter_mut().find(|entry| entry.0 == tensor.kind) {
            Some(entry) => entry.1 = entry.1.max(error),
            None => errors.push((tensor.kind, error)),
        }
    }
    errors
}

/// A scale is off by half a unit at most, and is multiplied by at most this.
fn bound(kind: GgmlType) -> f64 {
    let (largest, bits) = match kind {
        GgmlType::F32 => (1, 18),
        GgmlType::Q4_1 => (15 + 1, 18),
        GgmlType::Q5_0 => (16, 18),
        GgmlType::Q8_0 => (128, 18),
        GgmlType::Q4K => (63 * 15 + 63, 24),
        GgmlType::Q6K => (128 * 32, 24),
        other => panic!("no model here has {other}"),
    };
    // The largest weight is at least 2^bits; floats round products themselves.
    f64::from(largest) / 2.0 / f64::from(1 << bits) + 2f64.powi(-23)
}

fn check(path: std::path::PathBuf, kinds: &[GgmlType]) {
    let errors = errors(path);
    assert!(kinds.iter().all(|kind| errors.iter().any(|entry| entry.0 == *kind)), "{errors:?}");
    for (kind, error) in errors {
        println!("{kind}: {error:e} of {:e}", bound(kind));
        assert!(error <= bound(kind), "{kind} {error:e}");
    }
}

#[test]
fn integers_are_the_floats_of_the_default_model() {
    check(support::real_model(), &[GgmlType::F32, GgmlType::Q4_1, GgmlType::Q8_0]);
}

#[test]
fn integers_are_the_floats_of_gemma() {
    check(support::gemma(), &[GgmlType::Q5_0, GgmlType::Q8_0, GgmlType::Q4K, GgmlType::Q6K]);
}
