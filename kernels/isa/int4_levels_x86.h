/* Integer matmul of int4 weights on 256-bit registers, for matmul_avx2.c and matmul_avxvnni.c.
 *
 * vpshufb looks up among 16 levels, one codebook, for all 16 bytes of half a register. So each half is given 16 inputs
 * of one channel, which share a codebook: a blend, a shift and unpacking make that of two lines of a panel. A register
 * has channels c and c + 4, and looks them up in one of 16 tables, one for each pair of codebooks. (Keeping a line as
 * it is and blending what all four codebooks have for it took 1.5 to 2 times as long for one row.) The sums of a
 * register are then partial ones, four of each channel, which are added at the end.
 *
 * Up to INT4_ROWS rows multiply levels as they are looked up. More rows share them through a buffer, laid out as the
 * kernel likes best.
 *
 * Levels are unsigned, level + EG_INT4_OFFSET, as the multiply instructions want one operand; sums begin at
 * -EG_INT4_OFFSET · Σ codes to undo that.
 *
 * The file that includes this one defines INT4_ROWS before, the most rows that registers have room for, and after it
 * add_products and multiply_many_rows. */
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
    /* Of `count` inputs of a panel: the lines; for each channel c of a half the table of c and c + 4, as four times its
     * number, of which the first 4 of 8 bytes count; and levels, if they are stored. */
    const uint8_t *lines;
    size_t count;
    _Alignas(INT4_TABLE) uint8_t choices[INT4_BUFFER_RUNS][EG_PANEL];
    _Alignas(INT4_LINE) uint8_t levels[INT4_BUFFER_K * EG_PANEL];
} int4_inputs;

/* Adds the products of INT4_STEP inputs, two runs of them, with `rows` rows of codes, k apart. */
EG_ALWAYS_INLINE void add_products(__m256i sums[INT4_ROWS][INT4_PAIRS], const int8_t *codes, size_t rows, size_t k,
                                   __m256i weights[2][INT4_PAIRS]);

/* The same as multiply_inputs for more than INT4_ROWS rows, which share the levels through the buffer. */
static void multiply_many_rows(int4_inputs *inputs, const int8_t *codes, size_t rows, size_t k, int32_t *out);

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
        const __m256i numbers = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codebooks));
        const __m256i early = _mm256_and_si256(_mm256_sllv_epi64(numbers, _mm256_setr_epi64x(2, 2, 0, 0)), mask);
        const __m256i late = _mm256_and_si256(_mm256_srlv_epi64(numbers, _mm256_setr_epi64x(2, 2, 4, 4)), mask);
        __m256i *to = (__m256i *)inputs->choices[i / INT4_RUN];
        _mm256_store_si256(to, _mm256_or_si256(early, _mm256_srli_epi64(early, NEXT_FOUR)));
        _mm256_store_si256(to + 1, _mm256_or_si256(late, _mm256_srli_epi64(late, NEXT_FOUR)));
    }
}

/* Where some inputs of some quarter are. Pointers that move by constants save computing addresses. */
typedef struct int4_place {
    const uint8_t *line, *choices, *levels;
} int4_place;

EG_ALWAYS_INLINE int4_place moved(int4_place from, size_t runs, size_t quarters)
{
    const size_t half = quarters / 2, odd = quarters % 2;
    from.line += runs * 2 * INT4_LINE + half * (INT4_LINE / 2) + odd * EG_K_GROUP;
    from.choices += runs * EG_PANEL + half * (EG_PANEL / 2) + odd;
    from.levels += (quarters * INT4_BUFFER_RUNS + runs) * INT4_RUN_BYTES;
    return from;
}

EG_ALWAYS_INLINE int4_place first_place(const int4_inputs *inputs, size_t quarter)
{
    const int4_place first = {inputs->lines, inputs->choices[0], inputs->levels};
    return moved(first, 0, quarter);
}

EG_ALWAYS_INLINE __m256i look_up(const int4_inputs *inputs, uint8_t choice, __m256i codes)
{
    const uint8_t *table = inputs->tables[0] + (size_t)choice * (INT4_TABLE / 4);
    return _mm256_shuffle_epi8(_mm256_load_si256((const __m256i *)table), codes);
}

/* 16 inputs of a quarter. */
EG_ALWAYS_INLINE void unpack_run(const int4_inputs *inputs, int4_place from, __m256i levels[INT4_PAIRS])
{
    const __m256i nibble = _mm256_set1_epi8(0xF);
    /* Lane 2i has channel 2i of the first line, lane 2i + 1 the same of the second, which is read a lane early. */
    const __m256i first = _mm256_loadu_si256((const __m256i *)from.line);
    const __m256i second = _mm256_loadu_si256((const __m256i *)(from.line + INT4_LINE - EG_K_GROUP));
    const __m256i both = _mm256_blend_epi32(first, second, ODD_LANES);
    const __m256i high = _mm256_srli_epi16(both, 4);
    const __m256i codes[INT4_PAIRS] = {_mm256_and_si256(_mm256_unpacklo_epi32(both, high), nibble),
                                       _mm256_and_si256(_mm256_unpackhi_epi32(both, high), nibble)};
    levels[0] = look_up(inputs, from.choices[0], codes[0]);
    levels[1] = look_up(inputs, from.choices[2], codes[1]);
}

EG_ALWAYS_INLINE void load_run(const int4_inputs *inputs, int stored, int4_place from, __m256i levels[INT4_PAIRS])
{
    if (stored) {
        levels[0] = _mm256_load_si256((const __m256i *)from.levels);
        levels[1] = _mm256_load_si256((const __m256i *)(from.levels + INT4_TABLE));
    } else {
        unpack_run(inputs, from, levels);
    }
}

