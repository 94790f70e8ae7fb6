/* The forward pass, in model order (arXiv 2509.20354, 2503.19786).
 *
 * Every thread runs `forward` from beginning to end. How the work is divided depends on how much there is:
 *
 *   long input    threads take chunks of rows (tokens) that fit their caches, and take each through a whole layer
 *                 alone. Threads wait for each other once a layer, where attention needs everyone's keys.
 *   short input   there is one chunk, and reading the weights is the limit: threads share every step, taking rows or
 *                 output channels of a matrix until the step is done.
 *
 * The steps below are the same for both: `first` and `next` loop over the pieces of a step that are this thread's. A
 * row's arithmetic never depends on the division, so neither do its bits. */
#include "context.h"
#include "error.h"

#include <math.h>
#include <string.h>

typedef struct batch {
    const int32_t *ids; /* (tokens,) */
    size_t tokens;
    size_t texts;
    uint32_t dim;
    uint32_t normalize;
    float *out; /* (texts, dim) */
} batch;

/* One call, as all threads see it. */
typedef struct call {
    eg_context *context;
    batch batch;
} call;

/* One thread in a call. */
typedef struct worker {
    eg_thread *thread;
    eg_context *context;
    const eg_model *model;
    const eg_vector_ops *ops;
    const batch *batch;
    size_t threads;
    int shares_steps;                 /* short input: all threads work on one chunk */
    const eg_worker_scratch *own;
    const eg_worker_scratch *rows;    /* inputs, wide and narrow of the chunk: its own, or the first thread's if shared */
} worker;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- the division of work ------------------------------------------------------------------------------ */

enum { PIECES_PER_THREAD = 3 }; /* of a shared step: enough for a late thread to have its share done by others */

/* The pieces of a step over `count` rows or tiles are worked through with
 *     for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) */
static size_t pieces_of(const worker *w, size_t count)
{
    return w->shares_steps ? smaller(count, PIECES_PER_THREAD * w->threads) : 1;
}

static size_t first(const worker *w, size_t pieces)
{
    return w->shares_steps ? eg_take(w->thread, pieces) : 0;
}

static size_t next(const worker *w, size_t piece, size_t pieces)
{
    return w->shares_steps ? eg_take(w->thread, pieces) : piece + 1;
}

/* Piece `piece` of `pieces` nearly equal ones. */
static eg_range part(eg_range all, size_t piece, size_t pieces)
{
    const size_t count = all.end - all.begin;
    return (eg_range){all.begin + count * piece / pieces, all.begin + count * (piece + 1) / pieces};
}

/* Chunks are the pieces where steps are not shared: as many for each thread, of at most EG_CHUNK_ROWS rows. */
static size_t chunks_of(const worker *w)
{
    const size_t round = w->threads * EG_CHUNK_ROWS;
    return w->shares_steps ? 1 : (w->batch->tokens + round - 1) / round * w->threads;
}

static size_t first_chunk(const worker *w, size_t chunks)
{
    return w->shares_steps ? 0 : eg_take(w->thread, chunks);
}

static size_t next_chunk(const worker *w, size_t chunk, size_t chunks)
{
    return w->shares_steps ? chunk + 1 : eg_take(w->thread, chunks);
}

/* ---- rows → the inputs of a matmul --------------------------------------------------------------------- */

/* RMSNorm of some hidden rows of the chunk, quantised if the matrix is. */
static void normed_inputs(const worker *w, const eg_matrix *matrix, const float *multiplier, eg_range chunk,
                          eg_range rows)
{
    const size_t hidden = w->model->config.hidden;
    const float eps = (float)w->model->config.rms_norm_eps;
    const eg_inputs *inputs = &w->rows->inputs;
    for (size_t row = rows.begin; row < rows.end; row++) {
        const float *x = w->context->scratch.hidden + row * hidden;
        const size_t i = row - chunk.begin;
        if (matrix->dtype == EG_F32) {
            w->ops->norm(x, multiplier, hidden, eps, inputs->values + i * hidden);
        } else {
            w->ops->norm_quantize(x, multiplier, hidden, eps, inputs->codes + i * hidden, &inputs->scale[i],
                                  &inputs->sum[i]);
        }
    }
}

