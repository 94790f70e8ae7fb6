/* The vector vocabulary on WebAssembly SIMD128: 4 lanes. See simd.h. With EG_SIMD_WASMRELAXED, multiply-add is the
 * engine's own, which isa/cpu_wasm.c has found to round once; else it is made of instructions that every engine has. */
#if !defined(__wasm_simd128__)
#error "compile with -msimd128"
#endif
#include <wasm_simd128.h>

#define VF_LANES      4
#define MATMUL_ROWS   2 /* 2 rows x 4 registers = 8 sums, 4 weights, 1 input, 1 product: 14 of the 15 that V8 has */
#define MATMUL_PANELS 1

typedef v128_t vf;
typedef v128_t vi;

static inline vf vf_load(const float *p) { return wasm_v128_load(p); }
static inline void vf_store(float *p, vf v) { wasm_v128_store(p, v); }
static inline vf vf_set(float x) { return wasm_f32x4_splat(x); }
static inline vf vf_add(vf a, vf b) { return wasm_f32x4_add(a, b); }
static inline vf vf_sub(vf a, vf b) { return wasm_f32x4_sub(a, b); }
static inline vf vf_mul(vf a, vf b) { return wasm_f32x4_mul(a, b); }
static inline vf vf_div(vf a, vf b) { return wasm_f32x4_div(a, b); }
static inline vf vf_max(vf a, vf b) { return wasm_f32x4_pmax(b, a); } /* the first operand if one is NaN */
static inline vf vf_min(vf a, vf b) { return wasm_f32x4_pmin(b, a); }
static inline vf vf_abs(vf a) { return wasm_f32x4_abs(a); }
static inline vf vf_round(vf a) { return wasm_f32x4_nearest(a); }

/* ---- a · b + c, rounded once ----------------------------------------------------------------------------------- */

#if defined(EG_SIMD_WASMRELAXED)

static inline vf vf_fma(vf a, vf b, vf c) { return wasm_f32x4_relaxed_madd(a, b, c); }

#else

/* In double precision the product is exact. The sum is rounded to odd, which keeps the second rounding right (Boldo and
 * Melquiond, IEEE Transactions on Computers 57, 2008). */
static float fma_to_odd(float a, float b, float c)
{
    const double product = (double)a * (double)b, addend = (double)c, sum = product + addend;
    const double of_addend = sum - product;
    const double rest = (product - (sum - of_addend)) + (addend - of_addend); /* Knuth's: exactly what sum lacks */
    int64_t bits;
    __builtin_memcpy(&bits, &sum, sizeof bits);
    if ((rest > 0.0 || rest < 0.0) && bits % 2 == 0) {
        bits += (rest > 0.0) == (sum > 0.0) ? 1 : -1;
    }
    double odd;
    __builtin_memcpy(&odd, &bits, sizeof odd);
    return (float)odd;
}

static vf fma_lanes(vf a, vf b, vf c)
{
    float x[VF_LANES], y[VF_LANES], z[VF_LANES];
    vf_store(x, a);
    vf_store(y, b);
    vf_store(z, c);
    for (int lane = 0; lane < VF_LANES; lane++) {
        x[lane] = fma_to_odd(x[lane], y[lane], z[lane]);
    }
    return vf_load(x);
}

/* Two roundings, to double and to float, are one unless the first ends halfway between two floats: once in 2^29 times.
 * Subnormal floats lie closer, so numbers near those are left to the slow way too. */
static inline vf vf_fma(vf a, vf b, vf c)
{
#define HIGH(v) wasm_f64x2_promote_low_f32x4(wasm_i64x2_shuffle(v, v, 1, 1))
#define LOW(v)  wasm_f64x2_promote_low_f32x4(v)
    const v128_t low = wasm_f64x2_add(wasm_f64x2_mul(LOW(a), LOW(b)), LOW(c));
    const v128_t high = wasm_f64x2_add(wasm_f64x2_mul(HIGH(a), HIGH(b)), HIGH(c));
#undef HIGH
#undef LOW
    const vf rounded = wasm_i64x2_shuffle(wasm_f32x4_demote_f64x2_zero(low), wasm_f32x4_demote_f64x2_zero(high), 0, 2);
    const v128_t tails = wasm_v128_and(wasm_i32x4_shuffle(low, high, 0, 2, 4, 6), wasm_i32x4_const_splat(0x1FFFFFFF));
    const v128_t halfway = wasm_i32x4_eq(tails, wasm_i32x4_const_splat(0x10000000));
    const v128_t small = wasm_f32x4_lt(vf_abs(rounded), wasm_f32x4_const_splat(0x1p-125f));
    return __builtin_expect(wasm_v128_any_true(wasm_v128_or(halfway, small)), 0) ? fma_lanes(a, b, c) : rounded;
}

