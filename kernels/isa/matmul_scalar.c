/* Integer matmul in plain C, for CPUs without any other instruction set. */
#include "isa/kernels.h"

static int32_t int8_weight(const int8_t *panel, size_t group, size_t channel, size_t i)
{
    return panel[(group * EG_PANEL + channel) * EG_K_GROUP + i];
}

static int32_t int4_weight(const uint8_t *panel, const uint8_t *codebooks, size_t group, size_t channel, size_t i)
{
    const uint8_t pair = panel[(group / 2 * EG_PANEL + channel) * EG_K_GROUP + i];
    const size_t input = group * EG_K_GROUP + i;
    const uint8_t codebook_ids = codebooks[input / EG_CODEBOOK_BYTE_INPUTS * EG_PANEL + channel];
    static const int8_t levels[] = {EG_INT4_LEVELS};
    return levels[eg_codebook(codebook_ids, input % EG_CODEBOOK_BYTE_INPUTS) | (group % 2 ? pair >> 4 : pair & 0xF)];
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    (void)code_sums;
    (void)codebooks;
    for (size_t row = 0; row < rows; row++) {
        for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel++) {
            const int8_t *panel = (const int8_t *)weights + channel / EG_PANEL * (EG_PANEL * k);
            int32_t sum = 0;
            for (size_t i = 0; i < k; i++) {
                sum += codes[row * k + i] * int8_weight(panel, i / EG_K_GROUP, channel % EG_PANEL, i % EG_K_GROUP);
            }
            sums[row * EG_TILE_CHANNELS + channel] = sum;
        }
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    (void)code_sums;
    for (size_t row = 0; row < rows; row++) {
        for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel++) {
            const uint8_t *panel = (const uint8_t *)weights + channel / EG_PANEL * (EG_PANEL * k / 2);
            const uint8_t *codebook_ids = codebooks + channel / EG_PANEL * (EG_PANEL * k / EG_CODEBOOK_BYTE_INPUTS);
            int32_t sum = 0;
            for (size_t i = 0; i < k; i++) {
                sum += codes[row * k + i] *
                       int4_weight(panel, codebook_ids, i / EG_K_GROUP, channel % EG_PANEL, i % EG_K_GROUP);
            }
            sums[row * EG_TILE_CHANNELS + channel] = sum;
        }
    }
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 8 };
    int32_t sums[CHAINS] = {0};
    for (uint64_t i = 0; i < iterations; i++) {
        for (int chain = 0; chain < CHAINS; chain++) {
            sums[chain] += (int8_t)i * (int8_t)(i + (uint64_t)chain);
        }
    }
    for (int chain = 0; chain < CHAINS; chain++) {
        *sink ^= sums[chain];
    }
    return iterations * CHAINS;
}

extern const eg_matmul_ops eg_matmul__scalar;
const eg_matmul_ops eg_matmul__scalar = {.tile_rows = 8,
                                         .chunk_rows = EG_CHUNK_ROWS,
                                         .int8_tile = int8_tile,
                                         .int4_tile = int4_tile,
                                         .multiply_probe = multiply_probe};