/* Some rows of the chunk in `wide`, (chunk, width), quantised if the matrix is. */
static void wide_inputs(const worker *w, const eg_matrix *matrix, eg_range chunk, eg_range rows)
{
    const size_t width = matrix->in_features;
    const eg_inputs *inputs = &w->rows->inputs;
    for (size_t i = rows.begin - chunk.begin; i < rows.end - chunk.begin; i++) {
        const float *x = w->rows->wide + i * width;
        if (matrix->dtype == EG_F32) {
            memcpy(inputs->values + i * width, x, width * sizeof(float));
        } else {
            w->ops->quantize(x, width, inputs->codes + i * width, &inputs->scale[i], &inputs->sum[i]);
        }
    }
}

/* ---- embedding ------------------------------------------------------------------------------------------ */

static void embed(const worker *w, eg_range rows)
{
    const size_t hidden = w->model->config.hidden;
    const eg_embedding *table = &w->model->embedding;
    for (size_t row = rows.begin; row < rows.end; row++) {
        const size_t id = (size_t)w->batch->ids[row];
        const uint16_t *scale = table->scale + id * table->groups;
        float *x = w->context->scratch.hidden + row * hidden;
        if (table->dtype == EG_F32) {
            memcpy(x, (const float *)table->rows + id * hidden, hidden * sizeof(float));
        } else if (table->dtype == EG_I8) {
            w->ops->embed_int8((const int8_t *)table->rows + id * hidden, scale, table->groups, hidden, x);
        } else {
            w->ops->embed_int4((const uint8_t *)table->rows + id * (hidden / 2), scale, table->groups, hidden, x);
        }
    }
}

/* ---- attention ------------------------------------------------------------------------------------------- */

/* One key head's keys of a layer: panels of 16 slots, (slots / 16, head_dim, 16). */
static float *keys_of(const eg_scratch *scratch, size_t layer, size_t kv_head, size_t head_dim)
{
    return scratch->keys[layer % 2] + kv_head * scratch->extent.slots * head_dim;
}

/* One key head's values of a layer: panels of 16 dimensions, (head_dim / 16, slots, 16). */
static float *values_of(const eg_scratch *scratch, size_t layer, size_t kv_head, size_t head_dim)
{
    return scratch->values[layer % 2] + kv_head * scratch->extent.slots * head_dim;
}

/* One key head's queries: the query heads that share it are rows of one matrix, (tokens, group, head_dim). */
static float *queries_of(const worker *w, size_t row, size_t kv_head)
{
    const eg_config *config = &w->model->config;
    const size_t group = config->heads / config->kv_heads;
    return w->context->scratch.queries + (kv_head * w->batch->tokens + row) * group * config->head_dim;
}

/* One token's row of `wide`, (heads + 2 · kv_heads, head_dim): queries and keys are normed and rotated, and all are
 * laid where attention wants them. */
static void place_heads(const worker *w, size_t layer_index, const float *qkv, size_t row, size_t position, size_t slot)
{
    const eg_config *config = &w->model->config;
    const eg_layer *layer = &w->model->layers[layer_index];
    const eg_scratch *scratch = &w->context->scratch;
    const eg_rope *rope = layer->full_attention ? &w->context->rope_full : &w->context->rope_sliding;
    const size_t head_dim = config->head_dim, group = config->heads / config->kv_heads;
    const float *cosine = rope->cosine + position * (head_dim / 2), *sine = rope->sine + position * (head_dim / 2);
    const float eps = (float)config->rms_norm_eps;

    for (size_t kv_head = 0; kv_head < config->kv_heads; kv_head++) {
        float *queries = queries_of(w, row, kv_head);
        for (size_t i = 0; i < group; i++) {
            const float *query = qkv + (kv_head * group + i) * head_dim;
            w->ops->norm_rope(query, layer->q_norm, cosine, sine, head_dim, eps, queries + i * head_dim);
        }
        const float *key = qkv + (config->heads + kv_head) * head_dim;
        float *turned = w->own->attended; /* free until attention */
        w->ops->norm_rope(key, layer->k_norm, cosine, sine, head_dim, eps, turned);
        float *panel = keys_of(scratch, layer_index, kv_head, head_dim) + slot / EG_PANEL * (EG_PANEL * head_dim);
        for (size_t i = 0; i < head_dim; i++) {
            panel[i * EG_PANEL + slot % EG_PANEL] = turned[i];
        }
        const float *value = qkv + (config->heads + config->kv_heads + kv_head) * head_dim;
        float *values = values_of(scratch, layer_index, kv_head, head_dim);
        for (size_t i = 0; i < head_dim; i += EG_PANEL) {
            memcpy(values + i * scratch->extent.slots + slot * EG_PANEL, value + i, EG_PANEL * sizeof(float));
        }
    }
}

