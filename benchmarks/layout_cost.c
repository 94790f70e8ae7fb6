/* What the one weight layout of model files costs against layouts made for a single instruction set.
 *
 *     cc -std=c11 -O3 -I kernels benchmarks/layout_cost.c -o layout_cost && ./layout_cost
 *
 * The shared layout is [N/16][K/4][16][4]: panels of 16 channels, one after the other. The others:
 *   interleaved   [N/64][K/4][64][4]: 64 channels side by side, so that a tile of 4 panels is one stream
 *   offset        as shared, but int8 stored as unsigned, as vpdpbusd wants it: saves an XOR a line
 *   narrow        [N/8][K/4][8][4]: a line of 8 channels is one 256-bit register
 *   widened       [N/16][K/2][16][2] in int16, for vpmaddwd: the usual layout for AVX2, twice the bytes
 * Each layout has one or more kernels that walk it; all are timed in turn, and the best of each layout counts. Weights
 * are hot in the L2 cache or come from memory. Instruction sets that the CPU lacks are left out. */
#define _POSIX_C_SOURCE 200809L
#include "layout_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    K = 768,
    MAX_ROWS = 128,
    HOT_TILES = 8,                    /* 8 x 48 KiB of int8 weights: in an L2 of 1 MiB, not in L1 */
    MEMORY_BYTES = 256 * 1024 * 1024, /* well beyond a last-level cache of 32 MiB */
    REPEATS = 61,
    QUIET = REPEATS / 10,        /* of the sorted times: what others do on the machine only ever adds to them */
    MIN_MACS = 40 * 1000 * 1000, /* of one timing: some tenths of a millisecond or more */
};

/* ---- the kernels ------------------------------------------------------------------------------------------ */

typedef void tile_function(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const uint8_t *weights,
                           int32_t *out);

/* A kernel for 1 … most rows, with `splits` sets of sums, for a single row `splits_of_one`. */
#define KERNEL(TARGET, template, name, most, splits, splits_of_one, ...)                                               \
    TARGET static void name(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,                      \
                            const uint8_t *weights, int32_t *out)                                                      \
    {                                                                                                                  \
        const walk w = {__VA_ARGS__};                                                                                  \
        switch (rows) { /* those that occur below */                                                                   \
        case 1: template(codes, code_sums, 1, splits_of_one, k, weights, out, w); break;                               \
        case 2: template(codes, code_sums, 2, splits, k, weights, out, w); break;                                      \
        case 3: template(codes, code_sums, 3, splits, k, weights, out, w); break;                                      \
        case 4: template(codes, code_sums, 4, splits, k, weights, out, w); break;                                      \
        case 8: template(codes, code_sums, (most) < 8 ? 1 : 8, splits, k, weights, out, w); break;                     \
        default: template(codes, code_sums, most, splits, k, weights, out, w); break;                                  \
        }                                                                                                              \
    }

#define SHARED8 .bits = 8, .step = 64, .ahead = 4096
#define SHARED4 .bits = 4, .step = 64, .ahead = 4096
#define WIDE    .step = 256, .side = 64, .vectors = 4, .ahead = 4096

KERNEL(AVX512, avx512_tile, z8_panel, 8, 2, 8, SHARED8, .vectors = 1)
KERNEL(AVX512, avx512_tile, z8_two, 12, 1, 1, .bits = 8, .step = 64, .ahead = 32 * K, .side = 16 * K, .vectors = 2)
KERNEL(AVX512, avx512_tile, z8_four, 6, 1, 1, .bits = 8, .step = 64, .side = 16 * K, .vectors = 4)
KERNEL(AVX512, avx512_tile, z8_interleaved, 6, 1, 1, .bits = 8, WIDE)
KERNEL(AVX512, avx512_tile, z8_interleaved_offset, 6, 1, 1, .bits = 8, WIDE, .offset = 1)
KERNEL(AVX512, avx512_tile, z8_offset, 8, 2, 8, SHARED8, .vectors = 1, .offset = 1)
KERNEL(AVX512, avx512_tile, z4_panel, 8, 2, 8, SHARED4, .vectors = 1)
KERNEL(AVX512, avx512_tile, z4_two, 12, 1, 1, .bits = 4, .step = 64, .ahead = 16 * K, .side = 8 * K, .vectors = 2)
KERNEL(AVX512, avx512_tile, z4_four, 6, 1, 1, .bits = 4, .step = 64, .side = 8 * K, .vectors = 4)
KERNEL(AVX512, avx512_tile, z4_interleaved, 6, 1, 1, .bits = 4, WIDE)

