/* Binds tensors to a model, after checking name, type, shape and alignment of each against the config. */
#include "model/model.h"

#include "common/error.h"
#include "isa/kernels.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    GRAIN = 64,           /* every width is a multiple: see DIMENSION_GRAIN in config.py */
    ALIGNMENT = 64,       /* bytes: a cache line, a vector register */
    EMBEDDING_GRAIN = 32, /* a scale of the embedding table covers a multiple of this many elements */
    MAX_WIDTH = 1 << 16,  /* the bounds of config.py: what no model comes near */
    MAX_VOCAB = 1 << 22,
    MAX_TOKENS = 1 << 17,
    NAME_BYTES = 64,
};

typedef struct tensors {
    const eg_tensor *list;
    size_t count;
} tensors;

static const eg_tensor *find(tensors all, const char *name)
{
    for (size_t i = 0; i < all.count; i++) {
        if (strcmp(all.list[i].name, name) == 0) {
            return &all.list[i];
        }
    }
    return NULL;
}

/* The tensor `name`, if it has this type and shape; else sets the error and returns NULL. */
static const void *expect(tensors all, const char *name, eg_dtype dtype, uint32_t rank, const size_t shape[])
{
    const eg_tensor *tensor = find(all, name);
    if (tensor == NULL) {
        eg_fail(EG_ERROR_MODEL, "tensor %s is missing; convert the checkpoint again", name);
        return NULL;
    }
    int same = tensor->dtype == dtype && tensor->rank == rank;
    for (uint32_t i = 0; same && i < rank; i++) {
        same = tensor->shape[i] == shape[i];
    }
    if (!same) {
        eg_fail(EG_ERROR_MODEL,
                "tensor %s has another type or shape than the config says; convert the checkpoint again", name);
        return NULL;
    }
    if (tensor->data == NULL || (uintptr_t)tensor->data % ALIGNMENT != 0) {
        eg_fail(EG_ERROR_MODEL, "tensor %s is not aligned to %d bytes", name, ALIGNMENT);
        return NULL;
    }
    return tensor->data;
}

static const float *bind_vector(tensors all, const char *name, size_t length)
{
    return expect(all, name, EG_F32, 1, (const size_t[]){length});
}

/* `name`.weight and, unless it is float32, `name`.scale, and of int4 `name`.codebook. Returns 1 if they are as they
 * should be. */
static int bind_matrix(tensors all, const char *name, size_t out_features, size_t in_features, eg_matrix *matrix)
{
    char weight[NAME_BYTES], codebook[NAME_BYTES], scale[NAME_BYTES];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(codebook, sizeof codebook, "%s.codebook", name);
    snprintf(scale, sizeof scale, "%s.scale", name);
    const eg_tensor *tensor = find(all, weight);
    const eg_dtype dtype = tensor != NULL ? tensor->dtype : EG_F32;
    *matrix = (eg_matrix){.dtype = dtype, .out_features = out_features, .in_features = in_features};

    const size_t panels = out_features / EG_PANEL;
    if (dtype == EG_F32) {
        matrix->panels = expect(all, weight, EG_F32, 3, (const size_t[]){panels, in_features, EG_PANEL});
        return matrix->panels != NULL;
    }
    if (dtype != EG_I8 && dtype != EG_U8) {
        eg_fail(EG_ERROR_MODEL, "tensor %s is of no known format: expected F32, I8 (int8) or U8 (int4)", weight);
        return 0;
    }
    const size_t groups = in_features / EG_K_GROUP / (dtype == EG_U8 ? 2 : 1);
    matrix->panels = expect(all, weight, dtype, 4, (const size_t[]){panels, groups, EG_PANEL, EG_K_GROUP});
    if (dtype == EG_U8) {
        const size_t bytes = in_features / EG_CODEBOOK_BYTE_INPUTS;
        matrix->codebooks = expect(all, codebook, EG_U8, 3, (const size_t[]){panels, bytes, EG_PANEL});
    }
    matrix->scale = bind_vector(all, scale, out_features);
    return matrix->panels != NULL && (dtype != EG_U8 || matrix->codebooks != NULL) && matrix->scale != NULL;
}

