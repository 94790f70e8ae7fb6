/* Integer matmul on AVX-512 VNNI. vpdpbusd multiplies 64 unsigned by 64 signed bytes and adds groups of 4 to
 * 16 int32 sums: the 64-byte line of a panel against one row's 4 inputs in all lanes.
 *
 * The unsigned operand is the weight: int8 weights + 128 (one XOR a line, shared by all rows) and int4 levels + 30, so
 * sums start at -128 · Σ codes or -30 · Σ codes and end exact. The inputs stay signed, as for every other
 * instruction set. matmul_avx512vbmi.c compiles this file again, for CPUs that look up levels by one vpermb. Up to
 * BLOCK_ROWS rows look up levels as they multiply; more rows share a buffer of levels.
 *
 * Few rows are limited by reading weights, which is fastest as a single stream: one panel at a time. More rows take two
 * panels at a time, for fewer loads, and prefetch the next two in the order of memory. What was slower is in
 * export/EXPERIMENTS.md. */
#include "common/compiler.h"
#include "isa/kernels.h"

#if !defined(__AVX512VNNI__) || !defined(__AVX512BW__)
#error "compile with -mavx512f -mavx512bw -mavx512vnni"
#endif
#include <immintrin.h>

enum {
    LINE = 64,
    TILE_ROWS = EG_CHUNK_ROWS, /* which share levels of int4; their sums, 16 KiB, stay in a first-level cache */
    BLOCK_ROWS = 12,    /* 12 rows x 2 panels = 24 sums, 2 weights, a constant and 1 input fill 28 of 32 registers */
    ONE_PANEL_ROWS = 8, /* up to this many rows, reading weights takes longer than multiplying */
    MAX_PANELS = 2,
    MAX_SPLITS = 8,
    INT8_OFFSET = 128,
    PREFETCH = 4096,  /* bytes ahead of a single stream: hardware prefetchers stop at the end of a page */
    UNPACKED_K = 576, /* int4: 2 panels of it are 18 KiB, which leaves room in a first-level cache */
};

typedef __m512i sums_of_split[BLOCK_ROWS][MAX_PANELS];

/* The codebooks of 64 inputs, a byte of each channel, in all 4 bytes of its lane, rotated so that those
 * of the first inputs are in bits 4 and 5: for the next, rotate by EG_CODEBOOK_BITS. */
EG_ALWAYS_INLINE __m512i load_codebook_ids(const uint8_t *codebooks)
{
    const __m512i by_lane = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codebooks));
    const __m512i all_bytes = _mm512_set4_epi32(0x0C0C0C0C, 0x08080808, 0x04040404, 0);
    return _mm512_rol_epi32(_mm512_shuffle_epi8(by_lane, all_bytes), 6);
}

/* levels[index % 64] of each byte. */
EG_ALWAYS_INLINE __m512i look_up(__m512i levels, __m512i index)
{
#if defined(__AVX512VBMI__)
    return _mm512_permutexvar_epi8(index, levels);
#else
    /* vpshufb looks up 16 bytes by the low 4 bits of an index, and gives 0 where bit 7 is set. */
    const __m512i low = _mm512_and_si512(index, _mm512_set1_epi8(0xF));
    const __mmask64 bit4 = _mm512_test_epi8_mask(index, _mm512_set1_epi8(0x10));
    const __mmask64 bit5 = _mm512_test_epi8_mask(index, _mm512_set1_epi8(0x20));
    __m512i found = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(levels, levels, 0x00), low);
    found = _mm512_mask_shuffle_epi8(found, bit4, _mm512_shuffle_i32x4(levels, levels, 0x55), low);
    found = _mm512_mask_shuffle_epi8(found, bit5, _mm512_shuffle_i32x4(levels, levels, 0xAA), low);
    return _mm512_mask_shuffle_epi8(found, bit4 & bit5, _mm512_shuffle_i32x4(levels, levels, 0xFF), low);
#endif
}

/* A line of weights as unsigned bytes. Of int4, `second`: the high nibbles; codebook_ids: in bits 4 and 5
 * of each byte; levels: of all codebooks. */
EG_ALWAYS_INLINE __m512i load_weights(const uint8_t *line, size_t second, int bits, __m512i codebook_ids,
                                      __m512i levels)
{
    enum { A_WHERE_B_ELSE_C = 0xE2 };
    const __m512i stored = _mm512_loadu_si512(line);
    if (bits == 8) {
        return _mm512_xor_si512(stored, _mm512_set1_epi8((char)INT8_OFFSET)); /* signed to offset binary */
    }
    const __m512i codes = second ? _mm512_srli_epi16(stored, 4) : stored, nibbles = _mm512_set1_epi8(0xF);
    return look_up(levels, _mm512_ternarylogic_epi32(codes, nibbles, codebook_ids, A_WHERE_B_ELSE_C));
}

