/* Integer matmul on AVX-VNNI: vpdpbusd on 256-bit registers, what CPUs have that lack AVX-512 (laptops since 2021).
 *
 * As in matmul_avx512vnni.c the weights are the unsigned operand: int8 weights + 128 (one XOR, shared by all rows),
 * int4 levels + 19 (one vpshufb); sums start at -128 · Σ codes or -19 · Σ codes and end exact. A 64-byte line
 * of a panel is two registers, its halves, of 8 channels each.
 *
 * Panels are walked one after the other, so that weights come from memory as a single stream: four streams side by
 * side read 1.3 times slower (benchmarks/layout_cost.c). */
#include "compiler.h"
#include "int4_levels_x86.h"
#include "kernels.h"

#if !defined(__AVX2__) || !defined(__AVXVNNI__)
#error "compile with -mavx2 -mavxvnni"
#endif
#include <immintrin.h>

enum {
    LANES = 8,
    LINE = 64,
    HALVES = EG_PANEL / LANES,
    TILE_ROWS = 5, /* 5 rows x 2 halves = 10 sums, 2 weights, a constant, 1 input: 14 of 16; with 6 compilers spill */
    MAX_SPLITS = 4,
    INT8_OFFSET = 128,
    PREFETCH = 4096, /* bytes ahead: hardware prefetchers stop at the end of a page */
};

/* Half a line of weights as unsigned bytes; group: of the k-groups that begin at `lines`, two in a line of int4;
 * levels: what the codes of int4 stand for, unsigned. */
EG_ALWAYS_INLINE __m256i load_weights(const uint8_t *lines, size_t group, size_t half, int bits, __m256i levels)
{
    const __m256i flip = _mm256_set1_epi8((char)INT8_OFFSET), nibble = _mm256_set1_epi8(0xF);
    const uint8_t *line = lines + (bits == 8 ? group : group / 2) * LINE + half * (LINE / HALVES);
    const __m256i stored = _mm256_loadu_si256((const __m256i *)line);
    if (bits == 8) {
        return _mm256_xor_si256(stored, flip); /* signed to offset binary */
    }
    return _mm256_shuffle_epi8(levels, _mm256_and_si256(group % 2 ? _mm256_srli_epi16(stored, 4) : stored, nibble));
}

/* Adds one k-group: the same 4 inputs of a row in all lanes, times the weights of both halves. */
EG_ALWAYS_INLINE void add_group(__m256i sums[TILE_ROWS][HALVES], const int8_t *codes, size_t rows, size_t k,
                                const __m256i weights[HALVES])
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        int32_t four;
        __builtin_memcpy(&four, codes + row * k, sizeof four);
        const __m256i group = _mm256_set1_epi32(four);
        EG_UNROLL
        for (size_t half = 0; half < HALVES; half++) {
            sums[row][half] = _mm256_dpbusd_avx_epi32(sums[row][half], weights[half], group);
        }
    }
}

EG_ALWAYS_INLINE void start_sums(__m256i sums[TILE_ROWS][HALVES], const int32_t *code_sums, size_t rows, int32_t offset)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = sums[row][1] = _mm256_set1_epi32(-offset * code_sums[row]);
        __asm__("" : "+x"(sums[row][0]), "+x"(sums[row][1])); /* GCC 12 copies and spills sums that begin equal */
    }
}

EG_ALWAYS_INLINE void add_sums(__m256i sums[TILE_ROWS][HALVES], __m256i more[TILE_ROWS][HALVES], size_t rows)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = _mm256_add_epi32(sums[row][0], more[row][0]);
        sums[row][1] = _mm256_add_epi32(sums[row][1], more[row][1]);
    }
}

EG_ALWAYS_INLINE void store_sums(__m256i sums[TILE_ROWS][HALVES], size_t rows, int32_t *out)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        _mm256_storeu_si256((__m256i *)(out + row * EG_TILE_CHANNELS), sums[row][0]);
        _mm256_storeu_si256((__m256i *)(out + row * EG_TILE_CHANNELS + LANES), sums[row][1]);
    }
}

