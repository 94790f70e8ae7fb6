/* Integer matmul on AMX: tdpbssd multiplies a tile of 16 rows x 64 inputs by one of 64 inputs x 16 channels. The
 * second is 16 lines of a panel, exactly as they are stored.
 *
 * Few rows are limited by reading weights from memory, which the kernels of matmul_avx512vnni.c do faster, as one
 * prefetched stream: up to VNNI_ROWS rows use them.
 *
 * int4 weights are unpacked to their levels by vpermb, once for all rows of a call. The shapes of the tiles include the
 * number of rows: absent rows are neither read nor written. */
#include "common/compiler.h"
#include "isa/kernels.h"

#if !defined(EG_AMX_EMULATION) /* tests/kernels/isa/amx_emulation.h has the intrinsics in plain C */
#if !defined(__AMX_INT8__) && !defined(__AMXINT8__) /* the second is the name in clang 14 */
#error "compile with -mamx-tile -mamx-int8"
#endif
#include <immintrin.h>
#endif

enum {
    LINE = 64,                  /* bytes in a row of a tile */
    BLOCK_ROWS = 16,            /* most rows of a tile register */
    PAIR_ROWS = 2 * BLOCK_ROWS, /* rows that are summed at once */
    PALETTE = 1,
    BLOCK_K = LINE,                   /* inputs in a row of a tile */
    BLOCK_BYTES = BLOCK_K * EG_PANEL, /* int8 weights of 64 inputs and 16 channels */
    BLOCK_LINES_INT4 = BLOCK_BYTES / 2 / LINE,
    VNNI_ROWS = 8,
    UNPACKED_K = 576, /* int4: 2 panels of it are 18 KiB, which leaves room in a first-level cache */
    SUMS_STRIDE = EG_TILE_CHANNELS * (int)sizeof(int32_t), /* bytes */
};

#if !defined(EG_AMX_EMULATION)
extern const eg_matmul_ops eg_matmul__avx512vbmi; /* every CPU with AMX supports it */
#endif

/* ---- tile registers -------------------------------------------------------------------------------------------- */

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

/* A compiler barrier for the memory at `pointer`: the tile intrinsics of GCC 12 do not say which memory they read, and
 * without this it drops the configuration below. */
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

/* Shapes the tiles for `rows` rows. Costs about 50 cycles. So does _tile_release() at the end of each call, after
 * which the operating system has no tiles to save. 32 rows at k = 768 take 3,000 cycles. */
static void configure_tiles(size_t rows)
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

/* sums: of the first panel, followed in each row by those of the second; rows EG_TILE_CHANNELS apart. */
static void load_sums(const int32_t *sums, int two_blocks)
{
    _tile_loadd(SUMS_00, sums, SUMS_STRIDE);
    _tile_loadd(SUMS_01, sums + EG_PANEL, SUMS_STRIDE);
    if (two_blocks) {
        _tile_loadd(SUMS_10, sums + BLOCK_ROWS * EG_TILE_CHANNELS, SUMS_STRIDE);
        _tile_loadd(SUMS_11, sums + BLOCK_ROWS * EG_TILE_CHANNELS + EG_PANEL, SUMS_STRIDE);
    }
}

static void store_sums(int32_t *sums, int two_blocks)
{
    _tile_stored(SUMS_00, sums, SUMS_STRIDE);
    _tile_stored(SUMS_01, sums + EG_PANEL, SUMS_STRIDE);
    if (two_blocks) {
        _tile_stored(SUMS_10, sums + BLOCK_ROWS * EG_TILE_CHANNELS, SUMS_STRIDE);
        _tile_stored(SUMS_11, sums + BLOCK_ROWS * EG_TILE_CHANNELS + EG_PANEL, SUMS_STRIDE);
    }
}

/* sums += codes · weights for 2 blocks of rows, `stride` bytes apart, and 2 panels: a tile of each. */
EG_ALWAYS_INLINE void multiply_tiles(const int8_t *codes, size_t stride, const int8_t *weights_0,
                                     const int8_t *weights_1, int two_blocks)
{
    _tile_loadd(INPUTS_0, codes, stride);
    _tile_loadd(WEIGHTS_0, weights_0, LINE);
    _tile_dpbssd(SUMS_00, INPUTS_0, WEIGHTS_0);
    _tile_loadd(WEIGHTS_1, weights_1, LINE);
    _tile_dpbssd(SUMS_01, INPUTS_0, WEIGHTS_1);
    if (two_blocks) {
        _tile_loadd(INPUTS_1, codes + BLOCK_ROWS * stride, stride);
        _tile_dpbssd(SUMS_10, INPUTS_1, WEIGHTS_0);
        _tile_dpbssd(SUMS_11, INPUTS_1, WEIGHTS_1);
    }
}

/* Rows of the pair of blocks that begins at `row`. */
static size_t rows_from(size_t row, size_t rows) { return rows - row < PAIR_ROWS ? rows - row : PAIR_ROWS; }

/* ---- products -------------------------------------------------------------------------------------------------- */

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
#if !defined(EG_AMX_EMULATION)
    if (rows <= VNNI_ROWS) {
        eg_matmul__avx512vbmi.int8_tile(codes, code_sums, rows, k, weights, codebooks, sums);
        return;
    }
