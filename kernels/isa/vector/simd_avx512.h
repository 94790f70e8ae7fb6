/* The vector vocabulary on AVX-512 (F, BW, VL, DQ, VNNI): 16 lanes. See simd.h. */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__) ||             \
    !defined(__AVX512VNNI__)
#error "compile with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni"
#endif
#include <immintrin.h>

#define VF_LANES      16
#define MATMUL_ROWS   6 /* 6 rows x 4 panels = 24 sums, 4 weights and 1 input fill 29 of 32 registers */
#define MATMUL_PANELS 4

typedef __m512 vf;
typedef __m512i vi;

static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf vf_set(float x) { return _mm512_set1_ps(x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_abs(vf a) { return _mm512_abs_ps(a); }
static inline vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline float vf_reduce_max(vf a) { return _mm512_reduce_max_ps(a); }

/* Magnitudes are compared by their bits, as integers. */
static inline vf vf_larger_magnitude(vf largest, vf a)
{
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(largest), _mm512_castps_si512(vf_abs(a))));
}

static inline float vf_reduce_magnitude(vf a)
{
    const __m128i bits = _mm_cvtsi32_si128(_mm512_reduce_max_epi32(_mm512_castps_si512(a)));
    return _mm_cvtss_f32(_mm_castsi128_ps(bits));
}

static inline vf vf_exponent(vf a) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), a); }
static inline vf vf_hadamard(vf a)
{
    const vf one = _mm512_set1_ps(1.0f), minus = _mm512_set1_ps(-1.0f); /* of lanes that subtract: exact */
    a = _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xAAAA, minus), _mm512_permute_ps(a, 0xB1));
    a = _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xCCCC, minus), _mm512_permute_ps(a, 0x4E));
    a = _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xF0F0, minus), _mm512_shuffle_f32x4(a, a, 0xB1));
    return _mm512_fmadd_ps(a, _mm512_mask_mov_ps(one, 0xFF00, minus), _mm512_shuffle_f32x4(a, a, 0x4E));
}

static inline vi vi_zero(void) { return _mm512_setzero_si512(); }
static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_add_pairs(vi sums, vi a, vi b) { return _mm512_dpwssd_epi32(sums, a, b); }
static inline int32_t vi_reduce_add(vi a) { return _mm512_reduce_add_epi32(a); }

static inline vf vf_from_vi(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vf vf_from_int32(const int32_t *p) { return vf_from_vi(vi_load(p)); }

static inline vf vf_from_int8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* _mm512_reduce_add_ps leaves the order to the compiler. */
static inline float vf_reduce_add(vf a)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline vi vf_store_codes(int8_t *p, vf a, vi sum)
{
    const __m512i codes = _mm512_cvtps_epi32(a);
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(codes));
    return _mm512_add_epi32(sum, codes);
}

static inline void vf_store_int16(int16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a)));
}

static inline void vf_store_alternate(int16_t *pairs, vf a, size_t second)
{
    const __m512i codes = _mm512_cvtps_epi32(a);
    if (second) {
        _mm512_mask_storeu_epi16(pairs, 0xAAAAAAAA, _mm512_slli_epi32(codes, 16));
    } else {
        _mm512_mask_storeu_epi16(pairs, 0x55555555, codes);
    }
}
