/* Model files: a valid one gives the model that its tensors give, and every cut, corrupt or hostile one an error. Run
 * it under the sanitizers. */
#define _POSIX_C_SOURCE 200809L
#include "model/model.h"
#include "tests/kernels/model/small_model.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CUTS_OF_DATA = 100,
    MOST_REFUSALS = 200, /* allocations of a model, a context and a call */
};

static void encode_some(const eg_model *model, float out[2 * HIDDEN])
{
    static const int32_t ids[] = {2, 17, 95, 1, 2, 40, 1};
    eg_context *context = NULL;
    CHECK(eg_context_create(model, 2, NULL, &context) == EG_OK, "%s", eg_error_message());
    CHECK(eg_encode(context, ids, (const uint64_t[]){0, 4, 7}, 2, HIDDEN, 1, out) == EG_OK, "%s", eg_error_message());
    eg_context_free(context);
}

/* ---- files that are fine -------------------------------------------------------------------------------------- */

static void check_prompts(const eg_model *model)
{
    CHECK(eg_model_prompt_count(model) == 2, "%zu prompts", eg_model_prompt_count(model));
    CHECK(strcmp(eg_model_prompt_name(model, 0), "query") == 0, "name %s", eg_model_prompt_name(model, 0));
    CHECK(strcmp(eg_model_prompt_name(model, 1), "été") == 0, "name %s", eg_model_prompt_name(model, 1));
    CHECK(eg_model_prompt_name(model, 2) == NULL, "a third name");
    CHECK(strcmp(eg_model_prompt(model, "été"), "😀\n\"") == 0, "prompt %s", eg_model_prompt(model, "été"));
    CHECK(eg_model_prompt(model, "document") == NULL, "a prompt that is not there");
}

static void check_valid(eg_dtype attention, eg_dtype others)
{
    unsigned char *file;
    eg_model *model = make_model(attention, others, &file);
    float out[2 * HIDDEN];
    encode_some(model, out);
    CHECK(eg_model_dim(model) == HIDDEN && eg_model_max_tokens(model) == MAX_TOKENS, "sizes");
    CHECK(eg_model_tokenizer(model) == NULL, "a file without a tokenizer has one");
    check_prompts(model);
    eg_model_free(model);
    free(file);
}

/* The scheme is a label, which no reader goes by. */
static void check_label(const tensors *t)
{
    size_t bytes;
    unsigned char *file = make_file(t, (edit){IN_METADATA, "mixed", "int3"}, &bytes);
    eg_model *model = NULL;
    CHECK(eg_model_open_memory(file, bytes, NULL, &model) == EG_OK, "%s", eg_error_message());
    eg_model_free(model);
    free(file);
}

/* ---- files on disk -------------------------------------------------------------------------------------------- */

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0, "cannot write %s", path);
}

/* A file that cannot be read any more is an error of the call. */
static void check_unreadable(const eg_model *model)
{
    eg_context *context = NULL;
    float out[HIDDEN];
    const int32_t ids[] = {2, 1};
    CHECK(eg_context_create(model, 2, NULL, &context) == EG_OK, "%s", eg_error_message());
    close(model->file.descriptor);
    CHECK_REFUSED(eg_encode(context, ids, (const uint64_t[]){0, 2}, 1, HIDDEN, 1, out), EG_ERROR_SYSTEM, "cannot read");
    eg_context_free(context);
}

