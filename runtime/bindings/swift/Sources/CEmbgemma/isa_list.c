/* What the files beside this one compile. */
#if defined(__aarch64__)
#define EG_HAVE_I8MM    1
#define EG_HAVE_NEONDOT 1
#include "isa/cpu_arm.c"
#elif defined(__x86_64__)
#define EG_HAVE_AVX2 1
#include "isa/cpu_x86.c"
#endif
#include "isa/dispatch.c"
