/* Integer matmul on AArch64 with the int8 matrix extension. smmla multiplies 2 rows x 8 inputs by 8 inputs x
 * 2 channels: 32 products, twice those of sdot, into 2 x 2 int32 sums.
 *
 * Two lines of a panel hold 8 inputs, 4 in each; interleaving their 32-bit words brings the 8 inputs of a channel
 * together, 2 channels a register. For int8, one such zip serves the 8 rows whose sums are in registers; int4 weights
 * are unpacked for up to 64 rows, and zipped then. Rows go in pairs; an odd last row is multiplied with itself as its
 * neighbour. */
#if !defined(__aarch64__) || !defined(__ARM_FEATURE_MATMUL_INT8)
#error "compile with -march=armv8.2-a+dotprod+i8mm"
#endif
#include "isa/int4_levels_arm.h"

enum {
    LANES = 4,                   /* channels of a register of a line */
    QUARTERS = EG_PANEL / LANES, /* registers of a line */
    STEP = 2 * EG_K_GROUP,       /* inputs of one smmla */
    HALF_PANEL = EG_PANEL / 2,   /* channels whose sums stay in registers */
    CHANNEL_PAIRS = HALF_PANEL / 2,
    BLOCK_ROWS = 8, /* 4 pairs of rows x 4 pairs of channels = 16 sums, 4 weights, 4 lines, 4 inputs: 28 of 32 */
    ROW_PAIRS = BLOCK_ROWS / 2,
    TILE_ROWS = EG_CHUNK_ROWS,
};

/* The weights of 8 inputs from `lines` on for the channels of one half panel, [channel pair][2 channels][8 inputs]. */
EG_ALWAYS_INLINE void load_weights(const int8_t *lines, size_t half, int zipped, int8x16_t weights[CHANNEL_PAIRS])
{
    EG_UNROLL
    for (size_t quarter = 0; quarter < QUARTERS / 2; quarter++) {
        const size_t before = half * QUARTERS / 2 + quarter;
        if (zipped) {
            weights[2 * quarter] = vld1q_s8(lines + 2 * before * EG_QUARTER);
            weights[2 * quarter + 1] = vld1q_s8(lines + (2 * before + 1) * EG_QUARTER);
        } else {
            const uint32x4_t a = vreinterpretq_u32_s8(vld1q_s8(lines + before * EG_QUARTER));
            const uint32x4_t b = vreinterpretq_u32_s8(vld1q_s8(lines + EG_LINE + before * EG_QUARTER));
            weights[2 * quarter] = vreinterpretq_s8_u32(vzip1q_u32(a, b));
            weights[2 * quarter + 1] = vreinterpretq_s8_u32(vzip2q_u32(a, b));
        }
    }
}

/* Sums are [row pair][channel pair], each {row 0 channel 0, row 0 channel 1, row 1 channel 0, row 1 channel 1}. */
EG_ALWAYS_INLINE void load_sums(int32x4_t sums[ROW_PAIRS][CHANNEL_PAIRS], size_t rows, const int32_t *stored)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row += 2) {
        const int32_t *first = stored + row * EG_TILE_CHANNELS;
        const int32_t *second = row + 1 < rows ? first + EG_TILE_CHANNELS : first;
        EG_UNROLL
        for (size_t pair = 0; pair < CHANNEL_PAIRS; pair++) {
            sums[row / 2][pair] = vcombine_s32(vld1_s32(first + 2 * pair), vld1_s32(second + 2 * pair));
        }
    }
}

EG_ALWAYS_INLINE void store_sums(int32x4_t sums[ROW_PAIRS][CHANNEL_PAIRS], size_t rows, int32_t *out)
{
    EG_UNROLL
    for (size_t pair = 0; pair < CHANNEL_PAIRS; pair++) {
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            const int32x4_t sum = sums[row / 2][pair];
            vst1_s32(out + row * EG_TILE_CHANNELS + 2 * pair, row % 2 ? vget_high_s32(sum) : vget_low_s32(sum));
        }
    }
}

