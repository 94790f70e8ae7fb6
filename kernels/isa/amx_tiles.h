/* Tile registers as both AMX kernels use them: sums of 2 blocks of 16 rows by 2 panels of 16 columns. */
#ifndef EG_AMX_TILES_H
#define EG_AMX_TILES_H

#include "isa/kernels.h"

#if !defined(EG_AMX_EMULATION) /* tests/kernels/isa/amx_emulation.h has the intrinsics in plain C */
#include <immintrin.h>
#endif

enum {
    EG_LINE = 64,                     /* bytes in a row of a tile */
    EG_BLOCK_ROWS = 16,               /* most rows of a tile register */
    EG_PAIR_ROWS = 2 * EG_BLOCK_ROWS, /* rows that are summed at once */
    EG_PALETTE = 1,
};

/* Tile registers: 2 blocks of rows x 2 panels of sums, which hide a latency of 52 cycles at one product each 16,
 * their 2 blocks of inputs, and 2 panels of weights: all 8. The intrinsics take literal numbers only. */
#define EG_SUMS_00   0
#define EG_SUMS_01   1
#define EG_SUMS_10   2
#define EG_SUMS_11   3
#define EG_INPUTS_0  4
#define EG_INPUTS_1  5
#define EG_WEIGHTS_0 6
#define EG_WEIGHTS_1 7

/* Makes the compiler finish its stores behind `pointer`, and start no later ones: GCC 12's tile intrinsics do not tell
 * it which memory they read, and without this it drops the configuration below. */
#define EG_SETTLE(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

typedef struct tile_config { /* Intel SDM volume 1, 18.2 */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static inline void set_shape(tile_config *config, int tile, size_t rows)
{
    config->rows[tile] = (uint8_t)rows;
    config->row_bytes[tile] = rows ? EG_LINE : 0;
}

/* Shapes the tiles for `rows` rows. Costs some 50 cycles, and so does _tile_release() at the end of each call, after
 * which the operating system again has no tiles to save: little beside the 3,000 of 32 rows at k = 768. */
static inline void eg_configure_tiles(size_t rows)
{
    const size_t first = rows < EG_BLOCK_ROWS ? rows : EG_BLOCK_ROWS, second = rows - first;
    tile_config config = {.palette = EG_PALETTE};
    set_shape(&config, EG_SUMS_00, first);
    set_shape(&config, EG_SUMS_01, first);
    set_shape(&config, EG_SUMS_10, second);
    set_shape(&config, EG_SUMS_11, second);
    set_shape(&config, EG_INPUTS_0, first);
    set_shape(&config, EG_INPUTS_1, second);
    set_shape(&config, EG_WEIGHTS_0, EG_PANEL);
    set_shape(&config, EG_WEIGHTS_1, EG_PANEL);
    EG_SETTLE(&config);
    _tile_loadconfig(&config);
}

static inline void eg_zero_sums(int two_blocks)
{
    _tile_zero(EG_SUMS_00);
    _tile_zero(EG_SUMS_01);
    if (two_blocks) {
        _tile_zero(EG_SUMS_10);
        _tile_zero(EG_SUMS_11);
    }
}

/* Sums of the first panel from `first`, of the second from `second`; rows `stride` bytes apart. */
static inline void eg_load_sums(const void *first, const void *second, size_t stride, int two_blocks)
{
    _tile_loadd(EG_SUMS_00, first, stride);
    _tile_loadd(EG_SUMS_01, second, stride);
    if (two_blocks) {
        _tile_loadd(EG_SUMS_10, (const char *)first + EG_BLOCK_ROWS * stride, stride);
        _tile_loadd(EG_SUMS_11, (const char *)second + EG_BLOCK_ROWS * stride, stride);
    }
}

static inline void eg_store_sums(void *first, void *second, size_t stride, int two_blocks)
{
    _tile_stored(EG_SUMS_00, first, stride);
    _tile_stored(EG_SUMS_01, second, stride);
    if (two_blocks) {
        _tile_stored(EG_SUMS_10, (char *)first + EG_BLOCK_ROWS * stride, stride);
        _tile_stored(EG_SUMS_11, (char *)second + EG_BLOCK_ROWS * stride, stride);
    }
}

/* sums += inputs · weights for 2 blocks of rows and 2 panels: a tile of each, the rows of inputs `stride` bytes apart.
 */
#define EG_MULTIPLY_TILES(instruction, inputs, stride, weights_0, weights_1, two_blocks)                               \
    do {                                                                                                               \
        _tile_loadd(EG_INPUTS_0, (inputs), (stride));                                                                  \
        _tile_loadd(EG_WEIGHTS_0, (weights_0), EG_LINE);                                                               \
        instruction(EG_SUMS_00, EG_INPUTS_0, EG_WEIGHTS_0);                                                            \
        _tile_loadd(EG_WEIGHTS_1, (weights_1), EG_LINE);                                                               \
        instruction(EG_SUMS_01, EG_INPUTS_0, EG_WEIGHTS_1);                                                            \
        if (two_blocks) {                                                                                              \
            _tile_loadd(EG_INPUTS_1, (inputs) + EG_BLOCK_ROWS * (stride), (stride));                                   \
            instruction(EG_SUMS_10, EG_INPUTS_1, EG_WEIGHTS_0);                                                        \
            instruction(EG_SUMS_11, EG_INPUTS_1, EG_WEIGHTS_1);                                                        \
        }                                                                                                              \
    } while (0)

/* Rows of the pair of blocks that begins at `row`. */
static inline size_t eg_rows_from(size_t row, size_t rows)
{
    return rows - row < EG_PAIR_ROWS ? rows - row : EG_PAIR_ROWS;
}

#endif
