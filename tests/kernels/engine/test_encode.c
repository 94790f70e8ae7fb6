/* The public API on a small model of random weights: the same bits in any company, with any number of threads and on
 * every instruction set with a fused multiply-add; calls from several threads at once; and an error, never a crash, for
 * what it cannot do. Run it under the sanitizers. */
#include "embgemma.h"
#include "isa/kernels.h"
#include "platform/platform.h"
#include "tests/kernels/model/small_model.h"

#include <math.h>

enum {
    TEXTS = 6,
    CALLERS = 4,
    MOST_THREADS = 3,
};

static const uint64_t lengths[TEXTS] = {1, 7, 16, MAX_TOKENS, 33, 2};

/* ---- a batch ---------------------------------------------------------------------------------------------- */

typedef struct batch {
    int32_t ids[TEXTS * MAX_TOKENS];
    uint64_t offsets[TEXTS + 1];
} batch;

/* The texts, beginning with text `first` and going round. Text i has the same ids wherever it stands. */
static batch make_batch(size_t first)
{
    batch b = {.offsets = {0}};
    for (size_t i = 0; i < TEXTS; i++) {
        const size_t text = (first + i) % TEXTS;
        uint64_t random = text;
        b.offsets[i + 1] = b.offsets[i] + lengths[text];
        for (uint64_t t = b.offsets[i]; t < b.offsets[i + 1]; t++) {
            b.ids[t] = random_int(&random, 0, VOCAB - 1);
        }
    }
    return b;
}

static void encode(eg_context *context, const batch *b, float *out)
{
    const eg_status status = eg_encode(context, b->ids, b->offsets, TEXTS, HIDDEN, 1, out);
    CHECK(status == EG_OK, "%s", eg_error_message());
}

static eg_context *make_context(const eg_model *model, uint32_t threads, const char *isa)
{
    eg_context *context = NULL;
    const eg_status status = eg_context_create(model, threads, isa, &context);
    CHECK(status == EG_OK, "%s", eg_error_message());
    return context;
}

/* ---- what must hold --------------------------------------------------------------------------------------- */

static void check_same_bits(const eg_model *model, const char *isa, const float *expected)
{
    float out[TEXTS * HIDDEN];
    for (uint32_t threads = 1; threads <= MOST_THREADS; threads++) {
        eg_context *context = make_context(model, threads, isa);
        for (size_t first = 0; first < TEXTS; first += 4) {
            const batch b = make_batch(first);
            encode(context, &b, out);
            for (size_t i = 0; i < TEXTS; i++) {
                const size_t text = (first + i) % TEXTS;
                CHECK(memcmp(out + i * HIDDEN, expected + text * HIDDEN, HIDDEN * sizeof(float)) == 0,
                      "%s, %u threads: text %zu at place %zu of the batch", isa, threads, text, i);
            }
        }
        eg_context_free(context);
    }
}

static void check_alone(const eg_model *model, const char *isa, const float *expected)
{
    eg_context *context = make_context(model, 2, isa);
    for (size_t text = 0; text < TEXTS; text++) {
        const batch b = make_batch(text);
        float *out = guarded_new(HIDDEN * sizeof(float));
        CHECK(eg_encode(context, b.ids, b.offsets, 1, HIDDEN, 1, out) == EG_OK, "%s", eg_error_message());
        CHECK(memcmp(out, expected + text * HIDDEN, HIDDEN * sizeof(float)) == 0, "%s: text %zu alone", isa, text);
        double squares = 0;
        for (size_t i = 0; i < HIDDEN; i++) {
            squares += (double)out[i] * (double)out[i];
        }
        CHECK(fabs(squares - 1) < 1e-5, "%s: text %zu has a vector of length %g", isa, text, sqrt(squares));
        CHECK(guarded_free(out, HIDDEN * sizeof(float)), "%s: text %zu", isa, text);
    }
    eg_context_free(context);
}

typedef struct caller {
    eg_context *context;
    const float *expected;
    eg_system_thread thread;
} caller;

static void call(void *argument)
{
    const caller *self = argument;
    float out[TEXTS * HIDDEN];
    const batch b = make_batch(0);
    for (int repeat = 0; repeat < 2; repeat++) {
        encode(self->context, &b, out);
        CHECK(memcmp(out, self->expected, sizeof out) == 0, "repeat %d beside other callers", repeat);
    }
}

