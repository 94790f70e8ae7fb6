/* Model files: a valid one gives the model that its tensors give, and a cut or corrupt one an error. Run it under the
 * sanitizers. Which files are refused, and with what reason, is in test_damaged_files.py. */
#define _POSIX_C_SOURCE 200809L
#include "model/model.h"
#include "tests/kernels/model/small_model.h"
#include "tests/kernels/platform/disk.h"

enum {
    CUTS_OF_DATA = 100,
    CHECKED_BYTES = 100,
    MOST_REFUSALS = 200, /* allocations of a model, a context and a call */
};

/* isa: NULL for the best. */
static void encode_some(const eg_model *model, const char *isa, float out[2 * HIDDEN])
{
    static const int32_t ids[] = {2, 17, 95, 1, 2, 40, 1};
    eg_context *context = NULL;
    CHECK(eg_context_create(model, 2, isa, &context) == EG_OK, "%s", eg_error_message());
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
    encode_some(model, NULL, out);
    CHECK(eg_model_dim(model) == HIDDEN && eg_model_max_tokens(model) == MAX_TOKENS, "sizes");
    CHECK(eg_model_tokenizer(model) == NULL, "a file without a tokenizer has one");
    check_prompts(model);
    eg_model_free(model);
    eg_aligned_free(file);
}

/* Memory that is aligned as zip archives align their files: no instruction set may ask for more. */
static void check_unaligned(eg_dtype attention, eg_dtype others)
{
    enum { OFFSET = 4 };
    static tensors t;
    list_tensors(&t, attention, others);
    size_t bytes;
    unsigned char *file = make_file(&t, &bytes), *unaligned = aligned_new(OFFSET + bytes);
    memcpy(unaligned + OFFSET, file, bytes);
    eg_model *model = NULL, *second = NULL;
    CHECK(eg_model_open_memory(file, bytes, NULL, &model) == EG_OK, "%s", eg_error_message());
    CHECK(eg_model_open_memory(unaligned + OFFSET, bytes, NULL, &second) == EG_OK, "%s", eg_error_message());
    for (size_t i = 0; i < eg_isa_count(); i++) {
        if (eg_isa_supported(i)) {
            float expected[2 * HIDDEN], out[2 * HIDDEN];
            encode_some(model, eg_isa_name(i), expected);
            encode_some(second, eg_isa_name(i), out);
            CHECK(memcmp(out, expected, sizeof out) == 0, "%s: other vectors", eg_isa_name(i));
        }
    }
    eg_model_free(second);
    eg_model_free(model);
    eg_aligned_free(unaligned);
    eg_aligned_free(file);
}

static size_t header_end(const unsigned char *file) { return LENGTH_BYTES + (size_t)file[0] + ((size_t)file[1] << 8); }

/* ---- files on disk -------------------------------------------------------------------------------------------- */

/* A file that cannot be read any more is an error of the call. */
static void check_unreadable(eg_model *model)
{
    eg_context *context = NULL;
    float out[HIDDEN];
    const int32_t ids[] = {2, 1};
    CHECK(eg_context_create(model, 2, NULL, &context) == EG_OK, "%s", eg_error_message());
    const intptr_t handle = model->file.mapped.handle;
    model->file.mapped.handle = -1;
    CHECK_REFUSED(eg_encode(context, ids, (const uint64_t[]){0, 2}, 1, HIDDEN, 1, out), EG_ERROR_SYSTEM, "cannot read");
    model->file.mapped.handle = handle;
    eg_context_free(context);
}

