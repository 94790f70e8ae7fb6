/* Sums over a row, in the vocabulary of simd.h.
 *
 * They use 16 lanes with vectors of any width, and add the lanes by halves: 16, 8, 4, 2, 1. With one order of
 * additions, every instruction set with a fused multiply-add gives the same bits. With several, some activations would
 * round to other codes, and the vectors of a text on two instruction sets would have cosines down to 0.997. */
#ifndef EG_ROW_SUMS_H
#define EG_ROW_SUMS_H

#include "common/compiler.h"
#include "isa/vector/simd.h"

enum { SUM_LANES = 16, SUM_VECTORS = SUM_LANES / VF_LANES };

/* 0, or NaN if x is not finite. Added to a result that x would not reach, it carries on that something overflowed. */
static inline float unless_finite(float x) { return x - x; }

EG_ALWAYS_INLINE void start_sum(vf lanes[SUM_VECTORS])
{
    EG_UNROLL
    for (size_t v = 0; v < SUM_VECTORS; v++) {
        lanes[v] = vf_set(0.0f);
    }
}

EG_ALWAYS_INLINE float add_up(vf lanes[SUM_VECTORS])
{
    EG_UNROLL
    for (size_t half = SUM_VECTORS / 2; half > 0; half /= 2) {
        for (size_t v = 0; v < half; v++) {
            lanes[v] = vf_add(lanes[v], lanes[v + half]);
        }
    }
    return vf_reduce_add(lanes[0]);
}

static float sum_of_squares(const float *x, size_t n)
{
    vf lanes[SUM_VECTORS];
    start_sum(lanes);
    for (size_t i = 0; i < n; i += SUM_LANES) {
        EG_UNROLL
        for (size_t v = 0; v < SUM_VECTORS; v++) {
            const vf value = vf_load(x + i + v * VF_LANES);
            lanes[v] = vf_fma(value, value, lanes[v]);
        }
    }
    return add_up(lanes);
}

#endif