/* Two partial sums of each channel of `quarters` quarters from `first` on.
 *
 * One row reads its lines once, as fast as memory gives them. Passes over the same lines would let memory rest while
 * they read them again, so each fetches its share of the next panel, which begins where these inputs end. */
EG_ALWAYS_INLINE void multiply_quarters(const int4_inputs *inputs, size_t first, size_t quarters, int stored,
                                        const int8_t *codes, size_t rows, size_t k,
                                        __m256i partial[INT4_QUARTERS][INT4_ROWS])
{
    __m256i sums[INT4_QUARTERS][INT4_ROWS][INT4_PAIRS];
    EG_UNROLL
    for (size_t i = 0; i < quarters * rows; i++) {
        __m256i *pairs = sums[i / rows][i % rows];
        pairs[0] = pairs[1] = _mm256_setzero_si256();
        __asm__("" : "+x"(pairs[0]), "+x"(pairs[1])); /* GCC 12 copies and spills sums that begin equal */
    }
    int4_place from = first_place(inputs, first);
    const size_t bytes = inputs->count * EG_PANEL / 2;
    const uint8_t *ahead = inputs->lines + bytes + first * bytes / INT4_QUARTERS;
    for (size_t i = 0; i < inputs->count; i += INT4_STEP) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < quarters; quarter++) {
            __m256i weights[2][INT4_PAIRS];
            load_run(inputs, stored, moved(from, 0, quarter), weights[0]);
            load_run(inputs, stored, moved(from, 1, quarter), weights[1]);
            add_products(sums[quarter], codes + i, rows, k, weights);
            if (quarters < INT4_QUARTERS) {
                _mm_prefetch((const char *)ahead, _MM_HINT_T0);
                ahead += INT4_LINE;
            }
        }
        from = moved(from, 2, 0);
    }
    EG_UNROLL
    for (size_t i = 0; i < quarters * rows; i++) {
        const __m256i *pairs = sums[i / rows][i % rows];
        partial[first + i / rows][i % rows] = _mm256_hadd_epi32(pairs[0], pairs[1]);
    }
}

/* rows and stored are constants at every call, so that loops unroll and sums are registers. Few rows take more quarters
 * at once, to have 8 sums or more under way. */
EG_ALWAYS_INLINE void multiply_rows(const int4_inputs *inputs, int stored, const int8_t *codes, size_t rows, size_t k,
                                    int32_t *out)
{
    __m256i partial[INT4_QUARTERS][INT4_ROWS];
    const size_t quarters = rows == 1 ? 4 : rows == 2 ? 2 : 1;
    for (size_t first = 0; first < INT4_QUARTERS; first += quarters) {
        multiply_quarters(inputs, first, quarters, stored, codes, rows, k, partial);
    }
    for (size_t row = 0; row < rows; row++) {
        for (size_t half = 0; half < 2; half++) {
            const __m256i even = partial[2 * half][row], odd = partial[2 * half + 1][row];
            const __m256i sums = _mm256_blend_epi32(_mm256_add_epi32(even, _mm256_srli_epi64(even, 32)),
                                                    _mm256_add_epi32(odd, _mm256_slli_epi64(odd, 32)), ODD_LANES);
            __m256i *to = (__m256i *)(out + row * EG_TILE_CHANNELS + half * (EG_PANEL / 2));
            _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), sums));
        }
    }
}

/* Adds the products of up to INT4_ROWS rows to `out`. */
EG_ALWAYS_INLINE void multiply_inputs(const int4_inputs *inputs, int stored, const int8_t *codes, size_t rows, size_t k,
                                      int32_t *out)
{
    _Static_assert(INT4_ROWS == 4 || INT4_ROWS == 5, "the rows of the cases");
    if (rows == 1) {
        multiply_rows(inputs, stored, codes, 1, k, out);
    } else if (rows == 2) {
        multiply_rows(inputs, stored, codes, 2, k, out);
    } else if (rows == 3) {
        multiply_rows(inputs, stored, codes, 3, k, out);
    } else if (rows == 4 && INT4_ROWS > 4) {
        multiply_rows(inputs, stored, codes, 4, k, out);
    } else {
        multiply_rows(inputs, stored, codes, INT4_ROWS, k, out);
    }
}

/* What sums begin with, as the levels have an offset. */
static void undo_offset(const int32_t *code_sums, size_t rows, int32_t *sums)
{
    enum { LANES_OF_SUMS = 8 };
    for (size_t row = 0; row < rows; row++) {
        const __m256i sum = _mm256_set1_epi32(-EG_INT4_OFFSET * code_sums[row]);
        for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel += LANES_OF_SUMS) {
            _mm256_storeu_si256((__m256i *)(sums + row * EG_TILE_CHANNELS + channel), sum);
        }
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    int4_inputs inputs;
    fill_tables(&inputs);
    undo_offset(code_sums, rows, sums);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
        for (size_t begin = 0; begin < k; begin += INT4_BUFFER_K) {
            const size_t before = (panel * k + begin) * EG_PANEL; /* elements */
            inputs.lines = (const uint8_t *)weights + before / 2;
            inputs.count = k - begin < INT4_BUFFER_K ? k - begin : INT4_BUFFER_K;
            choose_tables(&inputs, codebooks + before / EG_CODEBOOK_BYTE_INPUTS);
            if (rows <= INT4_ROWS) {
                multiply_inputs(&inputs, 0, codes + begin, rows, k, sums + panel * EG_PANEL);
            } else {
                multiply_many_rows(&inputs, codes + begin, rows, k, sums + panel * EG_PANEL);
            }
        }
    }
}

#endif