/* One panel. rows, splits and bits are constants at every call, so that loops unroll and sums are registers.
 * splits: k-groups take turns in as many sets of sums, for few rows to keep vpdpbusd busy: it takes 4 to 5 cycles,
 * two at a time, so 8 to 10 sums must be under way. */
EG_ALWAYS_INLINE void multiply_panel(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t splits,
                                     size_t k, const uint8_t *lines, int bits, int32_t *out)
{
    static const int32_t zeros[TILE_ROWS];
    const size_t groups = bits == 4 && splits == 1 ? 2 : splits; /* of one iteration */
    const size_t step = groups * EG_K_GROUP;
    __m256i sums[MAX_SPLITS][TILE_ROWS][HALVES];
    start_sums(sums[0], code_sums, rows, bits == 8 ? INT8_OFFSET : EG_INT4_OFFSET);
    EG_UNROLL
    for (size_t split = 1; split < splits; split++) {
        start_sums(sums[split], zeros, rows, 0);
    }
    __m256i levels = _mm256_broadcastsi128_si256(eg_unsigned_int4_levels());
    __asm__("" : "+x"(levels)); /* GCC 12 spills a sum in every iteration if it knows what the levels are */
    for (size_t i = 0; i < k; i += step) {
        EG_UNROLL
        for (size_t group = 0; group < groups; group++) {
            if (bits == 8 || group % 2 == 0) {
                _mm_prefetch((const char *)lines + (bits == 8 ? group : group / 2) * LINE + PREFETCH, _MM_HINT_T0);
            }
            const __m256i weights[HALVES] = {load_weights(lines, group, 0, bits, levels),
                                             load_weights(lines, group, 1, bits, levels)};
            add_group(sums[group % splits], codes + i + group * EG_K_GROUP, rows, k, weights);
        }
        lines += step * EG_PANEL * (size_t)bits / 8;
    }
    EG_UNROLL
    for (size_t split = 1; split < splits; split++) {
        add_sums(sums[0], sums[split], rows);
    }
    store_sums(sums[0], rows, out);
}

EG_ALWAYS_INLINE void multiply_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                                    const uint8_t *weights, int bits, int32_t *sums)
{
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
        const uint8_t *lines = weights + panel * (EG_PANEL * k * (size_t)bits / 8);
        int32_t *out = sums + panel * EG_PANEL;
        switch (rows) {
        case 1: multiply_panel(codes, code_sums, 1, 4, k, lines, bits, out); break;
        case 2: multiply_panel(codes, code_sums, 2, 2, k, lines, bits, out); break;
        case 3: multiply_panel(codes, code_sums, 3, 1, k, lines, bits, out); break;
        case 4: multiply_panel(codes, code_sums, 4, 1, k, lines, bits, out); break;
        default: multiply_panel(codes, code_sums, TILE_ROWS, 1, k, lines, bits, out); break;
        }
    }
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    multiply_tile(codes, code_sums, rows, k, weights, 8, sums);
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    multiply_tile(codes, code_sums, rows, k, weights, 4, sums);
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 10, MACS = 32 };
    __m256i sums[CHAINS];
    const __m256i a = _mm256_set1_epi32(*sink), b = _mm256_set1_epi32(*sink + 1);
    EG_UNROLL
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = _mm256_set1_epi32(chain);
    }
    for (uint64_t i = 0; i < iterations; i++) {
        EG_UNROLL
        for (int chain = 0; chain < CHAINS; chain++) {
            sums[chain] = _mm256_dpbusd_avx_epi32(sums[chain], a, b);
        }
    }
    EG_UNROLL
    for (int chain = 1; chain < CHAINS; chain++) {
        sums[0] = _mm256_xor_si256(sums[0], sums[chain]);
    }
    *sink = _mm256_extract_epi32(sums[0], 0);
    return iterations * CHAINS * MACS;
}

extern const eg_matmul_ops eg_matmul__avxvnni;
const eg_matmul_ops eg_matmul__avxvnni = {.tile_rows = TILE_ROWS,
                                          .chunk_rows = EG_CHUNK_ROWS,
                                          .int8_tile = int8_tile,
                                          .int4_tile = int4_tile,
                                          .multiply_probe = multiply_probe};
