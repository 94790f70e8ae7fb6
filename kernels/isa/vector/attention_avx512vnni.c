/* Attention on AVX-512 VNNI: vpdpwssd multiplies 32 int16 by 32 and adds pairs to 16 int32 sums. */
#define EG_SIMD_AVX512
#include "isa/vector/simd.h"

#if !defined(__AVX512VNNI__)
#error "compile with -mavx512vnni"
#endif

static inline vi add_pairs(vi sums, vi a, vi b) { return _mm512_dpwssd_epi32(sums, a, b); }

#include "isa/vector/attention_int16_body.h"

extern const eg_attention_ops eg_attention__avx512vnni;
const eg_attention_ops eg_attention__avx512vnni = EG_ATTENTION_OPS;
