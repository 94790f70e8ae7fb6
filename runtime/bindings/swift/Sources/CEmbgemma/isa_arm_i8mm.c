#if defined(__aarch64__)
#if !defined(__ARM_FEATURE_DOTPROD)
#define __ARM_FEATURE_DOTPROD 1
#endif
#if !defined(__ARM_FEATURE_MATMUL_INT8)
#define __ARM_FEATURE_MATMUL_INT8 1
#endif
#include <arm_neon.h>

#include "isa.h"
EG_BEGIN("dotprod,i8mm")
#include "isa/matmul_i8mm.c"
EG_END
#endif
