/* Attention. Keys and values are stored in panels, so that both products are ordinary matmuls. */
#include "engine/attention.h"

#include <string.h>

/* int16 where the instruction set has it, but float32 for a float32 model, which is meant to be exact. */
static const eg_attention_ops *operations(const eg_context *context, const eg_layer *layer)
{
    const eg_isa *isa = context->isa;
    const int exact = layer->qkv.dtype == EG_F32;
    return isa->attention != NULL && !exact ? isa->attention : &isa->vector->attention;
}

/* ---- where things are stored ----------------------------------------------------------------------------------- */

static size_t group_of(const eg_config *config) { return config->heads / config->kv_heads; }

/* Queries of the heads that share one key head, from token `row` on: (tokens, group, head_dim) float32 in size, of
 * which the elements fill the beginning of each row. */
static float *queries_of(const eg_context *context, size_t kv_head, size_t row)
{
    const eg_config *config = &context->model->config;
    const size_t first = kv_head * context->scratch.extent.tokens + row;
    return context->scratch.queries + first * group_of(config) * config->head_dim;
}

/* A key head's keys, from slot `slot` on, a multiple of 16: panels of 16 slots, (slots / 16, head_dim, 16). */
static char *keys_of(const eg_context *context, const eg_layer *layer, size_t kv_head, size_t slot)
{
    const size_t first = kv_head * context->scratch.extent.slots + slot;
    const size_t element = operations(context, layer)->element_bytes;
    return (char *)context->scratch.keys + first * context->model->config.head_dim * element;
}

/* A key head's values, from slot `slot` on, an even number: panels of 16 dimensions, (head_dim / 16, slots, 16). */
static char *values_of(const eg_context *context, const eg_layer *layer, size_t kv_head, size_t slot)
{
    const size_t first = kv_head * context->scratch.extent.slots * context->model->config.head_dim + slot * EG_PANEL;
    return (char *)context->scratch.values + first * operations(context, layer)->element_bytes;
}

/* The scales of queries, keys and values, from a token's first query or from a slot on. */
static float *query_scales_of(const eg_context *context, size_t kv_head, size_t row)
{
    return context->scratch.query_scales +
           (kv_head * context->scratch.extent.tokens + row) * group_of(&context->model->config);
}

static float *key_scales_of(const eg_context *context, size_t kv_head, size_t slot)
{
    return context->scratch.key_scales + kv_head * context->scratch.extent.slots + slot;
}

static float *value_scales_of(const eg_context *context, size_t kv_head, size_t slot)
{
    return context->scratch.value_scales + kv_head * context->scratch.extent.slots + slot;
}

/* ---- from the projection to where they are stored -------------------------------------------------------------- */

void eg_place_heads(const eg_context *context, const eg_worker_scratch *mine, const eg_layer *layer, const float *qkv,
                    size_t row, const eg_text *text)
{
    const eg_config *config = &context->model->config;
    const eg_vector_ops *vector = context->isa->vector;
    const eg_attention_ops *ops = operations(context, layer);
    const eg_rope *rope = layer->full_attention ? &context->rope_full : &context->rope_sliding;
    const size_t head_dim = config->head_dim, group = group_of(config), slots = context->scratch.extent.slots;
    const size_t position = row - text->begin, slot = text->slot + position, panel = slot / EG_PANEL * EG_PANEL;
    const float *cosine = rope->cosine + position * (head_dim / 2), *sine = rope->sine + position * (head_dim / 2);
    const float eps = (float)config->rms_norm_eps;

    for (size_t kv_head = 0; kv_head < config->kv_heads; kv_head++) {
        float *queries = queries_of(context, kv_head, row), *scales = query_scales_of(context, kv_head, row);
        for (size_t i = 0; i < group; i++) {
            const float *query = qkv + (kv_head * group + i) * head_dim;
            vector->norm_rope(query, layer->q_norm, cosine, sine, head_dim, eps, queries + i * head_dim);
            scales[i] = ops->store_query(queries + i * head_dim, head_dim);
        }
        const float *key = qkv + (config->heads + kv_head) * head_dim;
        vector->norm_rope(key, layer->k_norm, cosine, sine, head_dim, eps, mine->attended);
        *key_scales_of(context, kv_head, slot) = ops->store_key(mine->attended, head_dim,
                                                                keys_of(context, layer, kv_head, panel), slot - panel);

        const float *value = qkv + (config->heads + config->kv_heads + kv_head) * head_dim;
        char *values = values_of(context, layer, kv_head, 0);
        float *value_scales = value_scales_of(context, kv_head, 0);
        value_scales[slot] = ops->store_value(value, head_dim, values, slots, slot);
        if (row + 1 == text->end) { /* slots before the next text are multiplied by 0: no NaN allowed */
            memset(mine->attended, 0, head_dim * sizeof(float));
            for (size_t unused = slot + 1; unused % EG_KEY_GRAIN != 0; unused++) {
                value_scales[unused] = ops->store_value(mine->attended, head_dim, values, slots, unused);
            }
        }
    }
}

