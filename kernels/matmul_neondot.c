/* Integer matmul on AArch64 with the dot product extension. sdot adds, in each of 4 int32 lanes, the products of 4
 * signed bytes: a quarter line of a panel, 4 channels, against 4 inputs that it picks itself from a register of 16.
 *
 * One tbl looks up the levels of int4. */
#include "compiler.h"
#include "kernels.h"

#if !defined(__aarch64__) || !defined(__ARM_FEATURE_DOTPROD)
#error "compile with -march=armv8.2-a+dotprod"
#endif
#include <arm_neon.h>

/* Computes values here and not earlier: a compiler that loads the weights of all quarters first has too few registers.
 * GCC 12 takes it at its word only if it is volatile; clang 14 spills the more if it is. */
#if defined(__clang__)
#define SETTLE __asm__
#else
#define SETTLE __asm__ volatile
#endif

enum {
    LINE = 64,
    LANES = 4,                   /* channels of a register */
    QUARTERS = EG_PANEL / LANES, /* registers of a line */
    CODES = 16,                  /* inputs of a register: 4 k-groups */
    GROUPS = CODES / EG_K_GROUP,
    TILE_ROWS = 4, /* 4 rows x 4 quarters = 16 sums, 4 inputs, and 3 for the weights of a quarter: 23 of 32 */
    MAX_SPLITS = 4,
};

EG_ALWAYS_INLINE void start_sums(int32x4_t sums[TILE_ROWS][QUARTERS], size_t rows)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < QUARTERS; quarter++) {
            sums[row][quarter] = vdupq_n_s32(0);
            __asm__("" : "+w"(sums[row][quarter])); /* GCC 12 copies and spills sums that begin equal */
        }
    }
}

/* The weights of k-groups `group`, an even one, and `group` + 1 for the channels of a quarter. */
EG_ALWAYS_INLINE void load_weights(const uint8_t *lines, size_t group, size_t quarter, int bits, int8x16_t weights[2])
{
    const uint8_t *from = lines + (bits == 8 ? group : group / 2) * LINE + quarter * CODES;
    const uint8x16_t line = vld1q_u8(from);
    if (bits == 8) {
        weights[0] = vreinterpretq_s8_u8(line);
        weights[1] = vreinterpretq_s8_u8(vld1q_u8(from + LINE));
    } else {
        const int8x16_t levels = {EG_INT4_LEVELS};
        weights[0] = vqtbl1q_s8(levels, vandq_u8(line, vdupq_n_u8(0xF)));
        weights[1] = vqtbl1q_s8(levels, vshrq_n_u8(line, 4));
    }
}

/* sum + weights · k-group `group` of a row's 16 inputs; the group is part of the instruction, hence a constant. */
EG_ALWAYS_INLINE int32x4_t dot(int32x4_t sum, int8x16_t weights, int8x16_t codes, size_t group)
{
    switch (group) {
    case 0: return vdotq_laneq_s32(sum, weights, codes, 0);
    case 1: return vdotq_laneq_s32(sum, weights, codes, 1);
    case 2: return vdotq_laneq_s32(sum, weights, codes, 2);
    default: return vdotq_laneq_s32(sum, weights, codes, 3);
    }
}

/* Adds the products of k-groups `group` and `group` + 1, a quarter at a time, so that few weights take registers. */
EG_ALWAYS_INLINE void add_groups(int32x4_t sums[MAX_SPLITS][TILE_ROWS][QUARTERS], const int8x16_t codes[TILE_ROWS],
                                 size_t rows, size_t splits, size_t group, const uint8_t *lines, int bits)
{
    EG_UNROLL
    for (size_t quarter = 0; quarter < QUARTERS; quarter++) {
        int8x16_t weights[2];
        load_weights(lines, group, quarter, bits, weights);
        SETTLE("" : "+w"(weights[0]), "+w"(weights[1]));
        EG_UNROLL
        for (size_t i = 0; i < 2; i++) {
            int32x4_t(*into)[QUARTERS] = sums[(group + i) % splits];
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                into[row][quarter] = dot(into[row][quarter], weights[i], codes[row], group + i);
            }
        }
    }
}

