/* Binds the tensors of a file to a model by walking over them in their order, which rule 3 of export/FORMAT.md states:
 * each must have the name that is due, and the type and shape that the config asks for. A reader that looked tensors up
 * by their names would let two names stand for one tensor.
 *
 * Every tensor is then aligned as the data is, up to 64 bytes, since the sizes before it are multiples of that. */
#include "model/model.h"

#include "common/error.h"
#include "isa/kernels.h"

#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 64, SHAPE_BYTES = 96 }; /* of a text: a dimension has up to 20 digits, and there are up to 4 */

/* After the first error, `status` is not EG_OK and everything that is taken is NULL. */
typedef struct walk {
    const eg_tensor *next, *end;
    char layer[24]; /* what names begin with: "layers.12.", or nothing */
    eg_status status;
} walk;

/* The tensor that is due, if it is the one of this name, which is not taken yet; else NULL. */
static const eg_tensor *peek(const walk *w, const char *name, const char *kind)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s%s%s", w->layer, name, kind);
    return w->status == EG_OK && w->next < w->end && strcmp(w->next->name, full) == 0 ? w->next : NULL;
}

/* Such as "F32 (768, 64)". */
static const char *type_and_shape(eg_dtype dtype, uint32_t rank, const uint64_t shape[], char text[SHAPE_BYTES])
{
    int length = snprintf(text, SHAPE_BYTES, "%s (", eg_dtype_name(dtype));
    for (uint32_t i = 0; i < rank; i++) {
        length += snprintf(text + length, SHAPE_BYTES - (size_t)length, i > 0 ? ", %llu" : "%llu",
                           (unsigned long long)shape[i]);
    }
    snprintf(text + length, SHAPE_BYTES - (size_t)length, ")");
    return text;
}

/* Takes the tensor of this name, type and shape, which must be due: returns its data. */
static const void *take(walk *w, const char *name, const char *kind, eg_dtype dtype, uint32_t rank,
                        const size_t shape[])
{
    const eg_tensor *tensor = peek(w, name, kind);
    if (w->status != EG_OK) {
        return NULL;
    }
    if (tensor == NULL) {
        w->status = eg_fail(EG_ERROR_MODEL,
                            "tensor %s%s%s is missing or out of order: %.60s is in its place; convert the checkpoint "
                            "again",
                            w->layer, name, kind, w->next < w->end ? w->next->name : "nothing");
        return NULL;
    }
    uint64_t expected[EG_MAX_RANK];
    int same = tensor->dtype == dtype && tensor->rank == rank;
    for (uint32_t i = 0; i < rank; i++) {
        expected[i] = shape[i];
        same = same && tensor->shape[i] == expected[i];
    }
    if (!same) {
        char found[SHAPE_BYTES], due[SHAPE_BYTES];
        w->status = eg_fail(EG_ERROR_MODEL, "tensor %s is %s; expected %s; convert the checkpoint again", tensor->name,
                            type_and_shape(tensor->dtype, tensor->rank, tensor->shape, found),
                            type_and_shape(dtype, rank, expected, due));
        return NULL;
    }
    w->next++;
    return tensor->data;
}

/* Checks a norm or scale, the last one that was taken, by its largest magnitude, as bits: NaN is above infinity. */
static void check_largest(walk *w, int32_t largest, int32_t infinity)
{
    const char *wrong = largest >= infinity ? "holds a value that is not finite" : largest == 0 ? "is all zeros" : NULL;
    if (w->status == EG_OK && wrong != NULL) {
        w->status = eg_fail(EG_ERROR_MODEL, "tensor %s %s; convert the checkpoint again", w->next[-1].name, wrong);
    }
}

/* A norm, or the scale of a matrix. They take 0.8 MB, and those of the table 0.5 MB; weights stay on disk until they
 * are used. */
static const float *take_vector(walk *w, const char *name, const char *kind, size_t length)
{
    const float *vector = take(w, name, kind, EG_F32, 1, (const size_t[]){length});
    int32_t largest = 0;
    for (size_t i = 0; vector != NULL && i < length; i++) {
        int32_t bits;
        memcpy(&bits, &vector[i], sizeof bits);
        bits &= INT32_MAX;
        largest = bits > largest ? bits : largest;
    }
    check_largest(w, largest, 0x7F800000);
    return vector;
}

/* The scales of the embedding table, float16. */
static const uint16_t *take_row_scales(walk *w, size_t vocab)
{
    const uint16_t *scale = take(w, "embedding", ".scale", EG_F16, 1, (const size_t[]){vocab});
    int16_t largest = 0; /* signed, so that compilers find the instruction for a maximum */
    for (size_t i = 0; scale != NULL && i < vocab; i++) {
        const int16_t bits = (int16_t)(scale[i] & INT16_MAX);
        largest = bits > largest ? bits : largest;
    }
    check_largest(w, largest, 0x7C00);
    return scale;
}

