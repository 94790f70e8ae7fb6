/* Integer matmul on WebAssembly's 128-bit vectors, for matmul_wasm.c and matmul_wasmrelaxed.c, which define:
 *
 *   element                    of weights and codes as they are multiplied: int16_t or int8_t
 *   multiply_add(sums, weights, codes)   adds the products of two vectors of elements, each to one of 4 sums
 *   multiply_add_two(…)        the same of two vectors of each, where IN_TWOS says so
 *   look_up(table, indices)    16 bytes of a table by 16 indices, each below 16
 *   store_run(levels, to)      stores 16 inputs of a channel in the buffer; levels: int8
 *   take_codes(…)              the codes of a tile as elements: in place, or in the room for them
 *   tile(is_int4, …)           calls multiply_tile, with what the weights of this tile have too much
 *   BLOCK_ROWS                 rows of a block, 5 or 6
 *   SPLIT(rows), MOST_SPLIT    in how many parts a block of so many rows sums a channel; the most of them
 *   LEVEL_OFFSET               what is added to the levels of int4; the sums of codes undo it
 *
 * The weights of GROUP channels are unpacked once for all rows of a call, to a buffer for a first-level cache:
 * [k / WIDE][GROUP][WIDE] elements. A vector has inputs of one channel, as the file's codebooks want it; its 4 sums are
 * added up at the end. A block of rows multiplies a pair of channels, with all its sums in registers. */
#include <wasm_simd128.h>

#include "common/compiler.h"
#include "isa/kernels.h"

enum {
    LANES = 4, /* of 32 bits in a vector */
    PAIR = 2,  /* channels that a block multiplies at once */
    TILE_ROWS = EG_CHUNK_ROWS,
    MOST_K = 1152,                /* inputs taken at once */
    LINE = EG_PANEL * EG_K_GROUP, /* bytes: 4 inputs of int8, 8 of int4, for a panel */
    VECTOR = sizeof(v128_t),
    WIDE = VECTOR / sizeof(element), /* inputs of a vector */
    GROUP = WIDE,                    /* channels that are unpacked at once: 18 KB */
    STEP_BYTES = GROUP * VECTOR,     /* of the buffer */
    RUN = EG_CODEBOOK_INPUTS,
    RUN_BYTES = RUN / WIDE * STEP_BYTES,
    AT_ONCE = EG_ROTATION, /* inputs of an iteration: every width is a multiple of it */
};

/* Keeps the compiler from computing a value earlier or later: it would have most values of several steps alive at once,
 * for which a browser has no registers. Of a pointer, it leaves the constants that are added to it to the instructions
 * that load and store. */
#define SETTLE(value) __asm__ volatile("" : "+r"(value))

/* Lanes of 32 bits of two vectors. */
#define SHUFFLE(a, b, ...) wasm_i32x4_shuffle(a, b, __VA_ARGS__)

/* ---- unpacking ------------------------------------------------------------------------------------------------- */

#define WITH_OFFSET_16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                                                 \
    (a) + LEVEL_OFFSET, (b) + LEVEL_OFFSET, (c) + LEVEL_OFFSET, (d) + LEVEL_OFFSET, (e) + LEVEL_OFFSET,                \
        (f) + LEVEL_OFFSET, (g) + LEVEL_OFFSET, (h) + LEVEL_OFFSET, (i) + LEVEL_OFFSET, (j) + LEVEL_OFFSET,            \
        (k) + LEVEL_OFFSET, (l) + LEVEL_OFFSET, (m) + LEVEL_OFFSET, (n) + LEVEL_OFFSET, (o) + LEVEL_OFFSET,            \
        (p) + LEVEL_OFFSET
#define WITH_OFFSET(codebook) WITH_OFFSET_16(codebook)

static const _Alignas(64) int8_t level_tables[EG_CODEBOOKS * EG_CODEBOOK_LEVELS] = {
    WITH_OFFSET(EG_INT4_CODEBOOK_0), WITH_OFFSET(EG_INT4_CODEBOOK_1), WITH_OFFSET(EG_INT4_CODEBOOK_2),
    WITH_OFFSET(EG_INT4_CODEBOOK_3)};

/* A table's levels. An instruction adds a constant to an address by itself, but compilers do not ask it to. */
EG_ALWAYS_INLINE v128_t level_table(size_t place)
{
    v128_t levels;
    __asm__("local.get %1\n\tv128.load %2\n\tlocal.set %0" : "=r"(levels) : "r"(place), "i"(level_tables));
    return levels;
}

