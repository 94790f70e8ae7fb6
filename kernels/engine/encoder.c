/* The forward pass, in model order (arXiv 2509.20354, 2503.19786).
 *
 * Every thread runs `eg_forward` from beginning to end. How the work is divided depends on how much there is:
 *
 *   long input    threads take chunks of rows (tokens) that fit their caches, and work on them alone. They wait for
 *                 each other where attention needs everyone's keys.
 *   short input   there is one chunk, and reading the weights is the limit: threads share every step, taking rows or
 *                 output channels of a matrix until the step is done.
 *
 * The steps below are the same for both. A row's arithmetic never depends on the division, so neither do its bits. */
#include "engine/division.h"
#include "engine/attention.h"

#include <float.h>
#include <math.h>
#include <string.h>

static float *hidden_row(const worker *w, size_t row)
{
    return w->context->scratch.hidden + (w->chunk.begin + row) * w->model->config.hidden;
}

/* ---- token embeddings ------------------------------------------------------------------------------------ */

enum { HALF_NAN = 0x7E00 }; /* float16: the scale of a damaged row, so that its text has no vector */

/* hidden = rows of the embedding table */
static void embed(const worker *w, const eg_layer *layer, eg_range rows)
{
    (void)layer;
    const size_t hidden = w->model->config.hidden, room = eg_row_room(w->model);
    const size_t begin = w->chunk.begin + rows.begin, end = w->chunk.begin + rows.end;
    const eg_embedding *table = &w->model->embedding;
    const eg_scratch *scratch = &w->context->scratch;
    const int were_read = eg_reads_rows(w->model); /* then they are in the order of tokens, else of ids */
    if (were_read && !eg_read_rows(w->model, w->call->ids + begin, end - begin, (char *)scratch->rows + begin * room,
                                   scratch->row_scales + begin)) {
        atomic_store(&w->call->unreadable, 1);
        return;
    }
    for (size_t i = begin; i < end; i++) {
        const int32_t id = w->call->ids[i];
        const eg_row row = eg_row_of(w->model, id);
        const void *stored = were_read ? (const char *)scratch->rows + i * room : (const char *)table->rows + row.begin;
        const uint16_t scale = table->scale == NULL ? 0 : were_read ? scratch->row_scales[i] : table->scale[id];
        float *x = scratch->hidden + i * hidden;
        if (table->dtype == EG_F32) {
            memcpy(x, stored, row.bytes);
        } else if (table->dtype == EG_I8) {
            w->ops->embed_int8(stored, scale, hidden, x);
        } else {
            const int is_whole = eg_row_read(row.code, stored, row.bytes, hidden, w->mine->levels);
            w->ops->embed_int8(w->mine->levels, is_whole ? scale : HALF_NAN, hidden, x);
        }
    }
}

/* ---- the inputs of a matrix ------------------------------------------------------------------------------ */

/* inputs = norm(hidden), rotated and quantised if the matrix is. */
static void normed_inputs(const worker *w, const eg_matrix *matrix, const float *multiplier, eg_range rows)
{
    const size_t hidden = w->model->config.hidden;
    const float eps = (float)w->model->config.rms_norm_eps;
    const eg_inputs *inputs = &w->shared->inputs;
    for (size_t i = rows.begin; i < rows.end; i++) {
        if (matrix->dtype == EG_F32) {
            w->ops->norm(hidden_row(w, i), multiplier, hidden, eps, inputs->values + i * hidden);
        } else {
            w->ops->norm_quantize(hidden_row(w, i), multiplier, hidden, eps, w->mine->rotated,
                                  inputs->codes + i * hidden, &inputs->scale[i], &inputs->sum[i]);
        }
    }
}

/* inputs = projected, (chunk, in_features), rotated and quantised if the matrix is. */
static void projected_inputs(const worker *w, const eg_matrix *matrix, eg_range rows)
{
    const size_t width = matrix->in_features;
    const eg_inputs *inputs = &w->shared->inputs;
    for (size_t i = rows.begin; i < rows.end; i++) {
        const float *x = w->shared->projected + i * width;
        if (matrix->dtype == EG_F32) {
            memcpy(inputs->values + i * width, x, width * sizeof(float));
        } else {
            w->ops->quantize(x, width, w->mine->rotated, inputs->codes + i * width, &inputs->scale[i], &inputs->sum[i]);
        }
    }
}

/* ---- a layer: its steps ---------------------------------------------------------------------------------- */

