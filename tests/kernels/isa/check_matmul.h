/* Checks one eg_matmul_ops against a plain triple loop: sums must be equal, bit by bit, and nothing else written. */
#ifndef EG_TESTS_CHECK_MATMUL_H
#define EG_TESTS_CHECK_MATMUL_H

#include "tests/kernels/check.h"
#include "isa/kernels.h"

enum { MATMUL_CASES = 8, INT8_BITS = 8, INT4_BITS = 4 };

/* One operand of a case: random values, or the values that overflow or saturate first where an instruction can. */
static inline int8_t pick_code(int matmul_case, int weight, size_t channel_or_row, size_t i, int low, int high,
                               uint64_t *state)
{
    switch (matmul_case) {
    case 0: return (int8_t)high;
    case 1: return (int8_t)(weight ? high : low);
    case 2: return (int8_t)(weight ? low : high);
    case 3: return (int8_t)low;
    case 4: return (int8_t)((i / 2 + channel_or_row) % 2 ? low : high); /* signs that change from pair to pair */
    case 5: return (int8_t)(low + (int)((i + channel_or_row) % (size_t)(high - low + 1))); /* every code in turn */
    default: return (int8_t)random_int(state, low, high);
    }
}

/* Stores weight (channel, i) in four panels, by the formula of export/FORMAT.md:
 * [channel/16][i/4][channel%16][i%4], where int4 keeps k-groups 2j and 2j + 1 in the low and high nibble of line j. */
static inline void store_weight(uint8_t *panels, int bits, size_t k, size_t channel, size_t i, int8_t code)
{
    const size_t group = i / EG_K_GROUP;
    const size_t place = channel % EG_PANEL * EG_K_GROUP + i % EG_K_GROUP;
    const size_t line_bytes = EG_PANEL * EG_K_GROUP;
    if (bits == INT8_BITS) {
        panels[channel / EG_PANEL * (EG_PANEL * k) + group * line_bytes + place] = (uint8_t)code;
        return;
    }
    uint8_t *pair = &panels[channel / EG_PANEL * (EG_PANEL * k / 2) + group / 2 * line_bytes + place];
    *pair = (uint8_t)(group % 2 ? (*pair & 0xF) | code << 4 : code);
}

/* The codebook of 16 inputs from i on of a channel: all in turn, a quarter of them in each channel. */
static inline size_t pick_codebook(int matmul_case, size_t channel, size_t i)
{
    return (i / EG_CODEBOOK_INPUTS + channel + (size_t)matmul_case) % EG_CODEBOOKS;
}

/* Stores the id of a codebook: two bits of byte [channel/16][i/64][channel%16]. */
static inline void store_codebook(uint8_t *codebooks, size_t k, size_t channel, size_t i, size_t number)
{
    const size_t bytes = EG_PANEL * k / EG_CODEBOOK_BYTE_INPUTS; /* of a panel */
    codebooks[channel / EG_PANEL * bytes + i / EG_CODEBOOK_BYTE_INPUTS * EG_PANEL + channel % EG_PANEL] |=
        (uint8_t)(number << i % EG_CODEBOOK_BYTE_INPUTS / EG_CODEBOOK_INPUTS * EG_CODEBOOK_BITS);
}

