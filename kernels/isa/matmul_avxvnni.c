/* Integer matmul on AVX-VNNI: vpdpbusd on 256-bit registers, for CPUs without AVX-512 (laptops since 2021).
 *
 * As in matmul_avx512vnni.c the weights are the unsigned operand: int8 weights + 128 (one XOR, shared by all rows),
 * int4 levels + 30 (looked up in int4_levels_x86.h); sums start at -128 · Σ codes or -30 · Σ codes and end exact. A
 * 64-byte line of a panel is two registers, its halves, of 8 channels each.
 *
 * More rows of int4 than a block multiply levels that are unpacked to the lines that int8 would have. Panels are read
 * one after another, as a single stream of memory. What was slower is in export/EXPERIMENTS.md. */
#include "common/compiler.h"
#include "isa/int4_levels_x86.h"
#include "isa/kernels.h"

#if !defined(__AVX2__) || !defined(__AVXVNNI__)
#error "compile with -mavx2 -mavxvnni"
#endif
#include <immintrin.h>

enum {
    LANES = 8,
    LINE = 64,
    HALVES = EG_PANEL / LANES,
    TILE_ROWS = EG_CHUNK_ROWS, /* which share a panel's levels; their sums, 16 KiB, stay in a first-level cache */
    BLOCK_ROWS = 5, /* 5 rows x 2 halves = 10 sums, 2 weights, a constant, 1 input: 14 of 16; compilers spill with 6 */
    MAX_SPLITS = 4,
    INT8_OFFSET = 128,
    PREFETCH = 4096, /* bytes ahead: hardware prefetchers stop at the end of a page */
};

/* Half a line of weights as unsigned bytes, which levels of int4 are already. */
EG_ALWAYS_INLINE __m256i load_weights(const uint8_t *line, size_t half, int bits)
{
    const __m256i stored = _mm256_loadu_si256((const __m256i *)(line + half * (LINE / HALVES)));
    return bits == 8 ? _mm256_xor_si256(stored, _mm256_set1_epi8((char)INT8_OFFSET)) : stored;
}

/* Adds one k-group: the same 4 inputs of a row in all lanes, times the weights of both halves. */
EG_ALWAYS_INLINE void add_group(__m256i sums[BLOCK_ROWS][HALVES], const int8_t *codes, size_t rows, size_t k,
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

/* What sums of int8 begin with, of rows with these code sums, or zeros. */
EG_ALWAYS_INLINE void start_sums(__m256i sums[BLOCK_ROWS][HALVES], const int32_t *code_sums, size_t rows)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = sums[row][1] = _mm256_set1_epi32(code_sums ? -INT8_OFFSET * code_sums[row] : 0);
        __asm__("" : "+x"(sums[row][0]), "+x"(sums[row][1])); /* GCC 12 copies and spills sums that begin equal */
    }
}

EG_ALWAYS_INLINE void load_sums(__m256i sums[BLOCK_ROWS][HALVES], size_t rows, const int32_t *from)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = _mm256_loadu_si256((const __m256i *)(from + row * EG_TILE_CHANNELS));
        sums[row][1] = _mm256_loadu_si256((const __m256i *)(from + row * EG_TILE_CHANNELS + LANES));
    }
}

EG_ALWAYS_INLINE void add_sums(__m256i sums[BLOCK_ROWS][HALVES], __m256i more[BLOCK_ROWS][HALVES], size_t rows)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = _mm256_add_epi32(sums[row][0], more[row][0]);
        sums[row][1] = _mm256_add_epi32(sums[row][1], more[row][1]);
    }
}

EG_ALWAYS_INLINE void store_sums(__m256i sums[BLOCK_ROWS][HALVES], size_t rows, int32_t *out)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        _mm256_storeu_si256((__m256i *)(out + row * EG_TILE_CHANNELS), sums[row][0]);
        _mm256_storeu_si256((__m256i *)(out + row * EG_TILE_CHANNELS + LANES), sums[row][1]);
    }
}

/* `count` inputs of a panel: the sums of int8, or the products of unpacked int4 added to `out`. rows, splits and bits
 * are constants at every call, so that loops unroll and sums are registers.
 * splits: sets of sums, which k-groups use in turn. vpdpbusd takes 4 to 5 cycles, and two start in a cycle: few rows
 * need several sets to have 8 to 10 sums in progress.
 * code_sums: of int8. ahead: of int4, what to prefetch, half a line a k-group; int8 prefetches its own lines. */
