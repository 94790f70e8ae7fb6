/* embgemma: embeds lines of text, measures this machine, and says what a model file holds. Needs no other file.
 *
 *     embgemma embed MODEL_FILE < texts.txt > vectors.jsonl
 *     embgemma bench MODEL_FILE
 *     embgemma info MODEL_FILE */
#include "program/program.h"

#include "model/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, MOST_LINE_BYTES = 1 << 26, WRONG_USE = 2 }; /* texts at once; of one text; exit code */

static const char usage[] =
    "usage: embgemma embed MODEL_FILE [--prompt-name NAME] [--dim N] [--threads N] [--isa NAME]\n"
    "       embgemma bench MODEL_FILE [--seconds S] [--threads N] [--isa NAME]\n"
    "       embgemma info  MODEL_FILE\n"
    "\n"
    "embed: texts from standard input, UTF-8, one a line; a line of JSON for each to standard output\n"
    "bench: time by length of text, load time, memory, and the share of what this machine can do\n"
    "info:  what the model file holds, and what it runs on here\n";

static const char byte_order_mark[] = "\xEF\xBB\xBF"; /* which some editors of Windows write before UTF-8 */

static _Noreturn void fail(int code, const char *what, const char *which)
{
    fprintf(stderr, "embgemma: %s%s\n", what, which);
    exit(code);
}

void eg_must(eg_status status)
{
    if (status != EG_OK) {
        fail(status == EG_ERROR_ARGUMENT ? WRONG_USE : EXIT_FAILURE, "", eg_error_message());
    }
}

/* ---- embed ------------------------------------------------------------------------------------------------------- */

/* Texts that are read and not embedded yet. */
typedef struct batch {
    char *texts[BATCH];
    size_t bytes[BATCH];
    size_t count;
    unsigned long long first_line; /* of the input; 1 is the first */
} batch;

static int begins_with_mark(const batch *b)
{
    const size_t bytes = sizeof byte_order_mark - 1;
    return b->first_line == 1 && b->count > 0 && b->bytes[0] >= bytes &&
           memcmp(b->texts[0], byte_order_mark, bytes) == 0;
}

/* Reads a line without its line break; free it. NULL at the end of the input. */
static char *read_line(FILE *stream, size_t *length)
{
    size_t room = 0;
    char *line = NULL;
    int byte;
    for (*length = 0; (byte = getc(stream)) != EOF; line[(*length)++] = (char)byte) {
        if (*length == MOST_LINE_BYTES) {
            fail(EXIT_FAILURE, "a line has more than 64 MiB; expected one text a line", "");
        }
        if (*length == room) {
            room = room > 0 ? 2 * room : 256;
            line = realloc(line, room);
            if (line == NULL) {
                fail(EXIT_FAILURE, "no memory for a line", "");
            }
        }
        if (byte == '\n') {
            *length -= *length > 0 && line[*length - 1] == '\r';
            return line;
        }
    }
    if (ferror(stream)) {
        fail(EXIT_FAILURE, "cannot read standard input: ", strerror(errno));
    }
    return line;
}

static int read_batch(FILE *stream, batch *b)
{
    b->first_line += b->count;
    b->count = 0;
    while (b->count < BATCH && (b->texts[b->count] = read_line(stream, &b->bytes[b->count])) != NULL) {
        b->count++;
    }
    if (begins_with_mark(b)) {
        b->bytes[0] -= sizeof byte_order_mark - 1;
        memmove(b->texts[0], b->texts[0] + sizeof byte_order_mark - 1, b->bytes[0]);
    }
    return b->count > 0;
}

/* As `embgemma embed` of the Python package writes it; 9 digits restore the same float32. */
static void write_vector(unsigned long long line, const float *vector, uint32_t dim, const char *fingerprint)
{
    printf("{\"line\": %llu, \"embedding\": [", line);
    for (uint32_t i = 0; i < dim; i++) {
        printf(i > 0 ? ", %.9g" : "%.9g", (double)vector[i]);
    }
    printf("], \"fingerprint\": \"%s\"}\n", fingerprint);
}

/* A text that is too long is embedded without its end. */
static void tell_if_cut(const eg_model *model, const char *prompt_name, const batch *b, size_t index)
{
    eg_string prompt;
    eg_must(eg_choose_prompt(&model->file, prompt_name, &prompt));
    const size_t most = eg_model_max_tokens(model), bytes = prompt.bytes + b->bytes[index];
    if (bytes + 2 <= most) { /* a token has at least one byte; <bos> and <eos> */
        return;
    }
    char *text = malloc(bytes);
    int32_t *ids = malloc(most * sizeof *ids);
    if (text == NULL || ids == NULL) {
        fail(EXIT_FAILURE, "no memory for a line", "");
    }
    if (prompt.bytes > 0) {
        memcpy(text, prompt.text, prompt.bytes);
    }
    memcpy(text + prompt.bytes, b->texts[index], b->bytes[index]);
    size_t count;
    uint32_t cut;
    eg_must(eg_tokenize(eg_model_tokenizer(model), text, bytes, most, ids, &count, &cut));
    if (cut) {
        fprintf(stderr, "embgemma: line %llu of the input: cut to %zu tokens\n", b->first_line + index, most);
    }
    free(text);
    free(ids);
}

static void write_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fail(EXIT_FAILURE, "cannot write standard output: ", strerror(errno));
    }
}

