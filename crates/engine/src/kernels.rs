//! The inner loops, each in several forms that give the same bits.
//!
//! [`KernelPath`] names the form: plain Rust that any compiler vectorises as it
//! can, or the same sums written for AVX2 or AVX-512. `rows` holds the loops over
//! one row of values; they are plain Rust compiled once for each path. A path
//! that the processor lacks never runs: `Kernels::new` is the only way to
//! `Kernels`, and asks [`KernelPath::available`].
//!
//! The product with a matrix is written twice: in `portable` in plain Rust for
//! whatever `Layout` says, and in `tile` over vectors of
//! sixteen rows, which `avx2` and `avx512` fill with instructions.

#![deny(clippy::float_arithmetic)]

mod attend;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod rows;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tile;

use std::ops::Range;
use std::sync::OnceLock;

use crate::arith::tables::Curve;
use crate::weights::Matrix;

pub(crate) use attend::{Cache, MAX_HEAD_DIMS, Query};
pub(crate) use rows::{Normed, WideNormed};

static CHOSEN: OnceLock<KernelPath> = OnceLock::new();

/// Which form of the inner loops runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KernelPath {
    /// Plain Rust.
    Portable,
    /// 256-bit vectors.
    Avx2,
    /// 512-bit vectors with 16-bit multiply-add (AVX-512 F, BW, DQ, VL, VNNI).
    Avx512,
}

impl KernelPath {
    /// The paths this processor can run, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut paths = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                paths.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                paths.push(Self::Avx512);
            }
        }
        paths
    }

    /// The path that runs unless a caller names one: what [`choose`](Self::choose) set for this
    /// process, or the fastest that this processor can run.
    #[must_use]
    pub fn best() -> Self {
        let fastest = || Self::available().pop().unwrap_or(Self::Portable);
        CHOSEN.get().copied().unwrap_or_else(fastest)
    }

    /// Makes this path what [`best`](Self::best) names from then on. A process chooses once,
    /// at its start; a path that the processor lacks, or a second choice, is not taken.
    #[must_use]
    pub fn choose(self) -> bool {
        self.is_available() && *CHOSEN.get_or_init(|| self) == self
    }

    /// Whether this processor can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        Self::available().contains(&self)
    }

    /// Its name: `portable`, `avx2`, `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// A path the processor is known to have; only [`Kernels::new`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels(KernelPath);

/// Rows of activations: 16-bit integers, their sums per 16 columns, an exponent a row.
#[derive(Debug, Default)]
pub(crate) struct Acts {
    pub(crate) values: Vec<i16>,
    pub(crate) sums: Vec<i32>,
    pub(crate) exponents: Vec<i32>,
    /// Values a row, a multiple of 32.
    pub(crate) width: usize,
}

impl Acts {
    /// Room for `rows` rows of `cols` values.
    pub(crate) fn new(rows: usize, cols: usize) -> Self {
        let width = cols.next_multiple_of(32);
        Self {
            values: vec![0; rows * width],
            sums: vec![0; rows * width / 16],
            exponents: vec![0; rows],
            width,
        }
    }
}

/// Takes what a sweep computes: 16 outputs of one activation row at a time.
pub(crate) trait Sink {
    /// `values` are rows `16 · group ..` of the product with activation row `row`.
    fn take(&mut self, row: usize, group: usize, values: &[i64; 16]);
}

/// Calls a function of the path's module, `unsafe` where it needs features.
macro_rules! on_path {
    ($kernels:expr, $name:ident ( $($argument:expr),* $(,)? )) => {
        match $kernels.0 {
            KernelPath::Portable => portable::$name($($argument),*),
            // SAFETY: `Kernels::new` has seen the feature on this processor.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "calling code compiled for detected features")]
            KernelPath::Avx2 => unsafe { avx2::$name($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "calling code compiled for detected features")]
            KernelPath::Avx512 => unsafe { avx512::$name($($argument),*) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => portable::$name($($argument),*),
        }
    };
}

impl Kernels {
    /// Plain Rust, which every processor runs.
    pub(crate) const PORTABLE: Self = Self(KernelPath::Portable);

    /// What [`KernelPath::best`] names.
    pub(crate) fn best() -> Self {
        Self::new(KernelPath::best()).unwrap_or(Self::PORTABLE)
    }

    /// The path, or `None` if this processor lacks it.
    pub(crate) fn new(path: KernelPath) -> Option<Self> {
        path.is_available().then_some(Self(path))
    }

    /// Multiplies `groups` of the matrix with activation rows `rows`.
    pub(crate) fn sweep<S: Sink>(
        self,
        matrix: &Matrix,
        acts: &Acts,
        rows: Range<usize>,
        groups: Range<usize>,
        sink: &mut S,
    ) {
        assert!(groups.end <= matrix.groups() && acts.width == matrix.width());
        assert!(rows.end * acts.width <= acts.values.len());
        assert!(rows.end * (acts.width / 16) <= acts.sums.len());
        on_path!(self, sweep(matrix, acts, rows, groups, sink));
    }

    /// Root-mean-square normalisation with gain.
    pub(crate) fn norm(self, x: &[i32], normed: &Normed<'_>, out: &mut [i64]) {
        on_path!(self, norm(x, normed, out));
    }

    /// Root-mean-square normalisation with gain of a row of wide integers at
    /// `exponent`, in place.
    pub(crate) fn norm_wide(self, row: &mut [i64], exponent: i32, normed: &WideNormed<'_>) {
        on_path!(self, norm_wide(row, exponent, normed));
    }

    /// Brings a row to 16 bits; returns the row's exponent.
    pub(crate) fn quantise(
        self,
        row: &[i64],
        exponent: i32,
        values: &mut [i16],
        sums: &mut [i32],
    ) -> i32 {
        on_path!(self, quantise(row, exponent, values, sums))
    }

    /// Multiplies the up projection with what the gate's curve makes of the gate.
    pub(crate) fn gate(self, gates: &[i32], ups: &[i32], curve: &Curve, out: &mut [i64]) {
        on_path!(self, gate(gates, ups, curve, out));
    }

    /// One query head over a cache: the head's output and its exponent.
    pub(crate) fn attend(
        self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        scratch: &mut Vec<i32>,
        out: &mut [i64],
    ) -> i32 {
        on_path!(self, attend(query, cache, scratch, out))
    }
}