/* Queries, keys and values of some rows of the chunk, from `wide` to where attention wants them. */
static void place_rows(const worker *w, size_t layer_index, eg_range chunk, eg_range rows)
{
    const size_t width = w->model->layers[layer_index].qkv.out_features;
    const eg_text *text = w->context->scratch.texts;
    for (size_t row = rows.begin; row < rows.end; row++) {
        while (row >= text->end) {
            text++;
        }
        const size_t position = row - text->begin;
        place_heads(w, layer_index, w->rows->wide + (row - chunk.begin) * width, row, position, text->slot + position);
    }
}

/* The tokens of a text, counted from its first, that token `position` attends to. */
static eg_range attended_keys(const worker *w, size_t layer_index, size_t text_tokens, size_t position)
{
    const size_t window = w->model->config.window;
    if (w->model->layers[layer_index].full_attention) {
        return (eg_range){0, text_tokens};
    }
    return (eg_range){position > window ? position - window : 0, smaller(text_tokens, position + window + 1)};
}

/* softmax(Q · Kᵀ) · V for a few tokens of one text and the query heads of one key head. Only keys within reach of one
 * of the tokens are touched. Sums begin at a key that may differ with the division of rows, but what comes before a
 * token's own reach adds exact zeros. */
static void attend(const worker *w, size_t layer_index, eg_text text, eg_range tokens, size_t kv_head, float *out)
{
    const eg_config *config = &w->model->config;
    const eg_scratch *scratch = &w->context->scratch;
    const size_t head_dim = config->head_dim, group = config->heads / config->kv_heads;
    const size_t text_tokens = text.end - text.begin, rows = (tokens.end - tokens.begin) * group;
    const size_t begin = attended_keys(w, layer_index, text_tokens, tokens.begin).begin;
    const size_t end = attended_keys(w, layer_index, text_tokens, tokens.end - 1).end;
    const size_t from = begin / EG_PANEL * EG_PANEL, to = (end + EG_PANEL - 1) / EG_PANEL * EG_PANEL;
    float *scores = w->own->scores; /* (rows, to - from) */

    const float *keys = keys_of(scratch, layer_index, kv_head, head_dim) + (text.slot + from) * head_dim;
    w->ops->matmul_float(queries_of(w, text.begin + tokens.begin, kv_head), head_dim, rows, head_dim, keys,
                         EG_PANEL * head_dim, (to - from) / EG_PANEL, scores, to - from);

    float *inverse_sums = w->own->inverse_sums;
    for (size_t row = 0; row < rows; row++) {
        const eg_range reach = attended_keys(w, layer_index, text_tokens, tokens.begin + row / group);
        inverse_sums[row] = 1.0f / w->ops->softmax_numerators(scores + row * (to - from), 0, reach.begin - from,
                                                              reach.end - from, to - from);
    }

    const float *values = values_of(scratch, layer_index, kv_head, head_dim) + (text.slot + begin) * EG_PANEL;
    w->ops->matmul_float(scores + (begin - from), to - from, rows, end - begin, values,
                         scratch->extent.slots * EG_PANEL, head_dim / EG_PANEL, w->own->attended, head_dim);
    for (size_t row = 0; row < rows; row++) {
        const size_t token = row / group, head = kv_head * group + row % group;
        w->ops->scale(w->own->attended + row * head_dim, inverse_sums[row], head_dim,
                      out + (token * config->heads + head) * head_dim);
    }
}

