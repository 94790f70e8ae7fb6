/* What the engine of WebAssembly that runs this can do. A module with an instruction that it lacks does not load, so
 * what is left is how it does relaxed ones. */
#include "isa/cpu.h"

#include <wasm_simd128.h>

/* 1 if multiply-add rounds once, as on other instruction sets. Every engine does it one way, on all of a device. */
int eg_cpu_has_wasmrelaxed(void)
{
    static volatile float above_one = 1.0f + 0x1p-12f, minus_rounded = -(1.0f + 0x1p-11f); /* of its square */
    const v128_t a = wasm_f32x4_splat(above_one), c = wasm_f32x4_splat(minus_rounded);
    return wasm_f32x4_extract_lane(wasm_f32x4_relaxed_madd(a, a, c), 0) == 0x1p-24f;
}
