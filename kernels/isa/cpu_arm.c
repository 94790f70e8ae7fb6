/* CPU features of AArch64, as the operating system reports them. */
#include "isa/cpu.h"

#if !defined(__aarch64__)
#error "aarch64 only"
#endif

#if defined(__linux__)
#include <sys/auxv.h>

/* arch/arm64/include/uapi/asm/hwcap.h of Linux */
enum { HWCAP_BIT_ASIMDDP = 20, HWCAP2_BIT_I8MM = 13 };

int eg_cpu_has_neondot(void) { return (int)(getauxval(AT_HWCAP) >> HWCAP_BIT_ASIMDDP & 1); }

int eg_cpu_has_i8mm(void) { return eg_cpu_has_neondot() && (int)(getauxval(AT_HWCAP2) >> HWCAP2_BIT_I8MM & 1); }

#elif defined(__APPLE__)
#include <sys/sysctl.h>

static int sysctl_flag(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value == 1;
}

int eg_cpu_has_neondot(void) { return sysctl_flag("hw.optional.arm.FEAT_DotProd"); }

int eg_cpu_has_i8mm(void) { return eg_cpu_has_neondot() && sysctl_flag("hw.optional.arm.FEAT_I8MM"); }

#else

int eg_cpu_has_neondot(void) { return 0; }

int eg_cpu_has_i8mm(void) { return 0; }

#endif