/* 64 inputs of 4 channels. lines: at the channels' quarter of a panel's lines. places: of the tables of 4 channels in
 * level_tables, EG_PANEL apart for each run. */
EG_ALWAYS_INLINE void unpack_int4(const uint8_t *lines, const uint8_t *places, char *to)
{
    const v128_t nibble = wasm_i8x16_const_splat(0xF);
    EG_UNROLL
    for (size_t run = 0; run < EG_CODEBOOK_BYTE_INPUTS / RUN; run++) {
        const v128_t first = wasm_v128_load(lines + 2 * run * LINE),
                     second = wasm_v128_load(lines + (2 * run + 1) * LINE);
        EG_UNROLL
        for (size_t half = 0; half < 2; half++) { /* two channels: first and second line of each, then the nibbles */
            const v128_t both = half == 0 ? SHUFFLE(first, second, 0, 4, 1, 5) : SHUFFLE(first, second, 2, 6, 3, 7);
            const v128_t low = wasm_v128_and(both, nibble), high = wasm_v128_and(wasm_u16x8_shr(both, 4), nibble);
            EG_UNROLL
            for (size_t odd = 0; odd < 2; odd++) {
                const size_t channel = 2 * half + odd;
                const v128_t codes = odd == 0 ? SHUFFLE(low, high, 0, 4, 1, 5) : SHUFFLE(low, high, 2, 6, 3, 7);
                store_run(look_up(level_table(places[run * EG_PANEL + channel]), codes),
                          to + run * RUN_BYTES + channel * VECTOR);
            }
        }
    }
}

/* first: of the group's channels in the panel. */
static void unpack_int4_group(const uint8_t *lines, const uint8_t *codebooks, size_t first, size_t k, char *to)
{
    const v128_t place = wasm_i8x16_const_splat((EG_CODEBOOKS - 1) * EG_CODEBOOK_LEVELS);
    uint8_t places[EG_CODEBOOK_BYTE_INPUTS / RUN * EG_PANEL];
    lines += first * EG_K_GROUP;
    for (size_t i = 0; i < k; i += EG_CODEBOOK_BYTE_INPUTS) {
        const v128_t ids = wasm_v128_load(codebooks);
        wasm_v128_store(places, wasm_v128_and(wasm_i16x8_shl(ids, 4), place));
        wasm_v128_store(places + EG_PANEL, wasm_v128_and(wasm_i16x8_shl(ids, 2), place));
        wasm_v128_store(places + 2 * EG_PANEL, wasm_v128_and(ids, place));
        wasm_v128_store(places + 3 * EG_PANEL, wasm_v128_and(wasm_u16x8_shr(ids, 2), place));
        const uint8_t *stored = places + first;
        __asm__ volatile("" : "+r"(stored) : : "memory"); /* or bytes of vectors are taken, which is slower */
        SETTLE(lines);
        SETTLE(to);
        EG_UNROLL
        for (size_t channel = 0; channel < GROUP; channel += LANES) {
            unpack_int4(lines + channel * EG_K_GROUP, stored + channel, to + channel * VECTOR);
        }
        lines += EG_CODEBOOK_BYTE_INPUTS / (2 * EG_K_GROUP) * LINE;
        codebooks += EG_PANEL;
        to += EG_CODEBOOK_BYTE_INPUTS / RUN * RUN_BYTES;
    }
}

/* ---- multiplying ----------------------------------------------------------------------------------------------- */

/* Has a cache line fetched that is needed soon. There is no instruction for that; a value that nobody uses is not
 * waited for. */
EG_ALWAYS_INLINE void fetch(const char *line)
{
    __asm__ volatile("local.get %0\n\ti32.load8_u 0\n\tdrop" : : "r"(line));
}

/* Whether there is memory up to this address. */
static int in_memory(const char *end)
{
    enum { PAGE = 65536 };
    return (size_t)end / PAGE < __builtin_wasm_memory_size(0);
}

/* How a block multiplies: a vector of inputs at a time, or two. */
typedef enum manner { ONE_BY_ONE, IN_TWOS } manner;

/* Of some rows and channels; see multiply_block. */
typedef struct product {
    const char *codes; /* of the first row; others are `stride` bytes apart */
    size_t stride, k;
    const char *weights;  /* in the buffer */
    const v128_t *starts; /* for each row, what is added to its sums, in one of the lanes */
    const char *ahead;    /* of weights that are unpacked next: k / AT_ONCE places, ahead_step bytes apart */
    size_t ahead_step;
    int32_t *out;
} product;

