/* Integer matmul on AVX-512 VNNI for CPUs that have VBMI too, which is nearly all of them: vpermb looks up the levels
 * of all codebooks of int4 at once. */
#if !defined(__AVX512VBMI__)
#error "compile with -mavx512vbmi"
#endif
#define eg_matmul__avx512vnni eg_matmul__avx512vbmi
#include "isa/matmul_avx512vnni.c"