static void check_paths(const unsigned char *file, size_t bytes)
{
    char folder[] = "/tmp/embgemma-test-XXXXXX", path[64];
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    snprintf(path, sizeof path, "%s/model", folder);
    eg_model *model = NULL;
    write_file(path, file, bytes);
    CHECK(eg_model_open(path, &model) == EG_OK, "%s", eg_error_message());
    unlink(path); /* a file that is gone from its folder is still mapped */
    float out[2 * HIDDEN], expected[2 * HIDDEN];
    encode_some(model, out);
    eg_model *in_memory = NULL;
    CHECK(eg_model_open_memory(file, bytes, NULL, &in_memory) == EG_OK, "%s", eg_error_message());
    encode_some(in_memory, expected);
    CHECK(memcmp(out, expected, sizeof out) == 0, "a file gives other vectors than the same bytes in memory");
    eg_model_free(in_memory);
    check_unreadable(model);
    eg_model_free(model);

    CHECK_REFUSED(eg_model_open(path, &model), EG_ERROR_MODEL, "No such file");
    CHECK_REFUSED(eg_model_open(path, &model), EG_ERROR_MODEL, path);
    CHECK_REFUSED(eg_model_open(folder, &model), EG_ERROR_MODEL, "not a file");
    write_file(path, file, 0);
    CHECK_REFUSED(eg_model_open(path, &model), EG_ERROR_MODEL, "empty");
    write_file(path, file, bytes - 1);
    CHECK_REFUSED(eg_model_open(path, &model), EG_ERROR_MODEL, "cut");
    unlink(path);
    CHECK(mkfifo(path, S_IRUSR | S_IWUSR) == 0, "no pipe");
    CHECK_REFUSED(eg_model_open(path, &model), EG_ERROR_MODEL, "not a file");
    unlink(path);
    rmdir(folder);
    CHECK_REFUSED(eg_model_open(NULL, &model), EG_ERROR_ARGUMENT, "path");
    CHECK_REFUSED(eg_model_open_memory(file + 1, bytes - 1, NULL, &model), EG_ERROR_ARGUMENT, "aligned");
    CHECK(model == NULL, "a refused model is no model");
}

/* ---- files that are not ---------------------------------------------------------------------------------------- */

static size_t header_end(const unsigned char *file) { return LENGTH_BYTES + (size_t)file[0] + ((size_t)file[1] << 8); }

static void check_cut(const unsigned char *file, size_t bytes)
{
    const size_t end = header_end(file);
    uint64_t random = 1;
    eg_model *model = NULL;
    for (size_t i = 0; i < end + CUTS_OF_DATA; i++) {
        const size_t kept = i < end ? i : end + (size_t)(random_bits(&random) % (bytes - end));
        unsigned char *cut = aligned_new(kept > 0 ? kept : 1);
        memcpy(cut, file, kept);
        CHECK(eg_model_open_memory(cut, kept, NULL, &model) == EG_ERROR_MODEL, "cut to %zu bytes", kept);
        free(cut);
    }
    CHECK(model == NULL, "a refused model is no model");
}

/* No single bit of the header may be another. */
static void check_flipped(unsigned char *file, size_t bytes)
{
    uint64_t random = 2;
    for (size_t i = 0; i < header_end(file); i++) {
        const unsigned char kept = file[i];
        file[i] = (unsigned char)(kept ^ 1 << random_int(&random, 0, 7));
        eg_model *model = NULL;
        CHECK(eg_model_open_memory(file, bytes, NULL, &model) == EG_ERROR_MODEL, "byte %zu is %02x, not %02x", i,
              file[i], kept);
        eg_model_free(model);
        file[i] = kept;
    }
}

static void check_refused(const unsigned char *file, size_t bytes, const char *word)
{
    eg_model *model = NULL;
    CHECK_REFUSED(eg_model_open_memory(file, bytes, NULL, &model), EG_ERROR_MODEL, word);
    CHECK(model == NULL, "a refused model is no model");
    eg_model_free(model);
}

/* No norm and no scale may have a value that is not finite. */
static void check_not_finite(const tensors *t, unsigned char *file, size_t bytes)
{
    unsigned char *end = file + header_end(file); /* of the tensor's data */
    for (size_t i = 0; i < t->count; i++) {
        const eg_tensor *tensor = &t->list[i];
        end += eg_tensor_bytes(tensor);
        if (tensor->dtype == EG_F32 && tensor->rank == 1) {
            float *last = (float *)(void *)end - 1;
            const float kept = *last;
            *last = i % 2 == 0 ? NAN : -INFINITY;
            check_refused(file, bytes, tensor->name);
            *last = kept;
        }
    }
}

/* Each tensor must have its own name, shape and type. */
static void check_tensors(tensors *t)
{
    for (size_t i = 0; i < t->count; i++) {
        const eg_tensor kept = t->list[i];
        const eg_dtype another = kept.dtype == EG_F16 ? EG_F32 : EG_F16;
        const eg_tensor wrong[] = {
            {"another", kept.dtype, kept.rank, {kept.shape[0], kept.shape[1], kept.shape[2], kept.shape[3]}, NULL},
            {kept.name, kept.dtype, kept.rank, {kept.shape[0] + 1, kept.shape[1], kept.shape[2], kept.shape[3]}, NULL},
            {kept.name, another, kept.rank, {kept.shape[0], kept.shape[1], kept.shape[2], kept.shape[3]}, NULL},
        };
        for (size_t j = 0; j < sizeof wrong / sizeof wrong[0]; j++) {
            t->list[i] = wrong[j];
            size_t bytes;
            unsigned char *file = make_file(t, no_edit, &bytes);
            check_refused(file, bytes, kept.name);
            free(file);
        }
        t->list[i] = kept;
    }
}