EG_ALWAYS_INLINE void multiply_panel(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t splits,
                                     size_t k, const uint8_t *lines, size_t count, int bits, const uint8_t *ahead,
                                     int32_t *out)
{
    __m256i sums[MAX_SPLITS][BLOCK_ROWS][HALVES];
    if (bits == 8) {
        start_sums(sums[0], code_sums, rows);
    } else {
        load_sums(sums[0], rows, out);
    }
    EG_UNROLL
    for (size_t split = 1; split < splits; split++) {
        start_sums(sums[split], NULL, rows);
    }
    for (size_t i = 0; i < count; i += splits * EG_K_GROUP) {
        EG_UNROLL
        for (size_t split = 0; split < splits; split++) {
            _mm_prefetch((const char *)(bits == 8 ? lines + PREFETCH : ahead), _MM_HINT_T0);
            ahead += LINE / 2;
            const __m256i weights[HALVES] = {load_weights(lines, 0, bits), load_weights(lines, 1, bits)};
            add_group(sums[split], codes + i + split * EG_K_GROUP, rows, k, weights);
            lines += LINE;
        }
    }
    EG_UNROLL
    for (size_t split = 1; split < splits; split++) {
        add_sums(sums[0], sums[split], rows);
    }
    store_sums(sums[0], rows, out);
}

EG_ALWAYS_INLINE void multiply_block(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                                     const uint8_t *lines, size_t count, int bits, const uint8_t *ahead, int32_t *out)
{
    switch (rows) {
    case 1: multiply_panel(codes, code_sums, 1, 4, k, lines, count, bits, ahead, out); break;
    case 2: multiply_panel(codes, code_sums, 2, 2, k, lines, count, bits, ahead, out); break;
    case 3: multiply_panel(codes, code_sums, 3, 1, k, lines, count, bits, ahead, out); break;
    case 4: multiply_panel(codes, code_sums, 4, 1, k, lines, count, bits, ahead, out); break;
    default: multiply_panel(codes, code_sums, BLOCK_ROWS, 1, k, lines, count, bits, ahead, out); break;
    }
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    (void)codebooks;
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
            const uint8_t *lines = (const uint8_t *)weights + panel * EG_PANEL * k;
            multiply_block(codes + row * k, code_sums + row, rows - row, k, lines, k, 8, lines,
                           sums + row * EG_TILE_CHANNELS + panel * EG_PANEL);
        }
    }
}

enum { INT4_ROWS = BLOCK_ROWS };

EG_ALWAYS_INLINE void add_products(__m256i sums[INT4_ROWS][INT4_PAIRS], const int8_t *codes, size_t rows, size_t k,
                                   __m256i weights[2][INT4_PAIRS])
{
    EG_UNROLL
    for (size_t run = 0; run < 2; run++) {
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            const __m128i *inputs = (const __m128i *)(codes + row * k + run * INT4_RUN);
            const __m256i of_both = _mm256_broadcastsi128_si256(_mm_loadu_si128(inputs)); /* channels of a register */
            EG_UNROLL
            for (size_t pair = 0; pair < INT4_PAIRS; pair++) {
                sums[row][pair] = _mm256_dpbusd_avx_epi32(sums[row][pair], weights[run][pair], of_both);
                __asm__("" : "+x"(sums[row][pair])); /* GCC 12 copies sums from run to run, and spills */
            }
        }
    }
}

#include "isa/int4_tile_x86_body.h"

/* 16 inputs of half a panel as int8 has them, in four lines. */
EG_ALWAYS_INLINE void store_run(const int4_inputs *inputs, int4_cursor from, uint8_t *lines)
{
    __m256i even[INT4_PAIRS], odd[INT4_PAIRS];
    unpack_run(inputs, from, even);
    unpack_run(inputs, advance(from, 0, 1), odd);
    EG_UNROLL
    for (int high = 0; high < 2; high++) {
        const __m256i left = high ? _mm256_unpackhi_epi32(even[0], odd[0]) : _mm256_unpacklo_epi32(even[0], odd[0]);
        const __m256i right = high ? _mm256_unpackhi_epi32(even[1], odd[1]) : _mm256_unpacklo_epi32(even[1], odd[1]);
        uint8_t *to = lines + 2 * high * INT4_LINE;
        _mm256_store_si256((__m256i *)to, _mm256_unpacklo_epi64(left, right));
        _mm256_store_si256((__m256i *)(to + INT4_LINE), _mm256_unpackhi_epi64(left, right));
    }
}

static void store_levels(int4_inputs *inputs)
{
    const int4_cursor first = begin_at(inputs, 0);
    for (size_t run = 0; run < inputs->count / INT4_RUN; run++) {
        uint8_t *lines = inputs->levels + run * INT4_RUN * EG_PANEL;
        store_run(inputs, advance(first, run, 0), lines);
        store_run(inputs, advance(first, run, 2), lines + INT4_LINE / 2);
    }
}

/* Every block of rows prefetches what the next panel will unpack; after the first block it is in the cache. */
static void multiply_many_rows(int4_inputs *inputs, const int8_t *codes, size_t rows, size_t k, int32_t *out)
{
    store_levels(inputs);
    const uint8_t *next = inputs->lines + inputs->count * EG_PANEL / 2;
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        multiply_block(codes + row * k, NULL, rows - row, k, inputs->levels, inputs->count, 4, next,
                       out + row * EG_TILE_CHANNELS);
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    multiply_int4(multiply_many_rows, codes, code_sums, rows, k, weights, codebooks, sums);
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