/* No bit of the data may be another. */
static void check_every_byte(const char *path, const unsigned char *file, size_t bytes)
{
    unsigned char *changed = aligned_new(bytes);
    memcpy(changed, file, bytes);
    disk_write(path, changed, bytes);
    CHECK(eg_model_check(path) == EG_OK, "%s", eg_error_message());
    CHECK(eg_model_check_memory(changed, bytes) == EG_OK, "%s", eg_error_message());
    const size_t begin = header_end(file);
    for (size_t i = 0; i < CHECKED_BYTES; i++) {
        const size_t at = i == 0 ? begin : begin + (bytes - begin) * i / CHECKED_BYTES;
        changed[at] = (unsigned char)(changed[at] ^ 1 << i % 8);
        disk_write(path, changed, bytes);
        CHECK_REFUSED(eg_model_check(path), EG_ERROR_MODEL, "data_sha256");
        CHECK_REFUSED(eg_model_check_memory(changed, bytes), EG_ERROR_MODEL, "data_sha256");
        changed[at] = file[at];
    }
    CHECK_REFUSED(eg_model_check(NULL), EG_ERROR_ARGUMENT, "path");
    CHECK_REFUSED(eg_model_check_memory(NULL, bytes), EG_ERROR_ARGUMENT, "aligned");
    eg_aligned_free(changed);
}

/* The published values, and any cut in two. */
static void check_hashes(void)
{
    static const char *const examples[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
         "nopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const size_t bytes = strlen(examples[i][0]);
        for (size_t cut = 0; cut <= bytes; cut++) {
            char digest[EG_SHA256_DIGITS + 1];
            eg_sha256 hash = eg_sha256_begin();
            eg_sha256_add(&hash, examples[i][0], cut);
            eg_sha256_add(&hash, examples[i][0] + cut, bytes - cut);
            eg_sha256_end(&hash, digest);
            CHECK(strcmp(digest, examples[i][1]) == 0, "%zu bytes, cut at %zu: %s", bytes, cut, digest);
        }
    }
    CHECK(eg_crc32(0, "123456789", 9) == 0xCBF43926u, "the published check value");
}

/* A name for each prompt and size, and no more of it than there is room for. */
static void check_fingerprint(const eg_model *model)
{
    char first[EG_FINGERPRINT_BYTES], second[EG_FINGERPRINT_BYTES];
    CHECK(eg_model_fingerprint(model, NULL, HIDDEN, first) == EG_OK, "%s", eg_error_message());
    CHECK(eg_model_fingerprint(model, "query", HIDDEN, second) == EG_OK, "%s", eg_error_message());
    CHECK(strcmp(first, second) == 0, "query is the default: %s, %s", first, second);
    CHECK(eg_model_fingerprint(model, "", HIDDEN, second) == EG_OK, "%s", eg_error_message());
    CHECK(strcmp(first, second) != 0, "no prompt: %s", first);
    CHECK(strrchr(first, '-') - first == strrchr(second, '-') - second, "%s, %s", first, second);
    CHECK_REFUSED(eg_model_fingerprint(model, "none", HIDDEN, first), EG_ERROR_ARGUMENT, "not a prompt");
    CHECK_REFUSED(eg_model_fingerprint(model, NULL, 0, first), EG_ERROR_ARGUMENT, "size 0");
    CHECK_REFUSED(eg_model_fingerprint(model, NULL, HIDDEN + 1, first), EG_ERROR_ARGUMENT, "size");
    CHECK_REFUSED(eg_model_fingerprint(model, NULL, HIDDEN, NULL), EG_ERROR_ARGUMENT, "place");
}

/* A model file inside another file, behind bytes that are not of it: it gives the vectors of the file alone. */
static void check_parts(const unsigned char *file, size_t bytes, const float expected[2 * HIDDEN])
{
    static const char path[] = "test_model_file.package";
    static const size_t offsets[] = {0, 4, 60, 64, 4096, 65540};
    enum { AFTER = 100 };
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        const size_t offset = offsets[i], all = offset + bytes + AFTER;
        unsigned char *package = aligned_new(all);
        memset(package, 0xA5, all);
        memcpy(package + offset, file, bytes);
        disk_write(path, package, all);
        const int descriptor = disk_open(path);
        eg_model *model = NULL;
        float out[2 * HIDDEN];
        CHECK_REFUSED(eg_model_open_descriptor(descriptor, offset, bytes - 1, &model), EG_ERROR_MODEL, "descriptor");
        CHECK_REFUSED(eg_model_open_descriptor(descriptor, offset, 0, &model), EG_ERROR_MODEL, "descriptor");
        CHECK_REFUSED(eg_model_open_descriptor(descriptor, 0, all + 1, &model), EG_ERROR_ARGUMENT, "ends before");
        CHECK_REFUSED(eg_model_open_descriptor(descriptor, offset + 2, 0, &model), EG_ERROR_ARGUMENT, "multiple of 4");
        CHECK_REFUSED(eg_model_open_descriptor(-1, 0, 0, &model), EG_ERROR_MODEL, "cannot open");
        CHECK(eg_model_open_descriptor(descriptor, offset, bytes, &model) == EG_OK, "%s", eg_error_message());
        disk_close(descriptor);
        encode_some(model, NULL, out);
        CHECK(memcmp(out, expected, sizeof out) == 0, "other vectors from byte %zu of a file", offset);
        eg_model_free(model);
        eg_aligned_free(package);
    }
    CHECK(disk_remove(path), "cannot remove %s", path);
}

