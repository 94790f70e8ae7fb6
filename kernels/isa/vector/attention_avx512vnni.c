/* Attention on AVX-512 VNNI: vpdpwssd multiplies 32 int16 by 32 and adds pairs to 16 int32 sums. */
#define EG_SIMD_AVX512
#include "isa/vector/attention_int16_body.h"

extern const eg_attention_ops eg_attention__avx512vnni;
const eg_attention_ops eg_attention__avx512vnni = EG_ATTENTION_OPS;