/* Adds one k-group: the same 4 inputs of a row in all lanes, times a line of each panel. */
EG_ALWAYS_INLINE void add_group(sums_of_split sums, const int8_t *codes, size_t rows, size_t panels, size_t k,
                                const __m512i weights[MAX_PANELS])
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        int32_t four;
        __builtin_memcpy(&four, codes + row * k, sizeof four);
        const __m512i group = _mm512_set1_epi32(four);
        EG_UNROLL
        for (size_t panel = 0; panel < panels; panel++) {
            sums[row][panel] = _mm512_dpbusd_epi32(sums[row][panel], weights[panel], group);
        }
    }
}

EG_ALWAYS_INLINE void start_sums(sums_of_split sums, const int32_t *code_sums, size_t rows, size_t panels,
                                 int32_t offset)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t panel = 0; panel < panels; panel++) {
            sums[row][panel] = _mm512_set1_epi32(-offset * code_sums[row]);
            __asm__("" : "+v"(sums[row][panel])); /* GCC 12 copies and spills sums that begin equal */
        }
    }
}

/* Adds up the splits and stores them. */
EG_ALWAYS_INLINE void store_sums(sums_of_split *sums, size_t rows, size_t panels, size_t splits, int32_t *out)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t panel = 0; panel < panels; panel++) {
            __m512i sum = sums[0][row][panel];
            EG_UNROLL
            for (size_t split = 1; split < splits; split++) {
                sum = _mm512_add_epi32(sum, sums[split][row][panel]);
            }
            _mm512_storeu_si512(out + row * EG_TILE_CHANNELS + panel * EG_PANEL, sum);
        }
    }
}

/* The levels of all codebooks, unsigned. */
EG_ALWAYS_INLINE __m512i unsigned_levels(void)
{
    static const int8_t levels[EG_CODEBOOKS * EG_CODEBOOK_LEVELS] = {EG_INT4_LEVELS};
    return _mm512_add_epi8(_mm512_loadu_si512(levels), _mm512_set1_epi8(EG_INT4_OFFSET));
}

/* rows, panels, splits and bits are constants at every call, so that loops unroll and sums are registers.
 * splits: sets of sums, which k-groups use in turn. vpdpbusd takes 4 to 5 cycles, and two start in a cycle: few rows
 * need several sets to have 8 to 10 sums in progress. */
EG_ALWAYS_INLINE void multiply_panels(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t panels,
                                      size_t splits, size_t k, const uint8_t *lines, const uint8_t *codebooks, int bits,
                                      int32_t *out)
{
    enum { CODEBOOK_GROUPS = EG_CODEBOOK_INPUTS / EG_K_GROUP };
    static const int32_t zeros[BLOCK_ROWS];
    const size_t panel_bytes = EG_PANEL * k * (size_t)bits / 8, codebook_bytes = EG_PANEL * k / EG_CODEBOOK_BYTE_INPUTS;
    const size_t groups = bits == 4 && splits < CODEBOOK_GROUPS ? CODEBOOK_GROUPS : splits; /* of one iteration */
    const uint8_t *ahead = lines + (panels == 1 ? PREFETCH : panels * panel_bytes);
    const __m512i levels = unsigned_levels();
    __m512i codebook_ids[MAX_PANELS] = {0};
    sums_of_split sums[MAX_SPLITS];
    start_sums(sums[0], code_sums, rows, panels, bits == 8 ? INT8_OFFSET : EG_INT4_OFFSET);
    EG_UNROLL
    for (size_t split = 1; split < splits; split++) {
        start_sums(sums[split], zeros, rows, panels, 0);
    }
    for (size_t i = 0; i < k; i += groups * EG_K_GROUP) {
        EG_UNROLL
        for (size_t group = 0; group < groups; group++) {
            const size_t second = bits == 4 ? group % 2 : 0;
            __m512i weights[MAX_PANELS];
            EG_UNROLL
            for (size_t panel = 0; panel < panels; panel++) {
                if (bits == 4 && group == 0 && i % EG_CODEBOOK_BYTE_INPUTS == 0) {
                    codebook_ids[panel] = load_codebook_ids(codebooks + panel * codebook_bytes +
                                                            EG_PANEL * i / EG_CODEBOOK_BYTE_INPUTS);
                }
                if (bits == 4 && group % CODEBOOK_GROUPS == 0) {
                    codebook_ids[panel] = _mm512_ror_epi32(codebook_ids[panel], EG_CODEBOOK_BITS);
                }
                weights[panel] = load_weights(lines + panel * panel_bytes, second, bits, codebook_ids[panel], levels);
                if (!second) {
                    _mm_prefetch((const char *)ahead, _MM_HINT_T0);
                    ahead += LINE;
                }
            }
            add_group(sums[group % splits], codes + i + group * EG_K_GROUP, rows, panels, k, weights);
            lines += bits == 8 || second ? LINE : 0;
        }
    }
    store_sums(sums, rows, panels, splits, out);
}