static void check_paths(const unsigned char *file, size_t bytes)
{
    static const char path[] = "test_model_file.modèle", old[] = "test_model_file.old";
    eg_model *model = NULL;
    disk_write(path, file, bytes);
    CHECK(eg_model_open(path, &model) == EG_OK, "%s", eg_error_message());
    check_fingerprint(model);
    CHECK(disk_rename(path, old), "cannot rename a file that is mapped");
    float out[2 * HIDDEN], expected[2 * HIDDEN];
    encode_some(model, NULL, out);
    eg_model *in_memory = NULL;
    CHECK(eg_model_open_memory(file, bytes, NULL, &in_memory) == EG_OK, "%s", eg_error_message());
    encode_some(in_memory, NULL, expected);
    CHECK(memcmp(out, expected, sizeof out) == 0, "a file gives other vectors than the same bytes in memory");
    check_parts(file, bytes, expected);
    eg_model_free(in_memory);
    check_unreadable(model);
    eg_model_free(model);
    check_every_byte(path, file, bytes);

    disk_write(path, file, 0);
    CHECK_REFUSED(eg_model_open(path, &model), EG_ERROR_MODEL, "empty");
    disk_remove(path);
    CHECK_REFUSED(eg_model_open(disk_device(path), &model), EG_ERROR_MODEL, "not a file");
    disk_remove(path);
    disk_remove(old);
    CHECK_REFUSED(eg_model_open(path, &model), EG_ERROR_MODEL, "cannot open");
    CHECK_REFUSED(eg_model_open(NULL, &model), EG_ERROR_ARGUMENT, "path");
    CHECK_REFUSED(eg_model_open_memory(file + 1, bytes - 1, NULL, &model), EG_ERROR_ARGUMENT, "aligned");
    CHECK(model == NULL, "a refused model is no model");
}

/* ---- files that are not ---------------------------------------------------------------------------------------- */

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
        eg_aligned_free(cut);
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

/* ---- memory of the caller ------------------------------------------------------------------------------------- */

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
        budget b = {.left = allowed};
        const eg_allocator allocator = {budget_allocate, budget_release, &b};
        status = use(file, bytes, &allocator);
        CHECK(status == EG_OK || status == EG_ERROR_MEMORY, "%zu allocations: %s", allowed, eg_error_message());
        CHECK(b.held == 0, "%zu allocations: %zu are still held", allowed, b.held);
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
    check_hashes();
    check_valid(EG_F32, EG_F32);
    check_valid(EG_I8, EG_I8);
    check_valid(EG_I8, EG_U8);
    check_unaligned(EG_F32, EG_F32);
    check_unaligned(EG_I8, EG_U8);
    check_unaligned(EG_U8, EG_I8);
    static tensors t;
    list_tensors(&t, EG_I8, EG_U8);
    size_t bytes;
    unsigned char *file = make_file(&t, &bytes);
    check_paths(file, bytes);
    check_cut(file, bytes);
    check_flipped(file, bytes);
    check_allocator(file, bytes);
    check_no_tokenizer(file, bytes);
    eg_aligned_free(file);
    CHECK(eg_abi_version() == EMBGEMMA_ABI_VERSION, "library and header have ABI versions %u and %d", eg_abi_version(),
          EMBGEMMA_ABI_VERSION);
    return check_result();
}
