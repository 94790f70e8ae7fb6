/* A pool of threads that run one function together, and meet at barriers inside it. */
#ifndef EG_THREADS_H
#define EG_THREADS_H

#include <stddef.h>

typedef struct eg_pool eg_pool;

/* Starts threads - 1 workers; the caller of eg_pool_run is the last one. NULL if a thread or memory was refused. */
eg_pool *eg_pool_create(size_t threads);
void eg_pool_free(eg_pool *pool);
size_t eg_pool_threads(const eg_pool *pool);

/* Calls body(argument, worker) for every worker 0 … threads - 1 at once and returns when all are done. The caller is
 * worker 0. Between calls the workers sleep. Not reentrant. */
void eg_pool_run(eg_pool *pool, void (*body)(void *argument, size_t worker), void *argument);

/* Inside body: returns once every worker has called it. What they wrote before is visible after. */
void eg_pool_sync(eg_pool *pool);

#endif