EG_ALWAYS_INLINE void multiply_block(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                                     const uint8_t *weights, const uint8_t *codebooks, int bits, int32_t *sums)
{
    const size_t panels = rows > ONE_PANEL_ROWS ? 2 : 1;
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += panels) {
        const uint8_t *lines = weights + panel * (EG_PANEL * k * (size_t)bits / 8);
        const uint8_t *codebook_ids = bits == 8 ? NULL : codebooks + panel * (EG_PANEL * k / EG_CODEBOOK_BYTE_INPUTS);
        int32_t *out = sums + panel * EG_PANEL;
        switch (rows) {
        case 1: multiply_panels(codes, code_sums, 1, 1, 8, k, lines, codebook_ids, bits, out); break;
        case 2: multiply_panels(codes, code_sums, 2, 1, 4, k, lines, codebook_ids, bits, out); break;
        case 3: multiply_panels(codes, code_sums, 3, 1, 4, k, lines, codebook_ids, bits, out); break;
        case 4: multiply_panels(codes, code_sums, 4, 1, 2, k, lines, codebook_ids, bits, out); break;
        case 5: multiply_panels(codes, code_sums, 5, 1, 2, k, lines, codebook_ids, bits, out); break;
        case 6: multiply_panels(codes, code_sums, 6, 1, 2, k, lines, codebook_ids, bits, out); break;
        case 7: multiply_panels(codes, code_sums, 7, 1, 2, k, lines, codebook_ids, bits, out); break;
        case 8: multiply_panels(codes, code_sums, 8, 1, 2, k, lines, codebook_ids, bits, out); break;
        case 9: multiply_panels(codes, code_sums, 9, 2, 1, k, lines, codebook_ids, bits, out); break;
        case 10: multiply_panels(codes, code_sums, 10, 2, 1, k, lines, codebook_ids, bits, out); break;
        case 11: multiply_panels(codes, code_sums, 11, 2, 1, k, lines, codebook_ids, bits, out); break;
        default: multiply_panels(codes, code_sums, BLOCK_ROWS, 2, 1, k, lines, codebook_ids, bits, out); break;
        }
    }
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        multiply_block(codes + row * k, code_sums + row, rows - row, k, weights, codebooks, 8,
                       sums + row * EG_TILE_CHANNELS);
    }
}

/* ---- more rows of int4 than a block share levels that are looked up once --------------------------------------- */

/* `count` inputs of a panel as unsigned levels, in lines as int8 has them. */
static void unpack(const uint8_t *lines, const uint8_t *codebooks, size_t count, uint8_t *unpacked)
{
    enum { GROUPS = EG_CODEBOOK_BYTE_INPUTS / EG_K_GROUP, CODEBOOK_GROUPS = EG_CODEBOOK_INPUTS / EG_K_GROUP };
    const __m512i levels = unsigned_levels();
    for (size_t i = 0; i < count; i += EG_CODEBOOK_BYTE_INPUTS) {
        __m512i codebook_ids = load_codebook_ids(codebooks + EG_PANEL * i / EG_CODEBOOK_BYTE_INPUTS);
        EG_UNROLL
        for (size_t group = 0; group < GROUPS; group++) {
            if (group % CODEBOOK_GROUPS == 0) {
                codebook_ids = _mm512_ror_epi32(codebook_ids, EG_CODEBOOK_BITS);
            }
            _mm512_store_si512(unpacked, load_weights(lines, group % 2, 4, codebook_ids, levels));
            unpacked += LINE;
            lines += group % 2 ? LINE : 0;
        }
    }
}

/* Adds the products of `count` inputs of two panels, whose levels are UNPACKED_K inputs apart, to `out`. ahead:
 * the two panels that will be unpacked next, which the first block of rows prefetches; for other blocks NULL. */
