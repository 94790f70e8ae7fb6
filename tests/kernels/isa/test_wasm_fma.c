/* The multiply-add that simd_wasm.h makes of other instructions: rounded once, in the cases where two roundings differ.
 * Without WebAssembly there is nothing to test. */
#include "tests/kernels/check.h"

#if defined(__wasm__)

#define EG_SIMD_WASM
#include "isa/vector/simd.h"

#include <math.h>

/* Quadruple precision, which software computes, rounds nothing that matters here. */
static float exact(float a, float b, float c) { return (float)((long double)a * (long double)b + (long double)c); }

static void check_fma(float a, float b, float c)
{
    float got[VF_LANES];
    const float want = exact(a, b, c);
    vf_store(got, vf_fma(vf_set(a), vf_set(b), vf_set(c)));
    for (size_t lane = 0; lane < VF_LANES; lane++) {
        CHECK(memcmp(&got[lane], &want, sizeof want) == 0 || (isnan(want) && isnan(got[lane])),
              "%a · %a + %a: %a, not %a", (double)a, (double)b, (double)c, (double)got[lane], (double)want);
    }
}

static float some_float(uint64_t *state, int exponents)
{
    const float fraction = 1.0f + (float)(random_bits(state) >> 41) * 0x1p-23f;
    const int exponent = (int)(random_bits(state) % (unsigned)(2 * exponents + 1)) - exponents;
    return ldexpf(random_bits(state) % 2 ? fraction : -fraction, exponent);
}

int main(void)
{
    static const float special[] = {0.0f, -0.0f, 1.0f, -1.0f, 0x1p-149f, -0x1p-126f, 0x1.fffffep127f, INFINITY, NAN};
    enum { SPECIAL = sizeof special / sizeof *special, RANDOM = 200000 };
    for (size_t i = 0; i < (size_t)SPECIAL * SPECIAL * SPECIAL; i++) {
        check_fma(special[i % SPECIAL], special[i / SPECIAL % SPECIAL], special[i / SPECIAL / SPECIAL]);
    }
    uint64_t state = 1;
    for (int i = 0; i < RANDOM; i++) {
        const float a = some_float(&state, 3), b = some_float(&state, 3), c = some_float(&state, 40);
        check_fma(a, b, c);
        /* Halfway between two floats but for the product's last bits. */
        check_fma(1.0f + 0x1p-12f, ldexpf(1.0f + 0x1p-12f, -25), c);
        check_fma(ldexpf(a, -24), 0x1p-35f, ldexpf(1.0f + 0x1p-23f, -35 + 24 - 24));
        check_fma(0x1p-24f * (1.0f + 0x1p-23f), 1.0f - 0x1p-23f, 1.0f + 0x1p-23f * (float)(i % 8));
        /* Subnormal results, and those next to them, of which some are almost halfway between two floats. */
        check_fma(ldexpf(1.0f + 0x1p-23f, -75), ldexpf(1.0f - 0x1p-23f, -75),
                  (float)(i % 0x40000 * 64 + 1) * 0x1p-149f);
        check_fma(ldexpf(a, -70), ldexpf(b, -70), ldexpf(c, -120));
        check_fma(ldexpf(a, -63), ldexpf(b, -63), 0.0f);
    }
    return check_result();
}

#else

int main(void) { return check_result(); }

#endif
