/* Prints how similar two texts are: from 1, the same, to about 0, nothing in common.
 *
 *     cc example.c $(pkg-config --cflags --libs embgemma) -o example
 *     ./example embeddinggemma-300m.mixed.safetensors "The cat sleeps." "A kitten naps."
 */
#include <embgemma.h>

#include <stdio.h>
#include <stdlib.h>

enum { DIM = 256 }; /* of the model's 768 values: a Matryoshka size */

static void must(eg_status status)
{
    if (status != EG_OK) {
        fprintf(stderr, "%s\n", eg_error_message());
        exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL_FILE TEXT TEXT\n", argv[0]);
        return EXIT_FAILURE;
    }
    const char *texts[2] = {argv[2], argv[3]};
    eg_model *model;
    must(eg_model_open(argv[1], &model));
    eg_context *context;
    must(eg_context_create(model, 0, NULL, &context)); /* as many threads as there are cores, best instruction set */

    const uint32_t dim = DIM < eg_model_dim(model) ? DIM : eg_model_dim(model);
    float vectors[2 * DIM];
    const char *prompt = eg_model_prompt(model, "STS") != NULL ? "STS" : NULL; /* semantic textual similarity */
    must(eg_embed(context, texts, NULL, 2, prompt, dim, vectors));

    double similarity = 0; /* both have length 1, so this is the cosine */
    for (uint32_t i = 0; i < dim; i++) {
        similarity += (double)vectors[i] * (double)vectors[dim + i];
    }
    printf("%.4f\n", similarity);

    eg_context_free(context);
    eg_model_free(model);
    return EXIT_SUCCESS;
}
