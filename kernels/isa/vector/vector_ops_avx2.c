/* The vector operations compiled for AVX2 and FMA, 8 lanes. */
#define EG_SIMD_AVX2
#include "isa/vector/vector_ops_body.h"

extern const eg_vector_ops eg_vector_ops__avx2;
const eg_vector_ops eg_vector_ops__avx2 = EG_VECTOR_OPS;
