/* Attention in 16-bit integers on AArch64: smlal multiplies 4 int16 by one of another register and adds to 4 int32. It
 * is no faster than float32, but gives the bits of x86 and halves the memory of keys and values.
 *
 * k-groups have one element: a line of a panel is one input's 16 columns. */
#define EG_SIMD_NEON
#include "common/compiler.h"
#include "isa/vector/attention_codes.h"

enum {
    STEP = 8,                       /* inputs of a register */
    QUARTERS = EG_PANEL / VF_LANES, /* registers of sums for 16 columns */
    TILE_ROWS = 4,                  /* 4 rows x 4 quarters = 16 sums, 4 inputs, 2 of a line: 22 of 32 registers */
};

static float store_key(const float *key, size_t head_dim, void *panel, size_t column)
{
    float scale;
    const float steps = steps_of(key, head_dim, &scale);
    int16_t *element = (int16_t *)panel + column;
    for (size_t i = 0; i < head_dim; i += VF_LANES) {
        int16_t codes[VF_LANES];
        store_codes(key + i, VF_LANES, steps, codes);
        for (size_t lane = 0; lane < VF_LANES; lane++) {
            element[(i + lane) * EG_PANEL] = codes[lane];
        }
    }
    return scale;
}

static float store_value(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot)
{
    const float largest = largest_of(value, head_dim), steps = largest > 0.0f ? (float)VALUE_CODE_MAX / largest : 0.0f;
    for (size_t i = 0; i < head_dim; i += EG_PANEL) {
        store_codes(value + i, EG_PANEL, steps, (int16_t *)panels + i * slots + slot * EG_PANEL);
    }
    return largest / (float)VALUE_CODE_MAX;
}

/* sums += a line times input `lane` of a row's 8; the lane is part of the instruction, hence a macro. */
#define ADD_LINE(sums, line, inputs, lane)                                                                             \
    do {                                                                                                               \
        (sums)[0] = vmlal_laneq_s16((sums)[0], vget_low_s16((line)[0]), inputs, lane);                                 \
        (sums)[1] = vmlal_high_laneq_s16((sums)[1], (line)[0], inputs, lane);                                          \
        (sums)[2] = vmlal_laneq_s16((sums)[2], vget_low_s16((line)[1]), inputs, lane);                                 \
        (sums)[3] = vmlal_high_laneq_s16((sums)[3], (line)[1], inputs, lane);                                          \
    } while (0)

EG_ALWAYS_INLINE void add_line(int32x4_t sums[QUARTERS], const int16x8_t line[2], int16x8_t inputs, size_t lane)
{
    switch (lane) {
    case 0: ADD_LINE(sums, line, inputs, 0); break;
    case 1: ADD_LINE(sums, line, inputs, 1); break;
    case 2: ADD_LINE(sums, line, inputs, 2); break;
    case 3: ADD_LINE(sums, line, inputs, 3); break;
    case 4: ADD_LINE(sums, line, inputs, 4); break;
    case 5: ADD_LINE(sums, line, inputs, 5); break;
    case 6: ADD_LINE(sums, line, inputs, 6); break;
    default: ADD_LINE(sums, line, inputs, 7); break;
    }
}

/* A panel. `rows` is a constant at every call, so that the sums are registers. */
EG_ALWAYS_INLINE void tile(const int16_t *x, size_t x_stride, size_t rows, size_t k, const int16_t *panel, float *out,
                           size_t out_stride)
{
    int32x4_t sums[TILE_ROWS][QUARTERS];
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < QUARTERS; quarter++) {
            sums[row][quarter] = vdupq_n_s32(0);
            __asm__("" : "+w"(sums[row][quarter])); /* GCC 12 copies and spills sums that begin equal */
        }
    }
    for (size_t i = 0; i < k; i += STEP) {
        int16x8_t inputs[TILE_ROWS];
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            inputs[row] = vld1q_s16(x + row * x_stride + i);
        }
        EG_UNROLL
        for (size_t lane = 0; lane < STEP; lane++) {
            const int16_t *from = panel + (i + lane) * EG_PANEL;
            const int16x8_t line[2] = {vld1q_s16(from), vld1q_s16(from + EG_PANEL / 2)};
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                add_line(sums[row], line, inputs[row], lane);
            }
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < QUARTERS; quarter++) {
            vst1q_f32(out + row * out_stride + quarter * VF_LANES, vcvtq_f32_s32(sums[row][quarter]));
        }
    }
}

static void product(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels, size_t panel_stride,
                    size_t panel_count, float *out, size_t out_stride)
{
    for (size_t p = 0; p < panel_count; p++) {
        const int16_t *panel = (const int16_t *)panels + p * panel_stride * EG_PANEL, *in = x;
        float *to = out + p * EG_PANEL;
        size_t row = 0;
        for (; rows - row >= TILE_ROWS; row += TILE_ROWS, in += TILE_ROWS * x_stride, to += TILE_ROWS * out_stride) {
            tile(in, x_stride, TILE_ROWS, k, panel, to, out_stride);
        }
        for (; row < rows; row++, in += x_stride, to += out_stride) {
            tile(in, x_stride, 1, k, panel, to, out_stride);
        }
    }
}

extern const eg_attention_ops eg_attention__neondot;
const eg_attention_ops eg_attention__neondot = {.element_bytes = sizeof(int16_t),
                                                .store_query = store_query,
                                                .store_key = store_key,
                                                .store_value = store_value,
                                                .scale_scores = scale_scores,
                                                .store_weights = store_weights,
                                                .product = product};