EG_ALWAYS_INLINE void multiply_levels(const int8_t *codes, size_t rows, size_t k, size_t count, const uint8_t *unpacked,
                                      const uint8_t *ahead, int32_t *out)
{
    sums_of_split sums;
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        sums[row][0] = _mm512_loadu_si512(out + row * EG_TILE_CHANNELS);
        sums[row][1] = _mm512_loadu_si512(out + row * EG_TILE_CHANNELS + EG_PANEL);
    }
    for (size_t i = 0; i < count; i += EG_K_GROUP) {
        const __m512i weights[MAX_PANELS] = {_mm512_load_si512(unpacked),
                                             _mm512_load_si512(unpacked + UNPACKED_K * EG_PANEL)};
        if (ahead != NULL) {
            _mm_prefetch((const char *)ahead, _MM_HINT_T0);
            ahead += LINE;
        }
        add_group(sums, codes + i, rows, MAX_PANELS, k, weights);
        unpacked += LINE;
    }
    store_sums(&sums, rows, MAX_PANELS, 1, out);
}

static void multiply_levels_block(const int8_t *codes, size_t rows, size_t k, size_t count, const uint8_t *unpacked,
                                  int32_t *out)
{
    switch (rows) {
    case 1: multiply_levels(codes, 1, k, count, unpacked, NULL, out); break;
    case 2: multiply_levels(codes, 2, k, count, unpacked, NULL, out); break;
    case 3: multiply_levels(codes, 3, k, count, unpacked, NULL, out); break;
    case 4: multiply_levels(codes, 4, k, count, unpacked, NULL, out); break;
    case 5: multiply_levels(codes, 5, k, count, unpacked, NULL, out); break;
    case 6: multiply_levels(codes, 6, k, count, unpacked, NULL, out); break;
    case 7: multiply_levels(codes, 7, k, count, unpacked, NULL, out); break;
    case 8: multiply_levels(codes, 8, k, count, unpacked, NULL, out); break;
    case 9: multiply_levels(codes, 9, k, count, unpacked, NULL, out); break;
    case 10: multiply_levels(codes, 10, k, count, unpacked, NULL, out); break;
    case 11: multiply_levels(codes, 11, k, count, unpacked, NULL, out); break;
    default: multiply_levels(codes, BLOCK_ROWS, k, count, unpacked, NULL, out); break;
    }
}

static void multiply_many_rows(const int8_t *codes, size_t rows, size_t k, const uint8_t *lines,
                               const uint8_t *codebooks, int32_t *out)
{
    _Alignas(LINE) uint8_t unpacked[MAX_PANELS][UNPACKED_K * EG_PANEL];
    for (size_t begin = 0; begin < k; begin += UNPACKED_K) {
        const size_t count = k - begin < UNPACKED_K ? k - begin : UNPACKED_K;
        for (size_t panel = 0; panel < MAX_PANELS; panel++) {
            const size_t before = EG_PANEL * (panel * k + begin); /* weights */
            unpack(lines + before / 2, codebooks + before / EG_CODEBOOK_BYTE_INPUTS, count, unpacked[panel]);
        }
        const uint8_t *ahead = lines + EG_PANEL * (k + begin) * MAX_PANELS / 2;
        multiply_levels(codes + begin, BLOCK_ROWS, k, count, unpacked[0], ahead, out);
        for (size_t row = BLOCK_ROWS; row < rows; row += BLOCK_ROWS) {
            multiply_levels_block(codes + row * k + begin, rows - row, k, count, unpacked[0],
                                  out + row * EG_TILE_CHANNELS);
        }
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    if (rows <= BLOCK_ROWS) {
        multiply_block(codes, code_sums, rows, k, weights, codebooks, 4, sums);
        return;
    }
    for (size_t row = 0; row < rows; row++) {
        for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
            const __m512i start = _mm512_set1_epi32(-EG_INT4_OFFSET * code_sums[row]);
            _mm512_storeu_si512(sums + row * EG_TILE_CHANNELS + panel * EG_PANEL, start);
        }
    }
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel += MAX_PANELS) {
        const size_t before = EG_PANEL * panel * k; /* weights */
        multiply_many_rows(codes, rows, k, (const uint8_t *)weights + before / 2,
                           codebooks + before / EG_CODEBOOK_BYTE_INPUTS, sums + panel * EG_PANEL);
    }
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 16, MACS = 64 }; /* more independent chains than latency x issue ports of any core so far */
    __m512i sums[CHAINS];
    const __m512i a = _mm512_set1_epi32(*sink), b = _mm512_set1_epi32(*sink + 1);
    EG_UNROLL
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = _mm512_set1_epi32(chain);
        __asm__("" : "+v"(sums[chain])); /* GCC 12 spills them otherwise, and halves the rate */
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
