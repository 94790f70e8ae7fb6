/* Measures one model file as `embgemma-bench --device cpu` does: benchmarks/speed/ is the same in Python. */
#include "embgemma_bench.h"
#include "model/model.h"
#include "platform/platform.h"
#include "program/program.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MEMORY_TOKENS = 256, /* of the text after which memory is read */
    USUAL_TOKENS = 128,  /* of the text that the summary is about */
    MIN_CALLS = 3,
    MOST_CALLS = 200,
    LIMIT_TRIES = 3,
    FIRST_ORDINARY_ID = 256, /* the first ids of the vocabulary are control tokens and bytes */
};

static const uint32_t lengths[] = {8, 16, 32, 64, 128, 256, 512, 1024, 2048};
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

static const double limit_seconds = 0.3, longest_share = 0.1; /* a call of more of --seconds is left out */

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory == NULL) {
        fprintf(stderr, "embgemma: no memory for %zu bytes\n", bytes);
        exit(EXIT_FAILURE);
    }
    return memory;
}

/* ---- the least work of a call: benchmarks/harness/workload.py ---------------------------------------------------- */

typedef struct work {
    double macs, bytes; /* multiply-accumulates; of weights that must be read at least once */
} work;

static work matrix_work(const eg_matrix *m, double tokens)
{
    const double weights = (double)m->out_features * (double)m->in_features;
    const double size = m->dtype == EG_F32 ? 4 : m->dtype == EG_U8 ? 0.5 : 1; /* bytes of a weight */
    const double codebooks = m->codebooks != NULL ? weights / 64 : 0, scale = m->scale != NULL ? 4 : 0;
    return (work){tokens * weights, weights * size + codebooks + (double)m->out_features * scale};
}

static work work_of(const eg_model *model, double tokens)
{
    const eg_config *c = &model->config;
    const eg_embedding *table = &model->embedding;
    const double beside = table->groups != NULL ? 3 : table->scale != NULL ? 2 : 0; /* rate and scale */
    const double row_bytes = round((double)table->bytes / c->vocab + beside);       /* on average */
    const double reach = c->window < tokens - 1 ? c->window : tokens - 1;
    const double band = tokens * (2 * reach + 1) - reach * (reach + 1);
    work sum = matrix_work(&model->head, 1);
    sum.bytes += (double)c->hidden * 4 + tokens * row_bytes;
    for (size_t i = 0; i < c->layers; i++) {
        const eg_layer *layer = &model->layers[i];
        const eg_matrix *matrices[] = {&layer->qkv, &layer->o, &layer->gate_up, &layer->down};
        for (size_t k = 0; k < 4; k++) {
            const work one = matrix_work(matrices[k], tokens);
            sum.macs += one.macs;
            sum.bytes += one.bytes;
        }
        sum.macs += 2.0 * c->heads * c->head_dim * (layer->full_attention ? tokens * tokens : band);
        sum.bytes += 4.0 * (4.0 * c->hidden + 2.0 * c->head_dim); /* norms */
    }
    return sum;
}

/* ---- memory of this process, in bytes; 0 where the system does not tell ------------------------------------------ */

typedef struct memory {
    double resident, private;
} memory;