static const struct {
    edit change;
    const char *word; /* in the message */
} lies[] = {
    /* metadata, with the right checksum */
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 3"}, "layers.2.input_norm"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 1"}, "layer 1"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 0"}, "layers is 0"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 4294967295"}, "layers is 4294967295"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 4294967296"}, "too large"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 99999999999999999999"}, "too large"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": -2"}, "integer"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 2.0"}, "comma"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 02"}, "integer"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": \"2\""}, "integer"},
    {{IN_METADATA, "\"layers\": 2", "\"layers\": 2, \"layers\": 2"}, "twice"},
    {{IN_METADATA, "\"layers\": 2", "\"depth\": 2"}, "no config has"},
    {{IN_METADATA, "\"layers\": 2, ", ""}, "lacks layers"},
    {{IN_METADATA, "{\"layers\"", "[{\"layers\""}, "object"},
    {{IN_METADATA, "\"eos_id\": 1}", "\"eos_id\": 1}}"}, "end"},
    {{IN_METADATA, "\"eos_id\": 1}", "\"eos_id\": 1,}"}, "string"},
    {{IN_METADATA, "\"eos_id\": 1}", "\"eos_id\": 128}"}, "eos_id"},
    {{IN_METADATA, "\"hidden\": 128", "\"hidden\": 192"}, "embedding"},
    {{IN_METADATA, "\"hidden\": 128", "\"hidden\": 100"}, "hidden"},
    {{IN_METADATA, "\"heads\": 2", "\"heads\": 0"}, "heads"},
    {{IN_METADATA, "\"kv_heads\": 1", "\"kv_heads\": 3"}, "heads"},
    {{IN_METADATA, "\"vocab\": 128", "\"vocab\": 192"}, "embedding"},
    {{IN_METADATA, "\"vocab\": 128", "\"vocab\": 127"}, "vocab"},
    {{IN_METADATA, "\"max_tokens\": 80", "\"max_tokens\": 1"}, "max_tokens"},
    {{IN_METADATA, "\"max_tokens\": 80", "\"max_tokens\": 4000000000"}, "max_tokens"},
    {{IN_METADATA, "\"window\": 5", "\"window\": 4000000000"}, "window"},
    {{IN_METADATA, "[1]", "[2]"}, "layer 2"},
    {{IN_METADATA, "[1]", "[256]"}, "cannot be"},
    {{IN_METADATA, "[1]", "[1"}, "integer"},
    {{IN_METADATA, "[1]", "[[[[[[[[1]]]]]]]]"}, "integer"},
    {{IN_METADATA, "10000.0", "0.0"}, "rope"},
    {{IN_METADATA, "10000.0", "1e400"}, "rope"},
    {{IN_METADATA, "10000.0", "1e99999999999"}, "rope"},
    {{IN_METADATA, "10000.0", "10000."}, "digit"},
    {{IN_METADATA, "10000.0", "10000.0e"}, "digit"},
    {{IN_METADATA, "10000.0", "NaN"}, "digit"},
    {{IN_METADATA, "10000.0", "1.00000000000000000000000000000000000000000001"}, "digits"},
    {{IN_METADATA, "1e-06", "-1e-06"}, "eps"},
    {{IN_METADATA, "embgemma", "another"}, "not an embgemma model file"},
    {{IN_METADATA, "task: ", "task: \\u0000"}, "zero"},
    {{IN_METADATA, "task: ", "task: \\ud83d"}, "surrogate"},
    {{IN_METADATA, "task: ", "task: \\x"}, "escape"},
    {{IN_METADATA, "task: ", "task: \\u12g4"}, "hexadecimal"},
    {{IN_METADATA, "task: ", "task: \\"}, "escape"},
    {{IN_METADATA, "\"task: search result | query: \"", "1"}, "string"},
    {{IN_METADATA, "\\u00e9t\\u00e9", "query"}, "twice"},
    {{IN_METADATA, "\"query\"", "\"inquiry\""}, "none of the prompts"},
    {{IN_METADATA, "\"query\"", "nul"}, "string"},
    {{IN_METADATA, "\"query\"", "null null"}, "end"},
    /* the header itself */
    {{IN_HEADER, "a test", "a tesT"}, "checksum"},
    {{IN_HEADER, "format_version\":\"4", "format_version\":\"5"}, "version 5"},
    {{IN_HEADER, "\"scheme\"", "\"scheming\""}, "lacks scheme"},
    {{IN_HEADER, "\"producer\"", "\"scheme\""}, "twice"},
    {{IN_HEADER, "\"a test\"", "7"}, "string"},
    {{IN_HEADER, "a test", "a \x01 test"}, "control"},
    {{IN_HEADER, "a test", "a \xff test"}, "UTF-8"},
    {{IN_HEADER, "a test", "a \xc0\xaf test"}, "UTF-8"},
    {{IN_HEADER, "a test", "a \xed\xa0\x80 test"}, "UTF-8"},
    {{IN_HEADER, "a test", "a \xf4\x90\x80\x80 test"}, "UTF-8"},
    {{IN_HEADER, "{\"__metadata__\"", "{\"__metadata__\":{},\"__metadata__\""}, "two __metadata__"},
    {{IN_HEADER, "{\"__metadata__\"", "[\"__metadata__\""}, "object"},
    {{IN_HEADER, "{\"__metadata__\"", "{__metadata__"}, "string"},
    {{IN_HEADER, "{\"dtype\"", "{{{{{{{{\"dtype\""}, "string"},
    {{IN_HEADER, "\"dtype\":\"U8\",", ""}, "dtype, shape and data_offsets"},
    {{IN_HEADER, "\"dtype\":\"U8\"", "\"dtype\":\"U8\",\"dtype\":\"U8\""}, "each once"},
    {{IN_HEADER, "\"dtype\":\"U8\"", "\"kind\":\"U8\""}, "each once"},
    {{IN_HEADER, "\"dtype\":\"U8\"", "\"dtype\":\"F64\""}, "F32, F16, I8 or U8"},
    {{IN_HEADER, "\"dtype\":\"U8\"", "\"dtype\":\"F32\""}, "disagree"},
    {{IN_HEADER, "\"dtype\":\"U8\"", "\"dtype\":\"I8\""}, "embedding.weight"},
    {{IN_HEADER, "[128,66]", "[66,128]"}, "embedding.weight"},
    {{IN_HEADER, "[128,66]", "[8448]"}, "embedding.weight"},
    {{IN_HEADER, "[128,66]", "[128,66,1,1,1]"}, "dimensions"},
    {{IN_HEADER, "[128,66]", "[4294967296,4294967296]"}, "disagree"},
    {{IN_HEADER, "[128,66]", "[0,66]"}, "disagree"},
    {{IN_HEADER, "[0,8448]", "[64,8512]"}, "expected 0"},
    {{IN_HEADER, "[0,8448]", "[8448,0]"}, "disagree"},
    {{IN_HEADER, "[0,8448]", "[0,8448,8448]"}, "data_offsets"},
    {{IN_HEADER, "[0,8448]", "[8448]"}, "two data_offsets"},
    {{IN_HEADER, "[0,8448]", "[0,18446744073709551615]"}, "cut"},
    {{IN_HEADER, "[0,8448]", "[18446744073709543168,0]"}, "disagree"},
    {{IN_HEADER, "[0,8448]", "[99999999,100005... ]"}, "comma"},
    {{IN_HEADER, "layers.0.down.codebook", "layers.0.down.codebooks"}, "layers.0.down.codebook "},
    {{IN_HEADER, "layers.0.input_norm", "layers.1.input_norm"}, "layers.0.input_norm"},
    {{IN_HEADER, "layers.0.q_norm", "layers.0.k_norm"}, "layers.0.q_norm"},
    {{IN_HEADER, "final_norm", "final_norm\\u0000"}, "zero"},
    {{IN_HEADER, "head.scale", "head.scales"}, "head.scale "},
    {{IN_HEADER, "\"head.scale\"", "\"\\u001b[2J\""}, "head.scale"},
    {{IN_HEADER, "embedding.scale\":{\"dtype\":\"F16\",\"shape\":[128,2]",
      "embedding.scale\":{\"dtype\":\"F16\",\"shape\":[64,4]"},
     "embedding.scale"},
};

