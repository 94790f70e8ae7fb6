/* What the one weight layout of model files costs against layouts made for one instruction set each.
 *
 *     cc -std=c11 -O3 -I kernels benchmarks/layout_cost.c -o layout_cost && ./layout_cost
 *
 * Times the same micro-kernel on the shared layout [N/16][K/4][16][4] and on another, in turn, and prints the median
 * of the ratios shared / other: above 1 the shared layout loses. Weights are hot in the L2 cache, or come from memory. The others:
 *   interleaved   64 channels side by side, [N/64][K/4][64][4]: a tile is one stream instead of four
 *   offset        int8 weights stored as unsigned, as vpdpbusd wants them: saves an XOR a line
 *   narrow        8 channels side by side, [N/8][K/4][8][4]: a line is one 256-bit register
 *   widened       int8 weights stored as int16 for vpmaddwd, [N/16][K/2][16][2]: the usual layout for AVX2, twice the bytes
 * Needs a CPU with AVX2, AVX-VNNI and AVX-512 VNNI to time all three; what the CPU lacks is left out. */
#define _POSIX_C_SOURCE 200809L
#include "compiler.h"

#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    K = 768,
    CHANNELS = 64,
    MAX_ROWS = 128,
    MAX_TILE_ROWS = 6,
    HOT_TILES = 8,                    /* 8 x 48 KiB of int8 weights: in an L2 of 1 MiB, not in L1 */
    MEMORY_BYTES = 128 * 1024 * 1024, /* well beyond a last-level cache of 32 MiB */
    PAIRS = 101,
    MIN_MACS = 20 * 1000 * 1000, /* of one timing: a millisecond or so */
};

/* How to walk the weights of 64 channels: all members are constants at every call. Bytes. */
typedef struct layout {
    size_t line_step;  /* from one k-group (int4: pair of them) to the next */
    size_t block_step; /* from one register's channels to the next register's */
    int offset;        /* int8 weights are stored as unsigned */
    int widened;       /* int8 weights are stored as int16 */
} layout;

typedef void tile_function(const int8_t *codes, const int32_t *code_sums, size_t rows, const uint8_t *weights,
                           int32_t *out);

/* ---- AVX-512 VNNI: 6 rows x 4 registers of 16 channels -------------------------------------------------------- */

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vnni")))

AVX512 EG_ALWAYS_INLINE void avx512_group(__m512i sums[MAX_TILE_ROWS][4], const int8_t *codes, size_t rows,
                                          const __m512i weights[4])
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        int32_t four;
        memcpy(&four, codes + row * K, sizeof four);
        const __m512i group = _mm512_set1_epi32(four);
        EG_UNROLL
        for (size_t v = 0; v < 4; v++) {
            sums[row][v] = _mm512_dpbusd_epi32(sums[row][v], weights[v], group);
        }
    }
}

AVX512 EG_ALWAYS_INLINE void avx512_tile(const int8_t *codes, const int32_t *code_sums, size_t rows,
                                         const uint8_t *weights, int32_t *out, int bits, layout l)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), nibble = _mm512_set1_epi8(0xF);
    const int32_t start = bits == 8 ? -128 : -8;
    __m512i sums[MAX_TILE_ROWS][4];
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < 4; v++) {
            sums[row][v] = _mm512_set1_epi32(start * code_sums[row]);
        }
    }
    for (size_t i = 0; i < K; i += bits == 8 ? 4 : 8, weights += l.line_step) {
        __m512i low[4], high[4];
        EG_UNROLL
        for (size_t v = 0; v < 4; v++) {
            const __m512i line = _mm512_loadu_si512(weights + v * l.block_step);
            low[v] = bits == 4 ? _mm512_and_si512(line, nibble) : l.offset ? line : _mm512_xor_si512(line, flip);
            high[v] = _mm512_and_si512(_mm512_srli_epi16(line, 4), nibble);
        }
        avx512_group(sums, codes + i, rows, low);
        if (bits == 4) {
            avx512_group(sums, codes + i + 4, rows, high);
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < 4; v++) {
            _mm512_storeu_si512(out + row * CHANNELS + v * 16, sums[row][v]);
        }
    }
}

/* ---- AVX-VNNI: 6 rows x 2 registers of 8 channels, or 2 x 4, or 1 x 8 ------------------------------------------- */

