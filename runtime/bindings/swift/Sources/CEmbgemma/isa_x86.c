#if defined(__x86_64__)
#include <immintrin.h>

#if !defined(__AVX2__)
#define __AVX2__ 1
#define __FMA__  1
#endif
#include "isa.h"
EG_BEGIN("avx2,fma")
#include "isa/matmul_avx2.c"
EG_END
#endif
