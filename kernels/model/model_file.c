/* Opens a model file: mapped, every offset, shape and type checked, nothing copied but the header. See
 * export/FORMAT.md; twin of model_file.py. */
#define _POSIX_C_SOURCE 200809L
#include "model/model_file.h"

#include "common/crc32.h"
#include "common/error.h"
#include "model/model.h"
#include "model/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_PROMPTS = 256,
    VOCAB_GRAIN = 64, /* so many rows are whole 64-byte lines, whatever their format */
    NAME_BYTES = 64,
    PATH_SHOWN = 200, /* bytes of a path in a message */
};

/* ---- metadata ------------------------------------------------------------------------------------------------- */

static eg_status check_checksum(const eg_safetensors *file)
{
    uint32_t crc = 0;
    for (size_t i = 0; i < file->metadata_count; i++) {
        const eg_string key = file->metadata[i].key, value = file->metadata[i].value;
        if (!eg_string_is(key, "metadata_crc32")) {
            crc = eg_crc32(crc, key.text, key.bytes);
            crc = eg_crc32(crc, "=", 1);
            crc = eg_crc32(crc, value.text, value.bytes);
            crc = eg_crc32(crc, "\n", 1);
        }
    }
    char expected[9];
    snprintf(expected, sizeof expected, "%08x", (unsigned)crc);
    const eg_string stated = eg_metadata(file, "metadata_crc32");
#if defined(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION) /* a fuzzer must get past it to the checks behind */
    (void)stated;
#else
    if (!eg_string_is(stated, expected)) {
        return eg_fail(EG_ERROR_MODEL, "the metadata's checksum is %s, not %.20s: the file is corrupt", expected,
                       stated.text);
    }
#endif
    return EG_OK;
}

static eg_status check_metadata(const eg_safetensors *file)
{
    static const char *const keys[] = {
        "scheme", "config", "prompts", "default_prompt_name", "similarity_fn_name", "producer", "metadata_crc32"};
    const eg_string format = eg_metadata(file, "format"), version = eg_metadata(file, "format_version");
    if (format.text == NULL || !eg_string_is(format, "embgemma")) {
        return eg_fail(EG_ERROR_MODEL,
                       "this is not an embgemma model file; make one of a checkpoint with `embgemma convert`");
    }
    if (version.text == NULL || !eg_string_is(version, EG_FORMAT_VERSION)) {
        return eg_fail(EG_ERROR_MODEL,
                       "the file has format version %.20s, this release reads " EG_FORMAT_VERSION
                       "; update embgemma or convert the checkpoint again",
                       version.text != NULL ? version.text : "none");
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (eg_metadata(file, keys[i]).text == NULL) {
            return eg_fail(EG_ERROR_MODEL, "the metadata lacks %s; convert the checkpoint again", keys[i]);
        }
    }
    const eg_status status = check_checksum(file);
    const eg_string scheme = eg_metadata(file, "scheme");
    if (status == EG_OK && !eg_string_is(scheme, "float32") && !eg_string_is(scheme, "int8") &&
        !eg_string_is(scheme, "balanced") && !eg_string_is(scheme, "mixed") && !eg_string_is(scheme, "int4")) {
        return eg_fail(EG_ERROR_MODEL, "the scheme is %.20s; this release reads float32, int8, balanced, mixed, int4",
                       scheme.text);
    }
    return status;
}

/* ---- config --------------------------------------------------------------------------------------------------- */

typedef struct file_config {
    eg_config encoder; /* full_attention points to full_attention below, once all is read */
    uint32_t bos_id, eos_id;
    uint8_t full_attention[EG_MAX_LAYERS];
    size_t last_full_attention; /* the highest layer in the list */
} file_config;

typedef struct config_field {
    const char *name;
    size_t offset;                             /* in a file_config */
    enum { INTEGER, NUMBER, LAYER_LIST } kind; /* uint32_t, double, full_attention */
} config_field;

#define ENCODER_FIELD(name, kind) {#name, offsetof(file_config, encoder.name), kind}
static const config_field config_fields[] = {
    ENCODER_FIELD(layers, INTEGER),
    ENCODER_FIELD(hidden, INTEGER),
    ENCODER_FIELD(ffn, INTEGER),
    ENCODER_FIELD(heads, INTEGER),
    ENCODER_FIELD(kv_heads, INTEGER),
    ENCODER_FIELD(head_dim, INTEGER),
    ENCODER_FIELD(vocab, INTEGER),
    ENCODER_FIELD(max_tokens, INTEGER),
    ENCODER_FIELD(window, INTEGER),
    {"full_attention_layers", 0, LAYER_LIST},
    ENCODER_FIELD(rope_theta_sliding, NUMBER),
    ENCODER_FIELD(rope_theta_full, NUMBER),
    ENCODER_FIELD(rms_norm_eps, NUMBER),
    {"bos_id", offsetof(file_config, bos_id), INTEGER},
    {"eos_id", offsetof(file_config, eos_id), INTEGER},
};
enum { CONFIG_FIELDS = sizeof config_fields / sizeof config_fields[0] };

