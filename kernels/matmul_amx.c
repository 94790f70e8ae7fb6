/* Integer matmul on AMX: tdpbssd multiplies a tile of 16 rows x 64 inputs by one of 64 inputs x 16 channels. The
 * second is 16 lines of a stored panel, exactly as they lie in memory.
 *
 * int4 weights are unpacked to bytes 0 … 15, once for all rows of a call, and multiplied as unsigned (tdpbsud), so
 * their sums start at -8 · Σ codes. The tiles' shapes hold the number of rows: absent rows are neither read nor
 * written. */
#include "kernels.h"

#if !defined(EG_AMX_EMULATION)                      /* tests/kernels/test_amx_emulated.c runs this file on any CPU */
#if !defined(__AMX_INT8__) && !defined(__AMXINT8__) /* the second is the name in clang 14 */
#error "compile with -mamx-tile -mamx-int8"
#endif
#include <immintrin.h>
#endif

enum {
    LINE = 64,
    BLOCK_ROWS = 16,                  /* most rows of a tile register */
    BLOCK_K = LINE,                   /* inputs in a row of a tile */
    BLOCK_BYTES = BLOCK_K * EG_PANEL, /* int8 weights of 64 inputs and 16 channels */
    BLOCK_LINES_INT4 = BLOCK_BYTES / 2 / LINE,
    PAIR_ROWS = 2 * BLOCK_ROWS, /* rows that are summed at once */
    UNPACKED_K = 576,           /* int4: 2 panels of it are 18 KiB, which leave room in a first-level cache */
    SUMS_STRIDE = EG_TILE_CHANNELS * (int)sizeof(int32_t), /* bytes */
    PALETTE = 1,
};

/* Tile registers: 2 blocks of rows x 2 panels of sums, which hide a latency of 52 cycles at one product each 16,
 * their 2 blocks of inputs, and 2 panels of weights: all 8. The intrinsics take literal numbers only. */
#define SUMS_00   0
#define SUMS_01   1
#define SUMS_10   2
#define SUMS_11   3
#define INPUTS_0  4
#define INPUTS_1  5
#define WEIGHTS_0 6
#define WEIGHTS_1 7

/* Makes the compiler finish its stores behind `pointer`, and start no later ones: GCC 12's tile intrinsics do not tell
 * it which memory they read, and without this it drops the configuration below. */
#define SETTLE(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

typedef struct tile_config { /* Intel SDM volume 1, 18.2 */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static void set_shape(tile_config *config, int tile, size_t rows)
{
    config->rows[tile] = (uint8_t)rows;
    config->row_bytes[tile] = rows ? LINE : 0;
}

/* Shapes the tiles for `rows` rows. Costs some 50 cycles, and so does _tile_release() at the end of each call, after
 * which the operating system again has no tiles to save: little beside the 3,000 of 32 rows at k = 768. */
static void configure(size_t rows)
{
    const size_t first = rows < BLOCK_ROWS ? rows : BLOCK_ROWS, second = rows - first;
    tile_config config = {.palette = PALETTE};
    set_shape(&config, SUMS_00, first);
    set_shape(&config, SUMS_01, first);
    set_shape(&config, SUMS_10, second);
    set_shape(&config, SUMS_11, second);
    set_shape(&config, INPUTS_0, first);
    set_shape(&config, INPUTS_1, second);
    set_shape(&config, WEIGHTS_0, EG_PANEL);
    set_shape(&config, WEIGHTS_1, EG_PANEL);
    SETTLE(&config);
    _tile_loadconfig(&config);
}

static void zero_sums(int two_blocks)
{
    _tile_zero(SUMS_00);
    _tile_zero(SUMS_01);
    if (two_blocks) {
        _tile_zero(SUMS_10);
        _tile_zero(SUMS_11);
    }
}

static void load_sums(const int32_t *from, int two_blocks)
{
    _tile_loadd(SUMS_00, from, SUMS_STRIDE);
    _tile_loadd(SUMS_01, from + EG_PANEL, SUMS_STRIDE);
    if (two_blocks) {
        _tile_loadd(SUMS_10, from + BLOCK_ROWS * EG_TILE_CHANNELS, SUMS_STRIDE);
        _tile_loadd(SUMS_11, from + BLOCK_ROWS * EG_TILE_CHANNELS + EG_PANEL, SUMS_STRIDE);
    }
}

static void store_sums(int32_t *to, int two_blocks)
{
    _tile_stored(SUMS_00, to, SUMS_STRIDE);
    _tile_stored(SUMS_01, to + EG_PANEL, SUMS_STRIDE);
    if (two_blocks) {
        _tile_stored(SUMS_10, to + BLOCK_ROWS * EG_TILE_CHANNELS, SUMS_STRIDE);
        _tile_stored(SUMS_11, to + BLOCK_ROWS * EG_TILE_CHANNELS + EG_PANEL, SUMS_STRIDE);
    }
}

/* sums += inputs · weights for 2 blocks of rows and 2 panels: one block of inputs each, k apart row by row. */
#define MULTIPLY(instruction, inputs, k, weights_0, weights_1, two_blocks)                                             \
    do {                                                                                                               \
        _tile_loadd(INPUTS_0, (inputs), (k));                                                                          \
        _tile_loadd(WEIGHTS_0, (weights_0), LINE);                                                                     \
        instruction(SUMS_00, INPUTS_0, WEIGHTS_0);                                                                     \
        _tile_loadd(WEIGHTS_1, (weights_1), LINE);                                                                     \
        instruction(SUMS_01, INPUTS_0, WEIGHTS_1);                                                                     \
        if (two_blocks) {                                                                                              \
            _tile_loadd(INPUTS_1, (inputs) + BLOCK_ROWS * (k), (k));                                                   \
            instruction(SUMS_10, INPUTS_1, WEIGHTS_0);                                                                 \
            instruction(SUMS_11, INPUTS_1, WEIGHTS_1);                                                                 \
        }                                                                                                              \
    } while (0)

static size_t rows_from(size_t row, size_t rows) { return rows - row < PAIR_ROWS ? rows - row : PAIR_ROWS; }

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    (void)code_sums;
    SETTLE(codes);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += 2) {
        const int8_t *lines = (const int8_t *)weights + panel * EG_PANEL * k;
        for (size_t row = 0; row < rows; row += PAIR_ROWS) {
            const int two_blocks = rows_from(row, rows) > BLOCK_ROWS;
            if (row == 0 || rows_from(row, rows) != PAIR_ROWS) {
                configure(rows_from(row, rows));
            }
            zero_sums(two_blocks);
            for (size_t i = 0; i < k; i += BLOCK_K) {
                MULTIPLY(_tile_dpbssd, codes + row * k + i, k, lines + EG_PANEL * i, lines + EG_PANEL * (k + i),
                         two_blocks);
            }
            store_sums(sums + row * EG_TILE_CHANNELS + panel * EG_PANEL, two_blocks);
        }
    }
    _tile_release();
}