KERNEL(AVXVNNI, avxvnni_tile, y8_panel, 5, 1, 4, SHARED8, .side = 32)
KERNEL(AVXVNNI, avxvnni_tile, y8_interleaved, 5, 1, 4, .bits = 8, .step = 256, .side = 32, .ahead = 4096)
KERNEL(AVXVNNI, avxvnni_tile, y8_offset, 5, 1, 4, SHARED8, .side = 32, .offset = 1)
KERNEL(AVXVNNI, avxvnni_tile, y8_narrow, 5, 1, 4, .bits = 8, .step = 32, .side = 8 * K, .ahead = 4096)
KERNEL(AVXVNNI, avxvnni_tile, y4_panel, 5, 1, 4, SHARED4, .side = 32)
KERNEL(AVXVNNI, avxvnni_tile, y4_interleaved, 5, 1, 4, .bits = 4, .step = 256, .side = 32, .ahead = 4096)
KERNEL(AVXVNNI, avxvnni_tile, y4_narrow, 5, 1, 4, .bits = 4, .step = 32, .side = 4 * K, .ahead = 4096)

KERNEL(AVX2, avx2_tile, a8_panel, 4, 1, 1, SHARED8, .side = 32)
KERNEL(AVX2, avx2_tile, a8_narrow, 4, 1, 1, .bits = 8, .step = 32, .side = 8 * K, .ahead = 4096)
KERNEL(AVX2, avx2_tile, a8_widened, 4, 1, 1, .bits = 16, .step = 64, .side = 32, .ahead = 4096)
KERNEL(AVX2, avx2_tile, a4_panel, 4, 1, 1, SHARED4, .side = 32)
KERNEL(AVX2, avx2_tile, a4_narrow, 4, 1, 1, .bits = 4, .step = 32, .side = 4 * K, .ahead = 4096)

typedef struct contestant {
    const char *isa, *weights, *layout; /* NULL: the shared layout */
    size_t tile_rows, tile_bytes;
    tile_function *tile;
} contestant;

#define INT8 CHANNELS *K
#define INT4 CHANNELS *K / 2
static const contestant kernels[] = {
    {"avx512vnni", "int8", NULL, 8, INT8, z8_panel},
    {"avx512vnni", "int8", NULL, 12, INT8, z8_two},
    {"avx512vnni", "int8", NULL, 6, INT8, z8_four},
    {"avx512vnni", "int8", "interleaved", 6, INT8, z8_interleaved},
    {"avx512vnni", "int8", "interleaved, offset", 6, INT8, z8_interleaved_offset},
    {"avx512vnni", "int8", "offset", 8, INT8, z8_offset},
    {"avx512vnni", "int4", NULL, 8, INT4, z4_panel},
    {"avx512vnni", "int4", NULL, 12, INT4, z4_two},
    {"avx512vnni", "int4", NULL, 6, INT4, z4_four},
    {"avx512vnni", "int4", "interleaved", 6, INT4, z4_interleaved},
    {"avxvnni", "int8", NULL, 5, INT8, y8_panel},
    {"avxvnni", "int8", "interleaved", 5, INT8, y8_interleaved},
    {"avxvnni", "int8", "offset", 5, INT8, y8_offset},
    {"avxvnni", "int8", "narrow", 5, INT8, y8_narrow},
    {"avxvnni", "int4", NULL, 5, INT4, y4_panel},
    {"avxvnni", "int4", "interleaved", 5, INT4, y4_interleaved},
    {"avxvnni", "int4", "narrow", 5, INT4, y4_narrow},
    {"avx2", "int8", NULL, 4, INT8, a8_panel},
    {"avx2", "int8", "narrow", 4, INT8, a8_narrow},
    {"avx2", "int8", "widened", 4, 2 * INT8, a8_widened},
    {"avx2", "int4", NULL, 4, INT4, a4_panel},
    {"avx2", "int4", "narrow", 4, INT4, a4_narrow},
};
enum { KERNELS = sizeof kernels / sizeof *kernels };

static int cpu_has(const char *isa)
{
    if (!strcmp(isa, "avx512vnni")) {
        return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
    }
    if (!strcmp(isa, "avxvnni")) {
        unsigned eax = 7, ebx, ecx = 1, edx;
        __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
        return (int)(eax >> 4 & 1);
    }
    return __builtin_cpu_supports("avx2");
}