static void check_callers(const eg_model *model, const char *isa, const float *expected)
{
    eg_context *contexts[2] = {make_context(model, 2, isa), make_context(model, 1, isa)};
    caller callers[CALLERS];
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.context = contexts[i % 2], .expected = expected};
        CHECK(eg_thread_start(&callers[i].thread, call, &callers[i]), "caller %zu", i);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        eg_thread_join(&callers[i].thread);
    }
    eg_context_free(contexts[0]);
    eg_context_free(contexts[1]);
}

static void check_every_isa(eg_dtype attention, eg_dtype others)
{
    const char *portable_isa = NULL;
    float portable[TEXTS * HIDDEN];
    unsigned char *file;
    eg_model *model = make_model(attention, others, &file);
    for (size_t i = 0; model != NULL && i < eg_isa_count(); i++) {
        const char *isa = eg_isa_name(i);
        if (eg_isa_supported(i)) {
            float expected[TEXTS * HIDDEN];
            const batch b = make_batch(0);
            eg_context *context = make_context(model, 1, isa);
            encode(context, &b, expected);
            eg_context_free(context);
            if (strcmp(isa, "scalar") != 0) { /* it has no fused multiply-add */
                CHECK(portable_isa == NULL || memcmp(portable, expected, sizeof portable) == 0, "%s differs from %s",
                      isa, portable_isa);
                portable_isa = isa;
                memcpy(portable, expected, sizeof portable);
            }
            check_same_bits(model, isa, expected);
            check_alone(model, isa, expected);
            check_callers(model, isa, expected);
        }
    }
    eg_model_free(model);
    eg_aligned_free(file);
}

/* ---- what must be refused ---------------------------------------------------------------------------------- */

static void check_call_refusals(const eg_model *model)
{
    eg_context *context = NULL;
    CHECK_REFUSED(eg_context_create(model, 1, "sse9", &context), EG_ERROR_UNSUPPORTED, "sse9");
    CHECK_REFUSED(eg_context_create(model, 1u << 20, NULL, &context), EG_ERROR_ARGUMENT, "threads");
    CHECK(context == NULL, "a refused context is no context");
    context = make_context(model, 2, NULL);
    float out[HIDDEN];
    const int32_t ids[] = {1, VOCAB, -1};
    const uint64_t one[] = {0, 1}, unknown[] = {0, 2}, late[] = {1, 2}, empty[] = {0, 0}, back[] = {0, 1, 0};
    CHECK_REFUSED(eg_encode(context, ids, unknown, 1, HIDDEN, 1, out), EG_ERROR_ARGUMENT, "token id 128");
    CHECK_REFUSED(eg_encode(context, ids, late, 1, HIDDEN, 1, out), EG_ERROR_ARGUMENT, "offsets");
    CHECK_REFUSED(eg_encode(context, ids, empty, 1, HIDDEN, 1, out), EG_ERROR_ARGUMENT, "0 tokens");
    CHECK_REFUSED(eg_encode(context, ids, back, 2, HIDDEN, 1, out), EG_ERROR_ARGUMENT, "text 1");
    CHECK_REFUSED(eg_encode(context, ids, one, 1, 0, 1, out), EG_ERROR_ARGUMENT, "size 0");
    CHECK_REFUSED(eg_encode(context, ids, one, 1, HIDDEN + 1, 1, out), EG_ERROR_ARGUMENT, "size 129");
    CHECK_REFUSED(eg_encode(context, NULL, one, 1, HIDDEN, 1, out), EG_ERROR_ARGUMENT, "ids");
    CHECK_REFUSED(eg_encode_tokens(context, ids, unknown, 1, out), EG_ERROR_ARGUMENT, "token id 128");
    CHECK_REFUSED(eg_encode_tokens(context, ids, one, 1, NULL), EG_ERROR_ARGUMENT, "states");
    CHECK(eg_encode_tokens(context, ids, one, 1, out) == EG_OK, "the states of one token");
    CHECK(eg_encode(context, ids, one, 0, HIDDEN, 1, out) == EG_OK, "no texts are nothing to do");
    CHECK(eg_encode(context, ids, one, 1, HIDDEN, 1, out) == EG_OK, "a refused call does no harm to the next");
    eg_context_free(context);
}

static void check_refusals(void)
{
    unsigned char *file;
    eg_model *model = make_model(EG_I8, EG_U8, &file);
    if (model != NULL) {
        check_call_refusals(model);
    }
    eg_model_free(model);
    eg_aligned_free(file);
}

int main(void)
{
    check_every_isa(EG_F32, EG_F32);
    check_every_isa(EG_I8, EG_I8);
    check_every_isa(EG_I8, EG_U8);
    check_every_isa(EG_U8, EG_U8);
    check_refusals();
    return check_result();
}
