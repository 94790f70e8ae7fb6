/* The vector operations compiled for WebAssembly SIMD128, 4 lanes. */
#define EG_SIMD_WASM
#include "isa/vector/vector_ops_body.h"

extern const eg_vector_ops eg_vector_ops__wasm;
const eg_vector_ops eg_vector_ops__wasm = EG_VECTOR_OPS;
