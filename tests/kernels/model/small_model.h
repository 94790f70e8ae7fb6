/* A small model file in memory, with every feature of a real one: random weights. */
#ifndef EG_TESTS_SMALL_MODEL_H
#define EG_TESTS_SMALL_MODEL_H

#include "common/crc32.h"
#include "common/sha256.h"
#include "model/row_code.h"
#include "model/safetensors.h"
#include "tests/kernels/check.h"

enum {
    LAYERS = 2,
    HIDDEN = 128,
    FFN = 192,
    HEADS = 2,
    HEAD_DIM = 64,
    VOCAB = 128,
    MAX_TOKENS = 80,
    MAX_TENSORS = 64,
    MOST_HEADER = 1 << 15,
    LENGTH_BYTES = 8,
};

/* ---- its tensors, in file order; they have no data yet ---------------------------------------------------------- */

typedef struct tensors {
    eg_tensor list[MAX_TENSORS];
    char names[MAX_TENSORS][64];
    size_t count;
} tensors;

static inline void add(tensors *t, const char *owner, const char *kind, eg_dtype dtype, uint32_t rank, uint64_t a,
                       uint64_t b, uint64_t c, uint64_t d)
{
    snprintf(t->names[t->count], sizeof t->names[0], "%s%s", owner, kind);
    t->list[t->count] = (eg_tensor){.name = t->names[t->count], .dtype = dtype, .rank = rank, .shape = {a, b, c, d}};
    t->count++;
}

static inline void add_matrix(tensors *t, const char *owner, const char *kind, eg_dtype dtype, uint64_t n, uint64_t k)
{
    char name[32];
    snprintf(name, sizeof name, "%s%s", owner, kind);
    if (dtype == EG_F32) {
        add(t, name, ".weight", EG_F32, 3, n / 16, k, 16, 0);
        return;
    }
    add(t, name, ".weight", dtype, 4, n / 16, k / (dtype == EG_U8 ? 8 : 4), 16, 4);
    if (dtype == EG_U8) {
        add(t, name, ".codebook", EG_U8, 3, n / 16, k / 64, 16, 0);
    }
    add(t, name, ".scale", EG_F32, 1, n, 0, 0, 0);
}

/* Of a row of a table of several rates. */
static inline uint8_t row_rate(size_t row) { return (const uint8_t[]){12, 16, 24, 32}[row % 4]; }

/* Of the word of a level + 128. No word is longer than the rate, so that any bytes are a row. */
static inline uint8_t code_length(int rate, int place)
{
    const int level = place - 128, bits = rate / 4, half = 1 << bits >> 1;
    if (rate == 16) {
        return level == 0 ? 1 : level == 1 || level == -1 ? 3 : level >= -3 && level <= 3 ? 4 : 0;
    }
    return (rate == 12 || rate == 24 || rate == 32) && level >= -half && level < half ? (uint8_t)bits : 0;
}

static inline uint64_t table_bytes(void)
{
    uint64_t rates = 0;
    for (size_t row = 0; row < VOCAB; row++) {
        rates += row_rate(row);
    }
    return (rates * HIDDEN / 32 + 63) / 64 * 64;
}

