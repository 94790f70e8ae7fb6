/* The checks of one eg_attention_ops, real or emulated. */
#ifndef EG_TESTS_CHECK_ATTENTION_H
#define EG_TESTS_CHECK_ATTENTION_H

#include "tests/kernels/check.h"
#include "isa/kernels.h"

#include <float.h>
#include <math.h>

enum { ATTENTION_K = 96, ATTENTION_COLUMNS = 160, ATTENTION_ROWS = 49, ATTENTION_STRIDE = ATTENTION_K + 32 };

/* Half a step of an element of that value, and what float32 adds in finding it. */
static inline double element_error(const eg_attention_ops *ops, double x, double scale)
{
    return ops->element_bytes == sizeof(float) ? 0.0 : scale / 2 + 4 * (double)FLT_EPSILON * fabs(x);
}

/* A row: random numbers, one number, which makes the largest sums of codes, or zeros but for one number. */
typedef enum row_kind { RANDOM_ROW, EVEN_ROW, SPIKE_ROW, ROW_KINDS } row_kind;

static inline void fill_row(float *row, size_t n, row_kind kind, int signs, uint64_t *random)
{
    for (size_t i = 0; i < n; i++) {
        const float x = random_float(random, 3.0f);
        row[i] = kind == EVEN_ROW ? 3.0f : kind == SPIKE_ROW ? (i == 1 ? 3.0f : 0.0f) : signs ? x : fabsf(x);
    }
}

typedef struct attention_case {
    const char *name;
    const eg_attention_ops *ops;
    size_t rows, columns;
    row_kind kind;
} attention_case;

/* Queries times keys, which are stored column by column. */
static inline void check_scores(const attention_case *c)
{
    static float keys[ATTENTION_COLUMNS][ATTENTION_K], queries[ATTENTION_ROWS][ATTENTION_STRIDE];
    float key_scales[ATTENTION_COLUMNS];
    const size_t stride = c->columns + EG_PANEL, bytes = c->rows * stride * sizeof(float);
    uint64_t random = c->rows * 1000 + c->columns;
    float *stored = aligned_new(sizeof queries), *out = guarded_new(bytes);
    float *panels = aligned_new(ATTENTION_K * ATTENTION_COLUMNS * sizeof *panels);
    for (size_t column = 0; column < c->columns; column++) {
        fill_row(keys[column], ATTENTION_K, c->kind, 1, &random);
        char *panel = (char *)panels + column / EG_PANEL * EG_PANEL * ATTENTION_K * c->ops->element_bytes;
        key_scales[column] = c->ops->store_key(keys[column], ATTENTION_K, panel, column % EG_PANEL);
    }
    float query_scales[ATTENTION_ROWS];
    for (size_t row = 0; row < c->rows; row++) {
        fill_row(queries[row], ATTENTION_K, c->kind, 1, &random);
        memcpy(stored + row * ATTENTION_STRIDE, queries[row], sizeof queries[row]);
        query_scales[row] = c->ops->store_query(stored + row * ATTENTION_STRIDE, ATTENTION_K);
    }
    c->ops->product(stored, ATTENTION_STRIDE * sizeof(float) / c->ops->element_bytes, c->rows, ATTENTION_K, panels,
                    ATTENTION_K, c->columns / EG_PANEL, out, stride);
    for (size_t row = 0; row < c->rows; row++) {
        c->ops->scale_scores(out + row * stride, c->columns, query_scales[row], key_scales);
        for (size_t column = 0; column < c->columns; column++) {
            double sum = 0, magnitude = 0, rounding = 0;
            for (size_t k = 0; k < ATTENTION_K; k++) {
                const double q = (double)queries[row][k], key = (double)keys[column][k];
                const double q_error = element_error(c->ops, q, (double)query_scales[row]);
                const double key_error = element_error(c->ops, key, (double)key_scales[column]);
                sum += q * key;
                magnitude += fabs(q * key);
                rounding += fabs(q) * key_error + fabs(key) * q_error + q_error * key_error;
            }
            /* Each of k products and sums rounds once: Higham, Accuracy and Stability, 3.1. */
            const double tolerance = rounding + 2.0 * (double)ATTENTION_K * (double)FLT_EPSILON / 2.0 * magnitude;
            CHECK(fabs((double)out[row * stride + column] - sum) <= tolerance, "%s: scores, %zu x %zu, [%zu][%zu]",
                  c->name, c->rows, c->columns, row, column);
        }
    }
    CHECK(guarded_free(out, bytes), "%s: wrote outside (%zu, %zu)", c->name, c->rows, c->columns);
    eg_aligned_free(panels);
    eg_aligned_free(stored);
}

