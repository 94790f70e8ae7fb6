#include "isa/matmul_scalar.c"
#include "isa/vector/vector_ops_scalar.c"