/* Two steps of multiply_block, unsplit. weights: of the first step. */
EG_ALWAYS_INLINE void multiply_two_steps(const char *weights, const char *const *inputs, size_t offset, size_t rows,
                                         v128_t sums[][MOST_SPLIT][PAIR])
{
    v128_t lines[PAIR][2];
    EG_UNROLL
    for (size_t i = 0; i < PAIR * 2; i++) {
        lines[i % PAIR][i / PAIR] = wasm_v128_load(weights + i / PAIR * STEP_BYTES + i % PAIR * VECTOR);
        SETTLE(lines[i % PAIR][i / PAIR]);
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        const v128_t both[2] = {wasm_v128_load(inputs[row] + offset), wasm_v128_load(inputs[row] + offset + VECTOR)};
        EG_UNROLL
        for (size_t v = 0; v < PAIR; v++) {
            sums[row][0][v] = multiply_add_two(sums[row][0][v], lines[v], both);
            SETTLE(sums[row][0][v]);
        }
    }
}

/* The sums of a pair of channels for `rows` rows. how, rows: constants at every call. */
EG_ALWAYS_INLINE void multiply_block(product p, manner how, size_t rows)
{
    const size_t split = how == IN_TWOS ? 1 : SPLIT(rows);
    v128_t sums[BLOCK_ROWS][MOST_SPLIT][PAIR];
    const char *inputs[BLOCK_ROWS];
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        inputs[row] = p.codes + row * p.stride;
        EG_UNROLL
        for (size_t v = 0; v < PAIR; v++) {
            sums[row][0][v] = wasm_v128_load(p.starts + row);
            EG_UNROLL
            for (size_t part = 1; part < split; part++) {
                sums[row][part][v] = wasm_i32x4_const_splat(0);
            }
        }
    }
    for (size_t i = 0; i < p.k; i += AT_ONCE) {
        fetch(p.ahead);
        p.ahead += p.ahead_step;
        SETTLE(p.weights);
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            SETTLE(inputs[row]);
        }
        EG_UNROLL
        for (size_t step = 0; how == IN_TWOS && step < AT_ONCE / WIDE; step += 2) {
            multiply_two_steps(p.weights + step * STEP_BYTES, inputs, step * VECTOR, rows, sums);
        }
        EG_UNROLL
        for (size_t step = 0; how == ONE_BY_ONE && step < AT_ONCE / WIDE; step++) {
            v128_t lines[PAIR];
            EG_UNROLL
            for (size_t v = 0; v < PAIR; v++) {
                lines[v] = wasm_v128_load(p.weights + step * STEP_BYTES + v * VECTOR);
                SETTLE(lines[v]);
            }
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                v128_t input = wasm_v128_load(inputs[row] + step * VECTOR);
                EG_UNROLL
                for (size_t v = 0; v < PAIR; v++) {
                    v128_t *sum = &sums[row][step % split][v];
                    *sum = multiply_add(*sum, lines[v], input);
                    SETTLE(*sum);
                }
            }
        }
        p.weights += AT_ONCE / WIDE * STEP_BYTES;
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            inputs[row] += AT_ONCE * sizeof(element);
        }
    }
    SETTLE(p.out);
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t part = 1; part < split; part++) {
            EG_UNROLL
            for (size_t v = 0; v < PAIR; v++) {
                sums[row][0][v] = wasm_i32x4_add(sums[row][0][v], sums[row][part][v]);
            }
        }
        const v128_t a = sums[row][0][0], b = sums[row][0][1];
        const v128_t halves = wasm_i32x4_add(SHUFFLE(a, b, 0, 4, 1, 5), SHUFFLE(a, b, 2, 6, 3, 7));
        const v128_t both = wasm_i32x4_add(halves, SHUFFLE(halves, halves, 2, 3, 0, 1));
        /* Not as a lane of f64x2: V8 14.6 for ARM then makes the last addition one of doubles. */
        wasm_v128_store64_lane(p.out + row * EG_TILE_CHANNELS, both, 0);
    }
}

