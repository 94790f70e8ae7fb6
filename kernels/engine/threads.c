/* The pool: threads sleep on a condition variable between calls and spin only within a call. */
#include "engine/threads.h"

#include "common/error.h"
#include "common/float_environment.h"
#include "platform/platform.h"

#include <stdalign.h>
#include <stdatomic.h>

enum {
/* Polls before a waiting thread yields its core: about 10 µs. That is longer than most tasks, so that the end of a step
 * costs a cache miss only, and short enough that a core shared with others is not wasted. */
#if defined(__wasm__)
    SPINS = 50000, /* about 50 µs: it cannot pause, and to yield is to sleep, which takes as long */
#else
    SPINS = 4000,
#endif
    CACHE_LINE = 64,
};

/* Each counter has its own cache line, so that threads that poll `done` do not slow those that change `taken`. */
typedef struct step {
    alignas(CACHE_LINE) atomic_size_t taken;
    alignas(CACHE_LINE) atomic_size_t done;
} step;

typedef struct sleeper {
    eg_pool *pool;
    size_t index;
    eg_system_thread thread;
} sleeper;

struct eg_pool {
    eg_allocator allocator;
    long process; /* that made it */
    size_t threads;
    size_t started; /* threads that run, threads - 1 once created */
    sleeper *sleepers;
    size_t most_steps;
    step *steps; /* (most_steps,); zero when a call begins */

    eg_mutex mutex;     /* guards what follows */
    eg_condition wake;  /* a new call, or the end */
    unsigned long call; /* counts calls, so that a thread knows a new one */
    int stop;
    void (*body)(void *argument, eg_thread *thread);
    void *argument;

    atomic_size_t returned; /* threads that have left the body in this call */
};

static inline void pause_core(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *counter is `value`. */
static void await(atomic_size_t *counter, size_t value)
{
    for (int spin = 0; atomic_load_explicit(counter, memory_order_acquire) != value; spin++) {
        if (spin < SPINS) {
            pause_core();
        } else {
            eg_thread_yield();
        }
    }
}

size_t eg_next_task(eg_thread *thread, size_t tasks)
{
    step *current = &thread->pool->steps[thread->step];
    if (thread->working) {
        atomic_fetch_add_explicit(&current->done, 1, memory_order_acq_rel);
        thread->working = 0;
    }
    if (atomic_load_explicit(&current->taken, memory_order_relaxed) < tasks) {
        const size_t task = atomic_fetch_add_explicit(&current->taken, 1, memory_order_relaxed);
        if (task < tasks) {
            thread->working = 1;
            return task;
        }
    }
    if (thread->watch.seconds == NULL) {
        await(&current->done, tasks);
    } else {
        const double begin = eg_now();
        await(&current->done, tasks);
        thread->watch.waited += eg_now() - begin;
    }
    thread->step++;
    return tasks;
}

static void sleeper_main(void *argument)
{
    const sleeper *self = argument;
    eg_pool *pool = self->pool;
    unsigned long seen = 0;
    eg_use_default_floats();
    for (;;) {
        eg_mutex_lock(&pool->mutex);
        while (pool->call == seen && !pool->stop) {
            eg_condition_wait(&pool->wake, &pool->mutex);
        }
        const int stop = pool->stop;
        seen = pool->call;
        eg_mutex_unlock(&pool->mutex);
        if (stop) {
            return;
        }
        pool->body(pool->argument, &(eg_thread){.pool = pool, .index = self->index});
        atomic_fetch_add_explicit(&pool->returned, 1, memory_order_acq_rel);
    }
}

static void free_memory(const eg_allocator *allocator, eg_pool *pool, sleeper *sleepers, step *steps)
{
    eg_release(allocator, steps);
    eg_release(allocator, sleepers);
    eg_release(allocator, pool);
}

eg_status eg_pool_create(size_t threads, size_t most_steps, const eg_allocator *allocator, eg_pool **out)
{
    eg_pool *pool = eg_allocate(allocator, 1, sizeof *pool);
    sleeper *sleepers = eg_allocate(allocator, threads, sizeof *sleepers);
    step *steps = eg_allocate_unset(allocator, most_steps, sizeof *steps);
    if (pool == NULL || sleepers == NULL || steps == NULL || !eg_mutex_create(&pool->mutex)) {
        free_memory(allocator, pool, sleepers, steps);
        return eg_fail(EG_ERROR_MEMORY, "no memory for a pool of %zu threads", threads);
    }
    if (!eg_condition_create(&pool->wake)) {
        eg_mutex_free(&pool->mutex);
        free_memory(allocator, pool, sleepers, steps);
        return eg_fail(EG_ERROR_MEMORY, "no memory for a condition variable");
    }
    pool->allocator = *allocator;
    pool->process = eg_process();
    pool->threads = threads;
    pool->sleepers = sleepers;
    pool->most_steps = most_steps;
    pool->steps = steps;
    for (size_t i = 0; i + 1 < threads; i++) {
        sleepers[i] = (sleeper){.pool = pool, .index = i + 1};
        if (!eg_thread_start(&sleepers[i].thread, sleeper_main, &sleepers[i])) {
            eg_pool_free(pool);
            return eg_fail(EG_ERROR_SYSTEM, "the operating system refused %zu threads; ask for fewer", threads);
        }
        pool->started++;
    }
    *out = pool;
    return EG_OK;
}

static void stop_threads(eg_pool *pool)
{
    eg_mutex_lock(&pool->mutex);
    pool->stop = 1;
    eg_condition_wake_all(&pool->wake);
    eg_mutex_unlock(&pool->mutex);
    for (size_t i = 0; i < pool->started; i++) {
        eg_thread_join(&pool->sleepers[i].thread);
    }
    eg_condition_free(&pool->wake);
    eg_mutex_free(&pool->mutex);
}

void eg_pool_free(eg_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    if (!eg_pool_is_inherited(pool)) {
        stop_threads(pool);
    }
    const eg_allocator allocator = pool->allocator;
    free_memory(&allocator, pool, pool->sleepers, pool->steps);
}

int eg_pool_is_inherited(const eg_pool *pool) { return pool != NULL && pool->process != eg_process(); }

size_t eg_pool_threads(const eg_pool *pool) { return pool->threads; }

void eg_pool_run(eg_pool *pool, void (*body)(void *argument, eg_thread *thread), void *argument)
{
    eg_mutex_lock(&pool->mutex);
    for (size_t i = 0; i < pool->most_steps; i++) {
        atomic_init(&pool->steps[i].taken, 0);
        atomic_init(&pool->steps[i].done, 0);
    }
    atomic_store_explicit(&pool->returned, 0, memory_order_relaxed);
    pool->body = body;
    pool->argument = argument;
    pool->call++;
    eg_condition_wake_all(&pool->wake);
    eg_mutex_unlock(&pool->mutex);
    body(argument, &(eg_thread){.pool = pool, .index = 0});
    await(&pool->returned, pool->started);
}
