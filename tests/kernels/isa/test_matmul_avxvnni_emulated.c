/* The AVX-VNNI matmul on any CPU with AVX2: its source compiled with vpdpbusd in terms of AVX2. test_matmul.c runs the
 * real one. */
#if defined(__x86_64__)
#include <immintrin.h>

/* Sums of 4 products of unsigned bytes by signed ones, without the saturation of vpmaddubsw. */
static inline __m256i emulated_dpbusd(__m256i sums, __m256i unsigned_bytes, __m256i signed_bytes)
{
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(unsigned_bytes, _mm256_set1_epi16(0xFF)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(signed_bytes, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(unsigned_bytes, 8), _mm256_srai_epi16(signed_bytes, 8));
    return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
}

#undef _mm256_dpbusd_avx_epi32 /* a macro in some compilers */
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd
#define eg_matmul__avxvnni      eg_matmul__avxvnni_emulated /* the engine's library has the real one */
#if !defined(__AVXVNNI__)
#define __AVXVNNI__ 1
#endif
#include "isa/cpu.h"
#include "isa/matmul_avxvnni.c"
#include "tests/kernels/isa/check_matmul.h"
#endif

enum { SKIPPED = 77 }; /* as in Automake */

int main(void)
{
#if defined(__x86_64__)
    if (eg_cpu_has_avx2()) {
        check_matmul_ops("avxvnni, emulated", &eg_matmul__avxvnni_emulated);
        return check_result();
    }
#endif
    return SKIPPED;
}