static void read_full_attention(eg_json *json, file_config *config)
{
    for (int more = eg_json_open(json, '['); more; more = eg_json_more(json, '[')) {
        const uint64_t layer = eg_json_integer(json);
        if (layer >= EG_MAX_LAYERS) {
            eg_json_fail(json, "full_attention_layers has a layer that cannot be");
            return;
        }
        config->full_attention[layer] = 1;
        config->last_full_attention = layer > config->last_full_attention ? (size_t)layer : config->last_full_attention;
    }
}

static void read_field(eg_json *json, const config_field *field, file_config *config)
{
    char *place = (char *)config + field->offset;
    if (field->kind == LAYER_LIST) {
        read_full_attention(json, config);
    } else if (field->kind == NUMBER) {
        const double number = eg_json_number(json);
        memcpy(place, &number, sizeof number);
    } else {
        const uint64_t integer = eg_json_integer(json);
        if (integer > UINT32_MAX) {
            eg_json_fail(json, "an integer is too large");
        }
        const uint32_t value = (uint32_t)integer;
        memcpy(place, &value, sizeof value);
    }
}

static eg_status read_config(eg_string text, file_config *config)
{
    *config = (file_config){.bos_id = 0};
    int seen[CONFIG_FIELDS] = {0};
    eg_json json = eg_json_read(text);
    for (int more = eg_json_open(&json, '{'); more; more = eg_json_more(&json, '{')) {
        const eg_string key = eg_json_key(&json);
        size_t i = 0;
        while (i < CONFIG_FIELDS && !eg_string_is(key, config_fields[i].name)) {
            i++;
        }
        if (i == CONFIG_FIELDS || seen[i]) {
            eg_json_fail(&json, "there is a field that no config has, or one twice");
            break;
        }
        seen[i] = 1;
        read_field(&json, &config_fields[i], config);
    }
    eg_json_finish(&json);
    if (json.problem != NULL) {
        return eg_fail(EG_ERROR_MODEL, "the config is damaged: %s; convert the checkpoint again", json.problem);
    }
    for (size_t i = 0; i < CONFIG_FIELDS; i++) {
        if (!seen[i]) {
            return eg_fail(EG_ERROR_MODEL, "the config lacks %s; convert the checkpoint again", config_fields[i].name);
        }
    }
    const eg_config *encoder = &config->encoder; /* eg_model_create checks the rest */
    if (encoder->vocab % VOCAB_GRAIN != 0 || encoder->max_tokens < 2) {
        return eg_fail(EG_ERROR_MODEL,
                       "config fields vocab and max_tokens are %u and %u: expected a multiple of %d, "
                       "and room for <bos> and <eos>",
                       encoder->vocab, encoder->max_tokens, VOCAB_GRAIN);
    }
    if (config->bos_id >= encoder->vocab || config->eos_id >= encoder->vocab) {
        return eg_fail(EG_ERROR_MODEL, "bos_id %u and eos_id %u: expected below %u, the vocab", config->bos_id,
                       config->eos_id, encoder->vocab);
    }
    if (config->last_full_attention >= encoder->layers) {
        return eg_fail(EG_ERROR_MODEL, "full_attention_layers has layer %zu: expected below %u, the layers",
                       config->last_full_attention, encoder->layers);
    }
    return EG_OK;
}

/* ---- tensors: names and order; eg_model_create checks types, shapes and alignment ------------------------------- */

typedef struct order {
    const eg_safetensors *file;
    const char *layer; /* what the next names begin with */
    size_t next;
    char missing[NAME_BYTES]; /* the first that did not come in its turn; "" if all did */
} order;

/* The next tensor, if it has this name; else NULL. */
static const eg_tensor *come(order *o, const char *name, const char *kind, int must)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s%s%s", o->layer, name, kind);
    if (o->missing[0] != '\0') {
        return NULL;
    }
    if (o->next < o->file->tensor_count && strcmp(o->file->tensors[o->next].name, full) == 0) {
        return &o->file->tensors[o->next++];
    }
    if (must) {
        memcpy(o->missing, full, sizeof full);
    }
    return NULL;
}

