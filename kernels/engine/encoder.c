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
#include "engine/attention.h"
#include "common/error.h"

#include <math.h>
#include <stdatomic.h>
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
    atomic_int unreadable; /* 1 if a thread could not read the model file */
} call;

/* One thread in a call. */
typedef struct worker {
    eg_thread *thread;
    eg_context *context;
    const eg_model *model;
    const eg_vector_ops *ops;
    const batch *batch;
    atomic_int *unreadable;
    size_t threads;
    int shares_steps; /* short input: all threads work on one chunk */
    const eg_worker_scratch *own;
    const eg_worker_scratch
        *rows; /* its inputs, wide and narrow are the chunk's: own, or the first thread's if shared */
} worker;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Says what the thread has done since it said so last. */
static void lap(const worker *w, eg_operation operation) { eg_lap(&w->thread->watch, operation); }

/* ---- the division of work ------------------------------------------------------------------------------ */

enum { PIECES_PER_THREAD = 3 }; /* of a shared step: enough for a late thread to have its share done by others */

/* The pieces of a step over `count` rows or tiles are worked through with
 *     for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) */
static size_t pieces_of(const worker *w, size_t count)
{
    return w->shares_steps ? smaller(count, PIECES_PER_THREAD * w->threads) : 1;
}

static size_t first(const worker *w, size_t pieces) { return w->shares_steps ? eg_take(w->thread, pieces) : 0; }

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

/* Chunks are the pieces where steps are not shared: as many for each thread, of at most chunk_rows rows. */
static size_t chunks_of(const worker *w)
{
    const size_t round = w->threads * w->context->isa->matmul->chunk_rows;
    return w->shares_steps ? 1 : (w->batch->tokens + round - 1) / round * w->threads;
}

static size_t first_chunk(const worker *w, size_t chunks) { return w->shares_steps ? 0 : eg_take(w->thread, chunks); }

static size_t next_chunk(const worker *w, size_t chunk, size_t chunks)
{
    return w->shares_steps ? chunk + 1 : eg_take(w->thread, chunks);
}

/* ---- rows → the inputs of a matmul --------------------------------------------------------------------- */

/* RMSNorm of some hidden rows of the chunk, rotated and quantised if the matrix is. */
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
            w->ops->norm_quantize(x, multiplier, hidden, eps, w->own->rotated, inputs->codes + i * hidden,
                                  &inputs->scale[i], &inputs->sum[i]);
        }
    }
}

/* Some rows of the chunk in `wide`, (chunk, width), rotated and quantised if the matrix is. */
static void wide_inputs(const worker *w, const eg_matrix *matrix, eg_range chunk, eg_range rows)
{
    const size_t width = matrix->in_features;
    const eg_inputs *inputs = &w->rows->inputs;
    for (size_t i = rows.begin - chunk.begin; i < rows.end - chunk.begin; i++) {
        const float *x = w->rows->wide + i * width;
        if (matrix->dtype == EG_F32) {
            memcpy(inputs->values + i * width, x, width * sizeof(float));
        } else {
            w->ops->quantize(x, width, w->own->rotated, inputs->codes + i * width, &inputs->scale[i], &inputs->sum[i]);
        }
    }
}

/* ---- embedding ------------------------------------------------------------------------------------------ */

