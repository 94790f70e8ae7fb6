/* Integer matmul on WebAssembly's 128-bit vectors, for matmul_wasm.c and matmul_wasmrelaxed.c, which define:
 *
 *   element                    of weights and codes as they are multiplied: int16_t or int8_t
 *   STEP                       inputs of a channel in 32 bits: 2 or 4
 *   multiply_add(sums, weights, codes)   adds STEP products to each of 4 channels' sums
 *   look_up(table, indices)    16 bytes of a table by 16 indices, each below 16
 *   store_lines(lines, to)     stores 16 inputs of 4 channels in the buffer; lines: as int8 is stored, 4 inputs each
 *   take_codes(…)              the codes of a tile as elements: in place, or in the room for them
 *   BLOCK_ROWS                 rows of a block, 5 or 6
 *   LEVEL_OFFSET               what is added to the levels of int4, and undone by the sums of codes
 *
 * The weights of GROUP channels are unpacked once for all rows of a call, to a buffer for a first-level cache:
 * [k / STEP][GROUP][STEP] elements. A block of rows then multiplies them, with all its sums in registers. */
#include <wasm_simd128.h>

#include "common/compiler.h"
#include "isa/kernels.h"

enum {
    LANES = 4, /* channels of a register */
    GROUP = 8, /* channels that are unpacked at once */
    VECTORS = GROUP / LANES,
    TILE_ROWS = EG_CHUNK_ROWS,
    MOST_K = 1152,                /* inputs taken at once */
    LINE = EG_PANEL * EG_K_GROUP, /* bytes: 4 inputs of int8, 8 of int4, for a panel */
    QUARTER = LINE / 4,           /* of a line: 4 channels */
    RUN = EG_CODEBOOK_INPUTS,
    RUN_BYTES = RUN * GROUP * (int)sizeof(element), /* of the buffer */
};

/* Keeps the compiler from computing a value earlier or later: it would have most values of several steps alive at once,
 * for which a browser has no registers. */
#define SETTLE(value) __asm__("" : "+r"(value))

/* Lanes of 32 bits of two vectors. */
#define SHUFFLE(a, b, ...) wasm_i32x4_shuffle(a, b, __VA_ARGS__)

/* 4 vectors of 4 lanes of 32 bits, in place. */
EG_ALWAYS_INLINE void transpose(v128_t v[4])
{
    const v128_t a = SHUFFLE(v[0], v[1], 0, 4, 1, 5), b = SHUFFLE(v[2], v[3], 0, 4, 1, 5);
    const v128_t c = SHUFFLE(v[0], v[1], 2, 6, 3, 7), d = SHUFFLE(v[2], v[3], 2, 6, 3, 7);
    v[0] = wasm_i64x2_shuffle(a, b, 0, 2);
    v[1] = wasm_i64x2_shuffle(a, b, 1, 3);
    v[2] = wasm_i64x2_shuffle(c, d, 0, 2);
    v[3] = wasm_i64x2_shuffle(c, d, 1, 3);
}

/* ---- unpacking ------------------------------------------------------------------------------------------------- */

static const int8_t int4_levels[] = {EG_INT4_LEVELS};

typedef struct level_tables {
    _Alignas(16) int8_t levels[EG_CODEBOOKS][EG_CODEBOOK_LEVELS];
} level_tables;

static void fill_tables(level_tables *tables)
{
    for (size_t i = 0; i < sizeof int4_levels; i++) {
        tables->levels[i / EG_CODEBOOK_LEVELS][i % EG_CODEBOOK_LEVELS] = (int8_t)(int4_levels[i] + LEVEL_OFFSET);
    }
}

