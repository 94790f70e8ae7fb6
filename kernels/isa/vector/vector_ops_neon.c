/* The vector operations compiled for AArch64 Advanced SIMD, 4 lanes. */
#define EG_SIMD_NEON
#include "isa/vector/vector_ops_body.h"

extern const eg_vector_ops eg_vector_ops__neon;
const eg_vector_ops eg_vector_ops__neon = EG_VECTOR_OPS;