/* The type of the weights that are due, which tells their format; F32 if they are missing, which `take` then reports.
 */
static eg_dtype peek_format(walk *w, const char *name)
{
    const eg_tensor *weight = peek(w, name, ".weight");
    if (weight != NULL && weight->dtype == EG_F16) {
        w->status = eg_fail(EG_ERROR_MODEL, "tensor %s is F16: expected F32, I8 (int8) or U8 (int4)", weight->name);
    }
    return weight != NULL ? weight->dtype : EG_F32;
}

static eg_matrix take_matrix(walk *w, const char *name, size_t out_features, size_t in_features)
{
    const size_t panels = out_features / EG_PANEL;
    eg_matrix m = {.dtype = peek_format(w, name), .out_features = out_features, .in_features = in_features};
    if (m.dtype == EG_F32) {
        m.panels = take(w, name, ".weight", EG_F32, 3, (const size_t[]){panels, in_features, EG_PANEL});
        return m;
    }
    const size_t groups = in_features / EG_K_GROUP / (m.dtype == EG_U8 ? 2 : 1);
    m.panels = take(w, name, ".weight", m.dtype, 4, (const size_t[]){panels, groups, EG_PANEL, EG_K_GROUP});
    if (m.dtype == EG_U8) {
        const size_t bytes = in_features / EG_CODEBOOK_BYTE_INPUTS;
        m.codebooks = take(w, name, ".codebook", EG_U8, 3, (const size_t[]){panels, bytes, EG_PANEL});
    }
    m.scale = take_vector(w, name, ".scale", out_features);
    return m;
}

/* Checks that rows of so many bytes fill a table, but for zeros at its end. */
static void check_table_bytes(walk *w, const eg_embedding *e, uint64_t used)
{
    const uint64_t needed = (used + EG_ALIGNMENT - 1) / EG_ALIGNMENT * EG_ALIGNMENT;
    if (needed != e->bytes) {
        w->status = eg_fail(EG_ERROR_MODEL,
                            "the embedding table has %zu bytes; its rows need %llu; convert the checkpoint again",
                            e->bytes, (unsigned long long)needed);
        return;
    }
    size_t end = (size_t)used;
    while (end < e->bytes && ((const uint8_t *)e->rows)[end] == 0) {
        end++;
    }
    if (end < e->bytes) {
        w->status = eg_fail(EG_ERROR_MODEL,
                            "byte %zu of the embedding table, behind its rows, is not 0; convert the checkpoint again",
                            end);
    }
}

/* The places of the rows of a table, and their codes. They are copied, so that what is checked here stays so, whatever
 * becomes of the file. */
static void take_row_groups(walk *w, size_t vocab, size_t hidden, const eg_allocator *allocator, eg_embedding *e)
{
    const uint8_t *rates = take(w, "embedding", ".rate", EG_U8, 1, (const size_t[]){vocab});
    const uint8_t *lengths = take(w, "embedding", ".code_length", EG_U8, 2, (const size_t[]){EG_RATES, EG_ROW_LEVELS});
    if (rates == NULL || lengths == NULL) {
        return;
    }
    e->groups = eg_allocate_unset(allocator, vocab / EG_ROW_GROUP, sizeof *e->groups);
    e->codes = eg_allocate_unset(allocator, EG_RATES, sizeof *e->codes);
    if (e->groups == NULL || e->codes == NULL) {
        w->status = eg_fail(EG_ERROR_MEMORY, "no memory for the places of %zu rows", vocab);
        return;
    }
    uint32_t sum = 0;
    uint8_t has_code[EG_RATES + 1] = {0};
    for (size_t first = 0; first < vocab; first += EG_ROW_GROUP) {
        eg_row_group *group = &e->groups[first / EG_ROW_GROUP];
        memcpy(group->rates, rates + first, EG_ROW_GROUP);
        group->rates_before = sum;
        for (size_t i = 0; i < EG_ROW_GROUP; i++) {
            const uint8_t rate = group->rates[i];
            if (rate < EG_RATE_BITS || rate > EG_RATES) {
                w->status = eg_fail(
                    EG_ERROR_MODEL,
                    "a row of the embedding table has rate %d: expected %d … %d; convert the checkpoint "
                    "again",
                    rate, EG_RATE_BITS, EG_RATES);
                return;
            }
            if (!has_code[rate] && !eg_row_code_create(lengths + (rate - 1) * EG_ROW_LEVELS, &e->codes[rate - 1])) {
                w->status = eg_fail(EG_ERROR_MODEL,
                                    "the words of rate %d of the embedding table are not a prefix code of up to %d "
                                    "bits that uses up all patterns; convert the checkpoint again",
                                    rate, EG_WORD_BITS);
                return;
            }
            has_code[rate] = 1;
            sum += rate;
        }
    }
    check_table_bytes(w, e, (uint64_t)hidden / (8 * EG_RATE_BITS) * sum);
}