static void embed(const worker *w, eg_range rows)
{
    const size_t hidden = w->model->config.hidden, row_bytes = eg_row_bytes(w->model);
    const eg_embedding *table = &w->model->embedding;
    const eg_scratch *scratch = &w->context->scratch;
    const int was_read = eg_reads_rows(w->model); /* the rows lie in the order of the tokens, else of their ids */
    if (was_read && !eg_read_rows(w->model, w->batch->ids + rows.begin, rows.end - rows.begin,
                                  (char *)scratch->rows + rows.begin * row_bytes,
                                  scratch->row_scales + rows.begin * table->groups)) {
        atomic_store(w->unreadable, 1);
        return;
    }
    for (size_t row = rows.begin; row < rows.end; row++) {
        const size_t place = was_read ? row : (size_t)w->batch->ids[row];
        const void *stored = (const char *)(was_read ? scratch->rows : table->rows) + place * row_bytes;
        float *x = scratch->hidden + row * hidden;
        if (table->dtype == EG_F32) {
            memcpy(x, stored, row_bytes);
            continue;
        }
        const uint16_t *scale = (was_read ? scratch->row_scales : table->scale) + place * table->groups;
        if (table->dtype == EG_I8) {
            w->ops->embed_int8(stored, scale, table->groups, hidden, x);
        } else {
            const uint8_t *codes = stored;
            w->ops->embed_int4(codes, table->codebook_bytes > 0 ? codes + hidden / 2 : NULL, scale, table->groups,
                               hidden, x);
        }
    }
}

/* ---- attention: see attention.c ---------------------------------------------------------------------------- */

/* Queries, keys and values of some rows of the chunk, from `wide`, (chunk, qkv_width), to where attention wants
 * them. */
static void place_rows(const worker *w, size_t layer, eg_range chunk, eg_range rows)
{
    const size_t width = w->model->layers[layer].qkv.out_features;
    const eg_text *text = w->context->scratch.texts;
    for (size_t row = rows.begin; row < rows.end; row++) {
        while (row >= text->end) {
            text++;
        }
        eg_place_heads(w->context, w->own, layer, w->rows->wide + (row - chunk.begin) * width, row, text);
    }
}

/* Attention of some rows of the chunk, into `wide`, (chunk, heads · head_dim). */
static void attend_rows(const worker *w, size_t layer, eg_range chunk, eg_range rows)
{
    const size_t width = w->model->layers[layer].o.in_features;
    const eg_text *text = w->context->scratch.texts;
    for (size_t row = rows.begin; row < rows.end;) {
        while (row >= text->end) {
            text++;
        }
        const size_t end = smaller(smaller(row + EG_ATTENTION_TOKENS, rows.end), text->end);
        eg_attend(w->context, w->own, layer, text, (eg_range){row, end}, w->rows->wide + (row - chunk.begin) * width);
        row = end;
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

/* Token embeddings and the first layer's norm. */
static void embed_and_norm(const worker *w, eg_range chunk)
{
    const eg_layer *layer = w->model->layers;
    const size_t pieces = pieces_of(w, chunk.end - chunk.begin);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        embed(w, part(chunk, i, pieces));
        lap(w, EG_EMBED);
        normed_inputs(w, &layer->qkv, layer->input_norm, chunk, part(chunk, i, pieces));
        lap(w, EG_NORM);
    }
}

/* Queries, keys and values of a layer, whose normed inputs are there. */
static void project_heads(const worker *w, size_t layer_index, eg_range chunk)
{
    const eg_layer *layer = &w->model->layers[layer_index];
    multiply(w, &layer->qkv, chunk, w->rows->wide);
    lap(w, EG_QKV);
    /* A panel of keys is one thread's: its lines hold all 16, and cores that write to the same lines stall. */
    const eg_range panels = {0, (chunk.end - chunk.begin + EG_PANEL - 1) / EG_PANEL};
    const size_t pieces = pieces_of(w, panels.end);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        const eg_range own = part(panels, i, pieces);
        const size_t end = smaller(chunk.begin + own.end * EG_PANEL, chunk.end);
        place_rows(w, layer_index, chunk, (eg_range){chunk.begin + own.begin * EG_PANEL, end});
    }
    lap(w, EG_PLACE_HEADS);
}