/* inputs of qkv = norm(hidden) */
static void input_norm(const worker *w, const eg_layer *layer, eg_range rows)
{
    normed_inputs(w, &layer->qkv, layer->input_norm, rows);
}

/* Queries, keys and values, from projected, (chunk, qkv_width), to where attention wants them. */
static void place_heads(const worker *w, const eg_layer *layer, eg_range rows)
{
    const eg_text *text = w->context->scratch.texts;
    for (size_t i = rows.begin; i < rows.end; i++) {
        const size_t row = w->chunk.begin + i;
        while (row >= text->end) {
            text++;
        }
        eg_place_heads(w->context, w->mine, layer, w->shared->projected + i * layer->qkv.out_features, row, text);
    }
}

/* inputs of o = softmax(Q · Kᵀ) · V, by way of projected, (chunk, heads · head_dim) */
static void attend(const worker *w, const eg_layer *layer, eg_range rows)
{
    const eg_text *text = w->context->scratch.texts;
    const size_t end = w->chunk.begin + rows.end;
    for (size_t row = w->chunk.begin + rows.begin; row < end;) {
        while (row >= text->end) {
            text++;
        }
        const eg_range some = {row, smaller(smaller(row + EG_ATTENTION_TOKENS, end), text->end)};
        eg_attend(w->context, w->mine, layer, text, some,
                  w->shared->projected + (row - w->chunk.begin) * layer->o.in_features);
        row = some.end;
    }
    eg_lap(&w->thread->watch, layer->full_attention ? EG_ATTENTION_FULL : EG_ATTENTION_SLIDING);
    projected_inputs(w, &layer->o, rows);
}

/* hidden += norm(branch) */
static void add_branch(const worker *w, const float *multiplier, eg_range rows)
{
    const size_t hidden = w->model->config.hidden;
    const float eps = (float)w->model->config.rms_norm_eps;
    for (size_t i = rows.begin; i < rows.end; i++) {
        w->ops->add_norm(hidden_row(w, i), w->shared->branch + i * hidden, multiplier, hidden, eps);
    }
}

/* hidden += norm(o); inputs of gate_up = norm(hidden) */
static void add_attention(const worker *w, const eg_layer *layer, eg_range rows)
{
    add_branch(w, layer->post_attention_norm, rows);
    normed_inputs(w, &layer->gate_up, layer->pre_ffn_norm, rows);
}

/* inputs of down = gelu(gate) · up */
static void quantize_gated(const worker *w, const eg_layer *layer, eg_range rows)
{
    projected_inputs(w, &layer->down, rows);
}

/* hidden += norm(down) */
static void add_ffn(const worker *w, const eg_layer *layer, eg_range rows)
{
    add_branch(w, layer->post_ffn_norm, rows);
}

/* ---- the steps in order ---------------------------------------------------------------------------------- */

static void embed_tokens(const worker *w, const eg_layer *layer) { each_row(w, layer, 1, embed, EG_EMBED); }

/* Queries, keys and values of the chunk. */
static void project_heads(const worker *w, const eg_layer *layer)
{
    each_row(w, layer, 1, input_norm, EG_NORM);
    multiply(w, eg_matmul, &layer->qkv, w->shared->projected, EG_QKV);
    /* A panel of keys is one thread's: its lines hold all 16, and cores that write to the same lines stall. */
    each_row(w, layer, EG_PANEL, place_heads, EG_PLACE_HEADS);
}

/* The rest of the layer, once its keys and values of all chunks are in place. */
static void attention_and_ffn(const worker *w, const eg_layer *layer)
{
    each_row(w, layer, 1, attend, EG_QUANTIZE);
    multiply(w, eg_matmul, &layer->o, w->shared->branch, EG_O);
    each_row(w, layer, 1, add_attention, EG_NORM);
    multiply(w, eg_matmul_geglu, &layer->gate_up, w->shared->projected, EG_GATE_UP);
    each_row(w, layer, 1, quantize_gated, EG_QUANTIZE);
    multiply(w, eg_matmul, &layer->down, w->shared->branch, EG_DOWN);
    each_row(w, layer, 1, add_ffn, EG_NORM);
}

/* ---- the head -------------------------------------------------------------------------------------------- */

/* Least sum of squares of a vector that has a direction. Its elements lose no digits when they are squared. No model
 * comes near; only zeros do. */
#define LEAST_SQUARES 0x1p-100f

/* Writes the vector (dim,) of a text, of unit length if that is asked for; NaN if it has none. `vector` has room for
 * the zeros that fill its last tile. */
