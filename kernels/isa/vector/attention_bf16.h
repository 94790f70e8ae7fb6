/* float32 to bfloat16, for attention on AMX, whose CPUs all have AVX512-BF16. */
#include "isa/kernels.h"

#if !defined(__AVX512BF16__) || !defined(__AVX512BW__)
#error "compile with -mavx512f -mavx512bw -mavx512bf16"
#endif
#include <immintrin.h>

enum {
    LANES = 16,
    PAIR = 2,  /* elements of a k-group */
    LINE = 64, /* bytes */
};

static float narrow(float *row, size_t n)
{
    uint16_t *out = (uint16_t *)(void *)row; /* what is written never runs ahead of what is read */
    for (size_t i = 0; i < n; i += LANES) {
        const __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(row + i));
        __builtin_memcpy(out + i, &half, sizeof half);
    }
    return 1.0f;
}

/* A column of a panel: pairs of the key, one a line. */
static float store_key(const float *key, size_t head_dim, void *panel, size_t column)
{
    char *lines = (char *)panel + column * PAIR * sizeof(uint16_t);
    for (size_t i = 0; i < head_dim; i += LANES) {
        uint32_t pairs[LANES / PAIR];
        const __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(key + i));
        __builtin_memcpy(pairs, &half, sizeof half);
        for (size_t pair = 0; pair < LANES / PAIR; pair++) {
            __builtin_memcpy(lines + (i / PAIR + pair) * LINE, &pairs[pair], sizeof pairs[pair]);
        }
    }
    return 1.0f;
}

/* Half a line of each panel: the even or the odd elements of the pairs. */
static float store_value(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot)
{
    enum { EVEN = 0x55555555 };
    const __mmask32 places = slot % PAIR ? (__mmask32)~EVEN : EVEN;
    for (size_t i = 0; i < head_dim; i += LANES) {
        const __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(value + i));
        const __m512i elements = _mm512_cvtepu16_epi32((__m256i)half);
        uint16_t *line = (uint16_t *)panels + i * slots + slot / PAIR * (PAIR * LANES);
        _mm512_mask_storeu_epi16(line, places, slot % PAIR ? _mm512_slli_epi32(elements, 16) : elements);
    }
    return 1.0f;
}
