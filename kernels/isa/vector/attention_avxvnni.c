/* Attention on AVX-VNNI: vpdpwssd multiplies 16 int16 by 16 and adds pairs to 8 int32 sums. */
#if !defined(__AVXVNNI__)
#error "compile with -mavxvnni"
#endif
#define EG_SIMD_AVX2
#include "isa/vector/attention_int16_body.h"

extern const eg_attention_ops eg_attention__avxvnni;
const eg_attention_ops eg_attention__avxvnni = EG_ATTENTION_OPS;