static eg_embedding take_embedding(walk *w, size_t vocab, size_t hidden, const eg_allocator *allocator)
{
    eg_embedding e = {.dtype = peek_format(w, "embedding")};
    if (e.dtype == EG_U8) {
        const eg_tensor *weight = peek(w, "embedding", ".weight");
        e.bytes = eg_tensor_bytes(weight);
        e.rows = take(w, "embedding", ".weight", EG_U8, 1, (const size_t[]){e.bytes});
        take_row_groups(w, vocab, hidden, allocator, &e);
    } else {
        e.rows = take(w, "embedding", ".weight", e.dtype, 2, (const size_t[]){vocab, hidden});
        e.bytes = vocab * hidden * (e.dtype == EG_F32 ? sizeof(float) : 1);
    }
    if (e.dtype != EG_F32) {
        e.scale = take_row_scales(w, vocab);
    }
    return e;
}

static void take_layer(walk *w, const eg_config *config, uint32_t index, eg_layer *layer)
{
    const size_t hidden = config->hidden, ffn = config->ffn, head_dim = config->head_dim;
    const size_t q_width = config->heads * head_dim, kv_width = config->kv_heads * head_dim;
    snprintf(w->layer, sizeof w->layer, "layers.%u.", index);
    layer->full_attention = config->full_attention[index];
    layer->input_norm = take_vector(w, "input_norm", "", hidden);
    layer->qkv = take_matrix(w, "qkv", q_width + 2 * kv_width, hidden);
    layer->q_norm = take_vector(w, "q_norm", "", head_dim);
    layer->k_norm = take_vector(w, "k_norm", "", head_dim);
    layer->o = take_matrix(w, "o", hidden, q_width);
    layer->post_attention_norm = take_vector(w, "post_attention_norm", "", hidden);
    layer->pre_ffn_norm = take_vector(w, "pre_ffn_norm", "", hidden);
    layer->gate_up = take_matrix(w, "gate_up", 2 * ffn, hidden);
    layer->down = take_matrix(w, "down", hidden, ffn);
    layer->post_ffn_norm = take_vector(w, "post_ffn_norm", "", hidden);
    w->layer[0] = '\0';
}

/* NULL if the file has no such tensor, which it may lack. */
static const eg_tensor *take_bytes(walk *w, const char *name)
{
    const eg_tensor *bytes = peek(w, name, "");
    const size_t size = bytes != NULL ? eg_tensor_bytes(bytes) : 0;
    if (bytes != NULL && size == 0) {
        w->status = eg_fail(EG_ERROR_MODEL, "tensor %s is empty; convert the checkpoint again", name);
    }
    return bytes != NULL && take(w, name, "", EG_U8, 1, (const size_t[]){size}) != NULL ? bytes : NULL;
}

eg_status eg_model_bind(const eg_config *config, const eg_safetensors *file, const eg_allocator *allocator,
                        eg_model **out, const eg_tensor **tokenizer_table)
{
    eg_model *model = eg_allocate(allocator, 1, sizeof *model);
    eg_layer *layers = eg_allocate(allocator, config->layers, sizeof *layers);
    walk w = {file->tensors, file->tensors + file->tensor_count, "", EG_OK};
    if (model == NULL || layers == NULL) {
        w.status = eg_fail(EG_ERROR_MEMORY, "no memory for %u layers", config->layers);
    } else {
        *model = (eg_model){.allocator = *allocator, .config = *config, .layers = layers};
        model->embedding = take_embedding(&w, config->vocab, config->hidden, allocator);
        for (uint32_t i = 0; i < config->layers; i++) {
            take_layer(&w, config, i, &layers[i]);
        }
        model->final_norm = take_vector(&w, "final_norm", "", config->hidden);
        model->head = take_matrix(&w, "head", config->hidden, config->hidden);
        *tokenizer_table = take_bytes(&w, "tokenizer.table");
        (void)take_bytes(&w, "tokenizer.model");
        if (w.status == EG_OK && w.next < w.end) {
            w.status = eg_fail(EG_ERROR_MODEL,
                               "the config has no place for the tensor %.60s; convert the checkpoint again",
                               w.next->name);
        }
    }
    if (w.status != EG_OK) {
        if (model != NULL) {
            eg_release(allocator, model->embedding.groups);
            eg_release(allocator, model->embedding.codes);
        }
        eg_release(allocator, layers);
        eg_release(allocator, model);
        return w.status;
    }
    *out = model;
    return EG_OK;
}
