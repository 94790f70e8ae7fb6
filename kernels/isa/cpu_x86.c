/* CPU features of x86-64, by CPUID and XGETBV (Intel SDM volume 2, CPUID; volume 1, chapter 13). */
#include "isa/cpu.h"

#include "platform/platform.h"

#if !defined(__x86_64__)
#error "x86-64 only"
#endif
#include <cpuid.h>

enum {
    XSTATE_AVX = 0x6,     /* XCR0: SSE and AVX registers are saved on a task switch */
    XSTATE_AVX512 = 0xE6, /* … and mask and 512-bit registers */
    XSTATE_AMX = 0x60000, /* … and tile configuration and tile data */
};

typedef struct leaf {
    uint32_t eax, ebx, ecx, edx;
} leaf;

static leaf cpuid(uint32_t function, uint32_t index)
{
    leaf out = {0, 0, 0, 0};
    if (!__get_cpuid_count(function, index, &out.eax, &out.ebx, &out.ecx, &out.edx)) {
        return (leaf){0, 0, 0, 0};
    }
    return out;
}

static int bit(uint32_t value, int position) { return (int)(value >> position & 1); }

static int os_saves(uint64_t state)
{
    if (!bit(cpuid(1, 0).ecx, 27)) { /* OSXSAVE: XGETBV exists */
        return 0;
    }
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (((uint64_t)high << 32 | low) & state) == state;
}

int eg_cpu_has_avx2(void)
{
    return os_saves(XSTATE_AVX) && bit(cpuid(1, 0).ecx, 12) /* FMA */ && bit(cpuid(7, 0).ebx, 5);
}

int eg_cpu_has_avxvnni(void) { return eg_cpu_has_avx2() && bit(cpuid(7, 1).eax, 4); }

int eg_cpu_has_avx512vnni(void)
{
    const leaf features = cpuid(7, 0);
    const int base = bit(features.ebx, 16) && bit(features.ebx, 17) && bit(features.ebx, 30) && bit(features.ebx, 31);
    return os_saves(XSTATE_AVX512) && eg_cpu_has_avx2() && base /* F, DQ, BW, VL */ && bit(features.ecx, 11);
}

int eg_cpu_has_avx512vbmi(void) { return eg_cpu_has_avx512vnni() && bit(cpuid(7, 0).ecx, 1); }

int eg_cpu_has_amx(void)
{
    const leaf features = cpuid(7, 0);
    const int tiles = bit(features.edx, 24) && bit(features.edx, 25); /* TILE, INT8 */
    return tiles && os_saves(XSTATE_AMX) && eg_cpu_has_avx512vbmi() && eg_amx_permission();
}
