/* Integer matmul on AVX-512 VNNI. vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds groups of 4 to
 * 16 int32 sums: the 64-byte line of a panel against one row's 4 inputs in all lanes.
 *
 * The unsigned operand is the weight: int8 weights + 128 (one XOR a line, shared by all rows) and int4 weights + 8
 * (as they are stored), so sums start at -128 · Σ codes or -8 · Σ codes and end exact. The inputs stay signed, as
 * every other instruction set wants them. */
#include "compiler.h"
#include "kernels.h"

#if !defined(__AVX512VNNI__) || !defined(__AVX512BW__)
#error "compile with -mavx512f -mavx512bw -mavx512vnni"
#endif
#include <immintrin.h>

enum {
    PANELS = EG_TILE_CHANNELS / EG_PANEL,
    TILE_ROWS = 6, /* 6 rows x 4 panels = 24 sums, 4 weights and 1 input fill 29 of 32 registers */
    LINE = 64,
    INT8_OFFSET = 128,
};

static inline __m512i load_group(const int8_t *codes)
{
    int32_t group;
    __builtin_memcpy(&group, codes, sizeof group);
    return _mm512_set1_epi32(group);
}

/* Adds one k-group of `rows` rows to the sums; `rows` is a constant at every call, so the loops unroll. */
EG_ALWAYS_INLINE void add_group(__m512i sums[TILE_ROWS][PANELS], const int8_t *codes, size_t rows, size_t k,
                                const __m512i weights[PANELS])
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        const __m512i group = load_group(codes + row * k);
        EG_UNROLL
        for (size_t panel = 0; panel < PANELS; panel++) {
            sums[row][panel] = _mm512_dpbusd_epi32(sums[row][panel], weights[panel], group);
        }
    }
}

EG_ALWAYS_INLINE void start_sums(__m512i sums[TILE_ROWS][PANELS], const int32_t *code_sums, size_t rows, int32_t offset)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t panel = 0; panel < PANELS; panel++) {
            sums[row][panel] = _mm512_set1_epi32(-offset * code_sums[row]);
        }
    }
}

EG_ALWAYS_INLINE void store_sums(__m512i sums[TILE_ROWS][PANELS], size_t rows, int32_t *out)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t panel = 0; panel < PANELS; panel++) {
            _mm512_storeu_si512(out + row * EG_TILE_CHANNELS + panel * EG_PANEL, sums[row][panel]);
        }
    }
}

EG_ALWAYS_INLINE void int8_rows(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                                const uint8_t *weights, int32_t *out)
{
    const __m512i flip = _mm512_set1_epi8((char)INT8_OFFSET); /* signed to offset binary */
    const size_t panel_bytes = EG_PANEL * k;
    __m512i sums[TILE_ROWS][PANELS];
    start_sums(sums, code_sums, rows, INT8_OFFSET);
    for (size_t i = 0; i < k; i += EG_K_GROUP) {
        __m512i lines[PANELS];
        EG_UNROLL
        for (size_t panel = 0; panel < PANELS; panel++) {
            lines[panel] = _mm512_xor_si512(_mm512_loadu_si512(weights + panel * panel_bytes), flip);
        }
        add_group(sums, codes + i, rows, k, lines);
        weights += LINE;
    }
    store_sums(sums, rows, out);
}

EG_ALWAYS_INLINE void int4_rows(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                                const uint8_t *weights, int32_t *out)
{
    const __m512i nibble = _mm512_set1_epi8(0xF);
    const size_t panel_bytes = EG_PANEL * k / 2;
    __m512i sums[TILE_ROWS][PANELS];
    start_sums(sums, code_sums, rows, EG_INT4_OFFSET);
    for (size_t i = 0; i < k; i += 2 * EG_K_GROUP) {
        __m512i low[PANELS], high[PANELS];
        EG_UNROLL
        for (size_t panel = 0; panel < PANELS; panel++) {
            const __m512i line = _mm512_loadu_si512(weights + panel * panel_bytes);
            low[panel] = _mm512_and_si512(line, nibble);
            high[panel] = _mm512_and_si512(_mm512_srli_epi16(line, 4), nibble);
        }
        add_group(sums, codes + i, rows, k, low);
        add_group(sums, codes + i + EG_K_GROUP, rows, k, high);
        weights += LINE;
    }
    store_sums(sums, rows, out);
}

/* Calls `function` with `rows` as a constant, so that its sums are registers. */
#define FOR_CONSTANT_ROWS(function, ...)                                                                               \
    switch (rows) {                                                                                                    \
    case 1: function(codes, code_sums, 1, __VA_ARGS__); break;                                                         \
    case 2: function(codes, code_sums, 2, __VA_ARGS__); break;                                                         \
    case 3: function(codes, code_sums, 3, __VA_ARGS__); break;                                                         \
    case 4: function(codes, code_sums, 4, __VA_ARGS__); break;                                                         \
    case 5: function(codes, code_sums, 5, __VA_ARGS__); break;                                                         \
    default: function(codes, code_sums, TILE_ROWS, __VA_ARGS__); break;                                                \
    }

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    FOR_CONSTANT_ROWS(int8_rows, k, weights, sums)
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    FOR_CONSTANT_ROWS(int4_rows, k, weights, sums)
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 16, MACS = 64 }; /* more independent chains than latency x issue ports of any core so far */
    __m512i sums[CHAINS];
    const __m512i a = _mm512_set1_epi32(*sink), b = _mm512_set1_epi32(*sink + 1);
    EG_UNROLL
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = _mm512_set1_epi32(chain);
    }
    for (uint64_t i = 0; i < iterations; i++) {
        EG_UNROLL
        for (int chain = 0; chain < CHAINS; chain++) {
            sums[chain] = _mm512_dpbusd_epi32(sums[chain], a, b);
        }
    }
    EG_UNROLL
    for (int chain = 1; chain < CHAINS; chain++) {
        sums[0] = _mm512_add_epi32(sums[0], sums[chain]);
    }
    *sink = _mm512_cvtsi512_si32(sums[0]);
    return iterations * CHAINS * MACS;
}

extern const eg_matmul_ops eg_matmul__avx512vnni;
const eg_matmul_ops eg_matmul__avx512vnni = {.tile_rows = TILE_ROWS,
                                             .chunk_rows = EG_CHUNK_ROWS,
                                             .int8_tile = int8_tile,
                                             .int4_tile = int4_tile,
                                             .multiply_probe = multiply_probe};
