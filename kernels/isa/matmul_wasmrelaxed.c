/* Integer matmul on WebAssembly's relaxed SIMD. Its dot product adds 4 products of a signed byte and a byte of 7 bits,
 * and is one instruction on CPUs with AVX-VNNI or ARM's dot product. An operand below 128 and sums of two products that
 * fit int16 make it exact on every engine, whichever instructions it takes:
 *
 * int4: levels + 30 are 0 … 60. Sums start at -30 · Σ codes to undo the offset.
 * int8: has 8 bits, so the int16 products of matmul_wasm.c are taken: see export/EXPERIMENTS.md. */
#if !defined(__wasm_relaxed_simd__)
#error "compile with -mrelaxed-simd"
#endif
#include <stdint.h>
#include <wasm_simd128.h>

typedef int8_t element;

enum {
    LEVEL_OFFSET = 30, /* EG_INT4_OFFSET */
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

static inline v128_t look_up(v128_t table, v128_t indices) { return wasm_i8x16_relaxed_swizzle(table, indices); }

static inline void store_run(v128_t levels, char *to);
static const char *take_codes(const int8_t *codes, size_t k, size_t rows, size_t count, element *room, size_t *stride);

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

static void int8_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                      const uint8_t *codebooks, int32_t *sums)
{
    eg_matmul__wasm.int8_tile(codes, code_sums, rows, k, weights, codebooks, sums);
}

const eg_matmul_ops eg_matmul__wasmrelaxed = {.tile_rows = TILE_ROWS,
                                              .chunk_rows = EG_CHUNK_ROWS,
                                              .int8_tile = int8_tile,
                                              .int4_tile = int4_tile,
                                              .multiply_probe = multiply_probe};
