/* The vector operations compiled for WebAssembly's relaxed SIMD, which has a multiply-add. */
#define EG_SIMD_WASMRELAXED
#include "isa/vector/vector_ops_body.h"

extern const eg_vector_ops eg_vector_ops__wasmrelaxed;
const eg_vector_ops eg_vector_ops__wasmrelaxed = EG_VECTOR_OPS;
