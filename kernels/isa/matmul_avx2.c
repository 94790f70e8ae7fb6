/* Integer matmul on AVX2, which has no 8-bit dot product: vpmaddubsw multiplies unsigned by signed bytes and adds
 * pairs to int16 with saturation.
 *
 * int8: |weight| times the code with the weight's sign. A pair is at most 2 · 127 · 127 = 32258, below saturation
 * because codes are -127 … 127; vpmaddwd by ones then widens to int32. That is two multiplier instructions for
 * 32 products, like every other exact way on AVX2 (int16 vpmaddwd, or weights split in nibbles).
 * int4: levels + 30 are the unsigned operand (int4_levels_x86.h looks them up); a pair is at most 2 · 60 · 127 = 15240,
 * so two of a channel add up in int16 before one widening, and sums start at -30 · Σ codes to undo the offset. */
#include "common/compiler.h"
#include "isa/int4_levels_x86.h"
#include "isa/kernels.h"

#if !defined(__AVX2__)
#error "compile with -mavx2"
#endif
#include <immintrin.h>

enum {
    TILE_ROWS =
        EG_CHUNK_ROWS, /* which share a panel's levels of int4; their sums, 16 KiB, stay in a first-level cache */
    BLOCK_ROWS = 4,    /* 4 rows x 2 registers = 8 sums; with weights, codes, ones and products: 16 */
    HALVES = 2,        /* a panel of 16 sums is two registers */
    LINE = 64,
};

static inline __m256i load_group(const int8_t *codes)
{
    int32_t group;
    __builtin_memcpy(&group, codes, sizeof group);
    return _mm256_set1_epi32(group);
}

/* The same 16 inputs for both channels of a register. */
static inline __m256i broadcast_run(const int8_t *codes)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));
}

static inline __m256i load_half_line(const uint8_t *line, size_t half)
{
    return _mm256_loadu_si256((const __m256i *)(line + half * (LINE / HALVES)));
}

EG_ALWAYS_INLINE void store_sums(__m256i sums[BLOCK_ROWS][HALVES], size_t rows, int32_t *out)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t half = 0; half < HALVES; half++) {
            _mm256_storeu_si256((__m256i *)(out + row * EG_TILE_CHANNELS + half * (EG_PANEL / HALVES)),
                                sums[row][half]);
        }
    }
}

/* Calls function(codes, rows, ...) with the rows of a block as a constant, so that its sums are registers. */
#define FOR_ROWS(rows, function, codes, ...)                                                                           \
    switch (rows) {                                                                                                    \
    case 1: function(codes, 1, __VA_ARGS__); break;                                                                    \
    case 2: function(codes, 2, __VA_ARGS__); break;                                                                    \
    case 3: function(codes, 3, __VA_ARGS__); break;                                                                    \
    default: function(codes, BLOCK_ROWS, __VA_ARGS__); break;                                                          \
    }

EG_ALWAYS_INLINE void int8_panel(const int8_t *codes, size_t rows, size_t k, const uint8_t *panel, int32_t *out)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[BLOCK_ROWS][HALVES];
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = sums[row][1] = _mm256_setzero_si256();
    }
    for (size_t i = 0; i < k; i += EG_K_GROUP) {
        EG_UNROLL
        for (size_t half = 0; half < HALVES; half++) {
            const __m256i weights = load_half_line(panel, half);
            const __m256i magnitudes = _mm256_abs_epi8(weights);
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                const __m256i signed_codes = _mm256_sign_epi8(load_group(codes + row * k + i), weights);
                const __m256i pairs = _mm256_maddubs_epi16(magnitudes, signed_codes);
                sums[row][half] = _mm256_add_epi32(sums[row][half], _mm256_madd_epi16(pairs, ones));
            }
        }
        panel += LINE;
    }
    store_sums(sums, rows, out);
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    (void)code_sums;
    (void)codebooks;
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        const int8_t *from = codes + row * k;
        for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
            const uint8_t *lines = (const uint8_t *)weights + panel * EG_PANEL * k;
            int32_t *out = sums + row * EG_TILE_CHANNELS + panel * EG_PANEL;
            FOR_ROWS(rows - row, int8_panel, from, k, lines, out)
        }
    }
}