/* ---- timing ----------------------------------------------------------------------------------------------- */

static _Alignas(64) int8_t codes[2 * MAX_ROWS * K]; /* twice: as int16 for the widened layout */
static int32_t code_sums[MAX_ROWS];
int32_t sums[MAX_ROWS * CHANNELS]; /* not static, or a compiler may see that nobody reads it */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Seconds for `rows` rows times `tiles` tiles of weights, of which there are `distinct` different ones. */
static double time_kernel(const contestant *kernel, const uint8_t *weights, size_t tiles, size_t distinct, size_t rows)
{
    const size_t code_bytes = kernel->tile_bytes > INT8 ? 2 : 1;
    const double start = seconds();
    for (size_t t = 0; t < tiles; t++) {
        const uint8_t *tile = weights + t % distinct * kernel->tile_bytes;
        for (size_t row = 0; row < rows; row += kernel->tile_rows) {
            const size_t count = rows - row < kernel->tile_rows ? rows - row : kernel->tile_rows;
            kernel->tile(codes + row * K * code_bytes, code_sums + row, count, K, tile, sums + row * CHANNELS);
        }
    }
    return seconds() - start;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Times kernels[begin … end - 1], all of one instruction set and width, in turn; prints the best of each layout. */
static void compare(size_t begin, size_t end, const uint8_t *weights, int hot, size_t rows)
{
    static double taken[KERNELS][REPEATS];
    const size_t macs = rows * CHANNELS * K;
    const size_t tiles = MIN_MACS / macs > 2 * HOT_TILES ? MIN_MACS / macs : 2 * HOT_TILES;
    size_t offset = 0; /* each timing reads another part of memory, so that nothing is left over in a cache */
    for (size_t repeat = 0; repeat < REPEATS; repeat++) {
        for (size_t i = begin; i < end; i++) {
            if (offset + (tiles + 1) * kernels[i].tile_bytes > MEMORY_BYTES) {
                offset = 0;
            }
            if (hot) {
                time_kernel(&kernels[i], weights, HOT_TILES, HOT_TILES, rows); /* brings the weights to L2 */
            }
            const uint8_t *from = weights + (hot ? 0 : offset);
            taken[i][repeat] = time_kernel(&kernels[i], from, tiles, hot ? HOT_TILES : tiles, rows);
            offset += tiles * kernels[i].tile_bytes;
        }
    }
    size_t shared = begin, other = end;
    for (size_t i = begin; i < end; i++) {
        qsort(taken[i], REPEATS, sizeof(double), by_value);
        size_t *best = kernels[i].layout ? &other : &shared;
        if (*best == end || taken[i][QUIET] < taken[*best][QUIET]) {
            *best = i;
        }
    }
    const double shared_time = taken[shared][QUIET], other_time = taken[other][QUIET];
    printf("| %s | %s | %zu | %s | %.0f | %.0f | %s | %+.1f %% |\n", kernels[begin].isa, kernels[begin].weights, rows,
           hot ? "L2" : "memory", (double)(macs * tiles) / shared_time * 1e-9,
           (double)(macs * tiles) / other_time * 1e-9, kernels[other].layout, (shared_time / other_time - 1.0) * 100.0);
}

int main(void)
{
    uint8_t *weights = aligned_alloc(4096, MEMORY_BYTES + 2 * INT8);
    if (!weights) {
        fputs("layout_cost: out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < MEMORY_BYTES + 2 * INT8; i++) {
        weights[i] = (uint8_t)(i * 2654435761u >> 11);
    }
    for (size_t i = 0; i < sizeof codes; i++) {
        codes[i] = (int8_t)(i * 2654435761u >> 13);
    }
    puts("| ISA | weights | rows | from | shared GMAC/s | best other GMAC/s | which | shared takes |");
    puts("| --- | --- | ---: | --- | ---: | ---: | --- | ---: |");
    static const size_t row_counts[] = {1, 16, 128};
    for (size_t begin = 0, end; begin < KERNELS; begin = end) {
        for (end = begin; end < KERNELS && !strcmp(kernels[end].isa, kernels[begin].isa) &&
                          !strcmp(kernels[end].weights, kernels[begin].weights);) {
            end++;
        }
        for (size_t i = 0; i < 6 && cpu_has(kernels[begin].isa); i++) {
            compare(begin, end, weights, i % 2 == 0, row_counts[i / 2]);
        }
    }
    free(weights);
    return EXIT_SUCCESS;
}