#define AVXVNNI __attribute__((target("avx2,avxvnni")))

AVXVNNI EG_ALWAYS_INLINE void avxvnni_group(__m256i sums[MAX_TILE_ROWS][8], const int8_t *codes, size_t rows,
                                            size_t vectors, const __m256i weights[8])
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        int32_t four;
        memcpy(&four, codes + row * K, sizeof four);
        const __m256i group = _mm256_set1_epi32(four);
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            sums[row][v] = _mm256_dpbusd_avx_epi32(sums[row][v], weights[v], group);
        }
    }
}

/* Halves of a 64-byte line are 32 bytes apart in all layouts but the narrow one. */
AVXVNNI EG_ALWAYS_INLINE __m256i load_half(const uint8_t *weights, size_t v, layout l)
{
    const size_t place = l.line_step == 32 ? v * l.block_step : v / 2 * l.block_step + v % 2 * 32;
    return _mm256_loadu_si256((const __m256i *)(weights + place));
}

AVXVNNI EG_ALWAYS_INLINE void avxvnni_tile(const int8_t *codes, const int32_t *code_sums, size_t rows,
                                           const uint8_t *tile, int32_t *out, int bits, layout l)
{
    const __m256i flip = _mm256_set1_epi8((char)0x80), nibble = _mm256_set1_epi8(0xF);
    const int32_t start = bits == 8 ? -128 : -8;
    const size_t vectors = rows == 1 ? 8 : rows == 2 ? 4 : 2;
    for (size_t first = 0; first < 8; first += vectors) {
        const uint8_t *weights = tile + (l.line_step == 32 ? first : first / 2) * l.block_step;
        __m256i sums[MAX_TILE_ROWS][8];
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            EG_UNROLL
            for (size_t v = 0; v < vectors; v++) {
                sums[row][v] = _mm256_set1_epi32(start * code_sums[row]);
            }
        }
        for (size_t i = 0; i < K; i += bits == 8 ? 4 : 8, weights += l.line_step) {
            __m256i part[8];
            EG_UNROLL
            for (size_t v = 0; v < vectors; v++) {
                const __m256i line = load_half(weights, v, l);
                part[v] = bits == 4 ? _mm256_and_si256(line, nibble) : l.offset ? line : _mm256_xor_si256(line, flip);
            }
            avxvnni_group(sums, codes + i, rows, vectors, part);
            if (bits == 4) {
                EG_UNROLL
                for (size_t v = 0; v < vectors; v++) {
                    part[v] = _mm256_and_si256(_mm256_srli_epi16(load_half(weights, v, l), 4), nibble);
                }
                avxvnni_group(sums, codes + i + 4, rows, vectors, part);
            }
        }
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            EG_UNROLL
            for (size_t v = 0; v < vectors; v++) {
                _mm256_storeu_si256((__m256i *)(out + row * CHANNELS + (first + v) * 8), sums[row][v]);
            }
        }
    }
}

/* ---- AVX2: 4 rows x 2 registers of 8 channels ------------------------------------------------------------------- */

#define AVX2 __attribute__((target("avx2")))

/* Four int8 codes in all lanes; widened: two int16 codes in all lanes. */
AVX2 EG_ALWAYS_INLINE __m256i avx2_group(const int8_t *codes, int widened)
{
    int32_t four;
    memcpy(&four, codes, sizeof four);
    (void)widened;
    return _mm256_set1_epi32(four);
}

AVX2 EG_ALWAYS_INLINE __m256i avx2_half(const uint8_t *weights, size_t v, layout l)
{
    return _mm256_loadu_si256((const __m256i *)(weights + (l.line_step == 32 ? v * l.block_step : v * 32)));
}

