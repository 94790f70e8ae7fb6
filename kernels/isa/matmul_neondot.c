/* Integer matmul on AArch64 with the dot product extension. sdot adds, in each of 4 int32 lanes, the products of 4
 * signed bytes: a quarter line of a panel, 4 channels, against 4 inputs that it picks itself from a register of 16.
 *
 * int4 weights are unpacked for up to 64 rows, which then multiply them like int8 ones. */
#if !defined(__aarch64__) || !defined(__ARM_FEATURE_DOTPROD)
#error "compile with -march=armv8.2-a+dotprod"
#endif
#include "isa/int4_levels_arm.h"

/* Keeps the compiler from computing values earlier: with the weights of all quarters loaded it has too few registers.
 * GCC 12 needs it to be volatile; clang 14 spills more if it is. */
#if defined(__clang__)
#define SETTLE __asm__
#else
#define SETTLE __asm__ volatile
#endif

enum {
    LANES = 4,                   /* channels of a register */
    QUARTERS = EG_PANEL / LANES, /* registers of a line */
    CODES = 16,                  /* inputs of a register: 4 k-groups */
    GROUPS = CODES / EG_K_GROUP,
    BLOCK_ROWS = 4, /* 4 rows x 4 quarters = 16 sums, 4 inputs, and 2 for the weights of a quarter: 22 of 32 */
    MAX_SPLITS = 4,
    TILE_ROWS = EG_CHUNK_ROWS,
};

/* The first split begins with what is stored, the others with 0. */
EG_ALWAYS_INLINE void start_sums(int32x4_t sums[MAX_SPLITS][BLOCK_ROWS][QUARTERS], size_t rows, size_t splits,
                                 const int32_t *stored)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < QUARTERS; quarter++) {
            sums[0][row][quarter] = vld1q_s32(stored + row * EG_TILE_CHANNELS + quarter * LANES);
            EG_UNROLL
            for (size_t split = 1; split < splits; split++) {
                sums[split][row][quarter] = vdupq_n_s32(0);
                __asm__("" : "+w"(sums[split][row][quarter])); /* GCC 12 copies and spills sums that begin equal */
            }
        }
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
EG_ALWAYS_INLINE void add_groups(int32x4_t sums[MAX_SPLITS][BLOCK_ROWS][QUARTERS], const int8x16_t codes[BLOCK_ROWS],
                                 size_t rows, size_t splits, size_t group, const int8_t *lines)
{
    EG_UNROLL
    for (size_t quarter = 0; quarter < QUARTERS; quarter++) {
        const int8_t *from = lines + group * EG_LINE + quarter * CODES;
        int8x16_t weights[2] = {vld1q_s8(from), vld1q_s8(from + EG_LINE)};
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
EG_ALWAYS_INLINE void store_sums(int32x4_t sums[MAX_SPLITS][BLOCK_ROWS][QUARTERS], size_t rows, size_t splits,
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

/* Adds to the sums of a panel for at most BLOCK_ROWS rows of codes, `stride` apart. rows and splits are constants at
 * every call, so that loops unroll and sums are registers.
 * splits: sets of sums, which k-groups use in turn. sdot takes 3 to 4 cycles, and up to four start in a cycle: few rows
 * need several sets to have 12 sums or more in progress. */
EG_ALWAYS_INLINE void multiply_block(const int8_t *codes, size_t stride, size_t rows, size_t splits, size_t k,
                                     const int8_t *lines, int32_t *out)
{
    int32x4_t sums[MAX_SPLITS][BLOCK_ROWS][QUARTERS];
    start_sums(sums, rows, splits, out);
    for (size_t i = 0; i < k; i += CODES) {
        int8x16_t inputs[BLOCK_ROWS];
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            inputs[row] = vld1q_s8(codes + row * stride + i);
        }
        EG_UNROLL
        for (size_t group = 0; group < GROUPS; group += 2) {
            add_groups(sums, inputs, rows, splits, group, lines);
        }
        lines += CODES * EG_PANEL;
    }
    store_sums(sums, rows, splits, out);
}

/* Adds to the sums of a panel of int8 weights: `out`, rows EG_TILE_CHANNELS apart. */
static void multiply_panel(const int8_t *codes, size_t stride, size_t rows, size_t k, const int8_t *lines, int32_t *out)
{
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        switch (rows - row) {
        case 1: multiply_block(codes, stride, 1, 4, k, lines, out); break;
        case 2: multiply_block(codes, stride, 2, 2, k, lines, out); break;
        case 3: multiply_block(codes, stride, 3, 1, k, lines, out); break;
        default: multiply_block(codes, stride, BLOCK_ROWS, 1, k, lines, out); break;
        }
        codes += BLOCK_ROWS * stride;
        out += BLOCK_ROWS * EG_TILE_CHANNELS;
    }
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    (void)code_sums;
    (void)codebooks;
    __builtin_memset(sums, 0, rows * EG_TILE_CHANNELS * sizeof *sums);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
        multiply_panel(codes, k, rows, k, (const int8_t *)weights + panel * EG_PANEL * k, sums + panel * EG_PANEL);
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    _Alignas(EG_LINE) int8_t unpacked[EG_UNPACKED_K * EG_PANEL];
    (void)code_sums;
    __builtin_memset(sums, 0, rows * EG_TILE_CHANNELS * sizeof *sums);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
        for (size_t begin = 0; begin < k; begin += EG_UNPACKED_K) {
            const size_t count = k - begin < EG_UNPACKED_K ? k - begin : EG_UNPACKED_K;
            const size_t first = EG_PANEL * (panel * k + begin); /* weights before these */
            eg_unpack_int4((const uint8_t *)weights + first / 2, codebooks + first / EG_CODEBOOK_BYTE_INPUTS, count, 0,
                           unpacked);
            multiply_panel(codes + begin, k, rows, count, unpacked, sums + panel * EG_PANEL);
        }
    }
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
