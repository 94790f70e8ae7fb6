/* Creates contexts and sizes their memory, which is reused by each call and grows when a call needs more. */
#include "engine/context.h"

#include "common/error.h"
#include "common/float_environment.h"
#include "embgemma_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 256 };

/* ---- which instruction set --------------------------------------------------------------------------- */

static const eg_isa *choose_isa(const char *name)
{
    if (name == NULL) {
        name = getenv("EMBGEMMA_ISA");
    }
    if (name != NULL && name[0] == '\0') {
        name = NULL;
    }
    char known[256] = "";
    for (size_t i = 0; i < eg_isa_list_count; i++) {
        const eg_isa *isa = &eg_isa_list[i];
        if (name == NULL && isa->supported()) {
            return isa;
        }
        if (name != NULL && strcmp(name, isa->name) == 0) {
            if (isa->supported()) {
                return isa;
            }
            eg_fail(EG_ERROR_UNSUPPORTED,
                    "this CPU or its operating system does not support %s; leave the instruction set open to use the "
                    "best that it does",
                    name);
            return NULL;
        }
        if (strlen(known) + strlen(isa->name) + 2 < sizeof known) {
            strcat(strcat(known, " "), isa->name);
        }
    }
    eg_fail(EG_ERROR_UNSUPPORTED, "unknown instruction set %s; this library has:%s", name != NULL ? name : "", known);
    return NULL;
}

/* ---- memory ------------------------------------------------------------------------------------------- */

/* Places arrays one after another in one block. With memory NULL it only counts bytes, so that one list of arrays
 * serves for sizing and for placing. */
typedef struct carver {
    char *memory;
    size_t bytes;
} carver;