static void check_lies(const tensors *t)
{
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        size_t bytes;
        unsigned char *file = make_file(t, lies[i].change, &bytes);
        eg_model *model = NULL;
        const eg_status status = eg_model_open_memory(file, bytes, NULL, &model);
        CHECK(status == EG_ERROR_MODEL && strstr(eg_error_message(), lies[i].word) != NULL, "%s for %s: status %d, %s",
              lies[i].change.to, lies[i].change.from, (int)status, eg_error_message());
        eg_model_free(model);
        free(file);
    }
}

/* ---- memory of the caller ------------------------------------------------------------------------------------- */

typedef struct counter {
    size_t left; /* allocations until one is refused */
    size_t held;
} counter;

static void *allocate(void *user, size_t bytes)
{
    counter *c = user;
    CHECK(bytes > 0 && bytes % 64 == 0, "%zu bytes", bytes);
    if (c->left == 0) {
        return NULL;
    }
    c->left--;
    c->held++;
    return aligned_alloc(64, bytes);
}

static void release(void *user, void *memory)
{
    counter *c = user;
    c->held--;
    free(memory);
}

/* Opens, makes a context and encodes; the first error ends it. */
static eg_status use(const unsigned char *file, size_t bytes, const eg_allocator *allocator)
{
    const int32_t ids[] = {2, 1};
    float out[HIDDEN];
    eg_model *model = NULL;
    eg_context *context = NULL;
    eg_status status = eg_model_open_memory(file, bytes, allocator, &model);
    status = status == EG_OK ? eg_context_create(model, 2, NULL, &context) : status;
    status = status == EG_OK ? eg_encode(context, ids, (const uint64_t[]){0, 2}, 1, HIDDEN, 1, out) : status;
    eg_context_free(context);
    eg_model_free(model);
    return status;
}