/* Attention of some rows of the chunk, into `wide`, (chunk, heads · head_dim). */
static void attention(const worker *w, size_t layer_index, eg_range chunk, eg_range rows)
{
    const eg_config *config = &w->model->config;
    const eg_text *text = w->context->scratch.texts;
    for (size_t row = rows.begin; row < rows.end;) {
        while (row >= text->end) {
            text++;
        }
        const size_t next = smaller(smaller(row + EG_ATTENTION_TOKENS, rows.end), text->end);
        float *out = w->rows->wide + (row - chunk.begin) * config->heads * config->head_dim;
        for (size_t kv_head = 0; kv_head < config->kv_heads; kv_head++) {
            attend(w, layer_index, *text, (eg_range){row - text->begin, next - text->begin}, kv_head, out);
        }
        row = next;
    }
}

/* ---- a layer ---------------------------------------------------------------------------------------------- */

/* hidden += norm(`narrow`), for some rows of the chunk */
static void add_branch(const worker *w, const float *multiplier, eg_range chunk, eg_range rows)
{
    const size_t hidden = w->model->config.hidden;
    const float eps = (float)w->model->config.rms_norm_eps;
    for (size_t row = rows.begin; row < rows.end; row++) {
        w->ops->add_norm(w->context->scratch.hidden + row * hidden, w->rows->narrow + (row - chunk.begin) * hidden,
                         multiplier, hidden, eps);
    }
}

/* out = inputs · Wᵀ for the chunk; out: (chunk, out_features). */
static void multiply(const worker *w, const eg_matrix *matrix, eg_range chunk, float *out)
{
    const eg_range tiles = {0, matrix->out_features / EG_TILE_CHANNELS};
    const size_t pieces = pieces_of(w, tiles.end);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        eg_matmul(w->context->isa, matrix, &w->rows->inputs, chunk.end - chunk.begin, part(tiles, i, pieces), out,
                  matrix->out_features);
    }
}

/* out = gelu(gate) · up of inputs · Wᵀ for the chunk; out: (chunk, out_features / 2). */
static void multiply_geglu(const worker *w, const eg_matrix *matrix, eg_range chunk, float *out)
{
    const eg_range tiles = {0, matrix->out_features / EG_TILE_CHANNELS};
    const size_t pieces = pieces_of(w, tiles.end);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        eg_matmul_geglu(w->context->isa, matrix, &w->rows->inputs, chunk.end - chunk.begin, part(tiles, i, pieces), out,
                        matrix->out_features / 2);
    }
}

/* Norm, queries, keys and values of a layer. */
static void attention_inputs(const worker *w, size_t layer_index, eg_range chunk)
{
    const eg_layer *layer = &w->model->layers[layer_index];
    const size_t pieces = pieces_of(w, chunk.end - chunk.begin);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        normed_inputs(w, &layer->qkv, layer->input_norm, chunk, part(chunk, i, pieces));
    }
    multiply(w, &layer->qkv, chunk, w->rows->wide);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        place_rows(w, layer_index, chunk, part(chunk, i, pieces));
    }
}

/* Attention, its output projection, and the rest of the layer: everything that needs no other row's work. */
static void attention_and_ffn(const worker *w, size_t layer_index, eg_range chunk)
{
    const eg_layer *layer = &w->model->layers[layer_index];
    const size_t pieces = pieces_of(w, chunk.end - chunk.begin);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        attention(w, layer_index, chunk, part(chunk, i, pieces));
        wide_inputs(w, &layer->o, chunk, part(chunk, i, pieces));
    }
    multiply(w, &layer->o, chunk, w->rows->narrow);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        add_branch(w, layer->post_attention_norm, chunk, part(chunk, i, pieces));
        normed_inputs(w, &layer->gate_up, layer->pre_ffn_norm, chunk, part(chunk, i, pieces));
    }
    multiply_geglu(w, &layer->gate_up, chunk, w->rows->wide);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        wide_inputs(w, &layer->down, chunk, part(chunk, i, pieces));
    }
    multiply(w, &layer->down, chunk, w->rows->narrow);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        add_branch(w, layer->post_ffn_norm, chunk, part(chunk, i, pieces));
    }
}

