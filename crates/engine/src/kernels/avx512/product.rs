//! Products in 512-bit vectors: sixteen rows a register.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::tile::{CHOSEN, Lanes, MAX_TILE, Tile, define_sweep};
use super::super::{Acts, Sink};
use crate::pack::Packing;
use crate::weights::Matrix;

/// How far ahead weights are asked for.
const PREFETCH_BYTES: usize = 4096;

define_sweep!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", [8 4 2 1]);

enum Avx512 {}

impl Lanes for Avx512 {
    type Words = __m512i;
    /// Even rows, odd rows.
    type Sums = [__m512i; 2];

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn splat(value: i32) -> __m512i {
        _mm512_set1_epi32(value)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn load(from: *const u8) -> __m512i {
        // SAFETY: the caller has 64 bytes there.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn load_pairs(from: *const u8) -> __m512i {
        // SAFETY: the caller has 32 bytes there.
        _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn load_bytes(from: *const u8) -> __m512i {
        // SAFETY: the caller has 16 bytes there.
        _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.cast()) })
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn load_scales(from: *const u8) -> __m512i {
        // SAFETY: the caller has 32 bytes there.
        let words = _mm512_cvtepi16_epi32(unsafe { _mm256_loadu_si256(from.cast()) });
        let shift = _mm512_and_si512(words, _mm512_set1_epi32(15));
        _mm512_sllv_epi32(_mm512_srai_epi32(words, 4), shift)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn field(words: __m512i, right: i32, mask: i32) -> __m512i {
        let moved = match right {
            0 => words,
            1.. => _mm512_srlv_epi32(words, _mm512_set1_epi32(right)),
            _ => _mm512_sllv_epi32(words, _mm512_set1_epi32(-right)),
        };
        _mm512_and_si512(moved, _mm512_set1_epi32(mask))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn multiply(a: __m512i, b: __m512i) -> __m512i {
        _mm512_mullo_epi32(a, b)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn choose(words: __m512i) -> __m512i {
        // SAFETY: the array has 16 bytes.
        let table = unsafe { _mm_loadu_si128(CHOSEN.as_ptr().cast()) };
        // An index with its top bit set chooses zero: the upper byte of 16 bits.
        let index = _mm512_or_si512(words, _mm512_set1_epi32(0x8000_8000_u32 as i32));
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn multiply_add<const T: usize>(
        sums: &mut [__m512i; T],
        pairs: __m512i,
        values: &[*const u8; T],
        at: usize,
    ) {
        for t in 0..T {
            // SAFETY: the caller has a pair there; the instruction reads it and
            // touches nothing else.
            unsafe {
                if T == 1 {
                    let a = values[t].add(at).cast::<i32>().read_unaligned();
                    sums[t] = _mm512_dpwssd_epi32(sums[t], pairs, _mm512_set1_epi32(a));
                } else {
                    // The compiler would split the intrinsic into a product and a sum:
                    // shorter for one chain, twice the work where many run abreast.
                    std::arch::asm!(
                        "vpdpwssd {sum}, {pairs}, dword ptr [{values} + {at}]{{1to16}}",
                        sum = inout(zmm_reg) sums[t],
                        pairs = in(zmm_reg) pairs,
                        values = in(reg) values[t],
                        at = in(reg) at,
                        // Not pure: in order, or all pairs would be unpacked before the
                        // first is used, and push sums out of the registers.
                        options(nostack, preserves_flags)
                    );
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn nothing() -> [__m512i; 2] {
        [_mm512_setzero_si512(); 2]
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn add_scaled(
        [even, odd]: [__m512i; 2],
        words: __m512i,
        scale: __m512i,
    ) -> [__m512i; 2] {
        let (odd_words, odd_scale) = (_mm512_srli_epi64(words, 32), _mm512_srli_epi64(scale, 32));
        [
            _mm512_add_epi64(even, _mm512_mul_epi32(words, scale)),
            _mm512_add_epi64(odd, _mm512_mul_epi32(odd_words, odd_scale)),
        ]
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    unsafe fn in_order([even, odd]: [__m512i; 2]) -> [i64; 16] {
        let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let last = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        let mut out = [0i64; 16];
        // SAFETY: two vectors of 64 bytes fill the array.
        unsafe {
            let to = out.as_mut_ptr();
            _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi64(even, first, odd));
            _mm512_storeu_si512(to.add(8).cast(), _mm512_permutex2var_epi64(even, last, odd));
        }
        out
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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