static inline void list_tensors(tensors *t, eg_dtype attention, eg_dtype others)
{
    t->count = 0;
    if (others == EG_U8) {
        add(t, "embedding", ".weight", EG_U8, 1, table_bytes(), 0, 0, 0);
        add(t, "embedding", ".rate", EG_U8, 1, VOCAB, 0, 0, 0);
        add(t, "embedding", ".code_length", EG_U8, 2, EG_RATES, EG_ROW_LEVELS, 0, 0);
    } else {
        add(t, "embedding", ".weight", others, 2, VOCAB, HIDDEN, 0, 0);
    }
    if (others != EG_F32) {
        add(t, "embedding", ".scale", EG_F16, 1, VOCAB, 0, 0, 0);
    }
    for (int i = 0; i < LAYERS; i++) {
        char layer[16];
        snprintf(layer, sizeof layer, "layers.%d.", i);
        add(t, layer, "input_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
        add_matrix(t, layer, "qkv", attention, (HEADS + 2) * HEAD_DIM, HIDDEN);
        add(t, layer, "q_norm", EG_F32, 1, HEAD_DIM, 0, 0, 0);
        add(t, layer, "k_norm", EG_F32, 1, HEAD_DIM, 0, 0, 0);
        add_matrix(t, layer, "o", attention, HIDDEN, HEADS * HEAD_DIM);
        add(t, layer, "post_attention_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
        add(t, layer, "pre_ffn_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
        add_matrix(t, layer, "gate_up", others, 2 * FFN, HIDDEN);
        add_matrix(t, layer, "down", others, HIDDEN, FFN);
        add(t, layer, "post_ffn_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
    }
    add(t, "final_norm", "", EG_F32, 1, HIDDEN, 0, 0, 0);
    add_matrix(t, "head", "", others, HIDDEN, HIDDEN);
}

/* ---- the header ------------------------------------------------------------------------------------------------- */

typedef struct buffer {
    char characters[MOST_HEADER];
    size_t length;
} buffer;

static inline void append(buffer *t, const char *more)
{
    const size_t bytes = strlen(more);
    if (t->length + bytes >= sizeof t->characters) {
        fputs("the header is longer than MOST_HEADER\n", stderr);
        exit(EXIT_FAILURE);
    }
    memcpy(t->characters + t->length, more, bytes + 1);
    t->length += bytes;
}

/* Appends a JSON string. */
static inline void append_quoted(buffer *t, const char *value)
{
    append(t, "\"");
    for (const char *c = value; *c != '\0'; c++) {
        append(t, *c == '"' ? "\\\"" : *c == '\\' ? "\\\\" : (char[]){*c, '\0'});
    }
    append(t, "\"");
}

static inline void append_metadata(buffer *header, const char *data_sha256)
{
    /* Sorted by key, as the checksum asks for. */
    const char *const items[][2] = {
        {"config", "{\"layers\": 2, \"hidden\": 128, \"ffn\": 192, \"heads\": 2, \"kv_heads\": 1, \"head_dim\": 64, "
                   "\"vocab\": 128, \"max_tokens\": 80, \"window\": 5, \"full_attention_layers\": [1], "
                   "\"rope_theta_sliding\": 10000.0, \"rope_theta_full\": 1000000, \"rms_norm_eps\": 1e-06, "
                   "\"bos_id\": 2, \"eos_id\": 1}"},
        {"data_sha256", data_sha256},
        {"default_prompt_name", "\"query\""},
        {"format", "embgemma"},
        {"format_version", "8"},
        {"producer", "a test"},
        {"prompts", "{\"query\": \"task: search result | query: \", \"\\u00e9t\\u00e9\": \"\\ud83d\\ude00\\n\\\"\"}"},
        {"scheme", "mixed"},
        {"similarity_fn_name", "cosine"},
    };
    uint32_t crc = 0;
    append(header, "\"__metadata__\":{");
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        append_quoted(header, items[i][0]);
        append(header, ":");
        append_quoted(header, items[i][1]);
        append(header, ",");
        crc = eg_crc32(crc, items[i][0], strlen(items[i][0]));
        crc = eg_crc32(crc, "=", 1);
        crc = eg_crc32(crc, items[i][1], strlen(items[i][1]));
        crc = eg_crc32(crc, "\n", 1);
    }
    char checksum[48];
    snprintf(checksum, sizeof checksum, "\"metadata_crc32\":\"%08x\"}", (unsigned)crc);
    append(header, checksum);
}

static inline void append_tensor(buffer *header, const eg_tensor *tensor, size_t begin)
{
    static const char *const dtypes[] = {[EG_F32] = "F32", [EG_F16] = "F16", [EG_I8] = "I8", [EG_U8] = "U8"};
    char entry[256];
    snprintf(entry, sizeof entry, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name, dtypes[tensor->dtype]);
    append(header, entry);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        snprintf(entry, sizeof entry, "%s%llu", i > 0 ? "," : "", (unsigned long long)tensor->shape[i]);
        append(header, entry);
    }
    snprintf(entry, sizeof entry, "],\"data_offsets\":[%zu,%zu]}", begin, begin + eg_tensor_bytes(tensor));
    append(header, entry);
}

/* Writes the header; returns how many bytes of data it tells of. data_sha256: 64 digits. */
static inline size_t make_header(buffer *header, const tensors *t, const char *data_sha256)
{
    header->length = 0;
    append(header, "{");
    append_metadata(header, data_sha256);
    size_t data_bytes = 0;
    for (size_t i = 0; i < t->count; i++) {
        append_tensor(header, &t->list[i], data_bytes);
        data_bytes += eg_tensor_bytes(&t->list[i]);
    }
    append(header, "}");
    return data_bytes;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

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

static inline void fill(unsigned char *data, const eg_tensor *tensor, uint64_t *random)
{
    size_t elements = 1;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        elements *= (size_t)tensor->shape[i];
    }
    for (size_t i = 0; i < elements; i++) {
        if (strcmp(tensor->name, "embedding.rate") == 0) {
            data[i] = row_rate(i);
        } else if (strcmp(tensor->name, "embedding.code_length") == 0) {
            data[i] = code_length((int)(i / EG_ROW_LEVELS) + 1, (int)(i % EG_ROW_LEVELS));
        } else if (tensor->dtype == EG_F32) {
            ((float *)(void *)data)[i] = random_float(random, 0.1f);
        } else if (tensor->dtype == EG_F16) {
            ((uint16_t *)(void *)data)[i] = 0x2000; /* 2 to the power -7 */
        } else {
            const int is_signed = tensor->dtype == EG_I8;
            data[i] = (unsigned char)random_int(random, is_signed ? -127 : 0, is_signed ? 127 : 255);
        }
    }
}

/* A model file: 64-byte aligned, to be freed. */
static inline unsigned char *make_file(const tensors *t, size_t *bytes)
{
    static buffer header;
    char digest[EG_SHA256_DIGITS + 1];
    eg_sha256 hash = eg_sha256_begin(), unused = hash;
    eg_sha256_end(&unused, digest);
    const size_t data_bytes = make_header(&header, t, digest);
    uint64_t random = 1;
    size_t at;
    unsigned char *file = make_head(header.characters, header.length, data_bytes, &at);
    *bytes = at + data_bytes;
    for (size_t i = 0; i < t->count; i++) {
        fill(file + at, &t->list[i], &random);
        at += eg_tensor_bytes(&t->list[i]);
    }
    eg_sha256_add(&hash, file + *bytes - data_bytes, data_bytes);
    eg_sha256_end(&hash, digest);
    make_header(&header, t, digest); /* of the same length */
    memcpy(file + LENGTH_BYTES, header.characters, header.length);
    return file;
}

/* A model of such weights; file: receives what it lies in, to be freed after the model. */
static inline eg_model *make_model(eg_dtype attention, eg_dtype others, unsigned char **file)
{
    static tensors t;
    list_tensors(&t, attention, others);
    size_t bytes;
    *file = make_file(&t, &bytes);
    eg_model *model = NULL;
    CHECK(eg_model_open_memory(*file, bytes, NULL, &model) == EG_OK, "%s", eg_error_message());
    return model;
}

/* The call must fail so, with a message that has the word in it. */
#define CHECK_REFUSED(call, expected, word)                                                                            \
    do {                                                                                                               \
        const eg_status status = (call);                                                                               \
        CHECK(status == (expected), "status %d", (int)status);                                                         \
        CHECK(strstr(eg_error_message(), (word)) != NULL, "message: %s", eg_error_message());                          \
    } while (0)

#endif