static void vector_comes(order *o, const char *name) { (void)come(o, name, "", 1); }

static void matrix_comes(order *o, const char *name)
{
    const eg_tensor *weight = come(o, name, ".weight", 1);
    if (weight != NULL && weight->dtype == EG_U8) {
        (void)come(o, name, ".codebook", 1);
    }
    if (weight != NULL && weight->dtype != EG_F32) {
        (void)come(o, name, ".scale", 1);
    }
}

/* Rule 3 of FORMAT.md. A reader that goes by names alone would let two names stand for one tensor. */
static eg_status check_order(const eg_safetensors *file, const eg_config *config, const eg_tensor **table)
{
    order o = {.file = file, .layer = ""};
    const eg_tensor *rows = come(&o, "embedding", ".weight", 1);
    if (rows != NULL && rows->dtype != EG_F32) {
        (void)come(&o, "embedding", ".scale", 1);
    }
    for (uint32_t i = 0; i < config->layers && o.missing[0] == '\0'; i++) {
        char layer[24]; /* "layers.4294967295." */
        snprintf(layer, sizeof layer, "layers.%u.", i);
        o.layer = layer;
        vector_comes(&o, "input_norm");
        matrix_comes(&o, "qkv");
        vector_comes(&o, "q_norm");
        vector_comes(&o, "k_norm");
        matrix_comes(&o, "o");
        vector_comes(&o, "post_attention_norm");
        vector_comes(&o, "pre_ffn_norm");
        matrix_comes(&o, "gate_up");
        matrix_comes(&o, "down");
        vector_comes(&o, "post_ffn_norm");
    }
    o.layer = "";
    vector_comes(&o, "final_norm");
    matrix_comes(&o, "head");
    if (o.missing[0] != '\0') {
        return eg_fail(EG_ERROR_MODEL, "tensor %s is missing or out of order; convert the checkpoint again", o.missing);
    }
    *table = come(&o, "tokenizer.table", "", 0);
    const eg_tensor *tokenizers[] = {*table, come(&o, "tokenizer.model", "", 0)};
    for (int i = 0; i < 2; i++) {
        const eg_tensor *bytes = tokenizers[i];
        if (bytes != NULL && (bytes->dtype != EG_U8 || bytes->rank != 1 || bytes->shape[0] == 0)) {
            return eg_fail(EG_ERROR_MODEL, "tensor %s is not a row of bytes; convert the checkpoint again",
                           bytes->name);
        }
    }
    if (o.next < file->tensor_count) {
        return eg_fail(EG_ERROR_MODEL, "the config has no place for the tensor %.60s; convert the checkpoint again",
                       file->tensors[o.next].name);
    }
    return EG_OK;
}

static eg_status open_tokenizer(const eg_tensor *table, const file_config *config, const eg_allocator *allocator,
                                eg_tokenizer **tokenizer)
{
    if (table == NULL) {
        return EG_OK;
    }
    const eg_status status = eg_tokenizer_create(table->data, eg_tensor_bytes(table), config->bos_id, config->eos_id,
                                                 allocator, tokenizer);
    if (status == EG_OK && eg_tokenizer_vocab(*tokenizer) > config->encoder.vocab) {
        return eg_fail(EG_ERROR_MODEL,
                       "the tokenizer has %u pieces and the embedding table %u rows, so they do not belong together; "
                       "convert the checkpoint again",
                       eg_tokenizer_vocab(*tokenizer), config->encoder.vocab);
    }
    return status;
}

/* Norms and the matrices' scales (0.8 MB); weights and embedding scales stay on disk until used. */
static eg_status check_finite(const eg_safetensors *file)
{
    for (size_t i = 0; i < file->tensor_count; i++) {
        const eg_tensor *tensor = &file->tensors[i];
        if (tensor->dtype != EG_F32 || tensor->rank != 1) {
            continue;
        }
        const float *values = tensor->data;
        for (uint64_t j = 0; j < tensor->shape[0]; j++) {
            if (!isfinite(values[j])) {
                return eg_fail(EG_ERROR_MODEL,
                               "tensor %s holds a value that is not finite; convert the checkpoint again",
                               tensor->name);
            }
        }
    }
    return EG_OK;
}

/* ---- prompts -------------------------------------------------------------------------------------------------- */

const eg_prompt *eg_find_prompt(const eg_model_file *file, const char *name)
{
    for (size_t i = 0; i < file->prompt_count; i++) {
        if (eg_string_is(file->prompts[i].name, name)) {
            return &file->prompts[i];
        }
    }
    return NULL;
}

