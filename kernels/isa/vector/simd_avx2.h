/* The vector vocabulary on AVX2 and FMA: 8 lanes. See simd.h. */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile with -mavx2 -mfma"
#endif
#include <immintrin.h>

#define VF_LANES      8
#define MATMUL_ROWS   6 /* 6 rows x 2 registers = 12 sums, 2 weights, 1 input and a product fill 16 registers */
#define MATMUL_PANELS 1

typedef __m256 vf;
typedef __m256i vi;

static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vf_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline float vf_reduce_add(vf a)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* Magnitudes are compared by their bits, as integers. */
static inline vf vf_larger_magnitude(vf largest, vf a)
{
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(largest), _mm256_castps_si256(vf_abs(a))));
}

static inline float vf_reduce_magnitude(vf a)
{
    const __m256i bits = _mm256_castps_si256(a);
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtss_f32(_mm_castsi128_ps(half));
}

static inline float vf_reduce_max(vf a)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

static inline vf vf_exponent(vf a)
{
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}

static inline vf vf_hadamard(vf a)
{
    /* 1, or -1 in the lanes that subtract: exact */
    const vf by_one = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), by_two = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
    const vf by_four = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);
    a = _mm256_fmadd_ps(a, by_one, _mm256_permute_ps(a, 0xB1));
    a = _mm256_fmadd_ps(a, by_two, _mm256_permute_ps(a, 0x4E));
    return _mm256_fmadd_ps(a, by_four, _mm256_permute2f128_ps(a, a, 1));
}

static inline vi vi_zero(void) { return _mm256_setzero_si256(); }
static inline vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
static inline vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }

static inline vi vi_add_pairs(vi sums, vi a, vi b)
{
#if defined(__AVXVNNI__)
    return _mm256_dpwssd_avx_epi32(sums, a, b);
#else
    return _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
#endif
}

static inline vf vf_from_vi(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vf vf_from_int32(const int32_t *p) { return vf_from_vi(vi_load(p)); }

static inline vf vf_from_int8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

static inline int32_t vi_reduce_add(vi a)
{
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(1, 0, 3, 2)));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(half);
}

static inline vi vf_store_codes(int8_t *p, vf a, vi sum)
{
    const __m256i codes = _mm256_cvtps_epi32(a);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
    return _mm256_add_epi32(sum, codes);
}

static inline void vf_store_int16(int16_t *p, vf a)
{
    const __m256i codes = _mm256_cvtps_epi32(a);
    const __m128i low = _mm256_castsi256_si128(codes), high = _mm256_extracti128_si256(codes, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(low, high));
}

/* One at a time: another thread may be storing the others of the pairs. */
static inline void vf_store_alternate(int16_t *pairs, vf a, size_t second)
{
    int32_t codes[VF_LANES];
    _mm256_storeu_si256((__m256i *)codes, _mm256_cvtps_epi32(a));
    for (size_t i = 0; i < VF_LANES; i++) {
        pairs[2 * i + second] = (int16_t)codes[i];
    }
}
