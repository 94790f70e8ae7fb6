/* Codes of 16 bits for attention, whose products are added up exactly in int32: the same bits on every instruction set.
 *
 * Each row of queries or keys has its own step, chosen such that the length of its codes is at most LARGEST_LENGTH:
 * then no product of two rows exceeds an int32 (Cauchy and Schwarz). For 256 codes, this allows about 2,900 each. Codes
 * of values go up to VALUE_CODE_MAX. The weights of a query are not negative; their step is such that their codes add
 * up to at most LARGEST_SUM. Needs a choice of simd.h. */
#ifndef EG_ATTENTION_CODES_H
#define EG_ATTENTION_CODES_H

#include "isa/kernels.h"
#include "isa/vector/row_sums.h"
#include "isa/vector/simd.h"

#include <math.h>

enum {
    INT16_CODE_MAX = 32767,
    LARGEST_LENGTH = 46300, /* √2³¹ = 46340, less what rounding adds: half of √head_dim */
    VALUE_CODE_MAX = 8191,
    LARGEST_SUM = 250000, /* 2³¹ / 8191 = 262175, less what rounding adds: half a step a key */
};

/* ---- float32 to codes ---------------------------------------------------------------------------------- */

static float largest_of(const float *x, size_t n)
{
    vf largest = vf_set(0.0f);
    for (size_t i = 0; i < n; i += VF_LANES) {
        largest = vf_larger_magnitude(largest, vf_load(x + i));
    }
    return vf_reduce_magnitude(largest);
}

/* codes = round(x · steps_per_one). codes may begin where x does: what is written is never ahead of what is read. */
static void store_codes(const float *x, size_t n, float steps_per_one, int16_t *codes)
{
    const vf factor = vf_set(steps_per_one);
    for (size_t i = 0; i < n; i += VF_LANES) {
        vf_store_int16(codes + i, vf_mul(vf_load(x + i), factor));
    }
}

/* The steps in 1 for a row of queries or keys, and the scale, which is what one is worth. Both are 0 for a row of
 * zeros; the scale is NaN for a row that is not finite, or too long for a float32. */
static float steps_of(const float *x, size_t n, float *scale)
{
    const float largest = largest_of(x, n), length = sqrtf(sum_of_squares(x, n));
    const float by_length = (float)LARGEST_LENGTH / length, by_code = (float)INT16_CODE_MAX / largest;
    const float steps = largest > 0.0f ? by_length < by_code ? by_length : by_code : 0.0f;
    *scale = (steps > 0.0f ? 1.0f / steps : 0.0f) + unless_finite(length);
    return steps;
}

static float store_query(float *query, size_t n)
{
    float scale;
    const float steps = steps_of(query, n, &scale);
    store_codes(query, n, steps, (int16_t *)(void *)query);
    return scale;
}

/* ---- scores and weights ----------------------------------------------------------------------------------- */

static void scale_scores(float *scores, size_t n, float query_scale, const float *key_scales)
{
    const vf factor = vf_set(query_scale);
    for (size_t i = 0; i < n; i += VF_LANES) {
        vf_store(scores + i, vf_mul(vf_mul(vf_load(scores + i), vf_load(key_scales + i)), factor));
    }
}

/* A weight includes the scale of its value. */
static float store_weights(float *weights, size_t n, float sum, const float *value_scales)
{
    vf lanes[SUM_VECTORS], largest = vf_set(0.0f);
    start_sum(lanes);
    for (size_t i = 0; i < n; i += SUM_LANES) {
        EG_UNROLL
        for (size_t v = 0; v < SUM_VECTORS; v++) {
            float *place = weights + i + v * VF_LANES;
            const vf weight = vf_mul(vf_load(place), vf_load(value_scales + i + v * VF_LANES));
            vf_store(place, weight);
            lanes[v] = vf_add(lanes[v], weight);
            largest = vf_max(largest, weight);
        }
    }
    const float total = add_up(lanes);
    const float by_sum = (float)LARGEST_SUM / total, by_code = (float)INT16_CODE_MAX / vf_reduce_max(largest);
    const float steps = by_sum < by_code ? by_sum : by_code;
    const int all_zero = !(steps < INFINITY);
    store_codes(weights, n, all_zero ? 0.0f : steps, (int16_t *)(void *)weights);
    return (all_zero ? 0.0f : 1.0f / (steps * sum)) + unless_finite(total);
}

#endif