/* ---- softmax(Q · Kᵀ) · V ------------------------------------------------------------------------------------ */

/* The tokens of a text, counted from its first, that its token `position` attends to. */
static eg_range reach(const eg_context *context, const eg_layer *layer, size_t text_tokens, size_t position)
{
    const size_t window = context->model->config.window;
    if (layer->full_attention) {
        return (eg_range){0, text_tokens};
    }
    const size_t end = position + window + 1;
    return (eg_range){position > window ? position - window : 0, end < text_tokens ? end : text_tokens};
}

void eg_attend(const eg_context *context, const eg_worker_scratch *mine, const eg_layer *layer, const eg_text *text,
               eg_range rows, float *out)
{
    const eg_config *config = &context->model->config;
    const eg_vector_ops *vector = context->isa->vector;
    const eg_attention_ops *ops = operations(context, layer);
    const size_t head_dim = config->head_dim, group = group_of(config);
    const size_t text_tokens = text->end - text->begin, begin = rows.begin - text->begin, end = rows.end - text->begin;
    const size_t queries = (end - begin) * group;
    const size_t per_float = sizeof(float) / ops->element_bytes; /* elements in the space of a float32 */

    /* Only keys that one of the tokens reaches are read. A token's sums may include keys that only its neighbours
     * reach; those add exact zeros, so its bits do not depend on its neighbours. */
    const size_t from = reach(context, layer, text_tokens, begin).begin / EG_KEY_GRAIN * EG_KEY_GRAIN;
    const size_t last = reach(context, layer, text_tokens, end - 1).end;
    const size_t keys = (last - from + EG_KEY_GRAIN - 1) / EG_KEY_GRAIN * EG_KEY_GRAIN;

    for (size_t kv_head = 0; kv_head < config->kv_heads; kv_head++) {
        float *scores = mine->scores; /* (queries, keys) float32 */
        ops->product(queries_of(context, kv_head, rows.begin), head_dim * per_float, queries, head_dim,
                     keys_of(context, layer, kv_head, text->slot + from), head_dim, keys / EG_PANEL, scores, keys);

        const float *query_scales = query_scales_of(context, kv_head, rows.begin);
        const float *key_scales = key_scales_of(context, kv_head, text->slot + from);
        const float *value_scales = value_scales_of(context, kv_head, text->slot + from);
        for (size_t i = 0; i < queries; i++) {
            const eg_range own_reach = reach(context, layer, text_tokens, begin + i / group);
            float *row = scores + i * keys;
            ops->scale_scores(row, keys, query_scales[i], key_scales);
            const float sum = vector->softmax_numerators(row, own_reach.begin - from, own_reach.end - from, keys);
            mine->scales[i] = ops->store_weights(row, keys, sum, value_scales);
        }

        ops->product(scores, keys * per_float, queries, keys, values_of(context, layer, kv_head, text->slot + from),
                     context->scratch.extent.slots, head_dim / EG_PANEL, mine->attended, head_dim);
        for (size_t i = 0; i < queries; i++) {
            const size_t token = i / group, head = kv_head * group + i % group;
            vector->scale(mine->attended + i * head_dim, mine->scales[i], head_dim,
                          out + (token * config->heads + head) * head_dim);
        }
    }
}
