/* Looks up the levels of int4 weights in 256-bit registers, for matmul_avx2.c and matmul_avxvnni.c.
 * int4_tile_x86_body.h multiplies them.
 *
 * vpshufb looks up among 16 levels, one codebook, for all 16 bytes of half a register. So each half gets 16 inputs
 * of one channel, which share a codebook: a blend, a shift and unpacking make them from two lines of a panel. A
 * register has channels c and c + 4, and looks them up in one of 16 tables, one for each pair of codebooks. Another way
 * that was slower is in export/EXPERIMENTS.md.
 *
 * Levels are unsigned, level + EG_INT4_OFFSET, as the multiply instructions want one operand. */
#ifndef EG_INT4_LEVELS_X86_H
#define EG_INT4_LEVELS_X86_H

#include <immintrin.h>

#include "common/compiler.h"
#include "isa/kernels.h"

enum {
    INT4_LINE = EG_PANEL * EG_K_GROUP,   /* bytes, of 8 inputs */
    INT4_RUN = EG_CODEBOOK_INPUTS,       /* inputs of two lines */
    INT4_STEP = 2 * INT4_RUN,            /* inputs of one add_products */
    INT4_TABLE = 2 * EG_CODEBOOK_LEVELS, /* bytes: one register */
    INT4_QUARTERS = 4,                   /* of a panel's channels: the even or the odd ones of 0 … 7 or of 8 … 15 */
    INT4_PAIRS = 2,                      /* registers of a quarter, each with channels c and c + 4 */
    INT4_RUN_BYTES = INT4_PAIRS * INT4_TABLE, /* of levels of a quarter */
    INT4_BUFFER_K = 1152, /* inputs of a panel taken at once: 18 KiB of levels, for a first-level cache */
    INT4_BUFFER_RUNS = INT4_BUFFER_K / INT4_RUN,
    ODD_LANES = 0xAA,
};

typedef struct int4_inputs {
    /* Levels of two codebooks, i % 4 and i / 4. */
    _Alignas(INT4_TABLE) uint8_t tables[EG_CODEBOOKS * EG_CODEBOOKS][INT4_TABLE];
    /* Of `count` inputs of a panel: the lines; the table of each pair of channels c and c + 4 of a half, as four times
     * its index, in the first 4 of 8 bytes; and the levels, if they are stored. */
    const uint8_t *lines;
    size_t count;
    _Alignas(INT4_TABLE) uint8_t table_ids[INT4_BUFFER_RUNS][EG_PANEL];
    _Alignas(INT4_LINE) uint8_t levels[INT4_BUFFER_K * EG_PANEL];
} int4_inputs;

static void fill_tables(int4_inputs *inputs)
{
    static const int8_t levels[] = {EG_INT4_LEVELS};
    for (size_t i = 0; i < (size_t)EG_CODEBOOKS * EG_CODEBOOKS; i++) {
        const __m128i *low = (const __m128i *)(levels + i % EG_CODEBOOKS * EG_CODEBOOK_LEVELS);
        const __m128i *high = (const __m128i *)(levels + i / EG_CODEBOOKS * EG_CODEBOOK_LEVELS);
        const __m256i two = _mm256_loadu2_m128i(high, low);
        _mm256_store_si256((__m256i *)inputs->tables[i], _mm256_add_epi8(two, _mm256_set1_epi8(EG_INT4_OFFSET)));
    }
}

/* Two runs a register: both have all bytes of 64 inputs, and shift the two bits of their own to bits 2 and 3. */
static void choose_tables(int4_inputs *inputs, const uint8_t *codebooks)
{
    enum { NEXT_FOUR = 32 - EG_CODEBOOK_BITS }; /* from channel c + 4's bits to above channel c's */
    const __m256i mask = _mm256_set1_epi8((EG_CODEBOOKS - 1) << 2);
    for (size_t i = 0; i < inputs->count; i += EG_CODEBOOK_BYTE_INPUTS, codebooks += EG_PANEL) {
        const __m256i codebook_ids = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codebooks));
        const __m256i early = _mm256_and_si256(_mm256_sllv_epi64(codebook_ids, _mm256_setr_epi64x(2, 2, 0, 0)), mask);
        const __m256i late = _mm256_and_si256(_mm256_srlv_epi64(codebook_ids, _mm256_setr_epi64x(2, 2, 4, 4)), mask);
        __m256i *to = (__m256i *)inputs->table_ids[i / INT4_RUN];
        _mm256_store_si256(to, _mm256_or_si256(early, _mm256_srli_epi64(early, NEXT_FOUR)));
        _mm256_store_si256(to + 1, _mm256_or_si256(late, _mm256_srli_epi64(late, NEXT_FOUR)));
    }
}

/* The place of some inputs of a quarter. Pointers that advance by constants save address computations. */
typedef struct int4_cursor {
    const uint8_t *line, *table_ids, *levels;
} int4_cursor;

EG_ALWAYS_INLINE int4_cursor advance(int4_cursor from, size_t runs, size_t quarters)
{
    const size_t half = quarters / 2, odd = quarters % 2;
    from.line += runs * 2 * INT4_LINE + half * (INT4_LINE / 2) + odd * EG_K_GROUP;
    from.table_ids += runs * EG_PANEL + half * (EG_PANEL / 2) + odd;
    from.levels += (quarters * INT4_BUFFER_RUNS + runs) * INT4_RUN_BYTES;
    return from;
}

EG_ALWAYS_INLINE int4_cursor begin_at(const int4_inputs *inputs, size_t quarter)
{
    const int4_cursor first = {inputs->lines, inputs->table_ids[0], inputs->levels};
    return advance(first, 0, quarter);
}

EG_ALWAYS_INLINE __m256i look_up(const int4_inputs *inputs, uint8_t table_id, __m256i codes)
{
    const uint8_t *table = inputs->tables[0] + (size_t)table_id * (INT4_TABLE / 4);
    return _mm256_shuffle_epi8(_mm256_load_si256((const __m256i *)table), codes);
}

/* 16 inputs of a quarter. */
EG_ALWAYS_INLINE void unpack_run(const int4_inputs *inputs, int4_cursor from, __m256i levels[INT4_PAIRS])
{
    const __m256i nibble = _mm256_set1_epi8(0xF);
    /* Lane 2i has channel 2i of the first line, lane 2i + 1 the same of the second, which is read a lane early. */
    const __m256i first = _mm256_loadu_si256((const __m256i *)from.line);
    const __m256i second = _mm256_loadu_si256((const __m256i *)(from.line + INT4_LINE - EG_K_GROUP));
    const __m256i both = _mm256_blend_epi32(first, second, ODD_LANES);
    const __m256i high = _mm256_srli_epi16(both, 4);
    const __m256i codes[INT4_PAIRS] = {_mm256_and_si256(_mm256_unpacklo_epi32(both, high), nibble),
                                       _mm256_and_si256(_mm256_unpackhi_epi32(both, high), nibble)};
    levels[0] = look_up(inputs, from.table_ids[0], codes[0]);
    levels[1] = look_up(inputs, from.table_ids[2], codes[1]);
}

#endif
