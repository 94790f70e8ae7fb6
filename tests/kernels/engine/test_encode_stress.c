/* Threads that open, share, use and free models and contexts at the same time, for the thread sanitizer. A first
 * argument says for how many rounds; each draws by chance what to do. */
#define _POSIX_C_SOURCE 200809L
#include "embgemma.h"
#include "platform/platform.h"
#include "tests/kernels/model/small_model.h"
#include "tests/kernels/platform/disk.h"

enum { CALLERS = 4, ROUNDS = 12, TOKENS = 9, LONG_TEXTS = 8 };

typedef struct caller {
    eg_system_thread thread;
    uint64_t random;
    long rounds;
    const unsigned char *file; /* of a model that each caller may open for itself */
    size_t bytes;
    const eg_model *model; /* of the same file, on disk: rows are read from it; shared */
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

/* Reads the longest rows of the table beside each other, from the file. */
static void check_longest_rows(const eg_model *model)
{
    enum { THREADS = 4, CALLS = 6 };
    static int32_t long_ids[LONG_TEXTS * MAX_TOKENS];
    static float out[LONG_TEXTS * HIDDEN];
    uint64_t ends[LONG_TEXTS + 1];
    for (size_t i = 0; i <= LONG_TEXTS; i++) {
        ends[i] = i * MAX_TOKENS;
    }
    for (size_t i = 0; i < ends[LONG_TEXTS]; i++) {
        long_ids[i] = (int32_t)(4 * i % VOCAB) + 3;
    }
    eg_context *context = NULL;
    CHECK(eg_context_create(model, THREADS, NULL, &context) == EG_OK, "%s", eg_error_message());
    for (int i = 0; i < CALLS; i++) {
        CHECK(eg_encode(context, long_ids, ends, LONG_TEXTS, HIDDEN, 1, out) == EG_OK, "%s", eg_error_message());
    }
    eg_context_free(context);
}

int main(int count, char **arguments)
{
    static const char path[] = "test_encode_stress.model";
    static tensors t;
    list_tensors(&t, EG_I8, EG_U8);
    size_t bytes;
    unsigned char *file = make_file(&t, &bytes);
    eg_model *model = NULL;
    eg_context *context = NULL;
    float expected[HIDDEN];
    disk_write(path, file, bytes);
    CHECK(eg_model_open(path, &model) == EG_OK, "%s", eg_error_message());
    CHECK(eg_context_create(model, 2, NULL, &context) == EG_OK, "%s", eg_error_message());
    CHECK(eg_encode(context, ids, offsets, 1, HIDDEN, 1, expected) == EG_OK, "%s", eg_error_message());
    check_longest_rows(model);
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
    CHECK(disk_remove(path), "cannot remove %s", path);
    return check_result();
}