static void *carve(carver *c, size_t count, size_t size)
{
    void *array = c->memory != NULL ? c->memory + c->bytes : NULL;
    c->bytes += (count * size + EG_ALIGNMENT - 1) / EG_ALIGNMENT * EG_ALIGNMENT;
    return array;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static void lay_out(carver *c, eg_scratch *scratch, const eg_context *context, eg_extent extent)
{
    const eg_config *config = &context->model->config;
    const size_t threads = eg_pool_threads(context->pool), chunk_rows = context->isa->matmul->chunk_rows;
    const size_t head_dim = config->head_dim, group = config->heads / config->kv_heads;
    const size_t q_width = config->heads * head_dim, kv_width = config->kv_heads * head_dim;
    const size_t widest_input = larger(larger(config->hidden, config->ffn), q_width);
    const size_t widest_output = larger(larger(config->hidden, config->ffn), q_width + 2 * kv_width);

    scratch->texts = carve(c, extent.texts, sizeof *scratch->texts);
    if (eg_reads_rows(context->model)) {
        scratch->rows = carve(c, extent.tokens, eg_row_room(context->model));
        scratch->row_scales = carve(c, extent.tokens, sizeof *scratch->row_scales);
    }
    scratch->hidden = carve(c, extent.tokens * config->hidden, sizeof(float));
    scratch->queries = carve(c, extent.tokens * q_width, sizeof(float));
    scratch->query_scales = carve(c, extent.tokens * config->heads, sizeof(float));
    scratch->keys = carve(c, extent.slots * kv_width, sizeof(float));
    scratch->values = carve(c, extent.slots * kv_width, sizeof(float));
    scratch->key_scales = carve(c, extent.slots * config->kv_heads, sizeof(float));
    scratch->value_scales = carve(c, extent.slots * config->kv_heads, sizeof(float));
    scratch->workers = carve(c, threads, sizeof *scratch->workers);
    for (size_t i = 0; i < threads; i++) {
        const size_t most_rows = i == 0 ? EG_MAX_SHARED_ROWS : chunk_rows;
        const size_t chunk = extent.tokens < most_rows ? extent.tokens : most_rows;
        eg_worker_scratch worker;
        worker.inputs.values = carve(c, chunk * widest_input, sizeof(float));
        worker.inputs.codes = (int8_t *)worker.inputs.values;
        worker.inputs.scale = carve(c, chunk, sizeof(float));
        worker.inputs.sum = carve(c, chunk, sizeof(int32_t));
        worker.projected = carve(c, chunk * widest_output, sizeof(float));
        worker.branch = carve(c, chunk * config->hidden, sizeof(float));
        worker.rotated = carve(c, widest_input, sizeof(float));
        worker.levels = carve(c, config->hidden, sizeof *worker.levels);
        const size_t rows = EG_ATTENTION_TOKENS * group;
        worker.scores = carve(c, rows * ((extent.longest + EG_KEY_GRAIN - 1) / EG_KEY_GRAIN * EG_KEY_GRAIN),
                              sizeof(float));
        worker.scales = carve(c, rows, sizeof(float));
        worker.attended = carve(c, rows * head_dim, sizeof(float));
        if (c->memory != NULL) {
            scratch->workers[i] = worker;
        }
    }
}

static eg_status reserve_scratch(eg_context *context, eg_extent needed)
{
    eg_scratch *scratch = &context->scratch;
    const eg_extent have = scratch->extent;
    if (needed.tokens <= have.tokens && needed.slots <= have.slots && needed.texts <= have.texts &&
        needed.longest <= have.longest) {
        return EG_OK;
    }
    const eg_extent extent = {larger(needed.tokens, have.tokens), larger(needed.slots, have.slots),
                              larger(needed.texts, have.texts), larger(needed.longest, have.longest)};
    carver c = {NULL, 0};
    eg_scratch grown = {.extent = extent};
    lay_out(&c, &grown, context, extent);

    const eg_allocator *allocator = &context->allocator;
    eg_release(allocator, scratch->arena); /* before the larger one is allocated, so that the two never add up */
    *scratch = (eg_scratch){.arena = NULL};
    char *arena = eg_allocate_unset(allocator, c.bytes, 1);
    if (arena == NULL) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for %zu bytes of scratch (%zu tokens at once)", c.bytes,
                       extent.tokens);
    }
    c = (carver){arena, 0};
    lay_out(&c, &grown, context, extent);
    grown.arena = arena;
    grown.bytes = c.bytes;
    /* Slots between a text's end and the next panel are multiplied, then masked: they must not be NaN. */
    const size_t key_count = extent.slots * context->model->config.kv_heads;
    memset(grown.keys, 0, key_count * context->model->config.head_dim * sizeof(float));
    memset(grown.key_scales, 0, key_count * sizeof(float));
    *scratch = grown;
    return EG_OK;
}

/* The angles are float32 products of float32 numbers, as in the model's training code: at position 2,047 their
 * rounding, up to 1e-4, is part of the model. */
static eg_status reserve_rope(const eg_allocator *allocator, eg_rope *rope, size_t positions, size_t head_dim,
                              double theta)
{
    if (positions <= rope->positions) {
        return EG_OK;
    }
    const size_t half = head_dim / 2;
    float *cosine = eg_allocate_unset(allocator, 2 * positions * half, sizeof(float));
    if (cosine == NULL) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for rotary tables of %zu positions", positions);
    }
    float *sine = cosine + positions * half;
    if (rope->positions > 0) {
        memcpy(cosine, rope->cosine, rope->positions * half * sizeof(float));
        memcpy(sine, rope->sine, rope->positions * half * sizeof(float));
    }
    for (size_t i = 0; i < half; i++) {
        const float frequency = 1.0f / (float)pow(theta, 2.0 * (double)i / (double)head_dim);
        for (size_t position = rope->positions; position < positions; position++) {
            const double angle = (double)((float)position * frequency);
            cosine[position * half + i] = (float)cos(angle);
            sine[position * half + i] = (float)sin(angle);
        }
    }
    eg_release(allocator, rope->cosine);
    *rope = (eg_rope){positions, cosine, sine};
    return EG_OK;
}

