/* The matmul of WebAssembly's relaxed SIMD on every engine: its source compiled with each meaning that the dot product
 * has on one. test_matmul.c runs that of this engine. */
#include "tests/kernels/check.h"

#if defined(__wasm_relaxed_simd__)
#include <wasm_simd128.h>

static enum meaning { UNSIGNED, SIGNED, SATURATING } meaning;
static uint64_t computed; /* dot products */

static inline v128_t emulated_dot(v128_t codes, v128_t bytes, v128_t sums)
{
    computed++;
    const v128_t low = meaning == SIGNED ? wasm_i16x8_extend_low_i8x16(bytes) : wasm_u16x8_extend_low_u8x16(bytes);
    const v128_t high = meaning == SIGNED ? wasm_i16x8_extend_high_i8x16(bytes) : wasm_u16x8_extend_high_u8x16(bytes);
    v128_t first = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(codes), low);
    v128_t second = wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(codes), high);
    if (meaning == SATURATING) {
        const v128_t pairs = wasm_i16x8_narrow_i32x4(first, second);
        return wasm_i32x4_add(sums, wasm_i32x4_extadd_pairwise_i16x8(pairs));
    }
    const v128_t even = wasm_i32x4_shuffle(first, second, 0, 2, 4, 6),
                 odd = wasm_i32x4_shuffle(first, second, 1, 3, 5, 7);
    return wasm_i32x4_add(sums, wasm_i32x4_add(even, odd));
}

#define wasm_i32x4_relaxed_dot_i8x16_i7x16_add emulated_dot
#define eg_matmul__wasmrelaxed eg_matmul__wasmrelaxed_emulated /* the engine's library has the real one */
#include "isa/matmul_wasmrelaxed.c"
#include "tests/kernels/isa/check_matmul.h"

int main(void)
{
    static const char *const names[] = {"unsigned bytes", "signed bytes", "saturating sums"};
    for (meaning = UNSIGNED; meaning <= SATURATING; meaning++) {
        computed = 0;
        check_tile(names[meaning], int8_tile, INT8_BITS, 1, EG_ROTATION, 0);
        CHECK((computed > 1) == (meaning != SATURATING), "%s: %d dot products", names[meaning], (int)computed);
        check_matmul_ops(names[meaning], &eg_matmul__wasmrelaxed);
    }
    return check_result();
}

#else

enum { SKIPPED = 77 }; /* as in Automake */
int main(void) { return SKIPPED; }

#endif