/* ---- the head ----------------------------------------------------------------------------------------------- */

/* Final norm, mean over the text's tokens, head, unit length. A text is one worker's, so its sums have one order. */
static void embedding_of(const worker *w, size_t index)
{
    const eg_model *model = w->model;
    const size_t hidden = model->config.hidden, dim = w->batch->dim;
    const float eps = (float)model->config.rms_norm_eps;
    const eg_text text = w->context->scratch.texts[index];

    float *mean = w->own->wide, *normed = w->own->narrow;
    memset(mean, 0, hidden * sizeof(float));
    for (size_t row = text.begin; row < text.end; row++) {
        w->ops->norm(w->context->scratch.hidden + row * hidden, model->final_norm, hidden, eps, normed);
        w->ops->add(mean, normed, hidden);
    }
    w->ops->scale(mean, 1.0f / (float)(text.end - text.begin), hidden, mean);

    const eg_inputs *inputs = &w->own->inputs;
    if (model->head.dtype == EG_F32) {
        memcpy(inputs->values, mean, hidden * sizeof(float));
    } else {
        w->ops->quantize(mean, hidden, inputs->codes, inputs->scale, inputs->sum);
    }
    float *vector = w->own->narrow;
    const size_t tiles = (dim + EG_TILE_CHANNELS - 1) / EG_TILE_CHANNELS;
    eg_matmul(w->context->isa, &model->head, inputs, 1, (eg_range){0, tiles}, vector, hidden);
    if (w->batch->normalize) {
        memset(vector + dim, 0, (tiles * EG_TILE_CHANNELS - dim) * sizeof(float));
        const float length = sqrtf(w->ops->sum_of_squares(vector, tiles * EG_TILE_CHANNELS));
        w->ops->scale(vector, length > 0.0f ? 1.0f / length : 0.0f, tiles * EG_TILE_CHANNELS, vector);
    }
    memcpy(w->batch->out + index * dim, vector, dim * sizeof(float));
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

static void forward(void *argument, eg_thread *thread)
{
    const call *c = argument;
    const eg_scratch *scratch = &c->context->scratch;
    const size_t threads = eg_pool_threads(c->context->pool);
    const int shares_steps = threads > 1 && c->batch.tokens <= EG_SHARED_ROWS;
    const worker self = {.thread = thread,
                         .context = c->context,
                         .model = c->context->model,
                         .ops = c->context->isa->vector,
                         .batch = &c->batch,
                         .threads = threads,
                         .shares_steps = shares_steps,
                         .own = &scratch->workers[thread->index],
                         .rows = &scratch->workers[shares_steps ? 0 : thread->index]};
    const worker *w = &self;
    const eg_range tokens = {0, c->batch.tokens};
    const size_t layers = w->model->config.layers, chunks = chunks_of(w);

    for (size_t i = first_chunk(w, chunks); i < chunks; i = next_chunk(w, i, chunks)) {
        const eg_range chunk = part(tokens, i, chunks);
        const size_t pieces = pieces_of(w, chunk.end - chunk.begin);
        for (size_t j = first(w, pieces); j < pieces; j = next(w, j, pieces)) {
            embed(w, part(chunk, j, pieces));
        }
        attention_inputs(w, 0, chunk);
    }
    for (size_t layer = 0; layer < layers; layer++) {
        /* All keys and values of the layer are in place. Those of the next go to the other pair of buffers. */
        for (size_t i = first_chunk(w, chunks); i < chunks; i = next_chunk(w, i, chunks)) {
            const eg_range chunk = part(tokens, i, chunks);
            attention_and_ffn(w, layer, chunk);
            if (layer + 1 < layers) {
                attention_inputs(w, layer + 1, chunk);
            }
        }
    }
    for (size_t text; (text = eg_take(thread, c->batch.texts)) < c->batch.texts;) {
        embedding_of(w, text);
    }
}

/* ---- the public call ------------------------------------------------------------------------------------------- */

static eg_status check_texts(const eg_config *config, const int32_t *ids, const uint64_t *offsets, size_t texts)
{
    if (offsets[0] != 0) {
        return eg_fail(EG_ERROR_ARGUMENT, "offsets begin at %llu: expected 0", (unsigned long long)offsets[0]);
    }
    for (size_t text = 0; text < texts; text++) {
        const uint64_t tokens = offsets[text + 1] - offsets[text]; /* wraps to a huge number if they descend */
        if (tokens == 0 || tokens > config->max_tokens) {
            return eg_fail(EG_ERROR_ARGUMENT, "text %zu has %lld tokens: expected 1 … %u", text, (long long)tokens,
                           config->max_tokens);
        }
        for (uint64_t i = offsets[text]; i < offsets[text + 1]; i++) {
            if (ids[i] < 0 || (uint32_t)ids[i] >= config->vocab) {
                return eg_fail(EG_ERROR_ARGUMENT, "token id %d in text %zu is out of range: expected 0 … %u", ids[i],
                               text, config->vocab - 1);
            }
        }
    }
    return EG_OK;
}

static size_t slots_of(size_t tokens)
{
    return (tokens + EG_PANEL - 1) / EG_PANEL * EG_PANEL;
}

/* How many texts from the first on go through the model together: as many as fit the slots of one longest text, so
 * that memory is bounded by max_tokens whatever the batch. */
static eg_extent next_group(const eg_config *config, const uint64_t *offsets, size_t texts)
{
    const size_t most = slots_of(config->max_tokens);
    eg_extent group = {0, 0, 0, 0};
    while (group.texts < texts) {
        const size_t tokens = (size_t)(offsets[group.texts + 1] - offsets[group.texts]);
        if (group.texts > 0 && group.slots + slots_of(tokens) > most) {
            break;
        }
        group.tokens += tokens;
        group.slots += slots_of(tokens);
        group.longest = larger(group.longest, tokens);
        group.texts++;
    }
    return group;
}

static void place_texts(eg_text *placed, const uint64_t *offsets, size_t texts)
{
    size_t slot = 0;
    for (size_t text = 0; text < texts; text++) {
        placed[text] = (eg_text){(size_t)(offsets[text] - offsets[0]), (size_t)(offsets[text + 1] - offsets[0]), slot};
        slot += slots_of(placed[text].end - placed[text].begin);
    }
}

eg_status eg_encode(eg_context *context, const int32_t *ids, const uint64_t *offsets, size_t texts, uint32_t dim,
                    uint32_t normalize, float *out)
{
    if (context == NULL || (texts > 0 && (ids == NULL || offsets == NULL || out == NULL))) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_encode needs a context, ids, offsets and a place for the vectors");
    }
    const eg_config *config = &context->model->config;
    if (dim == 0 || dim > config->hidden) {
        return eg_fail(EG_ERROR_ARGUMENT, "embedding size %u: expected 1 … %u", dim, config->hidden);
    }
    eg_status status = texts > 0 ? check_texts(config, ids, offsets, texts) : EG_OK;
    if (status != EG_OK) {
        return status;
    }
    pthread_mutex_lock(&context->busy);
    for (size_t done = 0; done < texts && status == EG_OK;) {
        const eg_extent group = next_group(config, offsets + done, texts - done);
        status = eg_context_reserve(context, group);
        if (status == EG_OK) {
            place_texts(context->scratch.texts, offsets + done, group.texts);
            call c = {context,
                      {.ids = ids + offsets[done],
                       .tokens = group.tokens,
                       .texts = group.texts,
                       .dim = dim,
                       .normalize = normalize,
                       .out = out + done * dim}};
            eg_pool_run(context->pool, forward, &c);
            done += group.texts;
        }
    }
    pthread_mutex_unlock(&context->busy);
    return status;
}
