/* The checks of one eg_attention_ops, real or emulated. */
#ifndef EG_TESTS_CHECK_ATTENTION_H
#define EG_TESTS_CHECK_ATTENTION_H

#include "check.h"
#include "kernels.h"

#include <float.h>
#include <math.h>

enum { ATTENTION_K = 96, ATTENTION_COLUMNS = 160, ATTENTION_ROWS = 49, ATTENTION_STRIDE = ATTENTION_K + 32 };

/* To bfloat16 and back: to the nearest, ties to even. */
static inline float bfloat16_value(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float element_value(const eg_attention_ops *ops, float x)
{
    return ops->element_bytes == sizeof(float) ? x : bfloat16_value(x);
}

/* Rows times panels that were stored column by column (`keys`) or row by row (values), against sums in double. */
static inline void check_product(const char *name, const eg_attention_ops *ops, size_t rows, size_t columns, int keys)
{
    static float x[ATTENTION_ROWS][ATTENTION_STRIDE], matrix[ATTENTION_K][ATTENTION_COLUMNS];
    uint64_t random = rows * 1000 + columns;
    for (size_t k = 0; k < ATTENTION_K; k++) {
        for (size_t column = 0; column < columns; column++) {
            matrix[k][column] = random_float(&random, 2.0f);
        }
    }
    float *narrowed = aligned_new(sizeof x), *panels = aligned_new(ATTENTION_K * ATTENTION_COLUMNS * sizeof *panels);
    for (size_t row = 0; row < rows; row++) {
        for (size_t k = 0; k < ATTENTION_STRIDE; k++) {
            x[row][k] = random_float(&random, 3.0f);
        }
        memcpy(narrowed + row * ATTENTION_STRIDE, x[row], sizeof x[row]);
        ops->narrow(narrowed + row * ATTENTION_STRIDE, ATTENTION_STRIDE);
    }
    for (size_t column = 0; keys && column < columns; column++) {
        float key[ATTENTION_K];
        for (size_t k = 0; k < ATTENTION_K; k++) {
            key[k] = matrix[k][column];
        }
        char *panel = (char *)panels + column / EG_PANEL * EG_PANEL * ATTENTION_K * ops->element_bytes;
        ops->store_key(key, ATTENTION_K, panel, column % EG_PANEL);
    }
    for (size_t k = 0; !keys && k < ATTENTION_K; k++) {
        ops->store_value(matrix[k], columns, panels, ATTENTION_K, k);
    }

    const size_t stride = columns + EG_PANEL, bytes = rows * stride * sizeof(float);
    float *out = guarded_new(bytes);
    ops->product(narrowed, ATTENTION_STRIDE * sizeof(float) / ops->element_bytes, rows, ATTENTION_K, panels,
                 ATTENTION_K, columns / EG_PANEL, out, stride);
    for (size_t row = 0; row < rows; row++) {
        for (size_t column = 0; column < columns; column++) {
            double sum = 0, magnitude = 0;
            for (size_t k = 0; k < ATTENTION_K; k++) {
                const double term = (double)element_value(ops, x[row][k]) *
                                    (double)element_value(ops, matrix[k][column]);
                sum += term;
                magnitude += fabs(term);
            }
            /* Each of k products and sums rounds once: Higham, Accuracy and Stability, 3.1. */
            const double tolerance = 2.0 * ATTENTION_K * (double)FLT_EPSILON / 2.0 * magnitude;
            CHECK(fabs((double)out[row * stride + column] - sum) <= tolerance, "%s: %zu rows, %zu columns, [%zu][%zu]",
                  name, rows, columns, row, column);
        }
    }
    CHECK(guarded_free(out, bytes), "%s: wrote outside (%zu, %zu)", name, rows, columns);
    free(panels);
    free(narrowed);
}

static inline void check_attention_ops(const char *name, const eg_attention_ops *ops)
{
    for (size_t rows = 1; rows <= ATTENTION_ROWS; rows += rows < 20 ? 1 : 7) {
        for (size_t columns = 2 * EG_PANEL; columns <= ATTENTION_COLUMNS; columns += 2 * EG_PANEL) {
            check_product(name, ops, rows, columns, 1);
            check_product(name, ops, rows, columns, 0);
        }
    }
}

#endif
