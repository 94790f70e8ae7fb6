/* What the host program does: the floating-point modes that it calls the engine with change no bit of a vector, and are
 * as before after the call. */
#define _GNU_SOURCE /* feenableexcept */
#include "tests/kernels/model/small_model.h"

#include <fenv.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

enum { FLUSH_TO_ZERO = 0x8040, FLUSH_ON_ARM = 1 << 24 };

static const int32_t ids[] = {2, 17, 95, 1, 2, 40, 1};
static const uint64_t offsets[] = {0, 4, 7};

typedef float vectors[2 * HIDDEN];

/* Opens the file, and encodes. Without floats of its own, since every exception may trap. */
static eg_status use(const unsigned char *file, size_t bytes, uint32_t threads, vectors out)
{
    eg_model *model = NULL;
    eg_context *context = NULL;
    eg_status status = eg_model_open_memory(file, bytes, NULL, &model);
    status = status == EG_OK ? eg_context_create(model, threads, NULL, &context) : status;
    status = status == EG_OK ? eg_encode(context, ids, offsets, 2, HIDDEN, 1, out) : status;
    eg_context_free(context);
    eg_model_free(model);
    return status;
}

/* ---- floating-point modes ---------------------------------------------------------------------------------------- */

static void set_rounding(int mode) { fesetround(mode); }

static void trap(int mode)
{
    (void)mode;
#if defined(__GLIBC__)
    feenableexcept(FE_ALL_EXCEPT);
#endif
}

static void flush_to_zero(int mode)
{
    (void)mode;
#if defined(__SSE__)
    _mm_setcsr(_mm_getcsr() | FLUSH_TO_ZERO);
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control | FLUSH_ON_ARM));
#endif
}

/* The control bits of the mode: what a call must leave as they were. */
static uint64_t control_bits(void)
{
#if defined(__SSE__)
    return _mm_getcsr();
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return control;
#else
    return (uint64_t)fegetround();
#endif
}

typedef struct mode {
    const char *name;
    void (*set)(int mode);
    int value;
} mode;

static void check_modes(const unsigned char *file, size_t bytes, const vectors expected)
{
    static const mode modes[] = {{"default", set_rounding, FE_TONEAREST},
                                 {"upward", set_rounding, FE_UPWARD},
                                 {"downward", set_rounding, FE_DOWNWARD},
                                 {"to zero", set_rounding, FE_TOWARDZERO},
                                 {"traps", trap, 0},
                                 {"flush to zero", flush_to_zero, 0}};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        for (uint32_t threads = 1; threads <= 3; threads++) {
            vectors out;
            fenv_t tests;
            fegetenv(&tests);
            modes[i].set(modes[i].value);
            const uint64_t before = control_bits();
            const int rounding = fegetround();
            const eg_status status = use(file, bytes, threads, out);
            const int kept = control_bits() == before && fegetround() == rounding;
            fesetenv(&tests);
            CHECK(status == EG_OK, "%s: %s", modes[i].name, eg_error_message());
            CHECK(kept, "%s, %u threads: the mode has changed", modes[i].name, threads);
            CHECK(memcmp(out, expected, sizeof out) == 0, "%s, %u threads: other bits", modes[i].name, threads);
        }
    }
}

/* A context that was made in one mode, and is used in others. */
static void check_change_of_mode(const eg_model *model, const vectors expected)
{
    eg_context *context = NULL;
    vectors out;
    fesetround(FE_UPWARD);
    const eg_status made = eg_context_create(model, 2, NULL, &context);
    fesetround(FE_DOWNWARD);
    const eg_status used = eg_encode(context, ids, offsets, 2, HIDDEN, 1, out);
    fesetround(FE_TONEAREST);
    CHECK(made == EG_OK && used == EG_OK, "%s", eg_error_message());
    CHECK(memcmp(out, expected, sizeof out) == 0, "other bits");
    eg_context_free(context);
}

int main(void)
{
    static const eg_dtype formats[][2] = {{EG_F32, EG_F32}, {EG_I8, EG_U8}};
    for (size_t i = 0; i < 2; i++) {
        static tensors t;
        list_tensors(&t, formats[i][0], formats[i][1]);
        size_t bytes;
        unsigned char *file = make_file(&t, &bytes);
        vectors expected;
        eg_model *model = NULL;
        CHECK(use(file, bytes, 1, expected) == EG_OK, "%s", eg_error_message());
        CHECK(eg_model_open_memory(file, bytes, NULL, &model) == EG_OK, "%s", eg_error_message());
        check_modes(file, bytes, expected);
        check_change_of_mode(model, expected);
        eg_model_free(model);
        eg_aligned_free(file);
    }
    return check_result();
}