AVX2 EG_ALWAYS_INLINE void avx2_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, const uint8_t *tile,
                                     int32_t *out, int bits, layout l)
{
    const __m256i ones = _mm256_set1_epi16(1), nibble = _mm256_set1_epi8(0xF);
    for (size_t panel = 0; panel < 4; panel++) {
        const uint8_t *weights = tile + panel * (l.line_step == 32 ? 2 * l.block_step : l.block_step);
        __m256i sums[4][2];
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            sums[row][0] = sums[row][1] = _mm256_set1_epi32(bits == 8 ? 0 : -8 * code_sums[row]);
        }
        if (bits == 8 && l.widened) {
            for (size_t i = 0; i < K; i += 2, weights += l.line_step) {
                const __m256i w[2] = {avx2_half(weights, 0, l), avx2_half(weights, 1, l)};
                EG_UNROLL
                for (size_t row = 0; row < rows; row++) {
                    const __m256i group = avx2_group(codes + 2 * (row * K + i), 1);
                    sums[row][0] = _mm256_add_epi32(sums[row][0], _mm256_madd_epi16(group, w[0]));
                    sums[row][1] = _mm256_add_epi32(sums[row][1], _mm256_madd_epi16(group, w[1]));
                }
            }
        } else if (bits == 8) {
            for (size_t i = 0; i < K; i += 4, weights += l.line_step) {
                const __m256i w[2] = {avx2_half(weights, 0, l), avx2_half(weights, 1, l)};
                EG_UNROLL
                for (size_t row = 0; row < rows; row++) {
                    const __m256i group = avx2_group(codes + row * K + i, 0), magnitude = _mm256_abs_epi8(group);
                    EG_UNROLL
                    for (size_t v = 0; v < 2; v++) {
                        const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w[v], group));
                        sums[row][v] = _mm256_add_epi32(sums[row][v], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
        } else {
            for (size_t block = 0; block < K; block += 32) {
                __m256i pairs[4][2];
                memset(pairs, 0, sizeof pairs);
                for (size_t i = block; i < block + 32; i += 8, weights += l.line_step) {
                    EG_UNROLL
                    for (size_t v = 0; v < 2; v++) {
                        const __m256i line = avx2_half(weights, v, l);
                        const __m256i low = _mm256_and_si256(line, nibble);
                        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(line, 4), nibble);
                        EG_UNROLL
                        for (size_t row = 0; row < rows; row++) {
                            const __m256i one = _mm256_maddubs_epi16(low, avx2_group(codes + row * K + i, 0));
                            const __m256i two = _mm256_maddubs_epi16(high, avx2_group(codes + row * K + i + 4, 0));
                            pairs[row][v] = _mm256_add_epi16(pairs[row][v], _mm256_add_epi16(one, two));
                        }
                    }
                }
                EG_UNROLL
                for (size_t row = 0; row < rows; row++) {
                    EG_UNROLL
                    for (size_t v = 0; v < 2; v++) {
                        sums[row][v] = _mm256_add_epi32(sums[row][v], _mm256_madd_epi16(pairs[row][v], ones));
                    }
                }
            }
        }
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            _mm256_storeu_si256((__m256i *)(out + row * CHANNELS + panel * 16), sums[row][0]);
            _mm256_storeu_si256((__m256i *)(out + row * CHANNELS + panel * 16 + 8), sums[row][1]);
        }
    }
}

/* ---- one function for each instruction set, width and layout ----------------------------------------------------- */

#define TILE(TARGET, template, max_rows, name, bits, ...)                                                         \
    TARGET static void name(const int8_t *codes, const int32_t *code_sums, size_t rows, const uint8_t *weights,   \
                            int32_t *out)                                                                         \
    {                                                                                                             \
        const layout l = {__VA_ARGS__};                                                                           \
        switch (rows) {                                                                                           \
        case 1: template(codes, code_sums, 1, weights, out, bits, l); break;                                      \
        case 2: template(codes, code_sums, 2, weights, out, bits, l); break;                                      \
        case 3: template(codes, code_sums, 3, weights, out, bits, l); break;                                      \
        case 4: template(codes, code_sums, 4, weights, out, bits, l); break;                                      \
        case 5: template(codes, code_sums, max_rows < 5 ? 1 : 5, weights, out, bits, l); break;                   \
        default: template(codes, code_sums, max_rows, weights, out, bits, l); break;                              \
        }                                                                                                         \
    }

TILE(AVX512, avx512_tile, 6, avx512_int8_shared, 8, .line_step = 64, .block_step = 16 * K)
TILE(AVX512, avx512_tile, 6, avx512_int8_interleaved, 8, .line_step = 256, .block_step = 64)
TILE(AVX512, avx512_tile, 6, avx512_int8_offset, 8, .line_step = 64, .block_step = 16 * K, .offset = 1)
TILE(AVX512, avx512_tile, 6, avx512_int8_both, 8, .line_step = 256, .block_step = 64, .offset = 1)
TILE(AVX512, avx512_tile, 6, avx512_int4_shared, 4, .line_step = 64, .block_step = 8 * K)
TILE(AVX512, avx512_tile, 6, avx512_int4_interleaved, 4, .line_step = 256, .block_step = 64)

