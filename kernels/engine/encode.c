/* The public calls: token ids to vectors, and texts to vectors. */
#include "engine/encoder.h"
#include "common/error.h"

#include <math.h>
#include <string.h>

/* ---- token ids to vectors ------------------------------------------------------------------------------------ */

/* No memory holds more vectors; a larger count is an error of the caller, and would wrap. */
static eg_status check_sizes(const eg_config *config, size_t texts, uint32_t dim)
{
    if (dim == 0 || dim > config->hidden) {
        return eg_fail(EG_ERROR_ARGUMENT, "embedding size %u: expected 1 … %u", dim, config->hidden);
    }
    if (texts > PTRDIFF_MAX / sizeof(float) / dim || texts >= PTRDIFF_MAX / sizeof(uint64_t)) {
        return eg_fail(EG_ERROR_ARGUMENT, "%zu texts: expected as many as memory can hold", texts);
    }
    return EG_OK;
}

static eg_status check_texts(const eg_config *config, const int32_t *ids, const uint64_t *offsets, size_t texts)
{
    if (offsets[0] != 0) {
        return eg_fail(EG_ERROR_ARGUMENT, "offsets begin at %llu: expected 0", (unsigned long long)offsets[0]);
    }
    for (size_t text = 0; text < texts; text++) {
        const uint64_t tokens = offsets[text + 1] - offsets[text]; /* a huge number if they descend */
        if (tokens == 0 || tokens > config->max_tokens) {
            return eg_fail(EG_ERROR_ARGUMENT, "text %zu has %lld tokens: expected 1 … %u", text, (long long)tokens,
                           config->max_tokens);
        }
        for (uint64_t i = offsets[text]; i < offsets[text + 1]; i++) {
            if (ids[i] < 0 || (uint32_t)ids[i] >= config->vocab) {
                return eg_fail(EG_ERROR_ARGUMENT, "token id %d in text %zu is out of range: expected 0 … %u", ids[i],
                               text, config->vocab - 1);
            }
        }
    }
    return EG_OK;
}

static size_t slots_of(size_t tokens) { return (tokens + EG_KEY_GRAIN - 1) / EG_KEY_GRAIN * EG_KEY_GRAIN; }

/* How many texts, from the first on, go through the model together: as many as fit the slots of one text of max_tokens.
 * This bounds memory for any batch. */
static eg_extent next_group(const eg_config *config, const uint64_t *offsets, size_t texts)
{
    const size_t most = slots_of(config->max_tokens);
    eg_extent group = {0, 0, 0, 0};
    while (group.texts < texts) {
        const size_t tokens = (size_t)(offsets[group.texts + 1] - offsets[group.texts]);
        if (group.texts > 0 && group.slots + slots_of(tokens) > most) {
            break;
        }
        group.tokens += tokens;
        group.slots += slots_of(tokens);
        group.longest = tokens > group.longest ? tokens : group.longest;
        group.texts++;
    }
    return group;
}

static void place_texts(eg_text *placed, const uint64_t *offsets, size_t texts)
{
    size_t slot = 0;
    for (size_t text = 0; text < texts; text++) {
        placed[text] = (eg_text){(size_t)(offsets[text] - offsets[0]), (size_t)(offsets[text + 1] - offsets[0]), slot};
        slot += slots_of(placed[text].end - placed[text].begin);
    }
}

/* What eg_encode or eg_encode_tokens is asked for; or a part of what eg_embed is asked for. */
typedef struct request {
    const int32_t *ids;
    const uint64_t *offsets;
    size_t texts;
    size_t first_text; /* the number of the first text in messages */
    uint32_t dim;      /* 0: the states of tokens, not vectors of texts */
    uint32_t normalize;
    float *out;
} request;

/* Where the vector of a text is, or the states of its tokens are. */
static float *place_of(const request *r, const eg_config *config, size_t text)
{
    return r->out + (r->dim > 0 ? text * r->dim : r->offsets[text] * config->hidden);
}

/* Leaves no vector in out, after the first `done` texts were computed: those without one keep a NaN, others get zeros.
 * The message names the first. */
