/* Integer matmul on WebAssembly SIMD128: i32x4.dot_i16x8_s multiplies int16 in pairs, exact for all that fits int8.
 * Weights and codes are widened to int16. */
#if !defined(__wasm_simd128__)
#error "compile with -msimd128"
#endif
#include <stdint.h>
#include <wasm_simd128.h>

typedef int16_t element;

enum {
    LEVEL_OFFSET = 0,
    BLOCK_ROWS = 5, /* 5 rows x 2 registers = 10 sums, 2 weights, 1 input, 1 product: 14 of the 15 that V8 has on x86 */
    ROOM = 64 * 1152, /* of take_codes: TILE_ROWS rows of MOST_K */
    MOST_SPLIT = 1,
};
#define SPLIT(rows) 1

static inline v128_t multiply_add(v128_t sums, v128_t weights, v128_t codes)
{
    return wasm_i32x4_add(sums, wasm_i32x4_dot_i16x8(weights, codes));
}

static inline v128_t multiply_add_two(v128_t sums, const v128_t *weights, const v128_t *codes)
{
    return multiply_add(multiply_add(sums, weights[0], codes[0]), weights[1], codes[1]);
}

static inline v128_t look_up(v128_t table, v128_t indices) { return wasm_i8x16_swizzle(table, indices); }

static inline void store_run(v128_t levels, char *to);
static const char *take_codes(const int8_t *codes, size_t k, size_t rows, size_t count, element *room, size_t *stride);
static inline void tile(int is_int4, const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                        const void *weights, const uint8_t *codebooks, int32_t *sums);

#include "isa/matmul_wasm_body.h"

/* 16 inputs of a channel become two vectors, a step apart. */
static inline void store_run(v128_t levels, char *to)
{
    wasm_v128_store(to, wasm_i16x8_extend_low_i8x16(levels));
    wasm_v128_store(to + STEP_BYTES, wasm_i16x8_extend_high_i8x16(levels));
}

/* Widens the codes of a tile; returns how far apart their rows are. */
static const char *take_codes(const int8_t *codes, size_t k, size_t rows, size_t count, element *room, size_t *stride)
{
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < count; i += sizeof(v128_t)) {
            const v128_t some = wasm_v128_load(codes + row * k + i);
            element *to = room + row * count + i;
            wasm_v128_store(to, wasm_i16x8_extend_low_i8x16(some));
            wasm_v128_store(to + sizeof(v128_t) / 2, wasm_i16x8_extend_high_i8x16(some));
        }
    }
    *stride = count * sizeof *room;
    return (const char *)room;
}

static inline void tile(int is_int4, const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                        const void *weights, const uint8_t *codebooks, int32_t *sums)
{
    multiply_tile(is_int4, ONE_BY_ONE, LEVEL_OFFSET, codes, code_sums, rows, k, weights, codebooks, sums);
}

extern const eg_matmul_ops eg_matmul__wasm;
const eg_matmul_ops eg_matmul__wasm = {.tile_rows = TILE_ROWS,
                                       .chunk_rows = EG_CHUNK_ROWS,
                                       .int8_tile = int8_tile,
                                       .int4_tile = int4_tile,
                                       .multiply_probe = multiply_probe};