/* The same for all rows and the channels of a group. */
EG_ALWAYS_INLINE void multiply_group(product p, manner how, size_t rows)
{
    for (size_t row = 0; row < rows; row += BLOCK_ROWS) {
        for (size_t channel = 0; channel < GROUP; channel += PAIR) {
            product pair = p;
            pair.weights += channel * VECTOR;
            pair.ahead += channel / PAIR * (p.k / AT_ONCE) * p.ahead_step;
            pair.out += channel;
            switch (rows - row) {
            case 1: multiply_block(pair, how, 1); break;
            case 2: multiply_block(pair, how, 2); break;
            case 3: multiply_block(pair, how, 3); break;
            case 4: multiply_block(pair, how, 4); break;
            case 5: multiply_block(pair, how, 5); break;
            default: multiply_block(pair, how, BLOCK_ROWS); break;
            }
        }
        p.codes += BLOCK_ROWS * p.stride;
        p.starts += BLOCK_ROWS;
        p.out += BLOCK_ROWS * EG_TILE_CHANNELS;
    }
}

static void multiply_one_by_one(product p, size_t rows) { multiply_group(p, ONE_BY_ONE, rows); }
static void multiply_in_twos(product p, size_t rows) { multiply_group(p, IN_TWOS, rows); }

/* ---- tiles ----------------------------------------------------------------------------------------------------- */

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

/* offset: what is added to the weights, modulo 256. */
static void unpack_int8_group(const char *lines, size_t first, size_t k, int32_t offset, char *to)
{
    const v128_t offsets = wasm_i8x16_splat((int8_t)offset);
    lines += first * EG_K_GROUP;
    for (size_t i = 0; i < k; i += RUN) {
        SETTLE(lines);
        SETTLE(to);
        EG_UNROLL
        for (size_t channel = 0; channel < GROUP; channel += LANES) {
            v128_t four[4];
            EG_UNROLL
            for (size_t line = 0; line < 4; line++) {
                four[line] = wasm_v128_load(lines + line * LINE + channel * EG_K_GROUP);
            }
            transpose(four);
            EG_UNROLL
            for (size_t i4 = 0; i4 < LANES; i4++) {
                store_run(wasm_i8x16_add(four[i4], offsets), to + (channel + i4) * VECTOR);
            }
        }
        lines += 4 * LINE;
        to += RUN_BYTES;
    }
}

/* is_int4, how: constants. offset: what unpacked weights have too much; of int4, LEVEL_OFFSET. */
EG_ALWAYS_INLINE void multiply_tile(int is_int4, manner how, int32_t offset, const int8_t *codes,
                                    const int32_t *code_sums, size_t rows, size_t k, const char *weights,
                                    const uint8_t *codebooks, int32_t *sums)
{
    element room[ROOM];
    v128_t starts[TILE_ROWS];
    _Alignas(16) char unpacked[MOST_K / RUN * RUN_BYTES];
    int32_t more[TILE_ROWS * EG_TILE_CHANNELS]; /* of later inputs than the first MOST_K */
    for (size_t begin = 0; begin < k; begin += MOST_K) {
        const size_t count = k - begin < MOST_K ? k - begin : MOST_K;
        for (size_t row = 0; row < rows; row++) {
            starts[row] = wasm_i32x4_make(begin == 0 ? -offset * code_sums[row] : 0, 0, 0, 0);
        }
        size_t stride;
        const char *from = take_codes(codes + begin, k, rows, count, room, &stride);
        int32_t *to = begin == 0 ? sums : more;
        for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel += GROUP) {
            const size_t of_panel = channel % EG_PANEL;
            const size_t before = (channel - of_panel) * k + EG_PANEL * begin; /* weights before these lines */
            const size_t per_byte = is_int4 ? 2 : 1;
            const char *lines = weights + before / per_byte;
            if (is_int4) {
                unpack_int4_group((const uint8_t *)lines, codebooks + before / EG_CODEBOOK_BYTE_INPUTS, of_panel, count,
                                  unpacked);
            } else {
                unpack_int8_group(lines, of_panel, count, offset, unpacked);
            }
            const size_t ahead = in_memory(lines + 2 * EG_PANEL * k) ? EG_PANEL + of_panel : of_panel;
            const product group = {
                from,        stride, count, unpacked, starts, lines + ahead * k / per_byte, PAIR * AT_ONCE / per_byte,
                to + channel};
            if (how == IN_TWOS) {
                multiply_in_twos(group, rows);
            } else {
                multiply_one_by_one(group, rows);
            }
        }
        for (size_t i = 0; begin > 0 && i < rows * EG_TILE_CHANNELS; i++) {
            sums[i] += more[i];
        }
    }
}

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    tile(0, codes, code_sums, rows, k, weights, codebooks, sums);
}

static void int4_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    tile(1, codes, code_sums, rows, k, weights, codebooks, sums);
}

static uint64_t multiply_probe(uint64_t iterations, int32_t *sink)
{
    enum { CHAINS = 10, MACS = 16 / (int)sizeof(element) };
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