static eg_status refuse_vectors(const request *r, const eg_config *config, size_t done)
{
    size_t found = done;
    for (size_t text = 0; text < r->texts; text++) {
        int has_none = 0;
        float *const begin = place_of(r, config, text), *const end = place_of(r, config, text + 1);
        for (const float *value = begin; text < done && value < end; value++) {
            has_none |= isnan(*value);
        }
        if (!has_none) {
            memset(begin, 0, (size_t)(end - begin) * sizeof *begin);
        } else if (found == done) {
            found = text;
        }
    }
    return eg_fail(
        EG_ERROR_MODEL,
        "text %zu has no vector: it comes out as zero or not finite; the model file is damaged, or was made of "
        "damaged weights: check it with `embgemma info --check FILE`, or convert the checkpoint again",
        r->first_text + found);
}

static eg_status encode(eg_context *context, const request *r)
{
    const eg_config *config = &context->model->config;
    eg_status status = check_sizes(config, r->texts, r->dim > 0 ? r->dim : config->hidden);
    status = status == EG_OK && r->texts > 0 ? check_texts(config, r->ids, r->offsets, r->texts) : status;
    if (status != EG_OK) {
        return status;
    }
    fenv_t callers;
    status = eg_context_enter(context, &callers);
    if (status != EG_OK) {
        return status;
    }
    for (size_t done = 0; done < r->texts && status == EG_OK;) {
        const eg_extent group = next_group(config, r->offsets + done, r->texts - done);
        status = eg_context_reserve(context, group);
        if (status == EG_OK) {
            place_texts(context->scratch.texts, r->offsets + done, group.texts);
            eg_call call = {.context = context,
                            .ids = r->ids + r->offsets[done],
                            .tokens = group.tokens,
                            .texts = group.texts,
                            .dim = r->dim,
                            .normalize = r->normalize,
                            .out = place_of(r, config, done)};
            eg_pool_run(context->pool, eg_forward, &call);
            done += group.texts;
            if (atomic_load(&call.unreadable)) {
                status = eg_fail(EG_ERROR_SYSTEM,
                                 "cannot read the model file any more; it must stay as it was when it was opened");
            } else if (atomic_load(&call.without_vector)) {
                status = refuse_vectors(r, config, done);
            }
        }
    }
    eg_context_leave(context, &callers);
    return status;
}

/* Whether a call has all it needs. */
static int is_complete(const eg_context *context, const int32_t *ids, const uint64_t *offsets, size_t texts,
                       const float *out)
{
    return context != NULL && (texts == 0 || (ids != NULL && offsets != NULL && out != NULL));
}

eg_status eg_encode(eg_context *context, const int32_t *ids, const uint64_t *offsets, size_t texts, uint32_t dim,
                    uint32_t normalize, float *out)
{
    if (!is_complete(context, ids, offsets, texts, out)) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_encode needs a context, ids, offsets and a place for the vectors");
    }
    if (dim == 0) {
        return eg_fail(EG_ERROR_ARGUMENT, "embedding size 0: expected 1 … %u", context->model->config.hidden);
    }
    return encode(context, &(request){ids, offsets, texts, 0, dim, normalize, out});
}

eg_status eg_encode_tokens(eg_context *context, const int32_t *ids, const uint64_t *offsets, size_t texts, float *out)
{
    if (!is_complete(context, ids, offsets, texts, out)) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_encode_tokens needs a context, ids, offsets and a place for the states");
    }
    return encode(context, &(request){ids, offsets, texts, 0, 0, 0, out});
}

/* ---- texts to vectors: the prompt before each text, tokens, vectors ------------------------------------------- */

enum {
    /* Texts of max_tokens whose ids fit the buffer: enough that most batches are full. */
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
            status = encode(c->context, &(request){c->ids, c->offsets, text - first, first, dim, 1, out + first * dim});
            if (status == EG_ERROR_MODEL) { /* texts before have vectors, of which none is handed out */
                memset(out, 0, first * dim * sizeof *out);
            }
        }
    }
    return status;
}

/* Allocates what the call needs. */
static eg_status reserve(embed_call *c, const eg_allocator *allocator)
{
    size_t longest = 0;
    for (size_t text = 0; text < c->count; text++) {
        if (c->texts[text] == NULL) {
            return eg_fail(EG_ERROR_ARGUMENT, "text %zu is NULL: expected UTF-8", text);
        }
        const size_t bytes = bytes_of(c, text);
        if (bytes > UINT32_MAX) {
            return eg_fail(EG_ERROR_ARGUMENT, "text %zu has %zu bytes: expected at most 4 GiB", text, bytes);
        }
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
    eg_status status = check_sizes(&model->config, count, dim);
    status = status == EG_OK ? eg_choose_prompt(&model->file, prompt_name, &c.prompt) : status;
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
