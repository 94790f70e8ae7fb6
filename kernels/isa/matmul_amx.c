/* Integer matmul on AMX: tdpbssd multiplies a tile of 16 rows x 64 inputs by one of 64 inputs x 16 channels. The
 * second is 16 lines of a stored panel, exactly as they lie in memory.
 *
 * A few rows wait for their weights to come from memory, which the kernels of matmul_avx512vnni.c read as one stream,
 * fetched ahead: they take those.
 *
 * int4 weights are unpacked to their levels, which vpermb looks up in all codebooks, once for all rows of a call. The
 * tiles' shapes hold the number of rows: absent rows are neither read nor written. */
#include "isa/kernels.h"

#if !defined(EG_AMX_EMULATION) && !defined(__AMX_INT8__) && !defined(__AMXINT8__) /* the last is clang 14's name */
#error "compile with -mamx-tile -mamx-int8"
#endif
#include "isa/amx_tiles.h"

enum {
    BLOCK_K = EG_LINE,                /* inputs in a row of a tile */
    BLOCK_BYTES = BLOCK_K * EG_PANEL, /* int8 weights of 64 inputs and 16 channels */
    BLOCK_LINES_INT4 = BLOCK_BYTES / 2 / EG_LINE,
    VNNI_ROWS = 8,
    UNPACKED_K = 576, /* int4: 2 panels of it are 18 KiB, which leave room in a first-level cache */
    SUMS_STRIDE = EG_TILE_CHANNELS * (int)sizeof(int32_t), /* bytes */
};

