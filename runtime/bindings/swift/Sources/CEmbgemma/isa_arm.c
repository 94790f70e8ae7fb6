#if defined(__aarch64__)
#if !defined(__ARM_FEATURE_DOTPROD)
#define __ARM_FEATURE_DOTPROD 1
#endif
#include <arm_neon.h>

#include "isa.h"
EG_BEGIN("dotprod")
#include "isa/matmul_neondot.c"
EG_END
#endif