#endif

/* ---- lanes ----------------------------------------------------------------------------------------------------- */

static inline float vf_reduce_add(vf a)
{
    a = vf_add(a, wasm_i32x4_shuffle(a, a, 2, 3, 2, 3));
    return wasm_f32x4_extract_lane(a, 0) + wasm_f32x4_extract_lane(a, 1);
}

static inline float vf_reduce_max(vf a)
{
    a = vf_max(a, wasm_i32x4_shuffle(a, a, 2, 3, 2, 3));
    return wasm_f32x4_extract_lane(vf_max(a, wasm_i32x4_shuffle(a, a, 1, 1, 1, 1)), 0);
}

/* Magnitudes are compared by their bits, as integers. */
static inline vf vf_larger_magnitude(vf largest, vf a) { return wasm_i32x4_max(largest, vf_abs(a)); }

static inline float vf_reduce_magnitude(vf a)
{
    a = wasm_i32x4_max(a, wasm_i32x4_shuffle(a, a, 2, 3, 2, 3));
    return wasm_f32x4_extract_lane(wasm_i32x4_max(a, wasm_i32x4_shuffle(a, a, 1, 1, 1, 1)), 0);
}

static inline vf vf_hadamard(vf a)
{
    const v128_t by_one = wasm_f32x4_const(0.0f, -0.0f, 0.0f, -0.0f),
                 by_two = wasm_f32x4_const(0.0f, 0.0f, -0.0f, -0.0f);
    a = vf_add(wasm_i32x4_shuffle(a, a, 1, 0, 3, 2), wasm_v128_xor(a, by_one));
    return vf_add(wasm_i32x4_shuffle(a, a, 2, 3, 0, 1), wasm_v128_xor(a, by_two));
}

/* ---- integers -------------------------------------------------------------------------------------------------- */

/* The nearest integer of |a| < 2^22, ties to even: the last bits of a float that is large enough to have no others. The
 * instruction for it is several on x86. */
static inline vi vi_nearest(vf a)
{
    const float large = 0x1.8p23f;
    return wasm_i32x4_sub(vf_add(a, vf_set(large)), vf_set(large));
}

static inline vf vf_exponent(vf a)
{
    return wasm_i32x4_shl(wasm_i32x4_add(vi_nearest(a), wasm_i32x4_const_splat(127)), 23);
}

static inline vf vf_from_int32(const int32_t *p) { return wasm_f32x4_convert_i32x4(wasm_v128_load(p)); }

static inline vf vf_from_int8(const int8_t *p)
{
    const v128_t words = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p));
    return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(words));
}

static inline vi vi_zero(void) { return wasm_i32x4_const_splat(0); }
static inline vi vi_set(int32_t x) { return wasm_i32x4_splat(x); }
static inline vi vi_load(const void *p) { return wasm_v128_load(p); }
static inline vf vf_from_vi(vi a) { return wasm_f32x4_convert_i32x4(a); }
static inline vi vi_add_pairs(vi sums, vi a, vi b) { return wasm_i32x4_add(sums, wasm_i32x4_dot_i16x8(a, b)); }

static inline int32_t vi_reduce_add(vi a)
{
    a = wasm_i32x4_add(a, wasm_i32x4_shuffle(a, a, 2, 3, 2, 3));
    return wasm_i32x4_extract_lane(a, 0) + wasm_i32x4_extract_lane(a, 1);
}

static inline vi vf_store_codes(int8_t *p, vf a, vi sum)
{
    const vi codes = vi_nearest(a), words = wasm_i16x8_narrow_i32x4(codes, codes);
    wasm_v128_store32_lane(p, wasm_i8x16_narrow_i16x8(words, words), 0);
    return wasm_i32x4_add(sum, codes);
}

static inline void vf_store_int16(int16_t *p, vf a)
{
    const vi codes = vi_nearest(a);
    wasm_v128_store64_lane(p, wasm_i16x8_narrow_i32x4(codes, codes), 0);
}

static inline void vf_store_alternate(int16_t *p, vf a, size_t second)
{
    const vi codes = vi_nearest(a);
    p += second;
    wasm_v128_store16_lane(p, codes, 0);
    wasm_v128_store16_lane(p + 2, codes, 2);
    wasm_v128_store16_lane(p + 4, codes, 4);
    wasm_v128_store16_lane(p + 6, codes, 6);
}