/* Attention, its output projection, the rest of the layer, and the norm of the one after it, if there is one. */
static void attention_and_ffn(const worker *w, size_t layer_index, eg_range chunk)
{
    const eg_layer *layer = &w->model->layers[layer_index];
    const eg_layer *after = layer_index + 1 < w->model->config.layers ? layer + 1 : NULL;
    const size_t pieces = pieces_of(w, chunk.end - chunk.begin);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        attend_rows(w, layer_index, chunk, part(chunk, i, pieces));
        lap(w, layer->full_attention ? EG_ATTENTION_FULL : EG_ATTENTION_SLIDING);
        wide_inputs(w, &layer->o, chunk, part(chunk, i, pieces));
        lap(w, EG_QUANTIZE);
    }
    multiply(w, &layer->o, chunk, w->rows->narrow);
    lap(w, EG_O);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        add_branch(w, layer->post_attention_norm, chunk, part(chunk, i, pieces));
        normed_inputs(w, &layer->gate_up, layer->pre_ffn_norm, chunk, part(chunk, i, pieces));
    }
    lap(w, EG_NORM);
    multiply_geglu(w, &layer->gate_up, chunk, w->rows->wide);
    lap(w, EG_GATE_UP);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        wide_inputs(w, &layer->down, chunk, part(chunk, i, pieces));
    }
    lap(w, EG_QUANTIZE);
    multiply(w, &layer->down, chunk, w->rows->narrow);
    lap(w, EG_DOWN);
    for (size_t i = first(w, pieces); i < pieces; i = next(w, i, pieces)) {
        add_branch(w, layer->post_ffn_norm, chunk, part(chunk, i, pieces));
        if (after != NULL) {
            normed_inputs(w, &after->qkv, after->input_norm, chunk, part(chunk, i, pieces));
        }
    }
    lap(w, EG_NORM);
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
        w->ops->quantize(mean, hidden, w->own->rotated, inputs->codes, inputs->scale, inputs->sum);
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
    call *c = argument;
    const eg_scratch *scratch = &c->context->scratch;
    const size_t threads = eg_pool_threads(c->context->pool);
    const int shares_steps = threads > 1 && c->batch.tokens <= smaller(threads * EG_LEAST_ROWS, EG_SHARED_ROWS);
    const worker self = {.thread = thread,
                         .context = c->context,
                         .model = c->context->model,
                         .ops = c->context->isa->vector,
                         .batch = &c->batch,
                         .unreadable = &c->unreadable,
                         .threads = threads,
                         .shares_steps = shares_steps,
                         .own = &scratch->workers[thread->index],
                         .rows = &scratch->workers[shares_steps ? 0 : thread->index]};
    const worker *w = &self;
    double *profile = c->context->profile;
    eg_watch_start(&thread->watch, profile != NULL ? profile + thread->index * EG_OPERATIONS : NULL);
    const eg_range tokens = {0, c->batch.tokens};
    const size_t layers = w->model->config.layers, chunks = chunks_of(w);

    for (size_t i = first_chunk(w, chunks); i < chunks; i = next_chunk(w, i, chunks)) {
        const eg_range chunk = part(tokens, i, chunks);
        embed_and_norm(w, chunk);
        project_heads(w, 0, chunk);
    }
    for (size_t layer = 0; layer < layers; layer++) {
        /* All keys and values of the layer are in place. Those of the next go to the other pair of buffers. */
        for (size_t i = first_chunk(w, chunks); i < chunks; i = next_chunk(w, i, chunks)) {
            const eg_range chunk = part(tokens, i, chunks);
            attention_and_ffn(w, layer, chunk);
            if (layer + 1 < layers) {
                project_heads(w, layer + 1, chunk);
            }
        }
    }
    for (size_t text; (text = eg_take(thread, c->batch.texts)) < c->batch.texts;) {
        embedding_of(w, text);
    }
    lap(w, EG_POOL_AND_HEAD);
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

static size_t slots_of(size_t tokens) { return (tokens + EG_KEY_GRAIN - 1) / EG_KEY_GRAIN * EG_KEY_GRAIN; }

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
                       .out = out + done * dim},
                      0};
            eg_pool_run(context->pool, forward, &c);
            done += group.texts;
            if (atomic_load(&c.unreadable)) {
                status = eg_fail(EG_ERROR_SYSTEM,
                                 "cannot read the model file any more; it must stay as it was when it was opened");
            }
        }
    }
    pthread_mutex_unlock(&context->busy);
    return status;
}
