/* embgemma: an inference engine for Gemma text encoders on CPUs. The only public header.
 *
 * Simple use: eg_model_create -> eg_context_create -> eg_encode -> eg_context_free -> eg_model_free.
 * Every function that can fail returns an eg_status; eg_error_message() then says what was found, what was
 * expected and how to fix it. The library never prints, aborts or exits.
 *
 * Python's cffi reads this very file, so declarations stay plain C; cffi skips the block marked below.
 */
/* cffi: skip */
#ifndef EMBGEMMA_H
#define EMBGEMMA_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default) /* all else in the library is hidden */
#endif
#if defined(__cplusplus)
extern "C" {
#endif
/* cffi: end of skip */

/* ---- errors ---------------------------------------------------------------------------------------- */

typedef enum eg_status {
    EG_OK = 0,
    EG_ERROR_ARGUMENT = 1,    /* an argument is out of range or contradicts the model */
    EG_ERROR_MODEL = 2,       /* a tensor is missing, misplaced, or of the wrong type or shape */
    EG_ERROR_MEMORY = 3,      /* an allocation was refused */
    EG_ERROR_UNSUPPORTED = 4, /* this CPU lacks the instruction set asked for, or its name is unknown */
    EG_ERROR_SYSTEM = 5       /* the operating system refused something, such as a thread */
} eg_status;

/* The message of the last error on the calling thread; "" if there was none. Valid until the next failing call. */
const char *eg_error_message(void);

/* ---- a model: weights in memory, never copied, never written ---------------------------------------- */

typedef enum eg_dtype { EG_F32 = 0, EG_F16 = 1, EG_I8 = 2, EG_U8 = 3 } eg_dtype;

/* One tensor of a model file, by the names, types and layouts of export/FORMAT.md. */
typedef struct eg_tensor {
    const char *name;
    eg_dtype dtype;
    uint32_t rank;     /* at most 4 */
    uint64_t shape[4]; /* elements, outermost first */
    const void *data;  /* 64-byte aligned; must outlive the model */
} eg_tensor;

typedef struct eg_config {
    uint32_t layers;
    uint32_t hidden;
    uint32_t ffn;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t vocab;
    uint32_t max_tokens;
    uint32_t window;               /* a sliding layer attends iff |i - j| <= window */
    const uint8_t *full_attention; /* (layers,): 1 where a layer attends to all tokens; copied */
    double rope_theta_sliding;
    double rope_theta_full;
    double rms_norm_eps;
} eg_config;

typedef struct eg_model eg_model;

/* Checks every tensor against the config and binds it. Tensors the config does not name are ignored. */
eg_status eg_model_create(const eg_config *config, const eg_tensor *tensors, size_t tensor_count, eg_model **model);

/* Frees the model. Contexts made from it must be freed first. */
void eg_model_free(eg_model *model);

/* ---- a context: threads and scratch memory ----------------------------------------------------------- */

typedef struct eg_context eg_context;

/* threads: 1 or more, 0 for the number of physical cores. isa: one of eg_isa_name(), or NULL for the
 * EMBGEMMA_ISA environment variable if set, else the best that this CPU has. */
eg_status eg_context_create(const eg_model *model, uint32_t threads, const char *isa, eg_context **context);
void eg_context_free(eg_context *context);

uint32_t eg_context_threads(const eg_context *context);
const char *eg_context_isa(const eg_context *context);
size_t eg_context_scratch_bytes(const eg_context *context);

/* Embeds texts laid end to end.
 *   ids:       (offsets[texts],) token ids, <bos> and <eos> included
 *   offsets:   (texts + 1,) text i is ids[offsets[i]] … ids[offsets[i + 1] - 1]; at least one token each
 *   dim:       embedding size, 1 … hidden: the first dim rows of the head (a Matryoshka size)
 *   normalize: 1 to scale each vector to unit length, 0 to leave it as the head gives it
 *   out:       (texts, dim) float32
 * A text's vector does not depend, to the bit, on the other texts, their order, or the number of threads.
 * Calls on one context from several threads are safe and run one after another. */
eg_status eg_encode(eg_context *context, const int32_t *ids, const uint64_t *offsets, size_t texts, uint32_t dim,
                    uint32_t normalize, float *out);

/* ---- introspection ------------------------------------------------------------------------------------ */

const char *eg_version(void);

/* The instruction sets this library was built with, best first. */
size_t eg_isa_count(void);
const char *eg_isa_name(size_t index);   /* NULL past the end */
uint32_t eg_isa_supported(size_t index); /* 1 if this CPU and its operating system can run it */

/* The machine's limits, for rooflines: multiply-accumulates per second of the context's int8 kernel with operands
 * in registers, and bytes per second of reading `bytes` of memory; both over all threads of the context, for
 * about `seconds`. */
eg_status eg_measure_multiply_rate(eg_context *context, double seconds, double *macs_per_second);
eg_status eg_measure_read_rate(eg_context *context, size_t bytes, double seconds, double *bytes_per_second);

/* cffi: skip */
#if defined(__cplusplus)
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#endif
/* cffi: end of skip */