/* 64 inputs of 4 channels. lines: at the channels' quarter of a panel's lines. codebooks: a byte for each channel. */
EG_ALWAYS_INLINE void unpack_int4(const level_tables *tables, const uint8_t *lines, const uint8_t *codebooks, char *to)
{
    const v128_t nibble = wasm_i8x16_const_splat(0xF);
    EG_UNROLL
    for (size_t run = 0; run < EG_CODEBOOK_BYTE_INPUTS / RUN; run++) {
        const v128_t first = wasm_v128_load(lines + 2 * run * LINE),
                     second = wasm_v128_load(lines + (2 * run + 1) * LINE);
        v128_t levels[LANES];
        EG_UNROLL
        for (size_t half = 0; half < 2; half++) { /* two channels: first and second line of each, then the nibbles */
            const v128_t both = half == 0 ? SHUFFLE(first, second, 0, 4, 1, 5) : SHUFFLE(first, second, 2, 6, 3, 7);
            const v128_t low = wasm_v128_and(both, nibble), high = wasm_v128_and(wasm_u16x8_shr(both, 4), nibble);
            levels[2 * half] = SHUFFLE(low, high, 0, 4, 1, 5);
            levels[2 * half + 1] = SHUFFLE(low, high, 2, 6, 3, 7);
        }
        EG_UNROLL
        for (size_t channel = 0; channel < LANES; channel++) {
            const size_t id = codebooks[channel] >> run * EG_CODEBOOK_BITS & (EG_CODEBOOKS - 1);
            levels[channel] = look_up(wasm_v128_load(tables->levels[id]), levels[channel]);
        }
        transpose(levels);
        store_lines(levels, to + run * RUN_BYTES);
    }
}

static void unpack_int4_group(const level_tables *tables, const uint8_t *lines, const uint8_t *codebooks, size_t k,
                              char *to)
{
    for (size_t i = 0; i < k; i += EG_CODEBOOK_BYTE_INPUTS) {
        EG_UNROLL
        for (size_t vector = 0; vector < VECTORS; vector++) {
            unpack_int4(tables, lines + vector * QUARTER, codebooks + vector * LANES, to + vector * sizeof(v128_t));
        }
        lines += EG_CODEBOOK_BYTE_INPUTS / (2 * EG_K_GROUP) * LINE;
        codebooks += EG_PANEL;
        to += EG_CODEBOOK_BYTE_INPUTS / RUN * RUN_BYTES;
    }
}

/* ---- multiplying ----------------------------------------------------------------------------------------------- */

/* Adds to the sums of a group for `rows` rows, a constant at every call, of codes that are `stride` bytes apart. */
EG_ALWAYS_INLINE void multiply_block(const char *codes, size_t stride, size_t rows, size_t k, const char *weights,
                                     int32_t *out)
{
    enum { AT_ONCE = 1, WORD = STEP * (int)sizeof(element) };
    v128_t sums[BLOCK_ROWS][VECTORS];
    const char *inputs[BLOCK_ROWS];
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        inputs[row] = codes + row * stride;
        EG_UNROLL
        for (size_t v = 0; v < VECTORS; v++) {
            sums[row][v] = wasm_v128_load(out + row * EG_TILE_CHANNELS + v * LANES);
        }
    }
    for (size_t i = 0; i < k; i += STEP * AT_ONCE) {
        SETTLE(weights);
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            SETTLE(inputs[row]);
        }
        EG_UNROLL
        for (size_t step = 0; step < AT_ONCE; step++) {
            v128_t lines[VECTORS];
            EG_UNROLL
            for (size_t v = 0; v < VECTORS; v++) {
                lines[v] = wasm_v128_load(weights + (step * VECTORS + v) * sizeof(v128_t));
            }
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                const v128_t input = wasm_v128_load32_splat(inputs[row] + step * WORD);
                EG_UNROLL
                for (size_t v = 0; v < VECTORS; v++) {
                    sums[row][v] = multiply_add(sums[row][v], lines[v], input);
                    SETTLE(sums[row][v]);
                }
            }
        }
        weights += AT_ONCE * VECTORS * sizeof(v128_t);
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            inputs[row] += AT_ONCE * WORD;
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < VECTORS; v++) {
            wasm_v128_store(out + row * EG_TILE_CHANNELS + v * LANES, sums[row][v]);
        }
    }
}