static memory process_memory(void)
{
    memory m = {0, 0};
    FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    double kib;
    while (rollup != NULL && fgets(line, sizeof line, rollup) != NULL) {
        m.resident += sscanf(line, "Rss: %lf", &kib) == 1 ? kib * 1024 : 0;
        m.private += sscanf(line, "Private_Clean: %lf", &kib) == 1 ? kib * 1024 : 0;
        m.private += sscanf(line, "Private_Dirty: %lf", &kib) == 1 ? kib * 1024 : 0;
    }
    if (rollup != NULL) {
        fclose(rollup);
    }
    return m;
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

typedef struct bench {
    const eg_model *model;
    eg_context *context;
    float *vector;
    int32_t *ids;
    double macs_per_second, bytes_per_second; /* the machine's limits; 0 for float32, which they are not for */
} bench;

static double time_call(const bench *b, uint32_t tokens)
{
    const uint64_t offsets[] = {0, tokens};
    const double begin = eg_now();
    eg_must(eg_encode(b->context, b->ids, offsets, 1, eg_model_dim(b->model), 1, b->vector));
    return eg_now() - begin;
}

/* Ordinary tokens between <bos> and <eos>, the same on every run. */
static void fill_ids(const bench *b, uint32_t tokens)
{
    const eg_config *config = &b->model->config;
    const uint32_t first = FIRST_ORDINARY_ID < config->vocab ? FIRST_ORDINARY_ID : config->vocab - 1;
    uint32_t state = tokens;
    for (uint32_t i = 0; i < tokens; i++) {
        state = state * 1664525u + 1013904223u; /* Numerical Recipes, chapter 7: a linear congruential generator */
        b->ids[i] = (int32_t)(first + (uint32_t)((uint64_t)state * (config->vocab - first) >> 32));
    }
    b->ids[0] = (int32_t)config->bos_id;
    b->ids[tokens - 1] = (int32_t)config->eos_id;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The least seconds in which this machine can do the work. */
static double floor_of(const bench *b, work w)
{
    const double reading = w.bytes / b->bytes_per_second, multiplying = w.macs / b->macs_per_second;
    return reading > multiplying ? reading : multiplying;
}

/* Times a length for `seconds`, and prints its row. Returns the median, in seconds. */
static double time_length(const bench *b, uint32_t tokens, double seconds)
{
    double samples[MOST_CALLS];
    size_t calls = 0;
    fill_ids(b, tokens);
    time_call(b, tokens); /* the first allocates, and reads the rows of its tokens */
    for (const double end = eg_now() + seconds; calls < MOST_CALLS && (calls < MIN_CALLS || eg_now() < end);) {
        samples[calls++] = time_call(b, tokens);
    }
    qsort(samples, calls, sizeof *samples, compare);
    const double median = samples[calls / 2], p95 = samples[calls * 95 / 100];
    printf("%8u %10.1f %8.1f %7zu %9.0f", tokens, 1e3 * median, 1e3 * p95, calls, tokens / median);
    if (b->macs_per_second > 0) {
        const work w = work_of(b->model, tokens);
        const double least = floor_of(b, w);
        const char *bound = w.bytes / b->bytes_per_second >= least ? "memory" : "multiply";
        printf(" %9.1f %7.0f %%  %s", 1e3 * least, 100 * least / median, bound);
    }
    printf("\n");
    fflush(stdout);
    return median;
}

static void measure_limits(bench *b)
{
    const size_t bytes = (size_t)work_of(b->model, 1).bytes;
    if (b->model->layers[0].qkv.dtype == EG_F32) {
        printf("limits   not measured: the multiply rate that the engine measures is that of 8-bit integers\n");
        return;
    }
    for (int i = 0; i < LIMIT_TRIES; i++) {
        double macs, read;
        eg_must(eg_measure_multiply_rate(b->context, limit_seconds, &macs));
        eg_must(eg_measure_read_rate(b->context, bytes, limit_seconds, &read));
        b->macs_per_second = macs > b->macs_per_second ? macs : b->macs_per_second;
        b->bytes_per_second = read > b->bytes_per_second ? read : b->bytes_per_second;
    }
    printf("limits   8-bit multiply %.3f TMAC/s, memory read %.1f GB/s (measured now, same threads)\n",
           b->macs_per_second / 1e12, b->bytes_per_second / 1e9);
}

static void print_memory(const char *stage, memory m)
{
    if (m.resident > 0) {
        printf("%-28s %8.0f %8.0f\n", stage, m.resident / 1e6, m.private / 1e6);
    }
}

void eg_bench(const eg_options *options)
{
    const memory before = process_memory();
    eg_model *model;
    bench b = {.macs_per_second = 0};
    const double begin = eg_now();
    eg_must(eg_model_open(options->model, &model));
    eg_must(eg_context_create(model, options->threads, options->isa, &b.context));
    const double load = eg_now() - begin;
    const memory loaded = process_memory();
    const uint32_t most = eg_model_max_tokens(model), memory_tokens = MEMORY_TOKENS < most ? MEMORY_TOKENS : most;
    b.model = model;
    b.vector = allocate(eg_model_dim(model) * sizeof *b.vector);
    b.ids = allocate(most * sizeof *b.ids);
    fill_ids(&b, memory_tokens);
    const double first = time_call(&b, memory_tokens);
    const memory after_text = process_memory();

    printf("model    %s\n", options->model);
    printf("engine   embgemma %s, ISA %s, %u threads\n", eg_version(), eg_context_isa(b.context),
           eg_context_threads(b.context));
    measure_limits(&b);
    printf("load     %.1f ms; the first text takes %.0f ms\n\n", 1e3 * load, 1e3 * first);
    printf("One text in one call\n  tokens  median ms   p95 ms   calls  tokens/s  floor ms  of limit  limit\n");
    double usual = 0, rate = 0; /* the median of USUAL_TOKENS; seconds a multiply-accumulate of the last length */
    for (size_t i = 0; i < LENGTHS && lengths[i] <= most; i++) {
        const double macs = work_of(model, lengths[i]).macs;
        if (macs * rate > options->seconds * longest_share) {
            printf("%8u left out: a call would take too much of %g s; give more --seconds\n", lengths[i],
                   options->seconds);
            continue;
        }
        const double median = time_length(&b, lengths[i], options->seconds / (double)LENGTHS);
        usual = lengths[i] == USUAL_TOKENS ? median : usual;
        rate = median / macs;
    }
    printf("\nMemory of the process, MB    resident  private\n");
    print_memory("nothing loaded", before);
    print_memory("loaded", loaded);
    print_memory("after a text of 256 tokens", after_text);
    print_memory("after everything above", process_memory());
    if (usual > 0) {
        printf("\n%d tokens: %.1f ms, %.0f MB", USUAL_TOKENS, 1e3 * usual, after_text.resident / 1e6);
        if (b.macs_per_second > 0) {
            printf(" - %.0f %% of what this CPU can do", 100 * floor_of(&b, work_of(model, USUAL_TOKENS)) / usual);
        }
        printf("\n");
    }
    free(b.ids);
    free(b.vector);
    eg_context_free(b.context);
    eg_model_free(model);
}