/* Weights, which are not negative, times values, which are stored row by row. */
static inline void check_weighted_sums(const attention_case *c)
{
    static float values[ATTENTION_K][ATTENTION_COLUMNS], weights[ATTENTION_ROWS][ATTENTION_STRIDE];
    float value_scales[ATTENTION_K];
    const size_t stride = c->columns + EG_PANEL, bytes = c->rows * stride * sizeof(float);
    uint64_t random = c->rows * 1000 + c->columns;
    float *stored = aligned_new(sizeof weights), *out = guarded_new(bytes);
    float *panels = aligned_new(ATTENTION_K * ATTENTION_COLUMNS * sizeof *panels);
    for (size_t k = 0; k < ATTENTION_K; k++) {
        fill_row(values[k], c->columns, c->kind, 1, &random);
        value_scales[k] = c->ops->store_value(values[k], c->columns, panels, ATTENTION_K, k);
    }
    float scales[ATTENTION_ROWS];
    double sums[ATTENTION_ROWS];
    for (size_t row = 0; row < c->rows; row++) {
        fill_row(weights[row], ATTENTION_K, c->kind, 0, &random);
        memcpy(stored + row * ATTENTION_STRIDE, weights[row], sizeof weights[row]);
        sums[row] = 0;
        for (size_t k = 0; k < ATTENTION_K; k++) {
            sums[row] += (double)weights[row][k];
        }
        scales[row] = c->ops->store_weights(stored + row * ATTENTION_STRIDE, ATTENTION_K, (float)sums[row],
                                            value_scales);
    }
    c->ops->product(stored, ATTENTION_STRIDE * sizeof(float) / c->ops->element_bytes, c->rows, ATTENTION_K, panels,
                    ATTENTION_K, c->columns / EG_PANEL, out, stride);
    for (size_t row = 0; row < c->rows; row++) {
        for (size_t column = 0; column < c->columns; column++) {
            double sum = 0, magnitude = 0, rounding = 0;
            for (size_t k = 0; k < ATTENTION_K; k++) {
                const double weight = (double)weights[row][k], value = (double)values[k][column];
                const double value_error = element_error(c->ops, value, (double)value_scales[k]);
                /* A code of a weight stands for weight · value_scale / sum in steps of the row's scale. */
                const double step = (double)scales[row] * sums[row] / (double)value_scales[k];
                const double weight_error = element_error(c->ops, weight, step);
                sum += weight * value;
                magnitude += weight * fabs(value);
                rounding += weight * value_error + fabs(value) * weight_error + value_error * weight_error;
            }
            const double tolerance = (rounding + 2.0 * (double)ATTENTION_K * (double)FLT_EPSILON * magnitude) /
                                     sums[row];
            CHECK(fabs((double)out[row * stride + column] * (double)scales[row] - sum / sums[row]) <= tolerance,
                  "%s: weighted sums, %zu x %zu, [%zu][%zu]", c->name, c->rows, c->columns, row, column);
        }
    }
    CHECK(guarded_free(out, bytes), "%s: wrote outside (%zu, %zu)", c->name, c->rows, c->columns);
    eg_aligned_free(panels);
    eg_aligned_free(stored);
}

static inline void check_attention_ops(const char *name, const eg_attention_ops *ops)
{
    for (size_t rows = 1; rows <= ATTENTION_ROWS; rows += rows < 20 ? 1 : 7) {
        for (size_t columns = 2 * EG_PANEL; columns <= ATTENTION_COLUMNS; columns += 2 * EG_PANEL) {
            for (row_kind kind = RANDOM_ROW; kind < ROW_KINDS; kind++) {
                const attention_case c = {name, ops, rows, columns, kind};
                check_scores(&c);
                check_weighted_sums(&c);
            }
        }
    }
}

#endif
