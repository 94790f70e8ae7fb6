/* Opens a model file: mapped, every offset, shape and type checked, nothing copied but the header. See
 * export/FORMAT.md; twin of model_file.py. */
#include "model/model.h"

#include "common/crc32.h"
#include "common/error.h"
#include "common/float_environment.h"
#include "common/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_VERSION "8" /* of export/FORMAT.md: the one that this release reads */

enum {
    MAX_PROMPTS = 256,
    PATH_SHOWN = 200,      /* bytes of a path in a message */
    EG_DATA_ALIGNMENT = 4, /* bytes: of a float32; whatever is wider is read unaligned */
};

/* ---- metadata ------------------------------------------------------------------------------------------------- */

/* Compares a checksum with the one that the metadata states under this key. */
static eg_status compare(const eg_safetensors *file, const char *key, const char *found)
{
    const eg_string stated = eg_metadata(file, key);
    return eg_string_is(stated, found)
               ? EG_OK
               : eg_fail(EG_ERROR_MODEL, "the checksum %s is %.20s, not %.20s: the file is corrupt; get it again", key,
                         found, stated.text);
}

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
#if defined(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION) /* a fuzzer must get past it, to the checks that follow */
    return EG_OK;
#else
    char found[9];
    snprintf(found, sizeof found, "%08x", (unsigned)crc);
    return compare(file, "metadata_crc32", found);
#endif
}

static eg_status check_metadata(const eg_safetensors *file)
{
    static const char *const keys[] = {
        "scheme",   "config",      "prompts",       "default_prompt_name", "similarity_fn_name",
        "producer", "data_sha256", "metadata_crc32"};
    const eg_string format = eg_metadata(file, "format"), version = eg_metadata(file, "format_version");
    if (format.text == NULL || !eg_string_is(format, "embgemma")) {
        return eg_fail(EG_ERROR_MODEL,
                       "this is not an embgemma model file; make one of a checkpoint with `embgemma convert`");
    }
    if (version.text == NULL || !eg_string_is(version, FORMAT_VERSION)) {
        const char *found = version.text != NULL ? version.text : "none";
        return eg_fail(EG_ERROR_MODEL, "the file has format version %.20s, this release reads " FORMAT_VERSION "; %s",
                       found,
                       strtol(found, NULL, 10) > strtol(FORMAT_VERSION, NULL, 10)
                           ? "update embgemma"
                           : "convert the checkpoint again with `embgemma convert`");
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (eg_metadata(file, keys[i]).text == NULL) {
            return eg_fail(EG_ERROR_MODEL, "the metadata lacks %s; convert the checkpoint again", keys[i]);
        }
    }
    const eg_status status = check_checksum(file);
    const eg_string digest = eg_metadata(file, "data_sha256");
    if (status == EG_OK &&
        (digest.bytes != EG_SHA256_DIGITS || strspn(digest.text, "0123456789abcdef") != EG_SHA256_DIGITS)) {
        return eg_fail(EG_ERROR_MODEL,
                       "data_sha256 is %.70s; expected %d digits of 0 … 9 and a … f: the file is corrupt; get it again",
                       digest.text, EG_SHA256_DIGITS);
    }
    return status;
}

/* ---- tokenizer and prompts ------------------------------------------------------------------------------------- */

static eg_status open_tokenizer(const eg_tensor *table, eg_model *model)
{
    if (table == NULL) {
        return EG_OK;
    }
    const eg_config *config = &model->config;
    const eg_status status = eg_tokenizer_create(table->data, eg_tensor_bytes(table), config->bos_id, config->eos_id,
                                                 &model->allocator, &model->file.tokenizer);
    if (status == EG_ERROR_ARGUMENT) {
        return EG_ERROR_MODEL; /* it is the file that contradicts itself */
    }
    if (status == EG_OK && eg_tokenizer_vocab(model->file.tokenizer) > config->vocab) {
        return eg_fail(EG_ERROR_MODEL,
                       "the tokenizer has %u pieces and the embedding table %u rows, so they do not belong together; "
                       "convert the checkpoint again",
                       eg_tokenizer_vocab(model->file.tokenizer), config->vocab);
    }
    return status;
}

const eg_prompt *eg_find_prompt(const eg_model_file *file, const char *name)
{
    for (size_t i = 0; name != NULL && i < file->prompt_count; i++) {
        if (eg_string_is(file->prompts[i].name, name)) {
            return &file->prompts[i];
        }
    }
    return NULL;
}

