/* Products of attention on AVX512-BF16. vdpbf16ps multiplies 32 bfloat16 by 32 and adds pairs to 16 float32 sums: a
 * line of a panel, 16 columns of 2, against 2 elements of one row in all lanes. */
#include "attention_bf16.h"
#include "compiler.h"

enum {
    TILE_ROWS = 6, /* 6 rows x 4 panels = 24 sums, 4 lines and 1 input fill 29 of 32 registers */
    TILE_PANELS = 4,
};

/* `rows` and `count` are constants at every call, so that the sums are registers. */
EG_ALWAYS_INLINE void tile(const uint16_t *x, size_t x_stride, size_t rows, size_t k, const char *panels,
                           size_t panel_bytes, size_t count, float *out, size_t out_stride)
{
    __m512 sums[TILE_ROWS][TILE_PANELS];
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t panel = 0; panel < count; panel++) {
            sums[row][panel] = _mm512_setzero_ps();
        }
    }
    for (size_t i = 0; i < k; i += PAIR) {
        __m512i lines[TILE_PANELS];
        EG_UNROLL
        for (size_t panel = 0; panel < count; panel++) {
            lines[panel] = _mm512_loadu_si512(panels + panel * panel_bytes + i / PAIR * LINE);
        }
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            int32_t pair;
            __builtin_memcpy(&pair, x + row * x_stride + i, sizeof pair);
            const __m512i inputs = _mm512_set1_epi32(pair);
            EG_UNROLL
            for (size_t panel = 0; panel < count; panel++) {
                sums[row][panel] = _mm512_dpbf16_ps(sums[row][panel], (__m512bh)inputs, (__m512bh)lines[panel]);
            }
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t panel = 0; panel < count; panel++) {
            _mm512_storeu_ps(out + row * out_stride + panel * EG_PANEL, sums[row][panel]);
        }
    }
}

static void product(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels, size_t panel_stride,
                    size_t panel_count, float *out, size_t out_stride)
{
    const size_t panel_bytes = panel_stride * EG_PANEL * sizeof(uint16_t);
    for (size_t panel = 0; panel < panel_count;) {
        const size_t count = panel_count - panel >= TILE_PANELS ? TILE_PANELS : PAIR;
        const char *lines = (const char *)panels + panel * panel_bytes;
        for (size_t row = 0; row < rows;) {
            const uint16_t *in = (const uint16_t *)x + row * x_stride;
            float *to = out + row * out_stride + panel * EG_PANEL;
            const size_t taken = rows - row >= TILE_ROWS ? TILE_ROWS : 1;
            if (taken == TILE_ROWS && count == TILE_PANELS) {
                tile(in, x_stride, TILE_ROWS, k, lines, panel_bytes, TILE_PANELS, to, out_stride);
            } else if (taken == TILE_ROWS) {
                tile(in, x_stride, TILE_ROWS, k, lines, panel_bytes, PAIR, to, out_stride);
            } else if (count == TILE_PANELS) {
                tile(in, x_stride, 1, k, lines, panel_bytes, TILE_PANELS, to, out_stride);
            } else {
                tile(in, x_stride, 1, k, lines, panel_bytes, PAIR, to, out_stride);
            }
            row += taken;
        }
        panel += count;
    }
}

extern const eg_attention_ops eg_attention__avx512bf16;
const eg_attention_ops eg_attention__avx512bf16 = {.element_bytes = sizeof(uint16_t),
                                                   .narrow = narrow,
                                                   .store_key = store_key,
                                                   .store_value = store_value,
                                                   .product = product};
