/* The vector vocabulary on plain C: one lane. See simd.h. */
#include <math.h>
#include <string.h>

#define VF_LANES      1
#define MATMUL_PANELS 1 /* panels of 16 that the float matmul sums at once */
#define MATMUL_ROWS   2 /* and rows: 32 sums are on the stack anyway */

typedef float vf;
typedef int32_t vi;

static inline vf vf_load(const float *p) { return *p; }
static inline void vf_store(float *p, vf v) { *p = v; }
static inline vf vf_set(float x) { return x; }
static inline vf vf_add(vf a, vf b) { return a + b; }
static inline vf vf_sub(vf a, vf b) { return a - b; }
static inline vf vf_mul(vf a, vf b) { return a * b; }
static inline vf vf_div(vf a, vf b) { return a / b; }
/* Two roundings, not fmaf(), which without the instruction is a library call, a hundred times slower. */
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_max(vf a, vf b) { return a > b ? a : b; }
static inline vf vf_min(vf a, vf b) { return a < b ? a : b; }
static inline vf vf_abs(vf a) { return fabsf(a); }
static inline vf vf_round(vf a) { return nearbyintf(a); }
static inline float vf_reduce_add(vf a) { return a; }
static inline float vf_reduce_max(vf a) { return a; }
static inline vf vf_larger_magnitude(vf largest, vf a)
{
    return largest >= fabsf(a) || isnan(largest) ? largest : fabsf(a);
}
static inline float vf_reduce_magnitude(vf a) { return a; }

static inline vf vf_exponent(vf a)
{
    if (isnan(a)) {
        return a;
    }
    int32_t bits = ((int32_t)a + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

static inline vf vf_hadamard(vf a) { return a; }
static inline vi vi_zero(void) { return 0; }
static inline int32_t vi_reduce_add(vi a) { return a; }
static inline vf vf_from_int32(const int32_t *p) { return (float)*p; }
static inline vf vf_from_int8(const int8_t *p) { return (float)*p; }
static inline vi vf_store_codes(int8_t *p, vf a, vi sum)
{
    *p = (int8_t)nearbyintf(a);
    return sum + *p;
}
