/* Model files in memory, made of tests' own tensors: whole ones, and ones with a lie in their header. */
#ifndef EG_TESTS_MODEL_BYTES_H
#define EG_TESTS_MODEL_BYTES_H

#include "common/crc32.h"
#include "tests/kernels/engine/small_model.h"

enum { MOST_HEADER = 1 << 15, LENGTH_BYTES = 8 };

/* What to write differently: the first `from` becomes `to`, in one of the metadata's values, whose checksum is then
 * right again, or in the finished header. */
typedef struct edit {
    enum { NO_EDIT, IN_METADATA, IN_HEADER } where;
    const char *from, *to;
} edit;

typedef struct text {
    char characters[MOST_HEADER];
    size_t length;
} text;

static inline void append(text *t, const char *more)
{
    const size_t bytes = strlen(more);
    if (t->length + bytes >= sizeof t->characters) {
        fputs("the header is longer than MOST_HEADER\n", stderr);
        exit(EXIT_FAILURE);
    }
    memcpy(t->characters + t->length, more, bytes + 1);
    t->length += bytes;
}

/* 1 if there was something to replace. */
static inline int replace(text *t, const char *from, const char *to)
{
    static text before;
    before = *t;
    char *found = strstr(before.characters, from);
    if (found == NULL) {
        return 0;
    }
    *found = '\0';
    t->length = 0;
    append(t, before.characters);
    append(t, to);
    append(t, found + strlen(from));
    return 1;
}

/* Appends a JSON string. */
static inline void append_quoted(text *t, const char *value)
{
    append(t, "\"");
    for (const char *c = value; *c != '\0'; c++) {
        append(t, *c == '"' ? "\\\"" : *c == '\\' ? "\\\\" : (char[]){*c, '\0'});
    }
    append(t, "\"");
}

static inline void append_metadata(text *header, edit change)
{
    /* Sorted by key, as the checksum asks for. */
    static const char *const items[][2] = {
        {"config", "{\"layers\": 2, \"hidden\": 128, \"ffn\": 192, \"heads\": 2, \"kv_heads\": 1, \"head_dim\": 64, "
                   "\"vocab\": 128, \"max_tokens\": 80, \"window\": 5, \"full_attention_layers\": [1], "
                   "\"rope_theta_sliding\": 10000.0, \"rope_theta_full\": 1000000, \"rms_norm_eps\": 1e-06, "
                   "\"bos_id\": 2, \"eos_id\": 1}"},
        {"default_prompt_name", "\"query\""},
        {"format", "embgemma"},
        {"format_version", "4"},
        {"producer", "a test"},
        {"prompts", "{\"query\": \"task: search result | query: \", \"\\u00e9t\\u00e9\": \"\\ud83d\\ude00\\n\\\"\"}"},
        {"scheme", "mixed"},
        {"similarity_fn_name", "cosine"},
    };
    static text value;
    uint32_t crc = 0;
    int changed = change.where != IN_METADATA;
    append(header, "\"__metadata__\":{");
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        value.length = 0;
        append(&value, items[i][1]);
        if (!changed) {
            changed = replace(&value, change.from, change.to);
        }
        append_quoted(header, items[i][0]);
        append(header, ":");
        append_quoted(header, value.characters);
        append(header, ",");
        crc = eg_crc32(crc, items[i][0], strlen(items[i][0]));
        crc = eg_crc32(crc, "=", 1);
        crc = eg_crc32(crc, value.characters, value.length);
        crc = eg_crc32(crc, "\n", 1);
    }
    CHECK(changed, "no metadata has %s", change.from);
    char checksum[48];
    snprintf(checksum, sizeof checksum, "\"metadata_crc32\":\"%08x\"}", (unsigned)crc);
    append(header, checksum);
}

static inline size_t tensor_bytes(const eg_tensor *tensor)
{
    static const size_t sizes[] = {[EG_F32] = 4, [EG_F16] = 2, [EG_I8] = 1, [EG_U8] = 1};
    size_t bytes = sizes[tensor->dtype];
    for (uint32_t i = 0; i < tensor->rank; i++) {
        bytes *= (size_t)tensor->shape[i];
    }
    return bytes;
}

static inline void append_tensor(text *header, const eg_tensor *tensor, size_t begin)
{
    static const char *const dtypes[] = {[EG_F32] = "F32", [EG_F16] = "F16", [EG_I8] = "I8", [EG_U8] = "U8"};
    char entry[256];
    snprintf(entry, sizeof entry, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name, dtypes[tensor->dtype]);
    append(header, entry);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        snprintf(entry, sizeof entry, "%s%llu", i > 0 ? "," : "", (unsigned long long)tensor->shape[i]);
        append(header, entry);
    }
    snprintf(entry, sizeof entry, "],\"data_offsets\":[%zu,%zu]}", begin, begin + tensor_bytes(tensor));
    append(header, entry);
}

/* Writes the header; returns how many bytes of data it tells of. */
static inline size_t make_header(text *header, const weights *w, edit change)
{
    header->length = 0;
    append(header, "{");
    append_metadata(header, change);
    size_t data_bytes = 0;
    for (size_t i = 0; i < w->count; i++) {
        append_tensor(header, &w->tensors[i], data_bytes);
        data_bytes += tensor_bytes(&w->tensors[i]);
    }
    append(header, "}");
    if (change.where == IN_HEADER) {
        CHECK(replace(header, change.from, change.to), "the header has no %s", change.from);
    }
    return data_bytes;
}

/* Length, header and padding, with room for the data behind: 64-byte aligned, to be freed. */
static inline unsigned char *make_head(const char *header, size_t length, size_t data_bytes, size_t *data_begin)
{
    const size_t padded = (LENGTH_BYTES + length + 63) / 64 * 64 - LENGTH_BYTES;
    unsigned char *file = aligned_new(LENGTH_BYTES + padded + data_bytes);
    for (size_t i = 0; i < LENGTH_BYTES; i++) {
        file[i] = (unsigned char)(padded >> 8 * i & 0xFF);
    }
    memcpy(file + LENGTH_BYTES, header, length);
    memset(file + LENGTH_BYTES + length, ' ', padded - length);
    *data_begin = LENGTH_BYTES + padded;
    return file;
}

/* A model file: 64-byte aligned, to be freed. */
static inline unsigned char *make_model_bytes(const weights *w, edit change, size_t *bytes)
{
    static text header;
    const size_t data_bytes = make_header(&header, w, change);
    size_t at;
    unsigned char *file = make_head(header.characters, header.length, data_bytes, &at);
    *bytes = at + data_bytes;
    for (size_t i = 0; i < w->count; i++) {
        const size_t size = tensor_bytes(&w->tensors[i]);
        memcpy(file + at, w->tensors[i].data, size);
        at += size;
    }
    return file;
}

#endif