eg_status eg_context_reserve(eg_context *context, eg_extent needed)
{
    const eg_config *config = &context->model->config;
    const eg_allocator *allocator = &context->allocator;
    const size_t positions = needed.longest, head_dim = config->head_dim;
    eg_status status = reserve_scratch(context, needed);
    if (status == EG_OK) {
        status = reserve_rope(allocator, &context->rope_sliding, positions, head_dim, config->rope_theta_sliding);
    }
    if (status == EG_OK) {
        status = reserve_rope(allocator, &context->rope_full, positions, head_dim, config->rope_theta_full);
    }
    return status;
}

/* ---- calls ---------------------------------------------------------------------------------------------- */

eg_status eg_context_enter(eg_context *context, fenv_t *callers)
{
    if (eg_pool_is_inherited(context->pool)) {
        return eg_fail(EG_ERROR_ARGUMENT,
                       "the context was made before this process was forked off, and its threads stayed "
                       "with the parent: make another one here with eg_context_create");
    }
    eg_mutex_lock(&context->busy);
    eg_begin_floats(callers);
    return EG_OK;
}

void eg_context_leave(eg_context *context, const fenv_t *callers)
{
    eg_end_floats(callers);
    eg_mutex_unlock(&context->busy);
}

/* ---- create and free ---------------------------------------------------------------------------------- */

eg_status eg_context_create(const eg_model *model, uint32_t threads, const char *isa_name, eg_context **out)
{
    if (model == NULL || out == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_context_create needs a model and a place for the context");
    }
    if (threads > MAX_THREADS) {
        return eg_fail(EG_ERROR_ARGUMENT, "%u threads: expected at most %d", threads, MAX_THREADS);
    }
    *out = NULL;
    const eg_isa *isa = choose_isa(isa_name);
    if (isa == NULL) {
        return EG_ERROR_UNSUPPORTED; /* choose_isa has set the message */
    }
    const size_t cores = eg_cpu_cores();
    const size_t count = threads > 0 ? threads : cores < MAX_THREADS ? cores : MAX_THREADS;
    const eg_allocator *allocator = &model->allocator;
    eg_context *context = eg_allocate(allocator, 1, sizeof *context);
    if (context == NULL || !eg_mutex_create(&context->busy)) {
        eg_release(allocator, context);
        return eg_fail(EG_ERROR_MEMORY, "no memory for a context");
    }
    context->allocator = model->allocator;
    context->model = model;
    context->isa = isa;
    const size_t most_steps = model->config.layers * EG_LAYER_STEPS + EG_OTHER_STEPS;
    const eg_status status = eg_pool_create(count, most_steps, allocator, &context->pool);
    if (status != EG_OK) {
        eg_context_free(context);
        return status;
    }
    *out = context;
    return EG_OK;
}

void eg_context_free(eg_context *context)
{
    if (context == NULL) {
        return;
    }
    if (!eg_pool_is_inherited(context->pool)) { /* else a thread of the parent may hold it */
        eg_mutex_free(&context->busy);
    }
    eg_pool_free(context->pool);
    const eg_allocator kept = context->allocator, *allocator = &kept;
    eg_release(allocator, context->scratch.arena);
    eg_release(allocator, context->rope_sliding.cosine);
    eg_release(allocator, context->rope_full.cosine);
    eg_release(allocator, context);
}

uint32_t eg_context_threads(const eg_context *context) { return (uint32_t)eg_pool_threads(context->pool); }

const char *eg_context_isa(const eg_context *context) { return context->isa->name; }

size_t eg_context_scratch_bytes(const eg_context *context)
{
    const size_t half = context->model->config.head_dim / 2;
    const size_t positions = context->rope_sliding.positions + context->rope_full.positions;
    return context->scratch.bytes + 2 * positions * half * sizeof(float);
}

eg_status eg_context_profile(eg_context *context, double *seconds)
{
    if (context == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_context_profile needs a context");
    }
    fenv_t callers;
    const eg_status status = eg_context_enter(context, &callers);
    if (status == EG_OK) {
        context->profile = seconds;
        eg_context_leave(context, &callers);
    }
    return status;
}

const char *eg_version(void) { return EG_VERSION; }

uint32_t eg_abi_version(void) { return EMBGEMMA_ABI_VERSION; }
