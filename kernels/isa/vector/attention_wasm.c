/* Attention on WebAssembly SIMD128: i32x4.dot_i16x8_s multiplies 8 int16 by 8 and adds pairs to 4 int32. */
#define EG_SIMD_WASM
#include "isa/vector/attention_int16_body.h"

extern const eg_attention_ops eg_attention__wasm;
const eg_attention_ops eg_attention__wasm = EG_ATTENTION_OPS;
