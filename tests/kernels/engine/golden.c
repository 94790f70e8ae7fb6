/* Embeds the texts of a file, each by itself: what test_embed.py compares with golden vectors.
 *
 *     golden MODEL_FILE TEXTS VECTORS
 *
 * TEXTS is a row of records: the lengths in bytes of prompt name and text, as decimal numbers in a line of their own,
 * then the two, with a 0 after the name. A name of length 0 stands for no prompt. VECTORS receives float32. */
#include "embgemma.h"

#include <stdio.h>
#include <stdlib.h>

static void fail(const char *message)
{
    fprintf(stderr, "%s\n", message);
    exit(EXIT_FAILURE);
}

static void must(eg_status status)
{
    if (status != EG_OK) {
        fail(eg_error_message());
    }
}

static char *read_bytes(FILE *file, size_t bytes)
{
    char *read = malloc(bytes + 1);
    if (read == NULL || fread(read, 1, bytes, file) != bytes) {
        fail("the file of texts is cut");
    }
    return read;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fail("usage: golden MODEL_FILE TEXTS VECTORS");
    }
    eg_model *model;
    eg_context *context;
    must(eg_model_open(argv[1], &model));
    must(eg_context_create(model, 0, NULL, &context));
    FILE *texts = fopen(argv[2], "rb"), *vectors = fopen(argv[3], "wb");
    const uint32_t dim = eg_model_dim(model);
    float *vector = malloc(dim * sizeof *vector);
    if (texts == NULL || vectors == NULL || vector == NULL) {
        fail("cannot open the files");
    }
    size_t name_bytes, text_bytes;
    while (fscanf(texts, "%zu %zu", &name_bytes, &text_bytes) == 2 && fgetc(texts) == '\n') {
        char *name = read_bytes(texts, name_bytes + 1), *text = read_bytes(texts, text_bytes);
        const char *const one[] = {text};
        must(eg_embed(context, one, &text_bytes, 1, name, dim, vector));
        if (fwrite(vector, sizeof *vector, dim, vectors) != dim) {
            fail("cannot write the vectors");
        }
        free(text);
        free(name);
    }
    fclose(texts);
    if (fclose(vectors) != 0) {
        fail("cannot write the vectors");
    }
    free(vector);
    eg_context_free(context);
    eg_model_free(model);
    return EXIT_SUCCESS;
}
