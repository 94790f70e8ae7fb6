/* The levels of int4 as instructions of x86-64 want them that multiply unsigned by signed bytes. */
#ifndef EG_INT4_LEVELS_X86_H
#define EG_INT4_LEVELS_X86_H

#include <immintrin.h>

#include "kernels.h"

/* Every level + EG_INT4_OFFSET, in the order of the codes. */
static inline __m128i eg_unsigned_int4_levels(void)
{
    return _mm_add_epi8(_mm_setr_epi8(EG_INT4_LEVELS), _mm_set1_epi8(EG_INT4_OFFSET));
}

#endif
