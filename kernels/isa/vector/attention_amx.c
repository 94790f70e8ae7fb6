/* Products of attention on AMX: tdpbf16ps multiplies a tile of 16 rows x 32 bfloat16 by one of 32 x 16 columns, which
 * is 16 lines of a panel as they lie in memory. */
#include "isa/kernels.h"

#if !defined(EG_AMX_EMULATION)                      /* tests/kernels/amx_emulation.h runs this file on any CPU */
#if !defined(__AMX_BF16__) && !defined(__AMXBF16__) /* the second is the name in clang 14 */
#error "compile with -mamx-tile -mamx-bf16"
#endif
#include "isa/vector/attention_bf16.h"
#endif
#include "isa/amx_tiles.h"
#include "isa/vector/attention_unscaled.h"

enum {
    BLOCK_K = 32,                        /* elements in a row of a tile */
    BLOCK_BYTES = BLOCK_K / 2 * EG_LINE, /* of a panel: 16 lines of 16 columns of 2 */
};

/* Two blocks of rows by two panels at once, of which the second block may be absent. */
static void tile(const uint16_t *x, size_t x_stride, int two_blocks, size_t k, const char *panels, size_t panel_bytes,
                 float *out, size_t out_stride)
{
    const size_t x_bytes = x_stride * sizeof *x, out_bytes = out_stride * sizeof *out;
    eg_zero_sums(two_blocks);
    for (size_t i = 0; i < k; i += BLOCK_K) {
        EG_MULTIPLY_TILES(_tile_dpbf16ps, (const char *)(x + i), x_bytes, panels + i / BLOCK_K * BLOCK_BYTES,
                          panels + panel_bytes + i / BLOCK_K * BLOCK_BYTES, two_blocks);
    }
    eg_store_sums(out, out + EG_PANEL, out_bytes, two_blocks);
}

static void product(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels, size_t panel_stride,
                    size_t panel_count, float *out, size_t out_stride)
{
    const size_t panel_bytes = panel_stride * EG_PANEL * sizeof(uint16_t);
    EG_SETTLE(x);
    for (size_t row = 0; row < rows; row += EG_PAIR_ROWS) {
        const size_t taken = eg_rows_from(row, rows);
        if (row == 0 || taken != EG_PAIR_ROWS) {
            eg_configure_tiles(taken);
        }
        for (size_t panel = 0; panel < panel_count; panel += 2) {
            tile((const uint16_t *)x + row * x_stride, x_stride, taken > EG_BLOCK_ROWS, k,
                 (const char *)panels + panel * panel_bytes, panel_bytes, out + row * out_stride + panel * EG_PANEL,
                 out_stride);
        }
    }
    _tile_release();
}

extern const eg_attention_ops eg_attention__amx;
const eg_attention_ops eg_attention__amx = {.element_bytes = sizeof(uint16_t),
                                            .narrow = narrow,
                                            .store_key = store_key,
                                            .store_value = store_value,
                                            .scale_scores = scale_scores,
                                            .narrow_weights = narrow_weights,
                                            .product = product};