static inline void check_tile(const char *isa, eg_integer_tile *tile, int bits, size_t rows, size_t k, int matmul_case)
{
    uint64_t state = k * 1000003u + rows * 1009u + (uint64_t)matmul_case;
    int8_t *codes = aligned_new(rows * k);
    int32_t *code_sums = aligned_new(rows * sizeof *code_sums);
    int8_t *matrix = aligned_new(EG_TILE_CHANNELS * k); /* (64, k) */
    uint8_t *allocation = aligned_new(CHECK_ALIGNMENT + EG_TILE_CHANNELS * k * (size_t)bits / 8);
    uint8_t *panels = allocation + CHECK_ALIGNMENT; /* files promise 64-byte alignment and no more */
    uint8_t *codebooks = aligned_new(EG_TILE_CHANNELS * k / EG_CODEBOOK_BYTE_INPUTS);
    memset(codebooks, 0, EG_TILE_CHANNELS * k / EG_CODEBOOK_BYTE_INPUTS);
    const size_t sums_bytes = rows * EG_TILE_CHANNELS * sizeof(int32_t);
    int32_t *first = guarded_new(sizeof *first + sums_bytes), *sums = first + 1; /* aligned as int32 and no more */
    const int32_t guard = *first;

    for (size_t row = 0; row < rows; row++) {
        code_sums[row] = 0;
        for (size_t i = 0; i < k; i++) {
            codes[row * k + i] = pick_code(matmul_case, 0, row, i, -EG_CODE_MAX, EG_CODE_MAX, &state);
            code_sums[row] += codes[row * k + i];
        }
    }
    static const int8_t levels[EG_CODEBOOKS][EG_CODEBOOK_LEVELS] = {
        {EG_INT4_CODEBOOK_0}, {EG_INT4_CODEBOOK_1}, {EG_INT4_CODEBOOK_2}, {EG_INT4_CODEBOOK_3}};
    const int low = bits == INT8_BITS ? -EG_CODE_MAX : 0;
    const int high = bits == INT8_BITS ? EG_CODE_MAX : EG_CODEBOOK_LEVELS - 1;
    for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel++) {
        for (size_t i = 0; i < k; i++) {
            const int8_t code = pick_code(matmul_case, 1, channel, i, low, high, &state);
            store_weight(panels, bits, k, channel, i, code);
            const size_t number = matmul_case < 4 ? EG_CODEBOOKS - 1 : pick_codebook(matmul_case, channel, i);
            if (i % EG_CODEBOOK_INPUTS == 0) {
                store_codebook(codebooks, k, channel, i, number);
            }
            matrix[channel * k + i] = bits == INT8_BITS ? code : levels[number][code];
        }
    }

    tile(codes, code_sums, rows, k, panels, bits == INT8_BITS ? NULL : codebooks, sums);

    for (size_t row = 0; row < rows; row++) {
        for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel++) {
            int32_t expected = 0;
            for (size_t i = 0; i < k; i++) {
                expected += codes[row * k + i] * matrix[channel * k + i];
            }
            const int32_t sum = sums[row * EG_TILE_CHANNELS + channel];
            CHECK(sum == expected, "%s int%d k %zu case %d rows %zu: (%zu, %zu) is %d, not %d", isa, bits, k,
                  matmul_case, rows, row, channel, (int)sum, (int)expected);
        }
    }
    CHECK(*first == guard, "%s int%d k %zu rows %zu: wrote before sums", isa, bits, k, rows);
    CHECK(guarded_free(first, sizeof *first + sums_bytes), "%s int%d k %zu rows %zu: wrote outside of sums", isa, bits,
          k, rows);
    eg_aligned_free(codebooks);
    eg_aligned_free(allocation);
    eg_aligned_free(matrix);
    eg_aligned_free(code_sums);
    eg_aligned_free(codes);
}

/* All row counts, on narrow matrices; on wide ones those about a multiple of 16. Large tiles take one case each, in
 * turn, since emulated and sanitized runs are slow. */
static inline void check_matmul_ops(const char *isa, const eg_matmul_ops *ops)
{
    static const size_t widths[] = {64, 128, 192, 768, 1152, 2368};
    enum { WIDTHS = sizeof widths / sizeof *widths, NARROW = 192, FEW_ROWS = 8 };
    CHECK(ops->tile_rows >= 1 && ops->tile_rows <= EG_TILE_MAX_ROWS, "%s: tile_rows %zu", isa, ops->tile_rows);
    for (size_t w = 0; w < WIDTHS; w++) {
        for (size_t rows = 1; rows <= ops->tile_rows; rows++) {
            if (widths[w] > NARROW && rows > FEW_ROWS && rows != ops->tile_rows && (rows + 1) % EG_PANEL > 2) {
                continue;
            }
            const int first = rows <= FEW_ROWS ? 0 : (int)(rows + w) % MATMUL_CASES;
            const int last = rows <= FEW_ROWS ? MATMUL_CASES - 1 : first;
            for (int matmul_case = first; matmul_case <= last; matmul_case++) {
                check_tile(isa, ops->int8_tile, INT8_BITS, rows, widths[w], matmul_case);
                check_tile(isa, ops->int4_tile, INT4_BITS, rows, widths[w], matmul_case);
            }
        }
    }
    int32_t sink = 1;
    const uint64_t once = ops->multiply_probe(1, &sink);
    CHECK(once > 0 && ops->multiply_probe(1000, &sink) == 1000 * once, "%s: the probe miscounts", isa);
}

#endif