/* 64 inputs x 16 channels of int4 as bytes 0 … 15: a line becomes two, its low nibbles and its high ones. */
static void unpack_block(const uint8_t *lines, uint8_t *block)
{
    typedef uint8_t line __attribute__((vector_size(LINE)));
    for (size_t i = 0; i < BLOCK_LINES_INT4; i++) {
        line pair;
        __builtin_memcpy(&pair, lines + i * LINE, LINE);
        const line low = pair & 0xF, high = pair >> 4;
        __builtin_memcpy(block + 2 * i * LINE, &low, LINE);
        __builtin_memcpy(block + (2 * i + 1) * LINE, &high, LINE);
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    _Alignas(LINE) uint8_t panels[2][UNPACKED_K * EG_PANEL];
    for (size_t row = 0; row < rows; row++) {
        for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel++) {
            sums[row * EG_TILE_CHANNELS + channel] = -EG_INT4_OFFSET * code_sums[row];
        }
    }
    SETTLE(codes);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += 2) {
        const uint8_t *lines = (const uint8_t *)weights + panel * EG_PANEL * k / 2;
        for (size_t begin = 0; begin < k; begin += UNPACKED_K) {
            const size_t count = k - begin < UNPACKED_K ? k - begin : UNPACKED_K;
            for (size_t i = 0; i < count; i += BLOCK_K) {
                unpack_block(lines + EG_PANEL * (begin + i) / 2, panels[0] + EG_PANEL * i);
                unpack_block(lines + EG_PANEL * (k + begin + i) / 2, panels[1] + EG_PANEL * i);
            }
            for (size_t row = 0; row < rows; row += PAIR_ROWS) {
                const int two_blocks = rows_from(row, rows) > BLOCK_ROWS;
                int32_t *of_rows = sums + row * EG_TILE_CHANNELS + panel * EG_PANEL;
                SETTLE(panels);
                SETTLE(of_rows);
                if (row == 0 || rows_from(row, rows) != PAIR_ROWS) {
                    configure(rows_from(row, rows));
                }
                load_sums(of_rows, two_blocks);
                for (size_t i = 0; i < count; i += BLOCK_K) {
                    MULTIPLY(_tile_dpbsud, codes + row * k + begin + i, k, panels[0] + EG_PANEL * i,
                             panels[1] + EG_PANEL * i, two_blocks);
                }
                store_sums(of_rows, two_blocks);
                SETTLE(panels); /* the tiles have read them before they are unpacked anew */
            }
        }
    }
    _tile_release();
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 4, MACS = BLOCK_ROWS * EG_PANEL * BLOCK_K };
    int32_t sums[BLOCK_ROWS * EG_PANEL];
    for (size_t i = 0; i < BLOCK_ROWS * EG_PANEL; i++) {
        sums[i] = *sink;
    }
    SETTLE(sums);
    configure(PAIR_ROWS);
    _tile_loadd(INPUTS_0, sums, LINE);
    _tile_loadd(INPUTS_1, sums, LINE);
    _tile_loadd(WEIGHTS_0, sums, LINE);
    _tile_loadd(WEIGHTS_1, sums, LINE);
    zero_sums(1);
    for (uint64_t i = 0; i < iterations; i++) {
        _tile_dpbssd(SUMS_00, INPUTS_0, WEIGHTS_0);
        _tile_dpbssd(SUMS_01, INPUTS_0, WEIGHTS_1);
        _tile_dpbssd(SUMS_10, INPUTS_1, WEIGHTS_0);
        _tile_dpbssd(SUMS_11, INPUTS_1, WEIGHTS_1);
    }
    _tile_stored(SUMS_00, sums, LINE); /* a block of sums is 16 rows of 16: as wide as a line */
    _tile_release();
    *sink = sums[0];
    return iterations * CHAINS * MACS;
}

extern const eg_matmul_ops eg_matmul__amx;
const eg_matmul_ops eg_matmul__amx = {.tile_rows = EG_TILE_MAX_ROWS,
                                      .chunk_rows = 128,
                                      .int8_tile = int8_tile,
                                      .int4_tile = int4_tile,
                                      .multiply_probe = multiply_probe};
