/* The engine's floating-point environment is the default one of C, whatever the caller's is: round to nearest, no
 * exception traps, subnormal numbers are kept. Other modes give other vectors, and a new thread inherits those of its
 * maker. */
#ifndef EG_FLOAT_ENVIRONMENT_H
#define EG_FLOAT_ENVIRONMENT_H

#include <fenv.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

static inline void eg_use_default_floats(void)
{
    fesetenv(FE_DFL_ENV);
#if defined(__SSE__)
    _mm_setcsr(0x1F80); /* what a process begins with: C libraries differ in whether they end flushing to zero */
#endif
}

/* Between the two, on the same thread, the environment is the engine's; after them it is the caller's again. */
static inline void eg_begin_floats(fenv_t *callers)
{
    fegetenv(callers);
    eg_use_default_floats();
}

static inline void eg_end_floats(const fenv_t *callers) { fesetenv(callers); }

#endif
