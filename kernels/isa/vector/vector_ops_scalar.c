/* The vector operations compiled for plain C, one lane. */
#define EG_SIMD_SCALAR
#include "isa/vector/vector_ops_body.h"

extern const eg_vector_ops eg_vector_ops__scalar;
const eg_vector_ops eg_vector_ops__scalar = EG_VECTOR_OPS;