/* Adds to the sums of half a panel for at most BLOCK_ROWS rows of codes, `stride` apart. rows and zipped are constants
 * at every call, so that loops unroll and sums are registers. */
EG_ALWAYS_INLINE void multiply_block(const int8_t *codes, size_t stride, size_t rows, size_t k, const int8_t *lines,
                                     size_t half, int zipped, int32_t *out)
{
    const size_t pairs = (rows + 1) / 2;
    int32x4_t sums[ROW_PAIRS][CHANNEL_PAIRS];
    load_sums(sums, rows, out);
    for (size_t i = 0; i < k; i += STEP) {
        int8x16_t weights[CHANNEL_PAIRS];
        load_weights(lines, half, zipped, weights);
        EG_UNROLL
        for (size_t pair = 0; pair < pairs; pair++) {
            const int8_t *first = codes + 2 * pair * stride + i;
            const int8_t *second = 2 * pair + 1 < rows ? first + stride : first;
            const int8x16_t inputs = vcombine_s8(vld1_s8(first), vld1_s8(second));
            EG_UNROLL
            for (size_t c = 0; c < CHANNEL_PAIRS; c++) {
                sums[pair][c] = vmmlaq_s32(sums[pair][c], inputs, weights[c]);
            }
        }
        lines += STEP * EG_PANEL;
    }
    store_sums(sums, rows, out);
}

/* Adds to the sums of a panel of int8 weights: `out`, rows EG_TILE_CHANNELS apart. */
EG_ALWAYS_INLINE void multiply_panel(const int8_t *codes, size_t stride, size_t rows, size_t k, const int8_t *lines,
                                     int zipped, int32_t *out)
{
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        for (size_t half = 0; half < EG_PANEL / HALF_PANEL; half++) {
            int32_t *to = out + half * HALF_PANEL;
            switch (rows - row) {
            case 1: multiply_block(codes, stride, 1, k, lines, half, zipped, to); break;
            case 2: multiply_block(codes, stride, 2, k, lines, half, zipped, to); break;
            case 3: multiply_block(codes, stride, 3, k, lines, half, zipped, to); break;
            case 4: multiply_block(codes, stride, 4, k, lines, half, zipped, to); break;
            case 5: multiply_block(codes, stride, 5, k, lines, half, zipped, to); break;
            case 6: multiply_block(codes, stride, 6, k, lines, half, zipped, to); break;
            case 7: multiply_block(codes, stride, 7, k, lines, half, zipped, to); break;
            default: multiply_block(codes, stride, BLOCK_ROWS, k, lines, half, zipped, to); break;
            }
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
        multiply_panel(codes, k, rows, k, (const int8_t *)weights + panel * EG_PANEL * k, 0, sums + panel * EG_PANEL);
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
            eg_unpack_int4((const uint8_t *)weights + first / 2, codebooks + first / EG_CODEBOOK_BYTE_INPUTS, count, 1,
                           unpacked);
            multiply_panel(codes + begin, k, rows, count, unpacked, 1, sums + panel * EG_PANEL);
        }
    }
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 16, MACS = 32 };
    int32x4_t sums[CHAINS];
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(*sink)), b = vreinterpretq_s8_s32(vdupq_n_s32(*sink + 1));
    EG_UNROLL
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = vdupq_n_s32(chain);
    }
    for (uint64_t i = 0; i < iterations; i++) {
        EG_UNROLL
        for (int chain = 0; chain < CHAINS; chain++) {
            sums[chain] = vmmlaq_s32(sums[chain], a, b);
        }
    }
    EG_UNROLL
    for (int chain = 1; chain < CHAINS; chain++) {
        sums[0] = veorq_s32(sums[0], sums[chain]);
    }
    *sink = vgetq_lane_s32(sums[0], 0);
    return iterations * CHAINS * MACS;
}

extern const eg_matmul_ops eg_matmul__i8mm;
const eg_matmul_ops eg_matmul__i8mm = {.tile_rows = TILE_ROWS,
                                       .chunk_rows = EG_CHUNK_ROWS,
                                       .int8_tile = int8_tile,
                                       .int4_tile = int4_tile,
                                       .multiply_probe = multiply_probe};
