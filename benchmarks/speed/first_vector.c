/* What a process without Python takes from start to first vector: milliseconds and memory.
 *
 *     cc -O2 benchmarks/first_vector.c $(pkg-config --cflags --libs embgemma) -o build/first_vector
 *     build/first_vector MODEL_FILE [THREADS]
 *
 * The text has 256 tokens, prompt included. Memory is told by Linux, for the whole process. Time is also told as what
 * all threads spent computing, which other programs on the machine do not change. */
#define _POSIX_C_SOURCE 200809L
#include <embgemma.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TOKENS = 256, REPEATS = 20 };

static const char passage[] =
    "The river rises in a bog between two hills, barely wide enough to step across, and for its first ten miles it is "
    "called a brook by everyone who lives beside it. Below the old quarry three smaller streams join it, and the "
    "current grows strong enough to turn a mill wheel; two of the mills still stand, though neither has ground any "
    "grain since 1931. Farmers on the eastern bank keep sheep and a few dairy cows, while the western slopes, which "
    "are steeper and catch the evening sun, have been planted with apples, pears and, more recently, vines. Every "
    "spring the meadows flood. Engineers proposed a dam in 1968 and again in 2004, and both times the villages voted "
    "against it, preferring wet cellars to a valley under water. Salmon returned about twelve years ago, after the "
    "paper factory closed and the weir at Northbridge was fitted with a ladder. Today anglers need a licence, "
    "kingfishers nest in the clay banks, and otters, which nobody had seen for two generations, leave their tracks "
    "on the sandbars each morning. Where the water finally meets the sea it has become half a mile wide, brown with "
    "silt and busy with ferries, container ships and small boats racing on Sunday afternoons. Children learn in "
    "school that the name means simply \"the loud one\", from a language that is spoken no more.";

static void must(eg_status status)
{
    if (status != EG_OK) {
        fprintf(stderr, "%s\n", eg_error_message());
        exit(EXIT_FAILURE);
    }
}

typedef struct moment {
    double wall, cpu; /* ms */
} moment;

static double milliseconds(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static moment now(void) { return (moment){milliseconds(CLOCK_MONOTONIC), milliseconds(CLOCK_PROCESS_CPUTIME_ID)}; }

static moment since(moment start)
{
    const moment end = now();
    return (moment){end.wall - start.wall, end.cpu - start.cpu};
}

static void print_time(const char *what, moment taken)
{
    printf("%-24s %7.1f ms %7.1f ms CPU\n", what, taken.wall, taken.cpu);
}

/* Prints lines of /proc/self/smaps_rollup, in units of a million bytes. */
static void print_memory(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256], name[64];
    unsigned long resident = 0, own = 0, kib;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%63[^:]: %lu kB", name, &kib) == 2) {
            resident = strcmp(name, "Rss") == 0 ? kib : resident;
            own = strcmp(name, "Anonymous") == 0 ? kib : own; /* private, and not a page of the file */
        }
    }
    if (file != NULL) {
        fclose(file);
        printf("%-24s %7.1f MB\n%-24s %7.1f MB\n", "resident", (double)resident * 1024e-6, "of it private",
               (double)own * 1024e-6);
    }
}

/* How much of the passage has TOKENS tokens, behind the prompt. */
static size_t passage_bytes(const eg_model *model, const char *prompt)
{
    char text[sizeof passage + 256];
    int32_t ids[TOKENS + 1];
    size_t bytes = strlen(passage), tokens = TOKENS + 1;
    uint32_t truncated = 1;
    for (; truncated || tokens > TOKENS; bytes--) {
        const int length = snprintf(text, sizeof text, "%s%.*s", prompt, (int)bytes, passage);
        must(eg_tokenize(eg_model_tokenizer(model), text, (size_t)length, TOKENS + 1, ids, &tokens, &truncated));
    }
    return bytes + 1;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL_FILE [THREADS]\n", argv[0]);
        return EXIT_FAILURE;
    }
    const char *text = passage;
    static float vector[1 << 16];
    eg_model *model;
    eg_context *context;

    moment start = now();
    must(eg_model_open(argv[1], &model));
    must(eg_context_create(model, argc > 2 ? (uint32_t)atoi(argv[2]) : 0, NULL, &context));
    print_time("load", since(start));
    const char *prompt = eg_model_prompt(model, "document");
    const size_t bytes = passage_bytes(model, prompt != NULL ? prompt : "");
    moment best = {1e9, 1e9};
    for (int i = 0; i <= REPEATS; i++) {
        start = now();
        must(eg_embed(context, &text, &bytes, 1, prompt != NULL ? "document" : "", eg_model_dim(model), vector));
        const moment taken = since(start);
        if (i == 0) {
            print_time("first text", taken);
            print_memory();
        } else {
            best.wall = taken.wall < best.wall ? taken.wall : best.wall;
            best.cpu = taken.cpu < best.cpu ? taken.cpu : best.cpu;
        }
    }
    print_time("best of later texts", best);
    eg_context_free(context);
    eg_model_free(model);
    return EXIT_SUCCESS;
}
