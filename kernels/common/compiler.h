/* Compiler extensions: always inline a function, and unroll a loop of constant length so that its arrays are registers.
 */
#ifndef EG_COMPILER_H
#define EG_COMPILER_H

#define EG_ALWAYS_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define EG_UNROLL _Pragma("clang loop unroll(full)")
#else
#define EG_UNROLL _Pragma("GCC unroll 32")
#endif

#endif