static int bind_embedding(tensors all, size_t vocab, size_t hidden, eg_embedding *embedding)
{
    const eg_tensor *tensor = find(all, "embedding.weight");
    const eg_dtype dtype = tensor != NULL ? tensor->dtype : EG_F32;
    size_t row = dtype == EG_U8 ? hidden / 2 : hidden;
    *embedding = (eg_embedding){.dtype = dtype, .groups = 1};
    if (dtype == EG_U8 && tensor->rank == 2 && tensor->shape[1] != row) { /* codes alone, or codebooks behind them */
        embedding->codebook_bytes = hidden / EG_CODEBOOK_BYTE_INPUTS;
        row += embedding->codebook_bytes;
    }
    if (dtype == EG_F16) {
        eg_fail(EG_ERROR_MODEL, "tensor embedding.weight is F16: expected F32, I8 (int8) or U8 (int4)");
        return 0;
    }
    embedding->rows = expect(all, "embedding.weight", dtype, 2, (const size_t[]){vocab, row});
    if (dtype == EG_F32 || embedding->rows == NULL) {
        return embedding->rows != NULL;
    }
    const eg_tensor *scale = find(all, "embedding.scale");
    embedding->groups = scale != NULL && scale->rank == 2 ? (size_t)scale->shape[1] : 1;
    if (embedding->groups == 0 || hidden % embedding->groups != 0 ||
        hidden / embedding->groups % EMBEDDING_GRAIN != 0) {
        eg_fail(EG_ERROR_MODEL,
                "embedding.scale has %zu scales a row of %zu: each must cover a multiple of %d elements",
                embedding->groups, hidden, EMBEDDING_GRAIN);
        return 0;
    }
    embedding->scale = expect(all, "embedding.scale", EG_F16, 2, (const size_t[]){vocab, embedding->groups});
    return embedding->scale != NULL;
}

static int bind_layer(tensors all, const eg_config *config, uint32_t index, eg_layer *layer)
{
    const size_t hidden = config->hidden, ffn = config->ffn, head_dim = config->head_dim;
    const size_t q_width = config->heads * head_dim, kv_width = config->kv_heads * head_dim;
    char name[NAME_BYTES];
#define NAMED(suffix) (snprintf(name, sizeof name, "layers.%u." suffix, index), name)
    layer->full_attention = config->full_attention[index] != 0;
    return (layer->input_norm = bind_vector(all, NAMED("input_norm"), hidden)) != NULL &&
           bind_matrix(all, NAMED("qkv"), q_width + 2 * kv_width, hidden, &layer->qkv) &&
           (layer->q_norm = bind_vector(all, NAMED("q_norm"), head_dim)) != NULL &&
           (layer->k_norm = bind_vector(all, NAMED("k_norm"), head_dim)) != NULL &&
           bind_matrix(all, NAMED("o"), hidden, q_width, &layer->o) &&
           (layer->post_attention_norm = bind_vector(all, NAMED("post_attention_norm"), hidden)) != NULL &&
           (layer->pre_ffn_norm = bind_vector(all, NAMED("pre_ffn_norm"), hidden)) != NULL &&
           bind_matrix(all, NAMED("gate_up"), 2 * ffn, hidden, &layer->gate_up) &&
           bind_matrix(all, NAMED("down"), hidden, ffn, &layer->down) &&
           (layer->post_ffn_norm = bind_vector(all, NAMED("post_ffn_norm"), hidden)) != NULL;
#undef NAMED
}

static eg_status check_width(const char *name, uint32_t value, uint32_t most, uint32_t grain)
{
    if (value == 0 || value > most || value % grain != 0) {
        return eg_fail(EG_ERROR_MODEL, "config field %s is %u: expected 1 … %u, a multiple of %u", name, value, most,
                       grain);
    }
    return EG_OK;
}