/* Adds up the splits and stores them. */
EG_ALWAYS_INLINE void store_sums(int32x4_t sums[MAX_SPLITS][TILE_ROWS][QUARTERS], size_t rows, size_t splits,
                                 int32_t *out)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < QUARTERS; quarter++) {
            int32x4_t sum = sums[0][row][quarter];
            EG_UNROLL
            for (size_t split = 1; split < splits; split++) {
                sum = vaddq_s32(sum, sums[split][row][quarter]);
            }
            vst1q_s32(out + row * EG_TILE_CHANNELS + quarter * LANES, sum);
        }
    }
}

/* One panel. rows, splits and bits are constants at every call, so that loops unroll and sums are registers.
 * splits: k-groups take turns in as many sets of sums, so that few rows too have 12 sums or more under way: sdot takes
 * 3 to 4 cycles, up to four at a time. */
EG_ALWAYS_INLINE void multiply_panel(const int8_t *codes, size_t rows, size_t splits, size_t k, const uint8_t *lines,
                                     int bits, int32_t *out)
{
    int32x4_t sums[MAX_SPLITS][TILE_ROWS][QUARTERS];
    EG_UNROLL
    for (size_t split = 0; split < splits; split++) {
        start_sums(sums[split], rows);
    }
    for (size_t i = 0; i < k; i += CODES) {
        int8x16_t inputs[TILE_ROWS];
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            inputs[row] = vld1q_s8(codes + row * k + i);
        }
        EG_UNROLL
        for (size_t group = 0; group < GROUPS; group += 2) {
            add_groups(sums, inputs, rows, splits, group, lines, bits);
        }
        lines += CODES * EG_PANEL * (size_t)bits / 8;
    }
    store_sums(sums, rows, splits, out);
}

EG_ALWAYS_INLINE void multiply_tile(const int8_t *codes, size_t rows, size_t k, const uint8_t *weights, int bits,
                                    int32_t *sums)
{
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
        const uint8_t *lines = weights + panel * (EG_PANEL * k * (size_t)bits / 8);
        int32_t *out = sums + panel * EG_PANEL;
        switch (rows) {
        case 1: multiply_panel(codes, 1, 4, k, lines, bits, out); break;
        case 2: multiply_panel(codes, 2, 2, k, lines, bits, out); break;
        case 3: multiply_panel(codes, 3, 1, k, lines, bits, out); break;
        default: multiply_panel(codes, TILE_ROWS, 1, k, lines, bits, out); break;
        }
    }
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    (void)code_sums;
    multiply_tile(codes, rows, k, weights, 8, sums);
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      int32_t *sums)
{
    (void)code_sums;
    multiply_tile(codes, rows, k, weights, 4, sums);
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 16, MACS = 16 };
    int32x4_t sums[CHAINS];
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(*sink)), b = vreinterpretq_s8_s32(vdupq_n_s32(*sink + 1));
    EG_UNROLL
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = vdupq_n_s32(chain);
    }
    for (uint64_t i = 0; i < iterations; i++) {
        EG_UNROLL
        for (int chain = 0; chain < CHAINS; chain++) {
            sums[chain] = vdotq_s32(sums[chain], a, b);
        }
    }
    EG_UNROLL
    for (int chain = 1; chain < CHAINS; chain++) {
        sums[0] = veorq_s32(sums[0], sums[chain]);
    }
    *sink = vgetq_lane_s32(sums[0], 0);
    return iterations * CHAINS * MACS;
}

extern const eg_matmul_ops eg_matmul__neondot;
const eg_matmul_ops eg_matmul__neondot = {.tile_rows = TILE_ROWS,
                                          .chunk_rows = EG_CHUNK_ROWS,
                                          .int8_tile = int8_tile,
                                          .int4_tile = int4_tile,
                                          .multiply_probe = multiply_probe};
