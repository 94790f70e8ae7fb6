/* A context: the instruction set, the threads, and the memory that a call works in. */
#ifndef EG_CONTEXT_H
#define EG_CONTEXT_H

#include "isa/kernels.h"
#include "engine/matmul.h"
#include "model/model.h"
#include "platform/platform.h"
#include "engine/threads.h"

#include <fenv.h>

enum {
    /* Up to EG_MIN_ROWS_PER_THREAD rows a thread and EG_MAX_SHARED_ROWS in all, the threads share one chunk, so that
     * each reads a part of the weights, not all. */
    EG_MIN_ROWS_PER_THREAD = 32,
    EG_MAX_SHARED_ROWS = 128,
    /* Most steps of a call: of each layer when threads share steps, and before and after the layers. */
    EG_LAYER_STEPS = 10,
    EG_OTHER_STEPS = 2,
    /* Tokens in one product of queries and keys: times 3 heads, 48 rows, a multiple of MATMUL_ROWS. */
    EG_ATTENTION_TOKENS = 16,
};

/* A text in a packed batch. Keys and values are stored by slot, not by token: the slots of a text begin at a multiple
 * of EG_KEY_GRAIN, so that the text is computed alike in any batch. */
typedef struct eg_text {
    size_t begin, end; /* tokens */
    size_t slot;       /* of the first token; a multiple of EG_KEY_GRAIN */
} eg_text;

/* What the forward pass needs memory for. */
typedef struct eg_extent {
    size_t tokens; /* of all texts */
    size_t slots;  /* of all texts */
    size_t texts;
    size_t longest; /* tokens of the longest text */
} eg_extent;

/* Memory of one thread; chunk is the instruction set's chunk_rows or, for the first thread, EG_MAX_SHARED_ROWS. */
typedef struct eg_worker_scratch {
    eg_inputs inputs; /* (chunk, widest input of a matrix) */
    float *projected; /* (chunk, widest of qkv_width, ffn and hidden) float32: outputs of qkv, attention and gate_up */
    float *branch;    /* (chunk, hidden) float32: outputs of o and down */
    float *rotated;   /* (widest input of a matrix,) float32: one row, before it is rounded */
    int8_t *levels;   /* (hidden,) of a row of the embedding table */
    float *scores;    /* (EG_ATTENTION_TOKENS · heads per key head, longest in whole key grains) float32 */
    float *scales;    /* (EG_ATTENTION_TOKENS · heads per key head,) float32: of the rows of `attended` */
    float *attended;  /* (EG_ATTENTION_TOKENS · heads per key head, head_dim) float32 */
} eg_worker_scratch;

typedef struct eg_scratch {
    eg_extent extent; /* what fits */
    size_t bytes;
    void *arena;
    eg_text *texts;       /* (texts,) */
    void *rows;           /* (tokens,) rows of the embedding table; like their scales, only if eg_reads_rows() */
    uint16_t *row_scales; /* (tokens,) float16 */
    float *hidden;        /* (tokens, hidden) float32: the residual stream */
    float *queries;       /* (kv_heads, tokens, heads per key head, head_dim): see attention.c */
    float *keys;          /* (kv_heads, slots / 16, head_dim, 16) float32 */
    float *values;        /* (kv_heads, head_dim / 16, slots, 16) float32 */
    float *query_scales;  /* (kv_heads, tokens, heads per key head) float32: see eg_attention_ops, like the next */
    float *key_scales;    /* (kv_heads, slots) float32 */
    float *value_scales;  /* (kv_heads, slots) float32 */
    eg_worker_scratch *workers; /* (threads,) */
} eg_scratch;

/* cos and sin of position · theta^(-2i / head_dim) for positions 0 … positions - 1. */
typedef struct eg_rope {
    size_t positions;
    float *cosine, *sine; /* (positions, head_dim / 2) float32; one allocation, which begins at cosine */
} eg_rope;

struct eg_context {
    eg_allocator allocator; /* a copy: a garbage collector may free the model before the context */
    const eg_model *model;
    const eg_isa *isa;
    eg_pool *pool;
    eg_mutex busy;   /* held by the call in progress */
    double *profile; /* (threads, EG_OPERATIONS) seconds, see eg_context_profile; NULL: calls are not timed */
    eg_scratch scratch;
    eg_rope rope_sliding, rope_full;
};

/* Begins a call: takes the context, and sets the floating-point environment, of which it keeps the caller's. Fails in a
 * child of the process that made the context: threads do not survive a fork. Only eg_context_leave may follow. */
eg_status eg_context_enter(eg_context *context, fenv_t *callers);
void eg_context_leave(eg_context *context, const fenv_t *callers);

/* Makes scratch and rope tables large enough. EG_ERROR_MEMORY leaves the context usable for smaller calls. */
eg_status eg_context_reserve(eg_context *context, eg_extent needed);

#endif
