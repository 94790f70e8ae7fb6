/* Unpacks int4 weights to their levels, for the kernels of ARM, once for all rows of a call.
 *
 * One tbl looks up 16 weights among the 64 levels of all codebooks, by 16 · codebook + code. That is slow: its table
 * fills 4 registers, its index takes some instructions, and many cores do not start one every cycle. So the levels are
 * stored in a buffer, which all rows of a call share. */
#ifndef EG_INT4_LEVELS_ARM_H
#define EG_INT4_LEVELS_ARM_H

#include <arm_neon.h>

#include "common/compiler.h"
#include "isa/kernels.h"

enum {
    EG_UNPACKED_K = 768, /* a panel of it is 12 KiB, which leaves room in a first-level cache of 32 KiB */
    EG_LINE = 64,
    EG_QUARTER = 16, /* bytes of a register, and of 4 channels in a line */
};

/* The levels of a quarter of a line, the first 4 inputs of its channels in `low`, the next 4 in `high`.
 * zipped: the 8 inputs of a channel become neighbours; else each 4 are in a line of their own, as int8 is stored. */
EG_ALWAYS_INLINE void eg_store_levels(int8x16_t low, int8x16_t high, size_t quarter, int zipped, int8_t *lines)
{
    if (zipped) {
        const uint32x4_t a = vreinterpretq_u32_s8(low), b = vreinterpretq_u32_s8(high);
        vst1q_s8(lines + 2 * quarter * EG_QUARTER, vreinterpretq_s8_u32(vzip1q_u32(a, b)));
        vst1q_s8(lines + (2 * quarter + 1) * EG_QUARTER, vreinterpretq_s8_u32(vzip2q_u32(a, b)));
    } else {
        vst1q_s8(lines + quarter * EG_QUARTER, low);
        vst1q_s8(lines + EG_LINE + quarter * EG_QUARTER, high);
    }
}

/* k inputs of a panel, 2 · EG_LINE bytes of levels for each stored line. */
EG_ALWAYS_INLINE void eg_unpack_int4(const uint8_t *lines, const uint8_t *codebooks, size_t k, int zipped, int8_t *out)
{
    enum {
        LINE_INPUTS = 2 * EG_K_GROUP,
        LINES = EG_CODEBOOK_BYTE_INPUTS / LINE_INPUTS,
        CHANNELS = 4 /* of a quarter */
    };
    const int8x16x4_t levels = {
        {{EG_INT4_CODEBOOK_0}, {EG_INT4_CODEBOOK_1}, {EG_INT4_CODEBOOK_2}, {EG_INT4_CODEBOOK_3}}};
    const uint8x16_t of_lanes = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    for (size_t i = 0; i < k; i += EG_CODEBOOK_BYTE_INPUTS) {
        const uint8x16_t of_panel = vld1q_u8(codebooks + i / EG_CODEBOOK_BYTE_INPUTS * EG_PANEL);
        for (size_t quarter = 0; quarter < EG_LINE / EG_QUARTER; quarter++) {
            const uint8x16_t channels = vaddq_u8(of_lanes, vdupq_n_u8((uint8_t)(quarter * CHANNELS)));
            const uint8x16_t codebook_ids = vqtbl1q_u8(of_panel, channels);
            EG_UNROLL
            for (size_t line = 0; line < LINES; line++) {
                const int bit = (int)line * LINE_INPUTS / EG_CODEBOOK_INPUTS * EG_CODEBOOK_BITS;
                const uint8x16_t shifted = vshlq_u8(codebook_ids, vdupq_n_s8((int8_t)(4 - bit)));
                const uint8x16_t codebook = vandq_u8(shifted, vdupq_n_u8((EG_CODEBOOKS - 1) << 4));
                const uint8x16_t pair = vld1q_u8(lines + line * EG_LINE + quarter * EG_QUARTER);
                const uint8x16_t low = vbslq_u8(vdupq_n_u8(0xF), pair, codebook), high = vsriq_n_u8(codebook, pair, 4);
                eg_store_levels(vqtbl4q_s8(levels, low), vqtbl4q_s8(levels, high), quarter, zipped,
                                out + 2 * line * EG_LINE);
            }
        }
        lines += LINES * EG_LINE;
        out += 2 * LINES * EG_LINE;
    }
}

#endif