#if !defined(EG_AMX_EMULATION)
extern const eg_matmul_ops eg_matmul__avx512vbmi; /* every CPU with AMX has it */
#endif

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
    EG_SETTLE(codes);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += 2) {
        const int8_t *lines = (const int8_t *)weights + panel * EG_PANEL * k;
        for (size_t row = 0; row < rows; row += EG_PAIR_ROWS) {
            const int two_blocks = eg_rows_from(row, rows) > EG_BLOCK_ROWS;
            if (row == 0 || eg_rows_from(row, rows) != EG_PAIR_ROWS) {
                eg_configure_tiles(eg_rows_from(row, rows));
            }
            eg_zero_sums(two_blocks);
            for (size_t i = 0; i < k; i += BLOCK_K) {
                EG_MULTIPLY_TILES(_tile_dpbssd, codes + row * k + i, k, lines + EG_PANEL * i,
                                  lines + EG_PANEL * (k + i), two_blocks);
            }
            int32_t *of_rows = sums + row * EG_TILE_CHANNELS + panel * EG_PANEL;
            eg_store_sums(of_rows, of_rows + EG_PANEL, SUMS_STRIDE, two_blocks);
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
    for (size_t i = 0; i < BLOCK_LINES_INT4 * EG_LINE; i++) {
        const size_t line = i / EG_LINE, place = i % EG_LINE;
        const size_t codebook = eg_codebook(codebooks[place / EG_K_GROUP], 2 * line * EG_K_GROUP);
        int8_t *low = block + 2 * line * EG_LINE + place;
        low[0] = levels[codebook | (lines[i] & 0xF)];
        low[EG_LINE] = levels[codebook | lines[i] >> 4];
    }
#else
    enum { BOOK_LINES = EG_CODEBOOK_INPUTS / (2 * EG_K_GROUP), A_WHERE_B_ELSE_C = 0xE2 };
    const __m512i table = _mm512_loadu_si512(levels), nibble = _mm512_set1_epi8(0xF);
    const __m512i by_lane = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codebooks));
    const __m512i all_bytes = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
    __m512i books = _mm512_rol_epi32(_mm512_shuffle_epi8(by_lane, all_bytes), 4); /* the first in bits 4 and 5 */
    for (size_t i = 0; i < BLOCK_LINES_INT4; i++) {
        const __m512i pair = _mm512_loadu_si512(lines + i * EG_LINE), high = _mm512_srli_epi16(pair, 4);
        const __m512i first = _mm512_ternarylogic_epi32(pair, nibble, books, A_WHERE_B_ELSE_C);
        const __m512i second = _mm512_ternarylogic_epi32(high, nibble, books, A_WHERE_B_ELSE_C);
        _mm512_store_si512(block + 2 * i * EG_LINE, _mm512_permutexvar_epi8(first, table));
        _mm512_store_si512(block + (2 * i + 1) * EG_LINE, _mm512_permutexvar_epi8(second, table));
        if (i % BOOK_LINES == BOOK_LINES - 1) {
            books = _mm512_ror_epi32(books, EG_CODEBOOK_BITS);
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
    _Alignas(EG_LINE) int8_t panels[2][UNPACKED_K * EG_PANEL];
    (void)code_sums;
    __builtin_memset(sums, 0, rows * EG_TILE_CHANNELS * sizeof *sums);
    EG_SETTLE(codes);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += 2) {
        const uint8_t *lines = (const uint8_t *)weights + panel * EG_PANEL * k / 2;
        const uint8_t *books = codebooks + panel * EG_PANEL * k / EG_CODEBOOK_BYTE_INPUTS;
        for (size_t begin = 0; begin < k; begin += UNPACKED_K) {
            const size_t count = k - begin < UNPACKED_K ? k - begin : UNPACKED_K;
            for (size_t i = 0; i < count; i += BLOCK_K) {
                for (size_t other = 0; other < 2; other++) {
                    const size_t at = EG_PANEL * (other * k + begin + i); /* weights before this block */
                    unpack_block(lines + at / 2, books + at / EG_CODEBOOK_BYTE_INPUTS, panels[other] + EG_PANEL * i);
                }
            }
            for (size_t row = 0; row < rows; row += EG_PAIR_ROWS) {
                const int two_blocks = eg_rows_from(row, rows) > EG_BLOCK_ROWS;
                int32_t *of_rows = sums + row * EG_TILE_CHANNELS + panel * EG_PANEL;
                EG_SETTLE(panels);
                EG_SETTLE(of_rows);
                if (row == 0 || eg_rows_from(row, rows) != EG_PAIR_ROWS) {
                    eg_configure_tiles(eg_rows_from(row, rows));
                }
                eg_load_sums(of_rows, of_rows + EG_PANEL, SUMS_STRIDE, two_blocks);
                for (size_t i = 0; i < count; i += BLOCK_K) {
                    EG_MULTIPLY_TILES(_tile_dpbssd, codes + row * k + begin + i, k, panels[0] + EG_PANEL * i,
                                      panels[1] + EG_PANEL * i, two_blocks);
                }
                eg_store_sums(of_rows, of_rows + EG_PANEL, SUMS_STRIDE, two_blocks);
                EG_SETTLE(panels); /* the tiles have read them before they are unpacked anew */
            }
        }
    }
    _tile_release();
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 4, MACS = EG_BLOCK_ROWS * EG_PANEL * BLOCK_K };
    int32_t sums[EG_BLOCK_ROWS * EG_PANEL];
    for (size_t i = 0; i < EG_BLOCK_ROWS * EG_PANEL; i++) {
        sums[i] = *sink;
    }
    EG_SETTLE(sums);
    eg_configure_tiles(EG_PAIR_ROWS);
    _tile_loadd(EG_INPUTS_0, sums, EG_LINE);
    _tile_loadd(EG_INPUTS_1, sums, EG_LINE);
    _tile_loadd(EG_WEIGHTS_0, sums, EG_LINE);
    _tile_loadd(EG_WEIGHTS_1, sums, EG_LINE);
    eg_zero_sums(1);
    for (uint64_t i = 0; i < iterations; i++) {
        _tile_dpbssd(EG_SUMS_00, EG_INPUTS_0, EG_WEIGHTS_0);
        _tile_dpbssd(EG_SUMS_01, EG_INPUTS_0, EG_WEIGHTS_1);
        _tile_dpbssd(EG_SUMS_10, EG_INPUTS_1, EG_WEIGHTS_0);
        _tile_dpbssd(EG_SUMS_11, EG_INPUTS_1, EG_WEIGHTS_1);
    }
    _tile_stored(EG_SUMS_00, sums, EG_LINE); /* a block of sums is 16 rows of 16: as wide as a line */
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
