/* Attention on WebAssembly's relaxed SIMD: as on SIMD128, with its multiply-add for the length of rows. */
#define EG_SIMD_WASMRELAXED
#include "isa/vector/attention_int16_body.h"

extern const eg_attention_ops eg_attention__wasmrelaxed;
const eg_attention_ops eg_attention__wasmrelaxed = EG_ATTENTION_OPS;
