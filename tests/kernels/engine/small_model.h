/* A small model of random weights, with every feature of the real one, for tests of the public API. */
#ifndef EG_TESTS_SMALL_MODEL_H
#define EG_TESTS_SMALL_MODEL_H

#include "tests/kernels/check.h"
#include "embgemma.h"

enum {
    LAYERS = 2,
    HIDDEN = 128,
    FFN = 192,
    HEADS = 2,
    HEAD_DIM = 64,
    VOCAB = 128,
    MAX_TOKENS = 80,
    WINDOW = 5,
    MAX_TENSORS = 64,
};

typedef struct weights {
    eg_tensor tensors[MAX_TENSORS];
    char names[MAX_TENSORS][64];
    size_t count;
    uint64_t random;
} weights;

static inline eg_tensor *add(weights *w, const char *owner, const char *kind, eg_dtype dtype, uint32_t rank, uint64_t a,
                             uint64_t b, uint64_t c, uint64_t d)
{
    static const size_t sizes[] = {[EG_F32] = 4, [EG_F16] = 2, [EG_I8] = 1, [EG_U8] = 1};
    const uint64_t shape[4] = {a, b, c, d};
    size_t elements = 1;
    for (uint32_t i = 0; i < rank; i++) {
        elements *= (size_t)shape[i];
    }
    snprintf(w->names[w->count], sizeof w->names[0], "%s%s", owner, kind);
    eg_tensor *tensor = &w->tensors[w->count];
    *tensor = (eg_tensor){.name = w->names[w->count], .dtype = dtype, .rank = rank, .shape = {a, b, c, d}};
    unsigned char *data = aligned_new(elements * sizes[dtype]);
    for (size_t i = 0; i < elements; i++) {
        if (dtype == EG_F32) {
            ((float *)(void *)data)[i] = random_float(&w->random, 0.1f);
        } else if (dtype == EG_F16) {
            ((uint16_t *)(void *)data)[i] = 0x2000; /* 2 to the power -7 */
        } else {
            data[i] = (unsigned char)random_int(&w->random, dtype == EG_I8 ? -127 : 0, dtype == EG_I8 ? 127 : 255);
        }
    }
    tensor->data = data;
    w->count++;
    return tensor;
}

static inline void add_matrix(weights *w, const char *owner, const char *kind, eg_dtype dtype, uint64_t n, uint64_t k)
{
    char name[32];
    snprintf(name, sizeof name, "%s%s", owner, kind);
    if (dtype == EG_F32) {
        add(w, name, ".weight", EG_F32, 3, n / 16, k, 16, 0);
        return;
    }
    add(w, name, ".weight", dtype, 4, n / 16, k / (dtype == EG_U8 ? 8 : 4), 16, 4);
    if (dtype == EG_U8) {
        add(w, name, ".codebook", EG_U8, 3, n / 16, k / 64, 16, 0);
    }
    add(w, name, ".scale", EG_F32, 1, n, 0, 0, 0);
}

/* The tensors lie in the order of a model file. */
static inline void make_weights(weights *w, eg_dtype attention, eg_dtype others)
{
    *w = (weights){.random = 1};
    add(w, "embedding", ".weight", others, 2, VOCAB, others == EG_U8 ? HIDDEN / 2 + HIDDEN / 64 : HIDDEN, 0, 0);
    if (others != EG_F32) {
        add(w, "embedding", ".scale", EG_F16, 2, VOCAB, HIDDEN / 64, 0, 0);
    }
    for (int i = 0; i < LAYERS; i++) {
        char layer[16];
        snprintf(layer, sizeof layer, "layers.%d.", i);
        add(w, layer, "input_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
        add_matrix(w, layer, "qkv", attention, (HEADS + 2) * HEAD_DIM, HIDDEN);
        add(w, layer, "q_norm", EG_F32, 1, HEAD_DIM, 0, 0, 0);
        add(w, layer, "k_norm", EG_F32, 1, HEAD_DIM, 0, 0, 0);
        add_matrix(w, layer, "o", attention, HIDDEN, HEADS * HEAD_DIM);
        add(w, layer, "post_attention_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
        add(w, layer, "pre_ffn_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
        add_matrix(w, layer, "gate_up", others, 2 * FFN, HIDDEN);
        add_matrix(w, layer, "down", others, HIDDEN, FFN);
        add(w, layer, "post_ffn_norm", EG_F32, 1, HIDDEN, 0, 0, 0);
    }
    add(w, "final_norm", "", EG_F32, 1, HIDDEN, 0, 0, 0);
    add_matrix(w, "head", "", others, HIDDEN, HIDDEN);
}

static inline void free_weights(weights *w)
{
    for (size_t i = 0; i < w->count; i++) {
        free((void *)(uintptr_t)w->tensors[i].data);
    }
}

static inline eg_config config(void)
{
    static const uint8_t full_attention[LAYERS + 1] = {0, 1, 1}; /* one more for check_model_refusals */
    return (eg_config){.layers = LAYERS,
                       .hidden = HIDDEN,
                       .ffn = FFN,
                       .heads = HEADS,
                       .kv_heads = 1,
                       .head_dim = HEAD_DIM,
                       .vocab = VOCAB,
                       .max_tokens = MAX_TOKENS,
                       .window = WINDOW,
                       .full_attention = full_attention,
                       .rope_theta_sliding = 1e4,
                       .rope_theta_full = 1e6,
                       .rms_norm_eps = 1e-6};
}

/* The call must fail so, with a message that has the word in it. */
#define CHECK_REFUSED(call, expected, word)                                                                            \
    do {                                                                                                               \
        const eg_status status = (call);                                                                               \
        CHECK(status == (expected), "status %d", (int)status);                                                         \
        CHECK(strstr(eg_error_message(), (word)) != NULL, "message: %s", eg_error_message());                          \
    } while (0)

#endif
