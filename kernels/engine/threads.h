/* A pool of threads that go through the same steps together, each taking tasks of a step until none is left.
 *
 * A step is over when its tasks are done, not when every thread has arrived: a thread that the operating system
 * has suspended delays nobody, and a slow core takes fewer tasks. */
#ifndef EG_THREADS_H
#define EG_THREADS_H

#include "common/memory.h"
#include "engine/profile.h"

#include <stddef.h>

typedef struct eg_pool eg_pool;

/* One thread in a call. */
typedef struct eg_thread {
    eg_pool *pool;
    size_t index; /* 0 … threads - 1; 0 is the caller */
    size_t step;  /* steps it has completed */
    int working;  /* on a task of the current step */
    eg_stopwatch watch;
} eg_thread;

/* Starts threads - 1 threads; the caller of eg_pool_run is the last one. A call may have up to `most_steps` steps.
 * The allocator is copied. */
eg_status eg_pool_create(size_t threads, size_t most_steps, const eg_allocator *allocator, eg_pool **pool);
void eg_pool_free(eg_pool *pool);
size_t eg_pool_threads(const eg_pool *pool);

/* 1 in a child process, forked off after the pool was made: its threads stayed with the parent, so it can only be
 * freed. A pool that is NULL is none. */
int eg_pool_is_inherited(const eg_pool *pool);

/* Calls body(argument, thread) on every thread at once and returns when all are done. Between calls the threads
 * sleep. Not reentrant. */
void eg_pool_run(eg_pool *pool, void (*body)(void *argument, eg_thread *thread), void *argument);

/* The next task, 0 … tasks - 1, of the current step that nobody has taken. When none is left, waits until all are done,
 * so that what others wrote is visible, moves on to the next step, and returns `tasks`:
 *
 *     for (size_t task; (task = eg_next_task(thread, tasks)) < tasks;) { … }
 */
size_t eg_next_task(eg_thread *thread, size_t tasks);

#endif
