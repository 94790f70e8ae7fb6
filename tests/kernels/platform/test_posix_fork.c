/* A forked child gets an error for its parent's context, never waits, and can make its own. */
#define _POSIX_C_SOURCE 200809L
#include "embgemma_bench.h"
#include "tests/kernels/model/small_model.h"

#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_SECONDS = 120 };

static const int32_t ids[] = {2, 17, 95, 1, 2, 40, 1};
static const uint64_t offsets[] = {0, 4, 7};

typedef float vectors[2 * HIDDEN];

/* In a child: its exit status is that of the checks. */
static int child_fails(const eg_model *model, eg_context *context, const vectors expected)
{
    vectors out;
    double rate;
    check_failures = 0;
    alarm(CHILD_SECONDS); /* ends a child that waits for threads that it does not have */
    CHECK_REFUSED(eg_encode(context, ids, offsets, 2, HIDDEN, 1, out), EG_ERROR_ARGUMENT, "eg_context_create");
    CHECK_REFUSED(eg_context_profile(context, NULL), EG_ERROR_ARGUMENT, "forked");
    CHECK_REFUSED(eg_measure_multiply_rate(context, 0.001, &rate), EG_ERROR_ARGUMENT, "forked");
    CHECK(eg_context_threads(context) >= 1 && eg_context_isa(context) != NULL, "facts");
    eg_context_free(context);
    CHECK(eg_context_create(model, 2, NULL, &context) == EG_OK, "%s", eg_error_message());
    CHECK(eg_encode(context, ids, offsets, 2, HIDDEN, 1, out) == EG_OK, "%s", eg_error_message());
    CHECK(memcmp(out, expected, sizeof out) == 0, "a child's context gives other bits");
    eg_context_free(context);
    return check_result();
}

static void check_fork(const eg_model *model, uint32_t threads)
{
    eg_context *context = NULL;
    vectors out, expected;
    CHECK(eg_context_create(model, threads, NULL, &context) == EG_OK, "%s", eg_error_message());
    CHECK(eg_encode(context, ids, offsets, 2, HIDDEN, 1, expected) == EG_OK, "%s", eg_error_message());
    const pid_t child = fork();
    if (child == 0) {
        _exit(child_fails(model, context, expected));
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "no child");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%u threads: the child ended with %d", threads, status);
    CHECK(eg_encode(context, ids, offsets, 2, HIDDEN, 1, out) == EG_OK, "%s", eg_error_message());
    CHECK(memcmp(out, expected, sizeof out) == 0, "the parent's context gives other bits after the fork");
    eg_context_free(context);
}

int main(void)
{
    unsigned char *file;
    eg_model *model = make_model(EG_I8, EG_U8, &file);
    /* QEMU's user mode itself aborts in a forked child of a process that had threads. */
    const uint32_t most = getenv("EMBGEMMA_EMULATED") != NULL ? 1 : 3;
    for (uint32_t threads = 1; threads <= most; threads++) {
        check_fork(model, threads);
    }
    eg_model_free(model);
    eg_aligned_free(file);
    return check_result();
}