enum { INT4_ROWS = BLOCK_ROWS };

EG_ALWAYS_INLINE void add_products(__m256i sums[INT4_ROWS][INT4_PAIRS], const int8_t *codes, size_t rows, size_t k,
                                   __m256i weights[2][INT4_PAIRS])
{
    const __m256i ones = _mm256_set1_epi16(1);
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        const __m256i first_codes = broadcast_run(codes + row * k);
        const __m256i second_codes = broadcast_run(codes + row * k + INT4_RUN);
        EG_UNROLL
        for (size_t pair = 0; pair < INT4_PAIRS; pair++) {
            const __m256i first = _mm256_maddubs_epi16(weights[0][pair], first_codes);
            const __m256i second = _mm256_maddubs_epi16(weights[1][pair], second_codes);
            const __m256i products = _mm256_madd_epi16(_mm256_add_epi16(first, second), ones);
            sums[row][pair] = _mm256_add_epi32(sums[row][pair], products);
        }
    }
}

#include "isa/int4_tile_x86_body.h"

/* The buffer has the levels in the order in which they are looked up. */
static void store_levels(int4_inputs *inputs)
{
    const int4_cursor first = begin_at(inputs, 0);
    for (size_t run = 0; run < inputs->count / INT4_RUN; run++) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < INT4_QUARTERS; quarter++) {
            __m256i levels[INT4_PAIRS];
            unpack_run(inputs, advance(first, run, quarter), levels);
            uint8_t *to = inputs->levels + (quarter * INT4_BUFFER_RUNS + run) * INT4_RUN_BYTES;
            _mm256_store_si256((__m256i *)to, levels[0]);
            _mm256_store_si256((__m256i *)(to + INT4_TABLE), levels[1]);
        }
    }
}

static void multiply_many_rows(int4_inputs *inputs, const int8_t *codes, size_t rows, size_t k, int32_t *out)
{
    store_levels(inputs);
    for (size_t row = 0; row < rows; row += INT4_ROWS) {
        multiply_inputs(inputs, 1, codes + row * k, rows - row, k, out + row * EG_TILE_CHANNELS);
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    multiply_int4(multiply_many_rows, codes, code_sums, rows, k, weights, codebooks, sums);
}

/* The int8 step: sign, two multiplies, add. */
static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 8, MACS = 32 };
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i magnitudes = _mm256_abs_epi8(_mm256_set1_epi32(*sink));
    __m256i weights = _mm256_set1_epi32(*sink);
    __m256i sums[CHAINS];
    EG_UNROLL
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = _mm256_set1_epi32(chain);
    }
    for (uint64_t i = 0; i < iterations; i++) {
        EG_UNROLL
        for (int chain = 0; chain < CHAINS; chain++) {
            __asm__("" : "+x"(weights)); /* looks changed, so that the product is not taken out of the loop */
            const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(weights, magnitudes));
            sums[chain] = _mm256_add_epi32(sums[chain], _mm256_madd_epi16(pairs, ones));
        }
    }
    __m256i total = sums[0];
    EG_UNROLL
    for (int chain = 1; chain < CHAINS; chain++) {
        total = _mm256_xor_si256(total, sums[chain]);
    }
    *sink = _mm256_extract_epi32(total, 0);
    return iterations * CHAINS * MACS;
}

extern const eg_matmul_ops eg_matmul__avx2;
const eg_matmul_ops eg_matmul__avx2 = {.tile_rows = TILE_ROWS,
                                       .chunk_rows = EG_CHUNK_ROWS,
                                       .int8_tile = int8_tile,
                                       .int4_tile = int4_tile,
                                       .multiply_probe = multiply_probe};