/* Blocks of about equal size: a block of few rows has too few sums for the latency of a multiplication. */
static void multiply_group(const char *codes, size_t stride, size_t rows, size_t k, const char *weights, int32_t *out)
{
    size_t blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (size_t row = 0; row < rows; blocks--) {
        const size_t taken = (rows - row + blocks - 1) / blocks;
        const char *from = codes + row * stride;
        int32_t *to = out + row * EG_TILE_CHANNELS;
        switch (taken) {
        case 1: multiply_block(from, stride, 1, k, weights, to); break;
        case 2: multiply_block(from, stride, 2, k, weights, to); break;
        case 3: multiply_block(from, stride, 3, k, weights, to); break;
        case 4: multiply_block(from, stride, 4, k, weights, to); break;
        case 5: multiply_block(from, stride, 5, k, weights, to); break;
        default: multiply_block(from, stride, BLOCK_ROWS, k, weights, to); break;
        }
        row += taken;
    }
}

/* ---- tiles ----------------------------------------------------------------------------------------------------- */

static void unpack_int8_group(const char *lines, size_t k, char *to)
{
    for (size_t i = 0; i < k; i += RUN) {
        EG_UNROLL
        for (size_t v = 0; v < VECTORS; v++) {
            v128_t four[4];
            EG_UNROLL
            for (size_t line = 0; line < 4; line++) {
                four[line] = wasm_v128_load(lines + line * LINE + v * QUARTER);
            }
            store_lines(four, to + v * sizeof(v128_t));
        }
        lines += 4 * LINE;
        to += RUN_BYTES;
    }
}

static void start_sums(const int32_t *code_sums, size_t rows, int32_t offset, int32_t *sums)
{
    for (size_t row = 0; row < rows; row++) {
        const v128_t start = wasm_i32x4_splat(-offset * code_sums[row]);
        for (size_t i = 0; i < EG_TILE_CHANNELS; i += LANES) {
            wasm_v128_store(sums + row * EG_TILE_CHANNELS + i, start);
        }
    }
}

/* is_int4 is a constant. */
EG_ALWAYS_INLINE void multiply_tile(int is_int4, const int8_t *codes, size_t rows, size_t k, const char *weights,
                                    const uint8_t *codebooks, int32_t *sums)
{
    enum { OF_PANEL = EG_PANEL / GROUP }; /* groups */
    element room[ROOM];
    _Alignas(16) char unpacked[MOST_K / RUN * RUN_BYTES];
    level_tables tables;
    if (is_int4) {
        fill_tables(&tables);
    }
    for (size_t begin = 0; begin < k; begin += MOST_K) {
        const size_t count = k - begin < MOST_K ? k - begin : MOST_K;
        size_t stride;
        const char *from = take_codes(codes + begin, k, rows, count, room, &stride);
        for (size_t group = 0; group < EG_TILE_CHANNELS / GROUP; group++) {
            const size_t first = EG_PANEL * (group / OF_PANEL * k + begin); /* weights before these lines */
            const char *lines = weights + (is_int4 ? first / 2 : first) + group % OF_PANEL * VECTORS * QUARTER;
            if (is_int4) {
                const uint8_t *ids = codebooks + first / EG_CODEBOOK_BYTE_INPUTS + group % OF_PANEL * GROUP;
                unpack_int4_group(&tables, (const uint8_t *)lines, ids, count, unpacked);
            } else {
                unpack_int8_group(lines, count, unpacked);
            }
            multiply_group(from, stride, rows, count, unpacked, sums + group * GROUP);
        }
    }
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    start_sums(code_sums, rows, LEVEL_OFFSET, sums);
    multiply_tile(1, codes, rows, k, weights, codebooks, sums);
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 10, MACS = LANES * STEP };
    v128_t sums[CHAINS], weights = wasm_i32x4_splat(*sink & 0x3F3F3F3F);
    EG_UNROLL
    for (int chain = 0; chain < CHAINS; chain++) {
        sums[chain] = wasm_i32x4_splat(chain);
    }
    for (uint64_t i = 0; i < iterations; i++) {
        __asm__("" : "+r"(weights)); /* looks changed, so that the product is not taken out of the loop */
        EG_UNROLL
        for (int chain = 0; chain < CHAINS; chain++) {
            sums[chain] = multiply_add(sums[chain], weights, weights);
        }
    }
    EG_UNROLL
    for (int chain = 1; chain < CHAINS; chain++) {
        sums[0] = wasm_v128_xor(sums[0], sums[chain]);
    }
    *sink = wasm_i32x4_extract_lane(sums[0], 0);
    return iterations * CHAINS * MACS;
}
