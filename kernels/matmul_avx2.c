/* Integer matmul on AVX2, which has no 8-bit dot product: vpmaddubsw multiplies unsigned by signed bytes and adds
 * pairs to int16 with saturation.
 *
 * int8: |weight| times the code with the weight's sign. A pair is at most 2 · 127 · 127 = 32258, below saturation
 * because codes keep to -127 … 127; vpmaddwd by ones then widens to int32. That is two multiplier instructions for
 * 32 products, like every other exact way on AVX2 (int16 vpmaddwd, or weights split in nibbles).
 * int4: levels + 19 are the unsigned operand (one vpshufb looks them up); a pair is at most 2 · 38 · 127 = 9652, so the
 * two of a line add up in int16 before one widening, and sums start at -19 · Σ codes to undo the offset. */
#include "compiler.h"
#include "int4_levels_x86.h"
#include "kernels.h"

#if !defined(__AVX2__)
#error "compile with -mavx2"
#endif
#include <immintrin.h>

enum {
    TILE_ROWS = 4, /* 4 rows x 2 registers = 8 sums; with weights, codes, ones and products: 16 */
    HALVES = 2,    /* a panel of 16 sums is two registers */
    LINE = 64,
};

static inline __m256i load_group(const int8_t *codes)
{
    int32_t group;
    __builtin_memcpy(&group, codes, sizeof group);
    return _mm256_set1_epi32(group);
}

static inline __m256i load_half_line(const uint8_t *line, size_t half)
{
    return _mm256_loadu_si256((const __m256i *)(line + half * (LINE / HALVES)));
}

EG_ALWAYS_INLINE void store_sums(__m256i sums[TILE_ROWS][HALVES], size_t rows, int32_t *out)
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

EG_ALWAYS_INLINE void int8_panel(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                                 const uint8_t *panel, int32_t *out)
{
    (void)code_sums;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[TILE_ROWS][HALVES];
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

EG_ALWAYS_INLINE void int4_panel(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                                 const uint8_t *panel, int32_t *out)
{
    const __m256i levels = _mm256_broadcastsi128_si256(eg_unsigned_int4_levels());
    const __m256i nibble = _mm256_set1_epi8(0xF);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sums[TILE_ROWS][HALVES];
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = sums[row][1] = _mm256_set1_epi32(-EG_INT4_OFFSET * code_sums[row]);
    }
    for (size_t i = 0; i < k; i += 2 * EG_K_GROUP) {
        EG_UNROLL
        for (size_t half = 0; half < HALVES; half++) {
            const __m256i line = load_half_line(panel, half);
            const __m256i low = _mm256_shuffle_epi8(levels, _mm256_and_si256(line, nibble));
            const __m256i high = _mm256_shuffle_epi8(levels, _mm256_and_si256(_mm256_srli_epi16(line, 4), nibble));
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                const int8_t *inputs = codes + row * k + i;
                const __m256i first = _mm256_maddubs_epi16(low, load_group(inputs));
                const __m256i second = _mm256_maddubs_epi16(high, load_group(inputs + EG_K_GROUP));
                const __m256i pairs = _mm256_add_epi16(first, second);
                sums[row][half] = _mm256_add_epi32(sums[row][half], _mm256_madd_epi16(pairs, ones));
            }
        }
        panel += LINE;
    }
    store_sums(sums, rows, out);
}

/* Calls `function` for each panel of the tile, with `rows` as a constant, so that its sums are registers. */
#define FOR_EACH_PANEL(function, panel_bytes)                                                                          \
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {                                             \
        const uint8_t *lines = (const uint8_t *)weights + panel * (panel_bytes);                                       \
        int32_t *out = sums + panel * EG_PANEL;                                                                        \
        switch (rows) {                                                                                                \
        case 1: function(codes, code_sums, 1, k, lines, out); break;                                                   \
        case 2: function(codes, code_sums, 2, k, lines, out); break;                                                   \
        case 3: function(codes, code_sums, 3, k, lines, out); break;                                                   \
        default: function(codes, code_sums, TILE_ROWS, k, lines, out); break;                                          \
        }                                                                                                              \
    }

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    FOR_EACH_PANEL(int8_panel, EG_PANEL * k)
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    FOR_EACH_PANEL(int4_panel, EG_PANEL * k / 2)
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