TILE(AVXVNNI, avxvnni_tile, 6, avxvnni_int8_shared, 8, .line_step = 64, .block_step = 16 * K)
TILE(AVXVNNI, avxvnni_tile, 6, avxvnni_int8_interleaved, 8, .line_step = 256, .block_step = 64)
TILE(AVXVNNI, avxvnni_tile, 6, avxvnni_int8_offset, 8, .line_step = 64, .block_step = 16 * K, .offset = 1)
TILE(AVXVNNI, avxvnni_tile, 6, avxvnni_int8_narrow, 8, .line_step = 32, .block_step = 8 * K)
TILE(AVXVNNI, avxvnni_tile, 6, avxvnni_int4_shared, 4, .line_step = 64, .block_step = 8 * K)
TILE(AVXVNNI, avxvnni_tile, 6, avxvnni_int4_interleaved, 4, .line_step = 256, .block_step = 64)
TILE(AVXVNNI, avxvnni_tile, 6, avxvnni_int4_narrow, 4, .line_step = 32, .block_step = 4 * K)

TILE(AVX2, avx2_tile, 4, avx2_int8_shared, 8, .line_step = 64, .block_step = 16 * K)
TILE(AVX2, avx2_tile, 4, avx2_int8_narrow, 8, .line_step = 32, .block_step = 8 * K)
TILE(AVX2, avx2_tile, 4, avx2_int8_widened, 8, .line_step = 64, .block_step = 32 * K, .widened = 1)
TILE(AVX2, avx2_tile, 4, avx2_int4_shared, 4, .line_step = 64, .block_step = 8 * K)
TILE(AVX2, avx2_tile, 4, avx2_int4_narrow, 4, .line_step = 32, .block_step = 4 * K)

typedef struct contest {
    const char *isa, *width, *other;
    size_t tile_rows, shared_bytes, other_bytes; /* bytes: of 64 channels */
    tile_function *shared_tile, *other_tile;
} contest;

#define INT8_BYTES (CHANNELS * K)
#define INT4_BYTES (CHANNELS * K / 2)
static const contest contests[] = {
    {"avx512vnni", "int8", "interleaved", 6, INT8_BYTES, INT8_BYTES, avx512_int8_shared, avx512_int8_interleaved},
    {"avx512vnni", "int8", "offset", 6, INT8_BYTES, INT8_BYTES, avx512_int8_shared, avx512_int8_offset},
    {"avx512vnni", "int8", "both", 6, INT8_BYTES, INT8_BYTES, avx512_int8_shared, avx512_int8_both},
    {"avx512vnni", "int4", "interleaved", 6, INT4_BYTES, INT4_BYTES, avx512_int4_shared, avx512_int4_interleaved},
    {"avxvnni", "int8", "interleaved", 6, INT8_BYTES, INT8_BYTES, avxvnni_int8_shared, avxvnni_int8_interleaved},
    {"avxvnni", "int8", "offset", 6, INT8_BYTES, INT8_BYTES, avxvnni_int8_shared, avxvnni_int8_offset},
    {"avxvnni", "int8", "narrow", 6, INT8_BYTES, INT8_BYTES, avxvnni_int8_shared, avxvnni_int8_narrow},
    {"avxvnni", "int4", "interleaved", 6, INT4_BYTES, INT4_BYTES, avxvnni_int4_shared, avxvnni_int4_interleaved},
    {"avxvnni", "int4", "narrow", 6, INT4_BYTES, INT4_BYTES, avxvnni_int4_shared, avxvnni_int4_narrow},
    {"avx2", "int8", "narrow", 4, INT8_BYTES, INT8_BYTES, avx2_int8_shared, avx2_int8_narrow},
    {"avx2", "int8", "widened", 4, INT8_BYTES, 2 * INT8_BYTES, avx2_int8_shared, avx2_int8_widened},
    {"avx2", "int4", "narrow", 4, INT4_BYTES, INT4_BYTES, avx2_int4_shared, avx2_int4_narrow},
};

/* ---- timing --------------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int8_t codes[2 * MAX_ROWS * K]; /* twice: as int16 for the widened layout */
static int32_t code_sums[MAX_ROWS], sums[MAX_ROWS * CHANNELS];

