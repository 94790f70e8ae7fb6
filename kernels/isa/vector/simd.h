/* The vector vocabulary that vector_ops_body.h is written in: a float vector `vf` of VF_LANES lanes.
 *
 * A file chooses it by defining EG_SIMD_AVX512, EG_SIMD_AVX2, EG_SIMD_NEON, EG_SIMD_WASM,
 * EG_SIMD_WASMRELAXED or EG_SIMD_SCALAR.
 *
 * Each simd_<isa>.h defines:
 *   vf_load, vf_store                   VF_LANES floats
 *   vf_set                              one float in all lanes
 *   vf_add … vf_fma (a·b + c), vf_abs
 *   vf_max, vf_min                      b if a or b is NaN, or NaN
 *   vf_round                            to the nearest integer, ties to even
 *   vf_exponent                         2 to the power a, for integral a in -126 … 127
 *   vf_reduce_add, vf_reduce_max        over the lanes; sums by halves: lane i and i + VF_LANES / 2, and so on
 *   vf_larger_magnitude                 the larger of a magnitude and |b|, where NaN is larger than infinity
 *   vf_reduce_magnitude                 the largest of the lanes, in that order
 *   vf_hadamard                         the lanes times Hadamard's matrix of VF_LANES, in Sylvester's order:
 *                                       butterflies between lanes 1, 2, 4 … apart, in this order
 *   vf_from_int32, vf_from_int8         VF_LANES integers as floats
 *   vi, vi_zero, vi_reduce_add          an int32 vector that sums codes
 *   vf_store_codes                      rounds |a| <= 127 (ties to even), stores VF_LANES int8, adds them to a vi
 *   MATMUL_ROWS, MATMUL_PANELS          size of a tile of sums in registers: float matmul, and attention in int16
 *
 * For attention in int16, all but simd_scalar.h also define:
 *   vf_store_int16                      rounds |a| <= 32767 (ties to even), stores VF_LANES int16
 *
 * and those of x86 and WebAssembly, which multiply int16 in pairs:
 *   vf_store_alternate                  the same to the first or second of each pair, while others may store the other
 *   vi_load, vi_set                     VF_LANES int32, one int32 in all lanes
 *   vi_add_pairs                        sums + the products of int16 pairs, added two by two
 *   vf_from_vi                          as floats
 */
#ifndef EG_SIMD_H
#define EG_SIMD_H

#include <stddef.h>
#include <stdint.h>

#if defined(EG_SIMD_AVX512)
#include "isa/vector/simd_avx512.h"
#elif defined(EG_SIMD_AVX2)
#include "isa/vector/simd_avx2.h"
#elif defined(EG_SIMD_NEON)
#include "isa/vector/simd_neon.h"
#elif defined(EG_SIMD_WASM) || defined(EG_SIMD_WASMRELAXED)
#include "isa/vector/simd_wasm.h"
#elif defined(EG_SIMD_SCALAR)
#include "isa/vector/simd_scalar.h"
#else
#error "define the vector width before including simd.h"
#endif

/* exp(x) for x <= 88, by Cody and Waite's range reduction x = n·ln 2 + r and the Taylor series of degree 7 on |r| <= ln
 * 2 / 2, whose first neglected term is r^8 / 8! < 6e-9. Largest relative error with rounding: 1.5e-7
 * (tests/kernels/isa/test_vector_ops.c). Arguments below EXP_LOWEST, where exp leaves the normal range, give
 * exp(EXP_LOWEST); NaN gives NaN. */
#define EXP_LOWEST  (-87.0f)
#define EXP_HIGHEST 88.0f

static inline vf vf_exp(vf x)
{
    const vf log2e = vf_set(1.44269504f);
    const vf ln2_high = vf_set(0.693359375f); /* 9 significant bits: n · ln2_high is exact */
    const vf ln2_low = vf_set(-2.12194440e-4f);
    x = vf_min(vf_set(EXP_HIGHEST), vf_max(vf_set(EXP_LOWEST), x)); /* in this order, NaN stays */
    const vf n = vf_round(vf_mul(x, log2e));
    const vf r = vf_sub(vf_sub(x, vf_mul(n, ln2_high)), vf_mul(n, ln2_low));
    vf series = vf_set(1.0f / 5040.0f);
    series = vf_fma(series, r, vf_set(1.0f / 720.0f));
    series = vf_fma(series, r, vf_set(1.0f / 120.0f));
    series = vf_fma(series, r, vf_set(1.0f / 24.0f));
    series = vf_fma(series, r, vf_set(1.0f / 6.0f));
    series = vf_fma(series, r, vf_set(0.5f));
    series = vf_fma(series, r, vf_set(1.0f));
    series = vf_fma(series, r, vf_set(1.0f));
    return vf_mul(series, vf_exponent(n));
}

/* gelu_tanh(x) = x/2 · (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/π) · (x + 0.044715 x³) (arXiv 1606.08415).
 * The second form needs one exp, one division, and loses no digits where tanh(u) is near -1. */
static inline vf vf_gelu(vf x)
{
    const vf minus_two_root = vf_set(-1.5957691216f); /* -2 · sqrt(2/π) */
    const vf cubic = vf_set(-1.5957691216f * 0.044715f);
    const vf exponent = vf_mul(x, vf_fma(vf_mul(x, x), cubic, minus_two_root));
    return vf_div(x, vf_add(vf_set(1.0f), vf_exp(exponent)));
}

#endif