static eg_status read_prompts(const eg_safetensors *file, const eg_allocator *allocator, eg_model_file *parts)
{
    const eg_string text = eg_metadata(file, "prompts"), default_name = eg_metadata(file, "default_prompt_name");
    size_t most = 0; /* a prompt has at least one colon */
    for (size_t i = 0; i < text.bytes; i++) {
        most += text.text[i] == ':';
    }
    most = most < MAX_PROMPTS ? most : MAX_PROMPTS;
    parts->prompts = eg_allocate_unset(allocator, most, sizeof *parts->prompts);
    if (parts->prompts == NULL) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for %zu prompts", most);
    }
    eg_json json = eg_json_read(text);
    for (int more = eg_json_open(&json, '{'); more; more = eg_json_more(&json, '{')) {
        const eg_string name = eg_json_key(&json);
        const eg_string prompt = eg_json_string(&json);
        if (strlen(name.text) < name.bytes || strlen(prompt.text) < prompt.bytes) {
            eg_json_fail(&json, "a prompt has a zero in it");
        } else if (json.problem == NULL && (parts->prompt_count == most || eg_find_prompt(parts, name.text) != NULL)) {
            eg_json_fail(&json, "a prompt is there twice, or there are too many");
        }
        if (json.problem != NULL) {
            break;
        }
        parts->prompts[parts->prompt_count++] = (eg_prompt){name, prompt};
    }
    eg_json_finish(&json);
    if (json.problem != NULL) {
        return eg_fail(EG_ERROR_MODEL, "the prompts are damaged: %s; the file is corrupt", json.problem);
    }
    json = eg_json_read(default_name);
    if (!eg_json_null(&json)) {
        parts->default_prompt = eg_find_prompt(parts, eg_json_string(&json).text);
        if (parts->default_prompt == NULL) {
            eg_json_fail(&json, "it is none of the prompts");
        }
    }
    eg_json_finish(&json);
    if (json.problem != NULL) {
        return eg_fail(EG_ERROR_MODEL, "the default_prompt_name is damaged: %s; the file is corrupt", json.problem);
    }
    return EG_OK;
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

/* The model of a file whose entries are in order. What it keeps of the file goes to its `file`. */
static eg_status bind_file(eg_safetensors *file, const eg_allocator *allocator, eg_model **out)
{
    file_config config;
    eg_model_file parts = {.mapping = NULL};
    const eg_tensor *table = NULL;
    eg_model *model = NULL;
    eg_status status = check_metadata(file);
    status = status == EG_OK ? read_config(eg_metadata(file, "config"), &config) : status;
    status = status == EG_OK ? check_order(file, &config.encoder, &table) : status;
    if (status == EG_OK) {
        config.encoder.full_attention = config.full_attention;
        status = eg_model_bind(&config.encoder, file->tensors, file->tensor_count, allocator, &model);
    }
    status = status == EG_OK ? check_finite(file) : status;
    status = status == EG_OK ? read_prompts(file, allocator, &parts) : status;
    status = status == EG_OK ? open_tokenizer(table, &config, allocator, &parts.tokenizer) : status;
    if (status != EG_OK) {
        eg_model_file_close(&parts, allocator);
        eg_model_free(model);
        return status;
    }
    parts.header = file->header;
    file->header = NULL;
    model->file = parts;
    *out = model;
    return EG_OK;
}

static eg_status open_bytes(const void *data, size_t bytes, const eg_allocator *allocator, eg_model **out)
{
    eg_safetensors file;
    eg_status status = eg_safetensors_read(data, bytes, allocator, &file);
    if (status == EG_OK) {
        status = bind_file(&file, allocator, out);
        eg_safetensors_free(&file, allocator);
    }
    return status;
}

eg_status eg_model_open_memory(const void *data, size_t bytes, const eg_allocator *given, eg_model **out)
{
    if (data == NULL || out == NULL || (uintptr_t)data % EG_ALIGNMENT != 0) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_model_open_memory needs %d-byte aligned data and a place for the model",
                       EG_ALIGNMENT);
    }
    *out = NULL;
    const eg_allocator allocator = eg_allocator_or_default(given);
    return open_bytes(data, bytes, &allocator, out);
}

