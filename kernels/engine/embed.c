/* Texts to vectors: puts the prompt before each text, tokenizes, and hands the ids to eg_encode. */
#include "engine/context.h"
#include "common/error.h"

#include <string.h>

enum {
    /* Longest texts whose ids are held at once: batches that are not full are then rare. */
    LONGEST_TEXTS = 16,
};

/* The texts of one call of eg_embed. */
typedef struct embed_call {
    eg_context *context;
    const eg_tokenizer *tokenizer;
    const char *const *texts; /* (count,) */
    const size_t *bytes;      /* (count,), or NULL: each text ends with a 0 */
    size_t count;
    eg_string prompt;
    size_t max_tokens;
    char *joined; /* prompt and text; NULL without a prompt */
    int32_t *ids; /* (capacity,) */
    size_t capacity;
    uint64_t *offsets; /* (count + 1,) */
} embed_call;

static size_t bytes_of(const embed_call *c, size_t text)
{
    return c->bytes != NULL ? c->bytes[text] : strlen(c->texts[text]);
}

/* Most ids that a text may have: a token has at least one byte. */
static size_t most_ids(const embed_call *c, size_t text)
{
    const size_t bytes = bytes_of(c, text);
    const size_t room = c->max_tokens - 2; /* <bos> and <eos> */
    return bytes < room && c->prompt.bytes < room - bytes ? c->prompt.bytes + bytes + 2 : c->max_tokens;
}

static eg_status tokenize(const embed_call *c, size_t text, int32_t *ids, size_t *count)
{
    const char *begin = c->texts[text];
    size_t bytes = bytes_of(c, text);
    if (c->joined != NULL) {
        memcpy(c->joined, c->prompt.text, c->prompt.bytes);
        memcpy(c->joined + c->prompt.bytes, begin, bytes);
        begin = c->joined;
        bytes += c->prompt.bytes;
    }
    uint32_t truncated;
    return eg_tokenize(c->tokenizer, begin, bytes, c->max_tokens, ids, count, &truncated);
}

static eg_status embed(const embed_call *c, uint32_t dim, float *out)
{
    eg_status status = EG_OK;
    for (size_t first = 0, text = 0; status == EG_OK && first < c->count; first = text) {
        size_t ids = 0;
        for (; status == EG_OK && text < c->count && c->capacity - ids >= most_ids(c, text); text++) {
            size_t added = 0;
            c->offsets[text - first] = ids;
            status = tokenize(c, text, c->ids + ids, &added);
            ids += added;
        }
        c->offsets[text - first] = ids;
        if (status == EG_OK) {
            status = eg_encode(c->context, c->ids, c->offsets, text - first, dim, 1, out + first * dim);
        }
    }
    return status;
}

/* Takes the memory that the call needs. */
static eg_status reserve(embed_call *c, const eg_allocator *allocator)
{
    size_t longest = 0;
    for (size_t text = 0; text < c->count; text++) {
        if (c->texts[text] == NULL) {
            return eg_fail(EG_ERROR_ARGUMENT, "text %zu is NULL: expected UTF-8", text);
        }
        const size_t bytes = bytes_of(c, text);
        longest = bytes > longest ? bytes : longest;
        c->capacity += most_ids(c, text);
    }
    const size_t most = LONGEST_TEXTS * c->max_tokens;
    c->capacity = c->capacity < most ? c->capacity : most;
    c->ids = eg_allocate_unset(allocator, c->capacity, sizeof *c->ids);
    c->offsets = eg_allocate_unset(allocator, c->count + 1, sizeof *c->offsets);
    if (c->prompt.bytes > 0) {
        c->joined = longest < SIZE_MAX - c->prompt.bytes ? eg_allocate_unset(allocator, c->prompt.bytes + longest, 1)
                                                         : NULL;
    }
    if (c->ids == NULL || c->offsets == NULL || (c->prompt.bytes > 0 && c->joined == NULL)) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for %zu texts, the longest of %zu bytes", c->count, longest);
    }
    return EG_OK;
}

static eg_status choose_prompt(const eg_model_file *file, const char *name, eg_string *prompt)
{
    const eg_prompt *chosen = file->default_prompt;
    if (name != NULL) {
        chosen = eg_find_prompt(file, name);
        if (chosen == NULL && name[0] != '\0') {
            return eg_fail(EG_ERROR_ARGUMENT, "%.60s is not a prompt of this model; eg_model_prompt_name tells its %zu",
                           name, file->prompt_count);
        }
    }
    *prompt = chosen != NULL ? chosen->text : (eg_string){NULL, 0};
    return EG_OK;
}

eg_status eg_embed(eg_context *context, const char *const *texts, const size_t *bytes, size_t count,
                   const char *prompt_name, uint32_t dim, float *out)
{
    if (context == NULL || (count > 0 && (texts == NULL || out == NULL))) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_embed needs a context, texts and a place for the vectors");
    }
    const eg_model *model = context->model;
    embed_call c = {.context = context,
                    .tokenizer = model->file.tokenizer,
                    .texts = texts,
                    .bytes = bytes,
                    .count = count,
                    .max_tokens = model->config.max_tokens};
    if (c.tokenizer == NULL) {
        return eg_fail(EG_ERROR_MODEL, "the model has no tokenizer, so it takes token ids only (eg_encode); convert a "
                                       "checkpoint that has a tokenizer.model with this release");
    }
    eg_status status = choose_prompt(&model->file, prompt_name, &c.prompt);
    if (status == EG_OK) {
        status = reserve(&c, &model->allocator);
    }
    if (status == EG_OK) {
        status = embed(&c, dim, out);
    }
    eg_release(&model->allocator, c.joined);
    eg_release(&model->allocator, c.offsets);
    eg_release(&model->allocator, c.ids);
    return status;
}
