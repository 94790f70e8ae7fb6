/* Measures the limits of this machine, with which a benchmark compares the speed of the engine. */
#include "engine/context.h"
#include "common/error.h"
#include "embgemma_bench.h"
#include "platform/platform.h"

#include <string.h>

enum {
    PROBE_ITERATIONS = 1 << 14, /* about 100 µs between readings of the clock */
    READ_CHAINS = 8,            /* independent sums, so that adding does not limit reading */
};

typedef struct measurement {
    eg_context *context;
    double seconds;
    const uint64_t *memory; /* for reading; NULL for multiplying */
    size_t words;
    double *amounts; /* (threads,) multiply-accumulates done, or bytes read */
} measurement;

static uint64_t read_all(const uint64_t *memory, size_t words)
{
    uint64_t sums[READ_CHAINS] = {0};
    for (size_t i = 0; i + READ_CHAINS <= words; i += READ_CHAINS) {
        for (size_t chain = 0; chain < READ_CHAINS; chain++) {
            sums[chain] += memory[i + chain];
        }
    }
    uint64_t sum = 0;
    for (size_t chain = 0; chain < READ_CHAINS; chain++) {
        sum += sums[chain];
    }
    return sum;
}

static void measure(void *argument, eg_thread *thread)
{
    const size_t index = thread->index;
    const measurement *m = argument;
    const size_t threads = eg_pool_threads(m->context->pool);
    volatile uint64_t keep = 0; /* keeps the compiler from removing the work */
    int32_t sink = (int32_t)index;
    double amount = 0;
    const double end = eg_now() + m->seconds;
    do {
        if (m->memory != NULL) {
            const size_t begin = m->words * index / threads, stop = m->words * (index + 1) / threads;
            keep ^= read_all(m->memory + begin, stop - begin);
            amount += (double)(stop - begin) * (double)sizeof(uint64_t);
        } else {
            amount += (double)m->context->isa->matmul->multiply_probe(PROBE_ITERATIONS, &sink);
            keep ^= (uint64_t)sink;
        }
    } while (eg_now() < end);
    (void)keep;
    m->amounts[index] = amount;
}

static eg_status rate(measurement m, double *per_second)
{
    const size_t threads = eg_pool_threads(m.context->pool);
    m.amounts = eg_allocate(&m.context->allocator, threads, sizeof *m.amounts);
    if (m.amounts == NULL) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for %zu counters", threads);
    }
    fenv_t callers;
    const eg_status status = eg_context_enter(m.context, &callers);
    if (status == EG_OK) {
        const double begin = eg_now();
        eg_pool_run(m.context->pool, measure, &m);
        const double elapsed = eg_now() - begin;
        double total = 0;
        for (size_t i = 0; i < threads; i++) {
            total += m.amounts[i];
        }
        *per_second = total / elapsed;
        eg_context_leave(m.context, &callers);
    }
    eg_release(&m.context->allocator, m.amounts);
    return status;
}

eg_status eg_measure_multiply_rate(eg_context *context, double seconds, double *macs_per_second)
{
    if (context == NULL || macs_per_second == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_measure_multiply_rate needs a context and a place for the rate");
    }
    return rate((measurement){.context = context, .seconds = seconds}, macs_per_second);
}

eg_status eg_measure_read_rate(eg_context *context, size_t bytes, double seconds, double *bytes_per_second)
{
    if (context == NULL || bytes_per_second == NULL || bytes < sizeof(uint64_t)) {
        return eg_fail(EG_ERROR_ARGUMENT,
                       "eg_measure_read_rate needs a context, at least 8 bytes and a place for the rate");
    }
    uint64_t *memory = eg_allocate_unset(&context->allocator, 1, bytes);
    if (memory == NULL) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for %zu bytes to read", bytes);
    }
    memset(memory, 1, bytes); /* or all pages would be the same page of zeros */
    const eg_status status = rate(
        (measurement){.context = context, .seconds = seconds, .memory = memory, .words = bytes / sizeof(uint64_t)},
        bytes_per_second);
    eg_release(&context->allocator, memory);
    return status;
}
