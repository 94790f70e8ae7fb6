/* How the threads of a call divide the work of the forward pass; encoder.c says when they do it in which way. */
#ifndef EG_DIVISION_H
#define EG_DIVISION_H

#include "engine/encoder.h"

/* One thread in a call. */
typedef struct worker {
    eg_thread *thread;
    eg_call *call;
    eg_context *context;
    const eg_model *model;
    const eg_vector_ops *ops;
    const eg_worker_scratch *mine;   /* of this thread */
    const eg_worker_scratch *shared; /* of all that work on the chunk: its inputs, projected and branch */
    int shares_steps;                /* short input: all threads work on one chunk */
    eg_range chunk;                  /* rows of the batch */
} worker;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

enum { TASKS_PER_THREAD = 3 }; /* of a shared step: enough for a late thread to have its share done by others */

/* Sets *part to the next of `tasks` nearly equal parts of 0 … count - 1 that is this thread's; 0 if there is none left.
 * *part begins as {0, 0}. If the threads do not share the work, the only part is all of it. */
static int next_part(const worker *w, int shared, size_t tasks, size_t count, eg_range *part)
{
    if (!shared) {
        const int is_first = part->end == 0;
        *part = (eg_range){0, count};
        return is_first;
    }
    const size_t task = eg_next_task(w->thread, tasks);
    *part = (eg_range){count * task / tasks, count * (task + 1) / tasks};
    return task < tasks;
}

/* The same for a step on `count` rows or tiles. */
static int next_of_step(const worker *w, size_t count, eg_range *part)
{
    const size_t tasks = smaller(count, TASKS_PER_THREAD * eg_pool_threads(w->context->pool));
    return next_part(w, w->shares_steps, tasks, count, part);
}

/* Steps that a chunk goes through, without the other chunks. */
typedef void chunk_steps(const worker *w, const eg_layer *layer);
static void each_chunk(worker *w, const eg_layer *layer, chunk_steps *steps)
{
    const size_t tokens = w->call->tokens, threads = eg_pool_threads(w->context->pool);
    const size_t round = threads * w->context->isa->matmul->chunk_rows; /* as many chunks for each thread */
    const size_t chunks = smaller((tokens + round - 1) / round * threads, tokens);
    w->chunk = (eg_range){0, 0};
    while (next_part(w, !w->shares_steps, chunks, tokens, &w->chunk)) {
        steps(w, layer);
    }
}

/* A step on some rows of the chunk, counted from its first. */
typedef void row_step(const worker *w, const eg_layer *layer, eg_range rows);
/* Does the step on all rows of the chunk, `grain` or more at a time. What took its time was `operation`. */
static void each_row(const worker *w, const eg_layer *layer, size_t grain, row_step *step, eg_operation operation)
{
    const size_t rows = w->chunk.end - w->chunk.begin;
    for (eg_range part = {0, 0}; next_of_step(w, (rows + grain - 1) / grain, &part);) {
        step(w, layer, (eg_range){part.begin * grain, smaller(part.end * grain, rows)});
    }
    eg_lap(&w->thread->watch, operation);
}

/* out = inputs · Wᵀ for the chunk; function: eg_matmul, or eg_matmul_geglu. */
static void multiply(const worker *w, eg_matmul_function *function, const eg_matrix *matrix, float *out,
                     eg_operation operation)
{
    const size_t rows = w->chunk.end - w->chunk.begin;
    for (eg_range tiles = {0, 0}; next_of_step(w, matrix->out_features / EG_TILE_CHANNELS, &tiles);) {
        function(w->context->isa, matrix, &w->shared->inputs, rows, tiles, out);
    }
    eg_lap(&w->thread->watch, operation);
}

#endif
