/* The vector vocabulary on AArch64 Advanced SIMD: 4 lanes. See simd.h. */
#if !defined(__aarch64__)
#error "compile for aarch64"
#endif
#include <arm_neon.h>

#define VF_LANES      4
#define MATMUL_ROWS   6 /* 6 rows x 4 registers = 24 sums, 4 weights and 1 input fill 29 of 32 registers */
#define MATMUL_PANELS 1

typedef float32x4_t vf;
typedef int32x4_t vi;

static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline void vf_store(float *p, vf v) { vst1q_f32(p, v); }
static inline vf vf_set(float x) { return vdupq_n_f32(x); }
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
static inline vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
static inline vf vf_abs(vf a) { return vabsq_f32(a); }
static inline vf vf_round(vf a) { return vrndnq_f32(a); }
static inline float vf_reduce_add(vf a) { return vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a))); }
static inline float vf_reduce_max(vf a) { return vmaxvq_f32(a); }

/* Magnitudes are compared by their bits, as integers. */
static inline vf vf_larger_magnitude(vf largest, vf a)
{
    return vreinterpretq_f32_s32(vmaxq_s32(vreinterpretq_s32_f32(largest), vreinterpretq_s32_f32(vf_abs(a))));
}

static inline float vf_reduce_magnitude(vf a)
{
    const int32x2_t bits = vdup_n_s32(vmaxvq_s32(vreinterpretq_s32_f32(a)));
    return vget_lane_f32(vreinterpret_f32_s32(bits), 0);
}

static inline vf vf_exponent(vf a)
{
    const int32x4_t biased = vaddq_s32(vcvtnq_s32_f32(a), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(biased, 23));
}

static inline vf vf_hadamard(vf a)
{
    const vf by_one = {1.0f, -1.0f, 1.0f, -1.0f}, by_two = {1.0f, 1.0f, -1.0f, -1.0f}; /* -1 subtracts: exact */
    a = vfmaq_f32(vrev64q_f32(a), a, by_one);
    return vfmaq_f32(vextq_f32(a, a, 2), a, by_two);
}

static inline vf vf_from_int32(const int32_t *p) { return vcvtq_f32_s32(vld1q_s32(p)); }

static inline vf vf_from_int8(const int8_t *p)
{
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}

static inline vi vi_zero(void) { return vdupq_n_s32(0); }
static inline int32_t vi_reduce_add(vi a) { return vaddvq_s32(a); }

static inline vi vf_store_codes(int8_t *p, vf a, vi sum)
{
    const int32x4_t codes = vcvtnq_s32_f32(a);
    const int16x4_t words = vqmovn_s32(codes);
    const int8x8_t bytes = vqmovn_s16(vcombine_s16(words, words));
    const int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    __builtin_memcpy(p, &four, sizeof four);
    return vaddq_s32(sum, codes);
}

static inline void vf_store_int16(int16_t *p, vf a) { vst1_s16(p, vqmovn_s32(vcvtnq_s32_f32(a))); }