/* Seconds to multiply m rows by `tiles` tiles of weights, `passes` times. */
static double time_tiles(const contest *c, tile_function *tile, size_t tile_bytes, const uint8_t *weights, size_t tiles,
                         size_t m, size_t passes)
{
    const size_t code_bytes = tile_bytes > INT8_BYTES ? 2 : 1;
    const double start = seconds();
    for (size_t pass = 0; pass < passes; pass++) {
        for (size_t t = 0; t < tiles; t++) {
            for (size_t row = 0; row < m; row += c->tile_rows) {
                const size_t rows = m - row < c->tile_rows ? m - row : c->tile_rows;
                tile(codes + row * K * code_bytes, code_sums + row, rows, weights + t * tile_bytes, sums + row * CHANNELS);
            }
        }
    }
    return seconds() - start;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Prints how much longer the shared layout takes; the quartiles say how far the median can be trusted. */
static void compare(const contest *c, const uint8_t *weights, int hot, size_t m)
{
    double ratios[PAIRS], rates[PAIRS];
    size_t next = 0; /* a new part of memory for each timing, so that nothing is left over in a cache */
    for (int pair = -1; pair < PAIRS; pair++) {
        double taken[2];
        size_t done = 1;
        for (int turn = 0; turn < 2; turn++) {
            const int other = (turn + pair) & 1; /* each goes first every second time */
            const size_t bytes = other ? c->other_bytes : c->shared_bytes;
            const size_t macs = m * CHANNELS * K;
            const size_t tiles = hot ? HOT_TILES : MIN_MACS / macs > 64 ? MIN_MACS / macs : 64;
            const size_t passes = hot ? MIN_MACS / (macs * HOT_TILES) + 1 : 1;
            if (!hot && (next + tiles) * bytes > MEMORY_BYTES) {
                next = 0;
            }
            const uint8_t *from = weights + (hot ? 0 : next * bytes);
            taken[other] = time_tiles(c, other ? c->other_tile : c->shared_tile, bytes, from, tiles, m, passes);
            next += hot ? 0 : tiles;
            done = tiles * passes * macs;
        }
        if (pair >= 0) { /* the first pair warms up */
            ratios[pair] = taken[0] / taken[1];
            rates[pair] = (double)done / taken[0] * 1e-9;
        }
    }
    qsort(ratios, PAIRS, sizeof *ratios, by_value);
    qsort(rates, PAIRS, sizeof *rates, by_value);
    printf("| %s | %s | %s | %zu | %s | %.3f | %.3f … %.3f | %.0f |\n", c->isa, c->width, c->other, m,
           hot ? "L2" : "memory", ratios[PAIRS / 2], ratios[PAIRS / 4], ratios[3 * PAIRS / 4], rates[PAIRS / 2]);
}

static int can_run(const char *isa)
{
    if (!strcmp(isa, "avx512vnni")) {
        return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
    }
    if (!strcmp(isa, "avxvnni")) {
        unsigned a = 7, b, c = 1, d; /* CPUID 7.1 EAX bit 4; older compilers do not know its name */
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        return (int)(a >> 4 & 1);
    }
    return __builtin_cpu_supports("avx2");
}

int main(void)
{
    uint8_t *weights = aligned_alloc(4096, MEMORY_BYTES);
    if (!weights) {
        fputs("layout_cost: 128 MiB of memory are needed\n", stderr);
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < MEMORY_BYTES; i++) {
        weights[i] = (uint8_t)(i * 2654435761u >> 11);
    }
    for (size_t i = 0; i < sizeof codes; i++) {
        codes[i] = (int8_t)(i * 2654435761u >> 13);
    }
    puts("| ISA | weights | other layout | rows | from | shared / other | quartiles | GMAC/s shared |");
    puts("| --- | --- | --- | ---: | --- | ---: | --- | ---: |");
    static const size_t row_counts[] = {1, 16, 128};
    for (size_t i = 0; i < sizeof contests / sizeof *contests; i++) {
        for (size_t m = 0; m < 3 && can_run(contests[i].isa); m++) {
            compare(&contests[i], weights, 1, row_counts[m]);
            compare(&contests[i], weights, 0, row_counts[m]);
        }
    }
    free(weights);
    return EXIT_SUCCESS;
}
