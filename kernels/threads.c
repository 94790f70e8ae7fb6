/* The pool: workers sleep on a condition variable between calls, and spin only inside one. */
#define _POSIX_C_SOURCE 200809L
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Polls before a waiting thread offers its core to others: about 10 µs, longer than any step of a short text, so
 * that a barrier costs a cache miss, and short enough that a shared core is not held for nothing. */
enum { SPINS = 4000 };

typedef struct worker {
    eg_pool *pool;
    size_t index;
    pthread_t thread;
} worker;

struct eg_pool {
    size_t threads;
    size_t started; /* workers that run, threads - 1 once created */
    worker *workers;

    pthread_mutex_t mutex; /* guards what follows, up to the barrier */
    pthread_cond_t wake;   /* a new call, or the end */
    unsigned long call;    /* counts calls, so that a worker knows a new one */
    int stop;
    void (*body)(void *argument, size_t worker);
    void *argument;

    atomic_size_t arrived; /* the barrier: how many wait, and how often it has opened */
    atomic_size_t opened;
};

static inline void pause_core(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void eg_pool_sync(eg_pool *pool)
{
    if (pool->threads == 1) {
        return;
    }
    const size_t generation = atomic_load_explicit(&pool->opened, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == pool->threads - 1) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&pool->opened, generation + 1, memory_order_release);
        return;
    }
    for (int spin = 0; atomic_load_explicit(&pool->opened, memory_order_acquire) == generation; spin++) {
        if (spin < SPINS) {
            pause_core();
        } else {
            sched_yield();
        }
    }
}

static void *worker_main(void *argument)
{
    const worker *self = argument;
    eg_pool *pool = self->pool;
    unsigned long seen = 0;
    for (;;) {
        pthread_mutex_lock(&pool->mutex);
        while (pool->call == seen && !pool->stop) {
            pthread_cond_wait(&pool->wake, &pool->mutex);
        }
        const int stop = pool->stop;
        seen = pool->call;
        pthread_mutex_unlock(&pool->mutex);
        if (stop) {
            return NULL;
        }
        pool->body(pool->argument, self->index);
        eg_pool_sync(pool);
    }
}

eg_pool *eg_pool_create(size_t threads)
{
    eg_pool *pool = calloc(1, sizeof *pool);
    worker *workers = calloc(threads, sizeof *workers);
    if (pool == NULL || workers == NULL || pthread_mutex_init(&pool->mutex, NULL) != 0) {
        free(workers);
        free(pool);
        return NULL;
    }
    if (pthread_cond_init(&pool->wake, NULL) != 0) {
        pthread_mutex_destroy(&pool->mutex);
        free(workers);
        free(pool);
        return NULL;
    }
    pool->threads = threads;
    pool->workers = workers;
    for (size_t i = 0; i + 1 < threads; i++) {
        workers[i] = (worker){.pool = pool, .index = i + 1};
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0) {
            eg_pool_free(pool);
            return NULL;
        }
        pool->started++;
    }
    return pool;
}

void eg_pool_free(eg_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->stop = 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (size_t i = 0; i < pool->started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool);
}

size_t eg_pool_threads(const eg_pool *pool)
{
    return pool->threads;
}

void eg_pool_run(eg_pool *pool, void (*body)(void *argument, size_t worker), void *argument)
{
    pthread_mutex_lock(&pool->mutex);
    pool->body = body;
    pool->argument = argument;
    pool->call++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    body(argument, 0);
    eg_pool_sync(pool);
}
