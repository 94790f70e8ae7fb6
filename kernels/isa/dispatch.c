/* Every instruction set the library was built with, best first. To add one: write matmul_<isa>.c, add its flags in
 * CMakeLists.txt and its line here. */
#include "isa/cpu.h"
#include "embgemma.h"
#include "isa/kernels.h"

extern const eg_matmul_ops eg_matmul__amx, eg_matmul__avx512vbmi, eg_matmul__avx512vnni, eg_matmul__avxvnni;
extern const eg_matmul_ops eg_matmul__avx2;
extern const eg_matmul_ops eg_matmul__i8mm, eg_matmul__neondot, eg_matmul__scalar;
extern const eg_matmul_ops eg_matmul__wasmrelaxed, eg_matmul__wasm;
extern const eg_vector_ops eg_vector_ops__avx512, eg_vector_ops__avx2, eg_vector_ops__neon, eg_vector_ops__scalar;
extern const eg_vector_ops eg_vector_ops__wasmrelaxed, eg_vector_ops__wasm;

extern const eg_attention_ops eg_attention__avx512vnni, eg_attention__avxvnni, eg_attention__avx2;
extern const eg_attention_ops eg_attention__neondot, eg_attention__wasmrelaxed, eg_attention__wasm;

#if !defined(EG_HAVE_WASMRELAXED)
static int always(void) { return 1; }
#endif

const eg_isa eg_isa_list[] = {
#if defined(EG_HAVE_AMX)
    {"amx", eg_cpu_has_amx, &eg_matmul__amx, &eg_vector_ops__avx512, &eg_attention__avx512vnni},
#endif
#if defined(EG_HAVE_AVX512VBMI)
    {"avx512vbmi", eg_cpu_has_avx512vbmi, &eg_matmul__avx512vbmi, &eg_vector_ops__avx512, &eg_attention__avx512vnni},
#endif
#if defined(EG_HAVE_AVX512VNNI)
    {"avx512vnni", eg_cpu_has_avx512vnni, &eg_matmul__avx512vnni, &eg_vector_ops__avx512, &eg_attention__avx512vnni},
#endif
#if defined(EG_HAVE_AVXVNNI)
    {"avxvnni", eg_cpu_has_avxvnni, &eg_matmul__avxvnni, &eg_vector_ops__avx2, &eg_attention__avxvnni},
#endif
#if defined(EG_HAVE_AVX2)
    {"avx2", eg_cpu_has_avx2, &eg_matmul__avx2, &eg_vector_ops__avx2, &eg_attention__avx2},
#endif
#if defined(EG_HAVE_I8MM)
    {"i8mm", eg_cpu_has_i8mm, &eg_matmul__i8mm, &eg_vector_ops__neon, &eg_attention__neondot},
#endif
#if defined(EG_HAVE_NEONDOT)
    {"neondot", eg_cpu_has_neondot, &eg_matmul__neondot, &eg_vector_ops__neon, &eg_attention__neondot},
#endif
#if defined(EG_HAVE_WASMRELAXED)
    {"wasmrelaxed", eg_cpu_has_wasmrelaxed, &eg_matmul__wasmrelaxed, &eg_vector_ops__wasmrelaxed,
     &eg_attention__wasmrelaxed},
#elif defined(EG_HAVE_WASM)
    {"wasm", always, &eg_matmul__wasm, &eg_vector_ops__wasm, &eg_attention__wasm},
#else
    {"scalar", always, &eg_matmul__scalar, &eg_vector_ops__scalar, NULL},
#endif
};
const size_t eg_isa_list_count = sizeof eg_isa_list / sizeof eg_isa_list[0];

size_t eg_isa_count(void) { return eg_isa_list_count; }

const char *eg_isa_name(size_t index) { return index < eg_isa_list_count ? eg_isa_list[index].name : NULL; }

uint32_t eg_isa_supported(size_t index) { return index < eg_isa_list_count && eg_isa_list[index].supported() ? 1 : 0; }