static void write_vector(const worker *w, float *vector, size_t padded_dim, size_t index)
{
    const size_t dim = w->call->dim;
    float *out = w->call->out + index * dim;
    memset(vector + dim, 0, (padded_dim - dim) * sizeof(float));
    const float squares = w->ops->sum_of_squares(vector, padded_dim);
    float factor = w->call->normalize ? 1.0f / sqrtf(squares) : 1.0f;
    if (!(squares >= LEAST_SQUARES && squares <= FLT_MAX)) { /* or it is NaN */
        atomic_store(&w->call->without_vector, 1);
        factor = NAN;
    }
    w->ops->scale(vector, factor, padded_dim, vector);
    memcpy(out, vector, dim * sizeof(float));
}

/* Final norm, mean over a text's tokens, head, unit length. One thread does all of a text: its sums have one order. */
static void pool_and_head(const worker *w, size_t index)
{
    const eg_model *model = w->model;
    const size_t hidden = model->config.hidden, dim = w->call->dim;
    const float eps = (float)model->config.rms_norm_eps;
    const eg_text text = w->context->scratch.texts[index];
    float *mean = w->shared->projected, *normed = w->shared->branch; /* this thread's alone */
    memset(mean, 0, hidden * sizeof(float));
    for (size_t row = text.begin; row < text.end; row++) {
        w->ops->norm(w->context->scratch.hidden + row * hidden, model->final_norm, hidden, eps, normed);
        w->ops->add(mean, normed, hidden);
    }
    w->ops->scale(mean, 1.0f / (float)(text.end - text.begin), hidden, mean);

    projected_inputs(w, &model->head, (eg_range){0, 1});
    float *vector = w->shared->branch;
    const size_t tiles = (dim + EG_TILE_CHANNELS - 1) / EG_TILE_CHANNELS; /* Matryoshka: only the first dim rows */
    eg_matmul(w->context->isa, &model->head, &w->shared->inputs, 1, (eg_range){0, tiles}, vector);
    write_vector(w, vector, tiles * EG_TILE_CHANNELS, index);
}

/* The states of the tokens of the chunk: norm(hidden) */
static void final_norm(const worker *w, const eg_layer *layer, eg_range rows)
{
    (void)layer;
    const size_t hidden = w->model->config.hidden;
    const float eps = (float)w->model->config.rms_norm_eps;
    for (size_t i = rows.begin; i < rows.end; i++) {
        float *state = w->call->out + (w->chunk.begin + i) * hidden;
        w->ops->norm(hidden_row(w, i), w->model->final_norm, hidden, eps, state);
        if (!isfinite(w->ops->sum_of_squares(state, hidden))) {
            atomic_store(&w->call->without_vector, 1);
            state[0] = NAN;
        }
    }
}

static void give_states(const worker *w, const eg_layer *layer) { each_row(w, layer, 1, final_norm, EG_NORM); }

/* ---- all of it ------------------------------------------------------------------------------------------- */

void eg_forward(void *argument, eg_thread *thread)
{
    eg_call *call = argument;
    eg_context *context = call->context;
    const eg_model *model = context->model;
    const size_t threads = eg_pool_threads(context->pool);
    const size_t few_rows = smaller(threads * EG_MIN_ROWS_PER_THREAD, EG_MAX_SHARED_ROWS);
    const int shares_steps = threads > 1 && call->tokens <= few_rows;
    worker w = {.thread = thread,
                .call = call,
                .context = context,
                .model = model,
                .ops = context->isa->vector,
                .mine = &context->scratch.workers[thread->index],
                .shared = &context->scratch.workers[shares_steps ? 0 : thread->index],
                .shares_steps = shares_steps};
    eg_watch_start(&thread->watch, context->profile != NULL ? context->profile + thread->index * EG_OPERATIONS : NULL);

    each_chunk(&w, NULL, embed_tokens);
    for (const eg_layer *layer = model->layers; layer < model->layers + model->config.layers; layer++) {
        each_chunk(&w, layer, project_heads);
        each_chunk(&w, layer, attention_and_ffn);
    }
    if (call->dim == 0) {
        each_chunk(&w, NULL, give_states);
        return;
    }
    w.shared = w.mine;
    for (size_t text; (text = eg_next_task(thread, call->texts)) < call->texts;) {
        pool_and_head(&w, text);
    }
    eg_lap(&thread->watch, EG_POOL_AND_HEAD);
}