static eg_status map_file(const char *path, eg_model_file *file)
{
    const int descriptor = open(path,
                                O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait for the other end of a pipe */
    if (descriptor < 0) {
        return eg_fail(EG_ERROR_MODEL, "cannot open the file: %s", strerror(errno));
    }
    struct stat about;
    eg_status status = EG_OK;
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode)) {
        status = eg_fail(EG_ERROR_MODEL, "this is not a file; make one of a checkpoint with `embgemma convert`");
    } else if (about.st_size == 0 || (uintmax_t)about.st_size > SIZE_MAX) {
        status = eg_fail(EG_ERROR_MODEL, "the file is empty, or too large for this machine's addresses");
    } else {
        void *mapping = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
        if (mapping != MAP_FAILED) {
            *file = (eg_model_file){mapping, (size_t)about.st_size, .descriptor = descriptor};
            return EG_OK;
        }
        status = eg_fail(EG_ERROR_SYSTEM, "cannot map the file: %s", strerror(errno));
    }
    close(descriptor);
    return status;
}

static void unmap_file(const eg_model_file *file)
{
    if (file->mapping != NULL) {
        munmap(file->mapping, file->mapping_bytes);
        close(file->descriptor);
    }
}

/* Puts the file's name before the message. */
static eg_status fail_naming(eg_status status, const char *path)
{
    char message[EG_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", eg_error_message());
    const size_t length = strlen(path);
    return eg_fail(status, "%s: %s", path + (length > PATH_SHOWN ? length - PATH_SHOWN : 0), message);
}

eg_status eg_model_open(const char *path, eg_model **out)
{
    if (path == NULL || out == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_model_open needs a path and a place for the model");
    }
    *out = NULL;
    eg_model_file file = {.mapping = NULL};
    eg_status status = map_file(path, &file);
    if (status == EG_OK) {
        const eg_allocator allocator = eg_allocator_or_default(NULL);
        status = open_bytes(file.mapping, file.mapping_bytes, &allocator, out);
        if (status == EG_OK) {
            (*out)->file.mapping = file.mapping;
            (*out)->file.mapping_bytes = file.mapping_bytes;
            (*out)->file.descriptor = file.descriptor;
        } else {
            unmap_file(&file);
        }
    }
    return status == EG_OK ? EG_OK : fail_naming(status, path);
}

void eg_model_file_close(eg_model_file *file, const eg_allocator *allocator)
{
    eg_tokenizer_free(file->tokenizer);
    eg_release(allocator, file->prompts);
    eg_release(allocator, file->header);
    unmap_file(file);
}

/* ---- rows of the embedding table ------------------------------------------------------------------------------- */

int eg_reads_rows(const eg_model *model) { return model->file.mapping != NULL; }

size_t eg_row_bytes(const eg_model *model)
{
    const size_t hidden = model->config.hidden;
    const eg_dtype dtype = model->embedding.dtype;
    if (dtype == EG_U8) {
        return hidden / 2 + model->embedding.codebook_bytes;
    }
    return dtype == EG_F32 ? hidden * sizeof(float) : hidden;
}

/* Reads item `index` of an array in the mapping through the descriptor. */
static int read_item(const eg_model_file *file, const void *array, size_t index, size_t bytes, void *to)
{
    off_t at = (off_t)((size_t)((const char *)array - (const char *)file->mapping) + index * bytes);
    char *next = to;
    while (bytes > 0) {
        const ssize_t got = pread(file->descriptor, next, bytes, at);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return 0;
        }
        if (got > 0) {
            next += got;
            at += got;
            bytes -= (size_t)got;
        }
    }
    return 1;
}

int eg_read_rows(const eg_model *model, const int32_t *ids, size_t tokens, void *rows, uint16_t *scale)
{
    const eg_embedding *table = &model->embedding;
    const size_t row_bytes = eg_row_bytes(model), groups = table->scale != NULL ? table->groups : 0;
    for (size_t i = 0; i < tokens; i++) {
        const size_t id = (size_t)ids[i];
        if (!read_item(&model->file, table->rows, id, row_bytes, (char *)rows + i * row_bytes) ||
            (groups > 0 && !read_item(&model->file, table->scale, id, groups * sizeof *scale, scale + i * groups))) {
            return 0;
        }
    }
    return 1;
}

/* ---- what it tells --------------------------------------------------------------------------------------------- */

const eg_tokenizer *eg_model_tokenizer(const eg_model *model) { return model->file.tokenizer; }

size_t eg_model_prompt_count(const eg_model *model) { return model->file.prompt_count; }

const char *eg_model_prompt_name(const eg_model *model, size_t index)
{
    return index < model->file.prompt_count ? model->file.prompts[index].name.text : NULL;
}

const char *eg_model_prompt(const eg_model *model, const char *prompt_name)
{
    const eg_prompt *prompt = eg_find_prompt(&model->file, prompt_name);
    return prompt != NULL ? prompt->text.text : NULL;
}
