/* Attention on AVX-VNNI: vpdpwssd multiplies 16 int16 by 16 and adds pairs to 8 int32 sums. */
#define EG_SIMD_AVX2
#include "isa/vector/simd.h"

#if !defined(__AVXVNNI__)
#error "compile with -mavxvnni"
#endif

static inline vi add_pairs(vi sums, vi a, vi b) { return _mm256_dpwssd_avx_epi32(sums, a, b); }

#include "isa/vector/attention_int16_body.h"

extern const eg_attention_ops eg_attention__avxvnni;
const eg_attention_ops eg_attention__avxvnni = EG_ATTENTION_OPS;
