/* Threads that open, share, use and free models and contexts at the same time, for the thread sanitizer. A first
 * argument says for how many rounds; each draws by chance what to do. */
#include "embgemma.h"
#include "platform/platform.h"
#include "tests/kernels/model/small_model.h"

enum { CALLERS = 4, ROUNDS = 12, TOKENS = 9 };

typedef struct caller {
    eg_system_thread thread;
    uint64_t random;
    long rounds;
    const unsigned char *file; /* of a model that each caller may open for itself */
    size_t bytes;
    const eg_model *model; /* of the same file; shared */
    eg_context *context;   /* of it; shared */
    const float *expected; /* what every context makes of the ids */
} caller;

static const int32_t ids[TOKENS] = {2, 5, 8, 13, 21, 34, 55, 89, 1};
static const uint64_t offsets[] = {0, TOKENS};

static void encode(const caller *self, eg_context *context)
{
    float out[HIDDEN];
    CHECK(eg_encode(context, ids, offsets, 1, HIDDEN, 1, out) == EG_OK, "%s", eg_error_message());
    CHECK(memcmp(out, self->expected, sizeof out) == 0, "another vector beside other callers");
}

static void work(void *argument)
{
    caller *self = argument;
    for (long round = 0; round < self->rounds; round++) {
        eg_model *own = NULL;
        eg_context *context = self->context;
        const int kind = random_int(&self->random, 0,
                                    3); /* a shared context, one of the shared model, all of its own */
        if (kind == 3) {
            const eg_status status = eg_model_open_memory(self->file, self->bytes, NULL, &own);
            CHECK(status == EG_OK, "%s", eg_error_message());
        }
        if (kind >= 2) {
            const uint32_t threads = (uint32_t)random_int(&self->random, 1, 3);
            context = NULL;
            const eg_status status = eg_context_create(own != NULL ? own : self->model, threads, NULL, &context);
            CHECK(status == EG_OK, "%s", eg_error_message());
        }
        encode(self, context);
        CHECK_REFUSED(eg_encode(context, ids, offsets, 1, HIDDEN, 1, NULL), EG_ERROR_ARGUMENT, "a place");
        if (context != self->context) {
            eg_context_free(context);
        }
        eg_model_free(own);
    }
}

int main(int count, char **arguments)
{
    static tensors t;
    list_tensors(&t, EG_I8, EG_U8);
    size_t bytes;
    unsigned char *file = make_file(&t, &bytes);
    eg_model *model = NULL;
    eg_context *context = NULL;
    float expected[HIDDEN];
    CHECK(eg_model_open_memory(file, bytes, NULL, &model) == EG_OK, "%s", eg_error_message());
    CHECK(eg_context_create(model, 2, NULL, &context) == EG_OK, "%s", eg_error_message());
    CHECK(eg_encode(context, ids, offsets, 1, HIDDEN, 1, expected) == EG_OK, "%s", eg_error_message());
    caller callers[CALLERS];
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (caller){.random = i,
                              .rounds = count > 1 ? atol(arguments[1]) : ROUNDS,
                              .file = file,
                              .bytes = bytes,
                              .model = model,
                              .context = context,
                              .expected = expected};
        CHECK(eg_thread_start(&callers[i].thread, work, &callers[i]), "caller %zu", i);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        eg_thread_join(&callers[i].thread);
    }
    eg_context_free(context);
    eg_model_free(model);
    eg_aligned_free(file);
    return check_result();
}
