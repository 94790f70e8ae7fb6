/* Attention on AVX2: vpmaddwd multiplies 16 int16 by 16 and adds pairs to 8 int32, where vfmadd takes 8 float32. */
#define EG_SIMD_AVX2
#include "isa/vector/attention_int16_body.h"

extern const eg_attention_ops eg_attention__avx2;
const eg_attention_ops eg_attention__avx2 = EG_ATTENTION_OPS;
