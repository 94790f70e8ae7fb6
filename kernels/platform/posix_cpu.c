/* What Linux, Android, macOS and iOS know of the CPU: the cores that a computation should use, and features. */
#define _GNU_SOURCE /* sched_getaffinity, CPU_SET, syscall */
#include "platform/platform.h"

#include <stdio.h>
#include <unistd.h>

#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#endif

/* ---- cores ------------------------------------------------------------------------------------------------------- */

#if defined(__linux__)

/* One number from a file under /sys/devices/system/cpu/cpu<cpu>, or `otherwise`. */
static long cpu_number(size_t cpu, const char *file, long otherwise)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/%s", cpu, file);
    FILE *stream = fopen(path, "r");
    if (stream == NULL) {
        return otherwise;
    }
    long value;
    if (fscanf(stream, "%ld", &value) != 1) {
        value = otherwise;
    }
    fclose(stream);
    return value;
}

static size_t cores_of_this_process(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        const long online = sysconf(_SC_NPROCESSORS_ONLN);
        return online > 0 ? (size_t)online : 1;
    }
    /* cpu_capacity (ARM big.LITTLE) is 1024 for the fastest cores; x86 does not have it. */
    long fastest = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed)) {
            const long capacity = cpu_number(cpu, "cpu_capacity", 0);
            fastest = capacity > fastest ? capacity : fastest;
        }
    }
    size_t cores = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || cpu_number(cpu, "cpu_capacity", 0) < fastest) {
            continue;
        }
        /* The first number of the sibling list is the core's first hardware thread: count the core there. */
        const size_t first = (size_t)cpu_number(cpu, "topology/thread_siblings_list", (long)cpu);
        const int first_is_ours = first < CPU_SETSIZE && CPU_ISSET(first, &allowed);
        cores += first == cpu || !first_is_ours;
    }
    return cores > 0 ? cores : 1;
}

size_t eg_cpu_cores(void)
{
    const size_t cores = cores_of_this_process(), quota = eg_cpu_quota("");
    return quota < cores ? quota : cores;
}

#else

size_t eg_cpu_cores(void)
{
#if defined(__APPLE__)
    int cores = 0;
    size_t size = sizeof cores;
    if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, NULL, 0) == 0 && cores > 0) {
        return (size_t)cores;
    }
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
}

#endif

/* ---- features ---------------------------------------------------------------------------------------------------- */

#if defined(__linux__) && defined(__aarch64__)

/* arch/arm64/include/uapi/asm/hwcap.h of Linux */
enum { HWCAP_BIT_ASIMDDP = 20, HWCAP2_BIT_I8MM = 13 };

unsigned eg_arm_features(void)
{
    return (getauxval(AT_HWCAP) >> HWCAP_BIT_ASIMDDP & 1 ? EG_ARM_DOTPROD : 0) |
           (getauxval(AT_HWCAP2) >> HWCAP2_BIT_I8MM & 1 ? EG_ARM_I8MM : 0);
}

#elif defined(__APPLE__) && defined(__aarch64__)

static int sysctl_flag(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value == 1;
}

unsigned eg_arm_features(void)
{
    return (sysctl_flag("hw.optional.arm.FEAT_DotProd") ? EG_ARM_DOTPROD : 0) |
           (sysctl_flag("hw.optional.arm.FEAT_I8MM") ? EG_ARM_I8MM : 0);
}

#else

unsigned eg_arm_features(void) { return 0; }

#endif

#if defined(__linux__) && defined(__x86_64__)

enum { REQUEST_XSTATE_PERMISSION = 0x1023, XSTATE_TILE_DATA = 18 }; /* asm/prctl.h; absent from older headers */

/* Linux gives a process the 8 KiB of tile registers only when it asks for them (Documentation/arch/x86/xstate.rst). */
int eg_amx_permission(void) { return syscall(SYS_arch_prctl, REQUEST_XSTATE_PERMISSION, XSTATE_TILE_DATA) == 0; }

#else

int eg_amx_permission(void) { return 0; }

#endif
