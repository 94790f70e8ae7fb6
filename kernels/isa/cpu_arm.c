/* CPU features of AArch64, as the operating system reports them. */
#include "isa/cpu.h"

#include "platform/platform.h"

#if !defined(__aarch64__)
#error "aarch64 only"
#endif

static int has(unsigned features) { return (eg_arm_features() & features) == features; }

int eg_cpu_has_neondot(void) { return has(EG_ARM_DOTPROD); }

int eg_cpu_has_i8mm(void) { return has(EG_ARM_DOTPROD | EG_ARM_I8MM); }