static eg_status check_config(const eg_config *config)
{
    const struct {
        const char *name;
        uint32_t value, most, grain;
    } fields[] = {
        {"layers", config->layers, EG_MAX_LAYERS, 1}, {"hidden", config->hidden, MAX_WIDTH, GRAIN},
        {"ffn", config->ffn, MAX_WIDTH, GRAIN},       {"heads", config->heads, MAX_WIDTH, 1},
        {"kv_heads", config->kv_heads, MAX_WIDTH, 1}, {"head_dim", config->head_dim, MAX_WIDTH, GRAIN},
        {"vocab", config->vocab, MAX_VOCAB, 1},       {"max_tokens", config->max_tokens, MAX_TOKENS, 1},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const eg_status status = check_width(fields[i].name, fields[i].value, fields[i].most, fields[i].grain);
        if (status != EG_OK) {
            return status;
        }
    }
    if (config->heads % config->kv_heads != 0 || (uint64_t)config->heads * config->head_dim > MAX_WIDTH) {
        return eg_fail(EG_ERROR_MODEL,
                       "%u heads over %u key/value heads of %u: expected a multiple, and at most %d columns",
                       config->heads, config->kv_heads, config->head_dim, MAX_WIDTH);
    }
    if (config->window > MAX_TOKENS || config->full_attention == NULL) {
        return eg_fail(EG_ERROR_MODEL, "config field window is %u: expected at most %d, and full_attention set",
                       config->window, MAX_TOKENS);
    }
    if (!(config->rms_norm_eps > 0 && config->rope_theta_sliding > 0 && config->rope_theta_full > 0 &&
          isfinite(config->rms_norm_eps) && isfinite(config->rope_theta_sliding) &&
          isfinite(config->rope_theta_full))) {
        return eg_fail(EG_ERROR_MODEL, "rms_norm_eps and the rope thetas must be positive and finite");
    }
    return EG_OK;
}

eg_status eg_model_bind(const eg_config *config, const eg_tensor *list, size_t tensor_count,
                        const eg_allocator *allocator, eg_model **out)
{
    const eg_status status = check_config(config);
    if (status != EG_OK) {
        return status;
    }
    eg_model *model = eg_allocate(allocator, 1, sizeof *model);
    eg_layer *layers = eg_allocate(allocator, config->layers, sizeof *layers);
    if (model == NULL || layers == NULL) {
        eg_release(allocator, layers);
        eg_release(allocator, model);
        return eg_fail(EG_ERROR_MEMORY, "no memory for %u layers", config->layers);
    }
    model->allocator = *allocator;
    model->config = *config;
    model->config.full_attention = NULL;
    model->layers = layers;

    const tensors all = {list, tensor_count};
    int bound = bind_embedding(all, config->vocab, config->hidden, &model->embedding);
    for (uint32_t i = 0; bound && i < config->layers; i++) {
        bound = bind_layer(all, config, i, &layers[i]);
    }
    bound = bound && (model->final_norm = bind_vector(all, "final_norm", config->hidden)) != NULL &&
            bind_matrix(all, "head", config->hidden, config->hidden, &model->head);
    if (!bound) {
        eg_model_free(model);
        return EG_ERROR_MODEL; /* whoever failed has set the message */
    }
    *out = model;
    return EG_OK;
}

eg_status eg_model_create(const eg_config *config, const eg_tensor *list, size_t tensor_count, eg_model **out)
{
    if (config == NULL || list == NULL || out == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_model_create needs a config, tensors and a place for the model");
    }
    *out = NULL;
    const eg_allocator allocator = eg_allocator_or_default(NULL);
    return eg_model_bind(config, list, tensor_count, &allocator, out);
}

void eg_model_free(eg_model *model)
{
    if (model != NULL) {
        const eg_allocator allocator = model->allocator;
        eg_model_file_close(&model->file, &allocator);
        eg_release(&allocator, model->layers);
        eg_release(&allocator, model);
    }
}

uint32_t eg_model_dim(const eg_model *model) { return model->config.hidden; }

uint32_t eg_model_max_tokens(const eg_model *model) { return model->config.max_tokens; }
