/* The vector operations compiled for AVX-512, 16 lanes. */
#define EG_SIMD_AVX512
#include "isa/vector/vector_ops_body.h"

extern const eg_vector_ops eg_vector_ops__avx512;
const eg_vector_ops eg_vector_ops__avx512 = EG_VECTOR_OPS;