static void check_allocator(const unsigned char *file, size_t bytes)
{
    eg_status status = EG_ERROR_MEMORY;
    for (size_t allowed = 0; status != EG_OK && allowed < MOST_REFUSALS; allowed++) {
        counter c = {.left = allowed};
        const eg_allocator allocator = {allocate, release, &c};
        status = use(file, bytes, &allocator);
        CHECK(status == EG_OK || status == EG_ERROR_MEMORY, "%zu allocations: %s", allowed, eg_error_message());
        CHECK(c.held == 0, "%zu allocations: %zu are still held", allowed, c.held);
    }
    CHECK(status == EG_OK, "%s", eg_error_message());
}

static void check_no_tokenizer(const unsigned char *file, size_t bytes)
{
    eg_model *model = NULL;
    eg_context *context = NULL;
    float out[HIDDEN];
    const char *texts[] = {"a text"};
    CHECK(eg_model_open_memory(file, bytes, NULL, &model) == EG_OK, "%s", eg_error_message());
    CHECK(eg_context_create(model, 1, NULL, &context) == EG_OK, "%s", eg_error_message());
    CHECK_REFUSED(eg_embed(context, texts, NULL, 1, NULL, HIDDEN, out), EG_ERROR_MODEL, "no tokenizer");
    CHECK_REFUSED(eg_embed(context, NULL, NULL, 1, NULL, HIDDEN, out), EG_ERROR_ARGUMENT, "texts");
    eg_context_free(context);
    eg_model_free(model);
}

int main(void)
{
    check_valid(EG_F32, EG_F32);
    check_valid(EG_I8, EG_I8);
    check_valid(EG_I8, EG_U8);
    static tensors t;
    list_tensors(&t, EG_I8, EG_U8);
    size_t bytes;
    unsigned char *file = make_file(&t, no_edit, &bytes);
    check_label(&t);
    check_paths(file, bytes);
    check_cut(file, bytes);
    check_flipped(file, bytes);
    check_not_finite(&t, file, bytes);
    check_tensors(&t);
    check_lies(&t);
    check_allocator(file, bytes);
    check_no_tokenizer(file, bytes);
    free(file);
    CHECK(eg_abi_version() == EMBGEMMA_ABI_VERSION, "library and header have ABI versions %u and %d", eg_abi_version(),
          EMBGEMMA_ABI_VERSION);
    return check_result();
}
