/* Integer matmul on AArch64 with the int8 matrix extension. smmla multiplies 2 rows x 8 inputs by 8 inputs x
 * 2 channels: 32 products, twice those of sdot, into 2 x 2 int32 sums.
 *
 * Two lines of a panel hold 8 inputs, 4 in each; interleaving their 32-bit words brings the 8 inputs of a channel
 * together, 2 channels a register. One such zip serves all rows. One tbl looks up the levels of int4.
 * Rows go in pairs; an odd last row is multiplied with itself as its neighbour. */
#include "compiler.h"
#include "kernels.h"

#if !defined(__aarch64__) || !defined(__ARM_FEATURE_MATMUL_INT8)
#error "compile with -march=armv8.2-a+dotprod+i8mm"
#endif
#include <arm_neon.h>

enum {
    LINE = 64,
    LANES = 4,                   /* channels of a register of a line */
    QUARTERS = EG_PANEL / LANES, /* registers of a line */
    STEP = 2 * EG_K_GROUP,       /* inputs of one smmla */
    HALF_PANEL = EG_PANEL / 2,   /* channels whose sums stay in registers */
    CHANNEL_PAIRS = HALF_PANEL / 2,
    TILE_ROWS = 8, /* 4 pairs of rows x 4 pairs of channels = 16 sums, 4 weights, 4 lines, 4 inputs: 28 of 32 */
    ROW_PAIRS = TILE_ROWS / 2,
};

/* The weights of 8 inputs from `lines` on for the channels of one half panel, [channel pair][2 channels][8 inputs]. */
EG_ALWAYS_INLINE void load_weights(const uint8_t *lines, size_t half, int bits, int8x16_t weights[CHANNEL_PAIRS])
{
    const int8x16_t levels = {EG_INT4_LEVELS};
    EG_UNROLL
    for (size_t quarter = 0; quarter < QUARTERS / 2; quarter++) {
        const uint8_t *from = lines + (half * QUARTERS / 2 + quarter) * 16;
        const uint8x16_t line = vld1q_u8(from);
        const int8x16_t first = bits == 8 ? vreinterpretq_s8_u8(line)
                                          : vqtbl1q_s8(levels, vandq_u8(line, vdupq_n_u8(0xF)));
        const int8x16_t second = bits == 8 ? vreinterpretq_s8_u8(vld1q_u8(from + LINE))
                                           : vqtbl1q_s8(levels, vshrq_n_u8(line, 4));
        const uint32x4_t a = vreinterpretq_u32_s8(first), b = vreinterpretq_u32_s8(second);
        weights[2 * quarter] = vreinterpretq_s8_u32(vzip1q_u32(a, b));
        weights[2 * quarter + 1] = vreinterpretq_s8_u32(vzip2q_u32(a, b));
    }
}

/* Sums are [row pair][channel pair], each {row 0 channel 0, row 0 channel 1, row 1 channel 0, row 1 channel 1}. */
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

/* Half a panel. rows and bits are constants at every call, so that loops unroll and sums are registers. */
EG_ALWAYS_INLINE void multiply_half(const int8_t *codes, size_t rows, size_t k, const uint8_t *lines, size_t half,
                                    int bits, int32_t *out)
{
    const size_t pairs = (rows + 1) / 2;
    int32x4_t sums[ROW_PAIRS][CHANNEL_PAIRS];
    EG_UNROLL
    for (size_t pair = 0; pair < pairs; pair++) {
        EG_UNROLL
        for (size_t c = 0; c < CHANNEL_PAIRS; c++) {
            sums[pair][c] = vdupq_n_s32(0);
            __asm__("" : "+w"(sums[pair][c])); /* GCC 12 copies and spills sums that begin equal */
        }
    }
    for (size_t i = 0; i < k; i += STEP) {
        int8x16_t weights[CHANNEL_PAIRS];
        load_weights(lines, half, bits, weights);
        EG_UNROLL
        for (size_t pair = 0; pair < pairs; pair++) {
            const size_t second = 2 * pair + 1 < rows ? 2 * pair + 1 : 2 * pair;
            const int8x16_t inputs = vcombine_s8(vld1_s8(codes + 2 * pair * k + i), vld1_s8(codes + second * k + i));
            EG_UNROLL
            for (size_t c = 0; c < CHANNEL_PAIRS; c++) {
                sums[pair][c] = vmmlaq_s32(sums[pair][c], inputs, weights[c]);
            }
        }
        lines += STEP * EG_PANEL * (size_t)bits / 8;
    }
    store_sums(sums, rows, out);
}

EG_ALWAYS_INLINE void multiply_tile(const int8_t *codes, size_t rows, size_t k, const uint8_t *weights, int bits,
                                    int32_t *sums)
{
    for (size_t half = 0; half < EG_TILE_CHANNELS / HALF_PANEL; half++) {
        const uint8_t *lines = weights + half / 2 * (EG_PANEL * k * (size_t)bits / 8);
        int32_t *out = sums + half * HALF_PANEL;
        switch (rows) {
        case 1: multiply_half(codes, 1, k, lines, half % 2, bits, out); break;
        case 2: multiply_half(codes, 2, k, lines, half % 2, bits, out); break;
        case 3: multiply_half(codes, 3, k, lines, half % 2, bits, out); break;
        case 4: multiply_half(codes, 4, k, lines, half % 2, bits, out); break;
        case 5: multiply_half(codes, 5, k, lines, half % 2, bits, out); break;
        case 6: multiply_half(codes, 6, k, lines, half % 2, bits, out); break;
        case 7: multiply_half(codes, 7, k, lines, half % 2, bits, out); break;
        default: multiply_half(codes, TILE_ROWS, k, lines, half % 2, bits, out); break;
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
