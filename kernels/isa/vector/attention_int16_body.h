/* Attention in 16-bit integers on x86 and WebAssembly, which multiply them twice as fast as float32: pairs are added up
 * exactly in int32. Needs a choice of simd.h. */
#include "common/compiler.h"
#include "isa/kernels.h"
#include "isa/vector/attention_codes.h"
#include "isa/vector/simd.h"

enum {
    PAIR = 2,  /* elements of a k-group */
    LINE = 64, /* bytes */
    PANEL_VECTORS = EG_PANEL / VF_LANES,
};

/* ---- storing keys and values -------------------------------------------------------------------------- */

/* To a column of a panel: one pair a line. */
static float store_key(const float *key, size_t head_dim, void *panel, size_t column)
{
    float scale;
    const float steps = steps_of(key, head_dim, &scale);
    char *lines = (char *)panel + column * PAIR * sizeof(int16_t);
    for (size_t i = 0; i < head_dim; i += VF_LANES) {
        int16_t codes[VF_LANES];
        store_codes(key + i, VF_LANES, steps, codes);
        for (size_t pair = 0; pair < VF_LANES / PAIR; pair++) {
            __builtin_memcpy(lines + (i / PAIR + pair) * LINE, &codes[pair * PAIR], PAIR * sizeof *codes);
        }
    }
    return scale;
}

/* To half a line of each panel: the even or the odd elements of the pairs. */
static float store_value(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot)
{
    const float largest = largest_of(value, head_dim);
    const vf steps = vf_set(largest > 0.0f ? (float)VALUE_CODE_MAX / largest : 0.0f);
    for (size_t i = 0; i < head_dim; i += VF_LANES) {
        int16_t *line = (int16_t *)panels + (i / EG_PANEL * slots * EG_PANEL) + slot / PAIR * (PAIR * EG_PANEL);
        vf_store_alternate(line + i % EG_PANEL * PAIR, vf_mul(vf_load(value + i), steps), slot % PAIR);
    }
    return largest / (float)VALUE_CODE_MAX;
}

/* ---- products --------------------------------------------------------------------------------------------- */

/* `rows` and `count` are constants at every call, so that the sums are registers. */
EG_ALWAYS_INLINE void tile(const int16_t *x, size_t x_stride, size_t rows, size_t k, const char *panels,
                           size_t panel_bytes, size_t count, float *out, size_t out_stride)
{
    vi sums[MATMUL_ROWS][MATMUL_PANELS * PANEL_VECTORS];
    const size_t vectors = count * PANEL_VECTORS;
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            sums[row][v] = vi_zero();
        }
    }
    for (size_t i = 0; i < k; i += PAIR) {
        vi lines[MATMUL_PANELS * PANEL_VECTORS];
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            const char *panel = panels + v / PANEL_VECTORS * panel_bytes;
            lines[v] = vi_load(panel + i / PAIR * LINE + v % PANEL_VECTORS * sizeof(vi));
        }
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            int32_t pair;
            __builtin_memcpy(&pair, x + row * x_stride + i, sizeof pair);
            const vi inputs = vi_set(pair);
            EG_UNROLL
            for (size_t v = 0; v < vectors; v++) {
                sums[row][v] = vi_add_pairs(sums[row][v], inputs, lines[v]);
#if !defined(__wasm__)
                __asm__("" : "+v"(sums[row][v])); /* GCC 12 copies the sums in each iteration otherwise */
#endif
            }
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            vf_store(out + row * out_stride + v * VF_LANES, vf_from_vi(sums[row][v]));
        }
    }
}

static void product(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels, size_t panel_stride,
                    size_t panel_count, float *out, size_t out_stride)
{
    enum { FEW_ROWS = MATMUL_ROWS / 2, FEW_PANELS = (MATMUL_PANELS + 1) / 2 };
    const size_t panel_bytes = panel_stride * EG_PANEL * sizeof(int16_t);
    for (size_t panel = 0; panel < panel_count;) {
        const size_t count = panel_count - panel >= MATMUL_PANELS ? MATMUL_PANELS : FEW_PANELS;
        const char *lines = (const char *)panels + panel * panel_bytes;
        for (size_t row = 0; row < rows;) {
            const int16_t *in = (const int16_t *)x + row * x_stride;
            float *to = out + row * out_stride + panel * EG_PANEL;
            const size_t taken = rows - row >= MATMUL_ROWS ? MATMUL_ROWS : rows - row >= FEW_ROWS ? FEW_ROWS : 1;
            if (count == MATMUL_PANELS) {
                switch (taken) {
                case MATMUL_ROWS:
                    tile(in, x_stride, MATMUL_ROWS, k, lines, panel_bytes, MATMUL_PANELS, to, out_stride);
                    break;
                case FEW_ROWS:
                    tile(in, x_stride, FEW_ROWS, k, lines, panel_bytes, MATMUL_PANELS, to, out_stride);
                    break;
                default: tile(in, x_stride, 1, k, lines, panel_bytes, MATMUL_PANELS, to, out_stride); break;
                }
            } else {
                switch (taken) {
                case MATMUL_ROWS:
                    tile(in, x_stride, MATMUL_ROWS, k, lines, panel_bytes, FEW_PANELS, to, out_stride);
                    break;
                case FEW_ROWS: tile(in, x_stride, FEW_ROWS, k, lines, panel_bytes, FEW_PANELS, to, out_stride); break;
                default: tile(in, x_stride, 1, k, lines, panel_bytes, FEW_PANELS, to, out_stride); break;
                }
            }
            row += taken;
        }
        panel += count;
    }
}

/* The table that the including file exports under its own name. */
#define EG_ATTENTION_OPS                                                                                               \
    {                                                                                                                  \
        .element_bytes = sizeof(int16_t),                                                                              \
        .store_query = store_query,                                                                                    \
        .store_key = store_key,                                                                                        \
        .store_value = store_value,                                                                                    \
        .scale_scores = scale_scores,                                                                                  \
        .store_weights = store_weights,                                                                                \
        .product = product,                                                                                            \
    }
