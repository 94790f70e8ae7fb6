/* Integer matmul on WebAssembly's relaxed SIMD. Its dot product adds 4 products of a signed byte and a byte of 7 bits.
 * What becomes of an 8th bit is up to the engine, but never changes, so that a tile sees what it runs on:
 *
 * - AVX-VNNI has one instruction, which takes all bytes as unsigned: int8 weights + 128 are exact.
 * - AVX-VNNI-INT8 and ARM's dot product have one, which takes them as signed: int8 weights are exact as they are.
 * - Elsewhere the sum of two products saturates, and V8 makes several instructions of one. For int4 the products of two
 *   vectors are added as int16, which spares some of them; int8 takes the int16 products of matmul_wasm.c.
 *
 * Levels of int4 + 30 are 0 … 60. Sums start at -30 or -128 · Σ codes to undo what is added. */
#if !defined(__wasm_relaxed_simd__)
#error "compile with -mrelaxed-simd"
#endif
#include <stdint.h>
#include <wasm_simd128.h>

typedef int8_t element;

enum {
    LEVEL_OFFSET = 30, /* EG_INT4_OFFSET */
    SIGN = 128,        /* makes int8 unsigned */
    BLOCK_ROWS = 6,    /* 6 rows x 2 registers = 12 sums, 2 weights, 1 input: all 15 that V8 has on x86 */
    ROOM = 1,          /* codes stay where they are */
    MOST_SPLIT = 4,
};
/* Few rows have too few sums to hide the latency of a multiplication, so each adds to several in turn. */
#define SPLIT(rows) (rows == 1 ? 4 : rows == 2 ? 3 : rows == 3 ? 2 : 1)

static inline v128_t multiply_add(v128_t sums, v128_t weights, v128_t codes)
{
    return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(codes, weights, sums);
}

/* For int4: with levels + 30 and codes, four products fit int16. */
static inline v128_t multiply_add_two(v128_t sums, const v128_t *weights, const v128_t *codes)
{
    const v128_t pairs = wasm_i16x8_add(wasm_i16x8_relaxed_dot_i8x16_i7x16(codes[0], weights[0]),
                                        wasm_i16x8_relaxed_dot_i8x16_i7x16(codes[1], weights[1]));
    return wasm_i32x4_add(sums, wasm_i32x4_extadd_pairwise_i16x8(pairs));
}

static inline v128_t look_up(v128_t table, v128_t indices) { return wasm_i8x16_relaxed_swizzle(table, indices); }

static inline void store_run(v128_t levels, char *to);
static const char *take_codes(const int8_t *codes, size_t k, size_t rows, size_t count, element *room, size_t *stride);
static inline void tile(int is_int4, const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                        const void *weights, const uint8_t *codebooks, int32_t *sums);

#include "isa/matmul_wasm_body.h"

static inline void store_run(v128_t levels, char *to) { wasm_v128_store(to, levels); }

static const char *take_codes(const int8_t *codes, size_t k, size_t rows, size_t count, element *room, size_t *stride)
{
    (void)rows;
    (void)count;
    (void)room;
    *stride = k;
    return (const char *)codes;
}

extern const eg_matmul_ops eg_matmul__wasm, eg_matmul__wasmrelaxed;

static inline void tile(int is_int4, const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k,
                        const void *weights, const uint8_t *codebooks, int32_t *sums)
{
    enum { PRODUCTS = 4, ALL_BITS = 0xFF, AS_UNSIGNED = PRODUCTS * EG_CODE_MAX * ALL_BITS };
    v128_t bytes = wasm_u8x16_const_splat(ALL_BITS);
    SETTLE(bytes);
    const v128_t dots = multiply_add(wasm_i32x4_const_splat(0), bytes, wasm_i8x16_const_splat(EG_CODE_MAX));
    const int32_t dot = wasm_i32x4_extract_lane(dots, 0);
    if (dot == AS_UNSIGNED || dot == -PRODUCTS * EG_CODE_MAX) {
        const int32_t offset = is_int4 ? LEVEL_OFFSET : dot == AS_UNSIGNED ? SIGN : 0;
        multiply_tile(is_int4, ONE_BY_ONE, offset, codes, code_sums, rows, k, weights, codebooks, sums);
    } else if (is_int4) {
        multiply_tile(is_int4, IN_TWOS, LEVEL_OFFSET, codes, code_sums, rows, k, weights, codebooks, sums);
    } else {
        eg_matmul__wasm.int8_tile(codes, code_sums, rows, k, weights, codebooks, sums);
    }
}

const eg_matmul_ops eg_matmul__wasmrelaxed = {.tile_rows = TILE_ROWS,
                                              .chunk_rows = EG_CHUNK_ROWS,
                                              .int8_tile = int8_tile,
                                              .int4_tile = int4_tile,
                                              .multiply_probe = multiply_probe};
