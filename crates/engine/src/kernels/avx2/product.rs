//! Products in 256-bit vectors: sixteen rows in two registers, so that a pair of
//! activations is spread once for both.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::tile::{CHOSEN, Lanes, MAX_TILE, Tile, define_sweep};
use super::super::{Acts, Sink};
use crate::pack::Packing;
use crate::weights::Matrix;

/// How far ahead weights are asked for.
const PREFETCH_BYTES: usize = 4096;

// Four rows: the inner sums of more would not fit sixteen registers.
define_sweep!(Avx2, "avx2", [4 3 2 1]);

enum Avx2 {}

impl Lanes for Avx2 {
    /// Rows 0 to 7, rows 8 to 15.
    type Words = [__m256i; 2];
    /// Even and odd rows of the first eight, then of the others.
    type Sums = [__m256i; 4];

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn splat(value: i32) -> [__m256i; 2] {
        [_mm256_set1_epi32(value); 2]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load(from: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller has 64 bytes there.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load_pairs(from: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller has 32 bytes there.
        unsafe {
            [
                _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(from.add(16).cast())),
            ]
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load_bytes(from: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller has 16 bytes there.
        unsafe {
            [
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())),
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast())),
            ]
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load_scales(from: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller has 32 bytes there.
        let [a, b] =
            unsafe { [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(16).cast())] };
        [scales(a), scales(b)]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn field([a, b]: [__m256i; 2], right: i32, mask: i32) -> [__m256i; 2] {
        [field(a, right, mask), field(b, right, mask)]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn multiply(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn choose([a, b]: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the array has 16 bytes.
        let table = unsafe { _mm_loadu_si128(CHOSEN.as_ptr().cast()) };
        let table = _mm256_broadcastsi128_si256(table);
        // An index with its top bit set chooses zero: the upper byte of 16 bits.
        let top = _mm256_set1_epi32(0x8000_8000_u32 as i32);
        [
            _mm256_shuffle_epi8(table, _mm256_or_si256(a, top)),
            _mm256_shuffle_epi8(table, _mm256_or_si256(b, top)),
        ]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn multiply_add<const T: usize>(
        sums: &mut [[__m256i; 2]; T],
        pairs: [__m256i; 2],
        values: &[*const u8; T],
        at: usize,
    ) {
        for t in 0..T {
            // SAFETY: the caller has a pair there.
            let a = unsafe { values[t].add(at).cast::<i32>().read_unaligned() };
            let a = _mm256_set1_epi32(a);
            for half in 0..2 {
                let products = _mm256_madd_epi16(pairs[half], a);
                sums[t][half] = _mm256_add_epi32(sums[t][half], products);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn nothing() -> [__m256i; 4] {
        [_mm256_setzero_si256(); 4]
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn add_scaled(
        mut sums: [__m256i; 4],
        words: [__m256i; 2],
        scale: [__m256i; 2],
    ) -> [__m256i; 4] {
        for half in 0..2 {
            let (words, scale) = (words[half], scale[half]);
            let (odd_words, odd_scale) =
                (_mm256_srli_epi64(words, 32), _mm256_srli_epi64(scale, 32));
            let (even, odd) = (2 * half, 2 * half + 1);
            sums[even] = _mm256_add_epi64(sums[even], _mm256_mul_epi32(words, scale));
            sums[odd] = _mm256_add_epi64(sums[odd], _mm256_mul_epi32(odd_words, odd_scale));
        }
        sums
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn in_order(sums: [__m256i; 4]) -> [i64; 16] {
        let mut parts = [[0i64; 4]; 4];
        for (part, sums) in parts.iter_mut().zip(sums) {
            // SAFETY: the part has 32 bytes.
            unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), sums) };
        }
        std::array::from_fn(|row| parts[row / 8 * 2 + row % 2][row % 8 / 2])
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn prefetch(from: *const u8, bytes: usize) {
        for line in (0..bytes).step_by(64) {
            // A hint; the address may lie beyond the matrix.
            _mm_prefetch::<_MM_HINT_T0>(
                from.wrapping_add(PREFETCH_BYTES).wrapping_add(line).cast(),
            );
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn scales(words: __m128i) -> __m256i {
    let words = _mm256_cvtepi16_epi32(words);
    let shift = _mm256_and_si256(words, _mm256_set1_epi32(15));
    _mm256_sllv_epi32(_mm256_srai_epi32(words, 4), shift)
}

#[target_feature(enable = "avx2")]
#[inline]
fn field(words: __m256i, right: i32, mask: i32) -> __m256i {
    let moved = match right {
        0 => words,
        1.. => _mm256_srlv_epi32(words, _mm256_set1_epi32(right)),
        _ => _mm256_sllv_epi32(words, _mm256_set1_epi32(-right)),
    };
    _mm256_and_si256(moved, _mm256_set1_epi32(mask))
}
