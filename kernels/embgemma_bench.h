/* What only the benchmark needs of the library: the machine's limits, and where the time of a call goes. No part of the
 * public interface, so it may change with any release. Python's cffi reads this file as it reads embgemma.h. */
/* cffi: skip */
#ifndef EMBGEMMA_BENCH_H
#define EMBGEMMA_BENCH_H

#include "embgemma.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
/* cffi: end of skip */

/* The machine's limits, for rooflines: multiply-accumulates per second of the context's int8 kernel with operands
 * in registers, and bytes per second of reading `bytes` of memory; both over all threads of the context, for
 * about `seconds`. */
eg_status eg_measure_multiply_rate(eg_context *context, double seconds, double *macs_per_second);
eg_status eg_measure_read_rate(eg_context *context, size_t bytes, double seconds, double *bytes_per_second);

/* Where the time goes: every later call of eg_encode on this context adds to
 *   seconds: (eg_context_threads(), eg_operation_count()) float64, what each thread spends on each operation
 * until this is called again; NULL ends it. Timing adds about 0.1 µs to each step of each thread. */
size_t eg_operation_count(void);
const char *eg_operation_name(size_t index); /* NULL past the end */
eg_status eg_context_profile(eg_context *context, double *seconds);

/* cffi: skip */
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#endif
/* cffi: end of skip */