eg_status eg_choose_prompt(const eg_model_file *file, const char *name, eg_string *prompt)
{
    const eg_prompt *chosen = file->default_prompt;
    if (name != NULL) {
        chosen = eg_find_prompt(file, name);
        if (chosen == NULL && name[0] != '\0') {
            return eg_fail(EG_ERROR_ARGUMENT, "%.60s is not a prompt of this model; eg_model_prompt_name lists its %zu",
                           name, file->prompt_count);
        }
    }
    *prompt = chosen != NULL ? chosen->text : (eg_string){NULL, 0};
    return EG_OK;
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
        const eg_string name = eg_json_string(&json);
        parts->default_prompt = eg_find_prompt(parts, name.text);
        if (parts->default_prompt == NULL || strlen(name.text) < name.bytes) {
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

typedef enum read_extent { AS_NEEDED, EVERY_BYTE } read_extent;

static eg_status check_data(const eg_safetensors *file)
{
    char found[EG_SHA256_DIGITS + 1];
    eg_sha256 hash = eg_sha256_begin();
    eg_sha256_add(&hash, file->data, file->data_bytes);
    eg_sha256_end(&hash, found);
    return compare(file, "data_sha256", found);
}

/* The model of a file whose header was read; takes over the header. */
static eg_status open_header(eg_safetensors *file, read_extent extent, const eg_allocator *allocator, eg_model **out)
{
    eg_config config;
    eg_model *model = NULL;
    const eg_tensor *table = NULL;
    eg_status status = check_metadata(file);
    if (status == EG_OK && extent == EVERY_BYTE) {
        status = check_data(file);
    }
    char digest[EG_DIGEST_DIGITS + 1];
    if (status == EG_OK) {
        eg_model_digest(file, digest);
    }
    status = status == EG_OK ? eg_config_read(eg_metadata(file, "config"), &config) : status;
    status = status == EG_OK ? eg_model_bind(&config, file, allocator, &model, &table) : status;
    status = status == EG_OK ? read_prompts(file, allocator, &model->file) : status;
    status = status == EG_OK ? open_tokenizer(table, model) : status;
    if (status != EG_OK) {
        eg_model_free(model);
        return status;
    }
    memcpy(model->file.digest, digest, sizeof digest);
    model->file.header = file->header;
    file->header = NULL;
    *out = model;
    return EG_OK;
}

static eg_status open_bytes(const void *data, size_t bytes, read_extent extent, const eg_allocator *allocator,
                            eg_model **out)
{
    eg_safetensors file;
    fenv_t callers; /* numbers of the config are rounded */
    eg_begin_floats(&callers);
    eg_status status = eg_safetensors_read(data, bytes, allocator, &file);
    if (status == EG_OK) {
        status = open_header(&file, extent, allocator, out);
        eg_safetensors_free(&file, allocator);
    }
    eg_end_floats(&callers);
    return status;
}

static eg_status open_memory(const void *data, size_t bytes, read_extent extent, const eg_allocator *given,
                             eg_model **out)
{
    if (data == NULL || (uintptr_t)data % EG_DATA_ALIGNMENT != 0) {
        return eg_fail(EG_ERROR_ARGUMENT, "a model in memory needs %d-byte aligned data", EG_DATA_ALIGNMENT);
    }
    const eg_allocator allocator = eg_allocator_or_default(given);
    return open_bytes(data, bytes, extent, &allocator, out);
}

eg_status eg_model_open_memory(const void *data, size_t bytes, const eg_allocator *given, eg_model **out)
{
    if (out == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_model_open_memory needs a place for the model");
    }
    *out = NULL;
    return open_memory(data, bytes, AS_NEEDED, given, out);
}

eg_status eg_model_check_memory(const void *data, size_t bytes)
{
    eg_model *model = NULL;
    const eg_status status = open_memory(data, bytes, EVERY_BYTE, NULL, &model);
    eg_model_free(model);
    return status;
}

/* Where a model file is: at a path, or in a part of an open file. */
typedef struct place {
    const char *path; /* NULL for a part */
    int descriptor;
    uint64_t offset, bytes;
} place;

static eg_status map_file(const place *from, eg_mapped_file *file)
{
    char reason[EG_REASON_BYTES] = "";
    switch (from->path != NULL ? eg_file_map(from->path, file, reason)
                               : eg_file_map_part(from->descriptor, from->offset, from->bytes, file, reason)) {
    case EG_MAPPED: return EG_OK;
    case EG_MAP_NOT_OPENED: return eg_fail(EG_ERROR_MODEL, "cannot open the file: %s", reason);
    case EG_MAP_NOT_A_FILE:
        return eg_fail(EG_ERROR_MODEL, "this is not a file; make one of a checkpoint with `embgemma convert`");
    case EG_MAP_BAD_SIZE:
        return eg_fail(EG_ERROR_MODEL, "the file is empty, or too large for this machine's addresses");
    case EG_MAP_BAD_PART: return eg_fail(EG_ERROR_ARGUMENT, "the file ends before the end of this part of it");
    case EG_MAP_REFUSED: break;
    }
    return eg_fail(EG_ERROR_SYSTEM, "cannot map the file: %s", reason);
}

/* Gives back the memory of the embedding table's scales, which were read to check them: few of them will be needed. */
static void forget_row_scales(const eg_model *model)
{
    if (model->embedding.scale != NULL) {
        const size_t bytes = model->config.vocab * sizeof(uint16_t);
        eg_file_forget(&model->file.mapped, model->embedding.scale, bytes);
    }
}

/* Puts the file's name before the message. */
static eg_status fail_naming(eg_status status, const place *from)
{
    char message[EG_MESSAGE_BYTES];
    snprintf(message, sizeof message, "%s", eg_error_message());
    if (from->path == NULL) {
        return eg_fail(status, "%llu bytes at byte %llu of descriptor %d: %s", (unsigned long long)from->bytes,
                       (unsigned long long)from->offset, from->descriptor, message);
    }
    const size_t length = strlen(from->path);
    return eg_fail(status, "%s: %s", from->path + (length > PATH_SHOWN ? length - PATH_SHOWN : 0), message);
}

static eg_status open_place(const place *from, read_extent extent, eg_model **out)
{
    *out = NULL;
    eg_mapped_file file = {.data = NULL};
    eg_status status = map_file(from, &file);
    if (status == EG_OK) {
        const eg_allocator allocator = eg_allocator_or_default(NULL);
        status = open_bytes(file.data, file.bytes, extent, &allocator, out);
        if (status == EG_OK) {
            (*out)->file.mapped = file;
            forget_row_scales(*out);
        } else {
            eg_file_unmap(&file);
        }
    }
    return status == EG_OK ? EG_OK : fail_naming(status, from);
}

eg_status eg_model_open(const char *path, eg_model **out)
{
    if (path == NULL || out == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_model_open needs a path and a place for the model");
    }
    return open_place(&(place){.path = path}, AS_NEEDED, out);
}

eg_status eg_model_open_descriptor(int descriptor, uint64_t offset, uint64_t bytes, eg_model **out)
{
    if (out == NULL || offset % EG_DATA_ALIGNMENT != 0) {
        return eg_fail(EG_ERROR_ARGUMENT,
                       "eg_model_open_descriptor needs an offset that is a multiple of %d, and a place for the model",
                       EG_DATA_ALIGNMENT);
    }
    return open_place(&(place){.descriptor = descriptor, .offset = offset, .bytes = bytes}, AS_NEEDED, out);
}

eg_status eg_model_check(const char *path)
{
    if (path == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_model_check needs a path");
    }
    eg_model *model = NULL;
    const eg_status status = open_place(&(place){.path = path}, EVERY_BYTE, &model);
    eg_model_free(model);
    return status;
}

void eg_model_free(eg_model *model)
{
    if (model != NULL) {
        const eg_allocator allocator = model->allocator;
        eg_tokenizer_free(model->file.tokenizer);
        eg_release(&allocator, model->file.prompts);
        eg_release(&allocator, model->file.header);
        eg_file_unmap(&model->file.mapped);
        eg_release(&allocator, model->embedding.groups);
        eg_release(&allocator, model->embedding.codes);
        eg_release(&allocator, model->layers);
        eg_release(&allocator, model);
    }
}

/* ---- rows of the embedding table ------------------------------------------------------------------------------- */

int eg_reads_rows(const eg_model *model) { return model->file.mapped.data != NULL; }

size_t eg_row_room(const eg_model *model)
{
    const size_t hidden = model->config.hidden;
    switch (model->embedding.dtype) {
    case EG_F32: return hidden * sizeof(float);
    case EG_U8: return hidden + EG_ROW_READ_AHEAD;
    default: return hidden;
    }
}

eg_row eg_row_of(const eg_model *model, int32_t id)
{
    const eg_embedding *table = &model->embedding;
    const size_t index = (size_t)id;
    if (table->groups == NULL) {
        const size_t bytes = table->bytes / model->config.vocab;
        return (eg_row){index * bytes, bytes, NULL};
    }
    const eg_row_group *group = &table->groups[index / EG_ROW_GROUP];
    const size_t within = index % EG_ROW_GROUP, unit = model->config.hidden / (8 * EG_RATE_BITS);
    const uint8_t rate = group->rates[within];
    size_t before = group->rates_before;
    for (size_t i = 0; i < within; i++) {
        before += group->rates[i];
    }
    return (eg_row){before * unit, rate * unit, &table->codes[rate - 1]};
}

/* Reads a part of an array in the mapping from the file. */
static int read_part(const eg_mapped_file *file, const void *array, size_t begin, size_t bytes, void *to)
{
    return eg_file_read(file, (size_t)((const char *)array - (const char *)file->data) + begin, bytes, to);
}

int eg_read_rows(const eg_model *model, const int32_t *ids, size_t tokens, void *rows, uint16_t *scale)
{
    const eg_embedding *table = &model->embedding;
    const eg_mapped_file *file = &model->file.mapped;
    for (size_t i = 0; i < tokens; i++) {
        const eg_row row = eg_row_of(model, ids[i]);
        const size_t scale_begin = (size_t)ids[i] * sizeof *scale;
        if (!read_part(file, table->rows, row.begin, row.bytes, (char *)rows + i * eg_row_room(model)) ||
            (table->scale != NULL && !read_part(file, table->scale, scale_begin, sizeof *scale, scale + i))) {
            return 0;
        }
    }
    return 1;
}

/* ---- facts about a model
 * --------------------------------------------------------------------------------------------- */

uint32_t eg_model_dim(const eg_model *model) { return model->config.hidden; }

uint32_t eg_model_max_tokens(const eg_model *model) { return model->config.max_tokens; }

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