#endif
    (void)code_sums;
    (void)codebooks;
    SETTLE(codes);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += 2) {
        const int8_t *lines = (const int8_t *)weights + panel * EG_PANEL * k;
        for (size_t row = 0; row < rows; row += PAIR_ROWS) {
            const int two_blocks = rows_from(row, rows) > BLOCK_ROWS;
            if (row == 0 || rows_from(row, rows) != PAIR_ROWS) {
                configure_tiles(rows_from(row, rows));
            }
            zero_sums(two_blocks);
            for (size_t i = 0; i < k; i += BLOCK_K) {
                multiply_tiles(codes + row * k + i, k, lines + EG_PANEL * i, lines + EG_PANEL * (k + i), two_blocks);
            }
            int32_t *of_rows = sums + row * EG_TILE_CHANNELS + panel * EG_PANEL;
            store_sums(of_rows, two_blocks);
        }
    }
    _tile_release();
}

/* 64 inputs x 16 channels of int4 as their levels: a line becomes two, its low nibbles and its high ones. codebooks:
 * the byte of each channel. */
static void unpack_block(const uint8_t *lines, const uint8_t *codebooks, int8_t *block)
{
    static const int8_t levels[] = {EG_INT4_LEVELS};
#if defined(EG_AMX_EMULATION)
    for (size_t i = 0; i < BLOCK_LINES_INT4 * LINE; i++) {
        const size_t line = i / LINE, place = i % LINE;
        const size_t codebook = eg_codebook(codebooks[place / EG_K_GROUP], 2 * line * EG_K_GROUP);
        int8_t *low = block + 2 * line * LINE + place;
        low[0] = levels[codebook | (lines[i] & 0xF)];
        low[LINE] = levels[codebook | lines[i] >> 4];
    }
#else
    enum { CODEBOOK_LINES = EG_CODEBOOK_INPUTS / (2 * EG_K_GROUP), A_WHERE_B_ELSE_C = 0xE2 };
    const __m512i table = _mm512_loadu_si512(levels), nibble = _mm512_set1_epi8(0xF);
    const __m512i by_lane = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codebooks));
    const __m512i all_bytes = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
    __m512i codebook_ids = _mm512_rol_epi32(_mm512_shuffle_epi8(by_lane, all_bytes), 4); /* the first in bits 4 and 5 */
    for (size_t i = 0; i < BLOCK_LINES_INT4; i++) {
        const __m512i pair = _mm512_loadu_si512(lines + i * LINE), high = _mm512_srli_epi16(pair, 4);
        const __m512i first = _mm512_ternarylogic_epi32(pair, nibble, codebook_ids, A_WHERE_B_ELSE_C);
        const __m512i second = _mm512_ternarylogic_epi32(high, nibble, codebook_ids, A_WHERE_B_ELSE_C);
        _mm512_store_si512(block + 2 * i * LINE, _mm512_permutexvar_epi8(first, table));
        _mm512_store_si512(block + (2 * i + 1) * LINE, _mm512_permutexvar_epi8(second, table));
        if (i % CODEBOOK_LINES == CODEBOOK_LINES - 1) {
            codebook_ids = _mm512_ror_epi32(codebook_ids, EG_CODEBOOK_BITS);
        }
    }
#endif
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
#if !defined(EG_AMX_EMULATION)
    if (rows <= VNNI_ROWS) {
        eg_matmul__avx512vbmi.int4_tile(codes, code_sums, rows, k, weights, codebooks, sums);
        return;
    }
#endif
    _Alignas(LINE) int8_t panels[2][UNPACKED_K * EG_PANEL];
    (void)code_sums;
    __builtin_memset(sums, 0, rows * EG_TILE_CHANNELS * sizeof *sums);
    SETTLE(codes);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += 2) {
        const uint8_t *lines = (const uint8_t *)weights + panel * EG_PANEL * k / 2;
        const uint8_t *codebook_ids = codebooks + panel * EG_PANEL * k / EG_CODEBOOK_BYTE_INPUTS;
        for (size_t begin = 0; begin < k; begin += UNPACKED_K) {
            const size_t count = k - begin < UNPACKED_K ? k - begin : UNPACKED_K;
            for (size_t i = 0; i < count; i += BLOCK_K) {
                for (size_t other = 0; other < 2; other++) {
                    const size_t at = EG_PANEL * (other * k + begin + i); /* weights before this block */
                    unpack_block(lines + at / 2, codebook_ids + at / EG_CODEBOOK_BYTE_INPUTS,
                                 panels[other] + EG_PANEL * i);
                }
            }
            for (size_t row = 0; row < rows; row += PAIR_ROWS) {
                const int two_blocks = rows_from(row, rows) > BLOCK_ROWS;
                int32_t *of_rows = sums + row * EG_TILE_CHANNELS + panel * EG_PANEL;
                SETTLE(panels);
                SETTLE(of_rows);
                if (row == 0 || rows_from(row, rows) != PAIR_ROWS) {
                    configure_tiles(rows_from(row, rows));
                }
                load_sums(of_rows, two_blocks);
                for (size_t i = 0; i < count; i += BLOCK_K) {
                    multiply_tiles(codes + row * k + begin + i, k, panels[0] + EG_PANEL * i, panels[1] + EG_PANEL * i,
                                   two_blocks);
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
    configure_tiles(PAIR_ROWS);
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