/* Embeds one text after another up to the one that cannot be, which it names. */
static void embed_singly(const batch *b, const eg_model *model, eg_context *context, const char *prompt_name,
                         uint32_t dim, float *vectors, const char *fingerprint)
{
    for (size_t i = 0; i < b->count; i++) {
        if (eg_embed(context, (const char *const *)&b->texts[i], &b->bytes[i], 1, prompt_name, dim, vectors) != EG_OK) {
            write_output();
            fprintf(stderr, "embgemma: line %llu of the input: %s\n", b->first_line + i, eg_error_message());
            exit(EXIT_FAILURE);
        }
        write_vector(b->first_line + i, vectors, dim, fingerprint);
        tell_if_cut(model, prompt_name, b, i);
    }
}

static void run_embed(const eg_options *options)
{
    eg_model *model;
    eg_context *context;
    eg_must(eg_model_open(options->model, &model));
    eg_must(eg_context_create(model, options->threads, options->isa, &context));
    const uint32_t dim = options->dim > 0 ? options->dim : eg_model_dim(model);
    char fingerprint[EG_FINGERPRINT_BYTES];
    eg_must(eg_model_fingerprint(model, options->prompt_name, dim, fingerprint));
    float *vectors = malloc((size_t)BATCH * dim * sizeof *vectors);
    if (vectors == NULL) {
        fail(EXIT_FAILURE, "no memory for the vectors", "");
    }
    batch b = {.count = 0, .first_line = 1};
    while (read_batch(stdin, &b)) {
        const eg_status status = eg_embed(context, (const char *const *)b.texts, b.bytes, b.count, options->prompt_name,
                                          dim, vectors);
        if (status != EG_OK) {
            embed_singly(&b, model, context, options->prompt_name, dim, vectors, fingerprint);
        }
        for (size_t i = 0; i < b.count; i++) {
            if (status == EG_OK) {
                write_vector(b.first_line + i, vectors + i * dim, dim, fingerprint);
                tell_if_cut(model, options->prompt_name, &b, i);
            }
            free(b.texts[i]);
        }
        write_output();
    }
    free(vectors);
    eg_context_free(context);
    eg_model_free(model);
}

/* ---- info -------------------------------------------------------------------------------------------------------- */

static void run_info(const eg_options *options)
{
    eg_model *model;
    eg_context *context;
    char fingerprint[EG_FINGERPRINT_BYTES];
    eg_must(eg_model_open(options->model, &model));
    eg_must(eg_context_create(model, options->threads, options->isa, &context));
    eg_must(eg_model_fingerprint(model, "", eg_model_dim(model), fingerprint));
    printf("file        %s\n", options->model);
    printf("texts       up to %u tokens\n", eg_model_max_tokens(model));
    printf("embeddings  %u dimensions or fewer\n", eg_model_dim(model));
    printf("fingerprint %s without a prompt\n", fingerprint);
    for (size_t i = 0; i < eg_model_prompt_count(model); i++) {
        const char *name = eg_model_prompt_name(model, i);
        printf("%-11s %-24s \"%s\"\n", i == 0 ? "prompts" : "", name, eg_model_prompt(model, name));
    }
    printf("CPU         instruction sets that it can run, best first:");
    for (size_t i = 0; i < eg_isa_count(); i++) {
        printf("%s%s", eg_isa_supported(i) ? " " : "", eg_isa_supported(i) ? eg_isa_name(i) : "");
    }
    printf("\nin use      embgemma %s, instruction set %s, threads %u\n", eg_version(), eg_context_isa(context),
           eg_context_threads(context));
    eg_context_free(context);
    eg_model_free(model);
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    const double value = strtod(text, &end);
    if (*text == 0 || *end != 0 || !(value >= least && value <= most)) {
        fail(WRONG_USE, name, " takes a positive number");
    }
    return value;
}

static uint32_t whole_number(const char *name, const char *text)
{
    const uint32_t value = (uint32_t)number(name, text, 1, UINT32_MAX);
    if (number(name, text, 1, UINT32_MAX) != (double)value) {
        fail(WRONG_USE, name, " takes a whole number");
    }
    return value;
}

static void read_option(const char *name, const char *value, eg_options *options)
{
    if (value == NULL) {
        fail(WRONG_USE, name, " is no option, or lacks its value");
    }
    if (strcmp(name, "--isa") == 0) {
        options->isa = value;
    } else if (strcmp(name, "--prompt-name") == 0) {
        options->prompt_name = value;
    } else if (strcmp(name, "--threads") == 0) {
        options->threads = whole_number(name, value);
    } else if (strcmp(name, "--dim") == 0) {
        options->dim = whole_number(name, value);
    } else if (strcmp(name, "--seconds") == 0) {
        options->seconds = number(name, value, 0.1, 1e6);
    } else {
        fail(WRONG_USE, "unknown option ", name);
    }
}

int main(int count, char **arguments)
{
    static const struct command {
        const char *name;
        void (*run)(const eg_options *options);
    } commands[] = {{"embed", run_embed}, {"bench", eg_bench}, {"info", run_info}};
    const int helps = count < 2 || strcmp(arguments[count - 1], "--help") == 0;
    if (count < 3 || helps) {
        fputs(usage, helps ? stdout : stderr);
        return helps ? EXIT_SUCCESS : WRONG_USE;
    }
    eg_options options = {.model = arguments[2], .seconds = 20};
    for (int i = 3; i < count; i += 2) {
        read_option(arguments[i], i + 1 < count ? arguments[i + 1] : NULL, &options);
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(arguments[1], commands[i].name) == 0) {
            commands[i].run(&options);
            write_output();
            return EXIT_SUCCESS;
        }
    }
    fail(WRONG_USE, "unknown command; expected embed, bench or info, not ", arguments[1]);
}
