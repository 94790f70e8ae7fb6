/* Attention: banded or full, bidirectional, with query heads that share keys as rows of one product. */
#ifndef EG_ATTENTION_H
#define EG_ATTENTION_H

#include "engine/context.h"

/* Norms and rotates the queries and the key in one token's row of a layer's fused projection, qkv
 * ((heads + 2 · kv_heads) · head_dim,), and stores queries, key and value for eg_attend.
 * row: the index of the token in the batch. mine: memory of the calling thread. */
void eg_place_heads(const eg_context *context, const eg_worker_scratch *mine, const eg_layer *layer, const float *qkv,
                    size_t row, const eg_text *text);

/* out = softmax(Q · Kᵀ) · V for rows begin … end - 1 of the batch: at most
 * EG_ATTENTION_TOKENS rows of one text. out: (end - begin, heads · head_dim) float32. */
void eg_attend(const eg_context *context, const eg_worker_scratch *mine, const eg_layer *layer, const eg_text *text,
               eg_range rows, float *out);

#endif
