/* Products of attention on AArch64 with the bfloat16 extension. bfmmla multiplies 2 rows x 4 elements by 4 elements x
 * 2 columns: 16 products, four times those of a float32 instruction, into 2 x 2 float32 sums. So k-groups have 4
 * elements, and a register of a panel holds one of each of two columns.
 *
 * Conversions round as those of attention_bf16.h do. */
#include "common/compiler.h"
#include "isa/kernels.h"

#if !defined(__aarch64__) || !defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#error "compile with -march=armv8.2-a+bf16"
#endif
#include <arm_neon.h>

enum {
    GROUP = 4,                /* elements of a k-group */
    LINE = EG_PANEL * GROUP,  /* elements of a panel's k-group */
    TILE_COLUMNS = 8,         /* half a panel */
    PAIRS = TILE_COLUMNS / 2, /* of columns */
    TILE_ROWS = 8,            /* 4 pairs of rows x 4 pairs of columns = 16 sums, 4 of a panel, 4 inputs: 24 of 32 */
    ROW_PAIRS = TILE_ROWS / 2,
};

static uint16x4_t narrow_group(const float *x) { return vreinterpret_u16_bf16(vcvt_bf16_f32(vld1q_f32(x))); }

static float narrow(float *row, size_t n)
{
    uint16_t *out = (uint16_t *)(void *)row; /* what is written never runs ahead of what is read */
    for (size_t i = 0; i < n; i += GROUP) {
        vst1_u16(out + i, narrow_group(row + i));
    }
    return 1.0f;
}

static float store_key(const float *key, size_t head_dim, void *panel, size_t column)
{
    uint16_t *groups = (uint16_t *)panel + column * GROUP;
    for (size_t i = 0; i < head_dim; i += GROUP) {
        vst1_u16(groups + i / GROUP * LINE, narrow_group(key + i));
    }
    return 1.0f;
}

static float store_value(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot)
{
    for (size_t i = 0; i < head_dim; i += GROUP) {
        const size_t panel = i / EG_PANEL * EG_PANEL;
        uint16_t *element = (uint16_t *)panels + panel * slots + slot / GROUP * LINE + slot % GROUP;
        const uint16x4_t four = narrow_group(value + i);
        vst1_lane_u16(element + (i - panel) * GROUP, four, 0);
        vst1_lane_u16(element + (i - panel + 1) * GROUP, four, 1);
        vst1_lane_u16(element + (i - panel + 2) * GROUP, four, 2);
        vst1_lane_u16(element + (i - panel + 3) * GROUP, four, 3);
    }
    return 1.0f;
}

#include "isa/vector/attention_unscaled.h"

static bfloat16x8_t two_rows(const uint16_t *first, const uint16_t *second)
{
    return vreinterpretq_bf16_u16(vcombine_u16(vld1_u16(first), vld1_u16(second)));
}

/* Half a panel. `rows` is a constant at every call, so that the sums are registers; a single row is multiplied with
 * itself as its neighbour. */
EG_ALWAYS_INLINE void tile(const uint16_t *x, size_t x_stride, size_t rows, size_t k, const uint16_t *panel, float *out,
                           size_t out_stride)
{
    const size_t row_pairs = (rows + 1) / 2, neighbour = rows > 1 ? x_stride : 0;
    float32x4_t sums[ROW_PAIRS][PAIRS]; /* {row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1} */
    EG_UNROLL
    for (size_t pair = 0; pair < row_pairs; pair++) {
        EG_UNROLL
        for (size_t c = 0; c < PAIRS; c++) {
            sums[pair][c] = vdupq_n_f32(0.0f);
            __asm__("" : "+w"(sums[pair][c])); /* GCC 12 copies and spills sums that begin equal */
        }
    }
    for (size_t i = 0; i < k; i += GROUP) {
        bfloat16x8_t columns[PAIRS];
        EG_UNROLL
        for (size_t c = 0; c < PAIRS; c++) {
            columns[c] = vreinterpretq_bf16_u16(vld1q_u16(panel + i / GROUP * LINE + c * 2 * GROUP));
        }
        EG_UNROLL
        for (size_t pair = 0; pair < row_pairs; pair++) {
            const uint16_t *row = x + 2 * pair * x_stride + i;
            const bfloat16x8_t inputs = two_rows(row, row + neighbour);
            EG_UNROLL
            for (size_t c = 0; c < PAIRS; c++) {
                sums[pair][c] = vbfmmlaq_f32(sums[pair][c], inputs, columns[c]);
            }
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t c = 0; c < PAIRS; c++) {
            const float32x4_t sum = sums[row / 2][c];
            vst1_f32(out + row * out_stride + 2 * c, row % 2 ? vget_high_f32(sum) : vget_low_f32(sum));
        }
    }
}

static void product(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels, size_t panel_stride,
                    size_t panel_count, float *out, size_t out_stride)
{
    for (size_t column = 0; column < panel_count * EG_PANEL; column += TILE_COLUMNS) {
        const uint16_t *panel = (const uint16_t *)panels + column / EG_PANEL * panel_stride * EG_PANEL +
                                column % EG_PANEL * GROUP;
        size_t row = 0;
        const uint16_t *in = x;
        float *to = out + column;
        for (; rows - row >= TILE_ROWS; row += TILE_ROWS, in += TILE_ROWS * x_stride, to += TILE_ROWS * out_stride) {
            tile(in, x_stride, TILE_ROWS, k, panel, to, out_stride);
        }
        for (; rows - row >= 2; row += 2, in += 2 * x_stride, to += 2 * out_stride) {
            tile(in, x_stride, 2, k, panel, to, out_stride);
        }
        if (row < rows) {
            tile(in, x_stride, 1, k, panel, to, out_stride);
        }
    }
}

extern const eg_attention_ops eg_attention__armbf16;
const eg_attention_ops eg_attention__armbf16 = {.element_bytes = sizeof(uint16_t),
                                                .narrow = narrow,
                                                .store_key = store_key,
                                                .store_value = store_value,
                                                .scale_scores = scale_scores,
                                                .narrow_weights = narrow_weights,
                                                .product = product};
