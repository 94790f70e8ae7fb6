/* embgemma: text embeddings by Gemma encoders, on CPUs. The only public header, from simple to advanced.
 *
 *     eg_model *model;
 *     eg_context *context;
 *     const char *texts[] = {"Which planet is red?", "Which planet has rings?"};
 *     float vectors[2 * 768];
 *     if (eg_model_open("embeddinggemma-300m.int8.safetensors", &model) != EG_OK) { … eg_error_message() … }
 *     eg_context_create(model, 0, NULL, &context);
 *     eg_embed(context, texts, NULL, 2, "query", 768, vectors);
 *     eg_context_free(context);
 *     eg_model_free(model);
 *
 * kernels/example.c is the whole program. Every function that can fail returns an eg_status; eg_error_message() then
 * says what was found, what was expected and how to fix it. The library never prints, logs, aborts or exits: the
 * caller decides what to do with a message.
 *
 * Python's cffi reads this very file, so declarations stay plain C; cffi skips the blocks marked below.
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

/* ---- a model: a file of weights, prompts and tokenizer -------------------------------------------------- */

typedef struct eg_model eg_model;

/* Opens a model file, which `embgemma convert` makes. Every offset, shape and type is checked; nothing is copied. The
 * file is mapped and read as needed, so it must stay as it is while the model is open (replacing it by a rename is
 * fine): where it is cut meanwhile, the operating system ends the process by SIGBUS, and where it is changed, vectors
 * may be wrong and calls may fail. A model is never written to and may be shared by any number of contexts and threads,
 * also by processes that are forked off. */
eg_status eg_model_open(const char *path, eg_model **model);

/* Reads the whole file, and compares its bytes with the checksums that were made when it was written: EG_OK if it is as
 * written and eg_model_open() opens it. This takes seconds (SHA-256), so check a model once, after a download. */
eg_status eg_model_check(const char *path);

/* Free its contexts first. NULL is fine, here and in every function that frees. */
void eg_model_free(eg_model *model);

uint32_t eg_model_dim(const eg_model *model);        /* size of a full embedding */
uint32_t eg_model_max_tokens(const eg_model *model); /* of a text, with its prompt, <bos> and <eos> */

/* The prompts that the model was trained with, by name: "query", "document", … */
size_t eg_model_prompt_count(const eg_model *model);
const char *eg_model_prompt_name(const eg_model *model, size_t index);       /* NULL past the end */
const char *eg_model_prompt(const eg_model *model, const char *prompt_name); /* the prompt; NULL if there is none */

/* Names the vectors that eg_embed() gives with the same arguments, as MODEL-DIM-TEXT. Equal: the same texts have the
 * same vectors, but for rounding, so an index that stores this of its documents needs no new vectors for old documents.
 * Equal before the last "-": vectors of one model and size, such as of queries and of documents, which may be compared.
 * Different there: they must not be. It depends on the weights, the tokenizer, how this release uses them, and the
 * prompt's text, and is the same wherever the file lies, on every platform, and in Python (model.fingerprint()).
 *   prompt_name, dim: as for eg_embed()
 *   out:              receives at most EG_FINGERPRINT_BYTES, the 0 at its end included */
#define EG_FINGERPRINT_BYTES 64

eg_status eg_model_fingerprint(const eg_model *model, const char *prompt_name, uint32_t dim, char *out);

/* ---- a context: threads and scratch memory ----------------------------------------------------------- */

typedef struct eg_context eg_context;

/* threads: 1 or more, 0 for the number of physical cores, or the CPU quota of a container if that is less.
 * isa: one of eg_isa_name(), or NULL for the EMBGEMMA_ISA environment variable if set, else the best of this CPU.
 * A context belongs to the process that made it: in a child that is forked off, its calls fail, and it can be freed.
 * The program's floating-point environment (rounding, traps) changes no vector, and is left as it is. */
eg_status eg_context_create(const eg_model *model, uint32_t threads, const char *isa, eg_context **context);
void eg_context_free(eg_context *context);

uint32_t eg_context_threads(const eg_context *context);
const char *eg_context_isa(const eg_context *context);
size_t eg_context_scratch_bytes(const eg_context *context);

/* ---- texts to vectors ------------------------------------------------------------------------------------ */

/* Embeds texts.
 *   texts:       (count,) UTF-8
 *   bytes:       (count,) length of each text; NULL if every text ends with a 0
 *   prompt_name: the prompt to put before every text; "" for none, NULL for the model's default, if it has one
 *   dim:         size of the vectors, 1 … eg_model_dim(); EmbeddingGemma was trained for 768, 512, 256 and 128
 *   out:         (count, dim) float32, each vector of length 1, so that a dot product is a cosine
 * A model whose weights are damaged may have no vector for a text: then the call fails with EG_ERROR_MODEL, the message
 * tells the number of the text, and nothing in out is a vector. A text of more than eg_model_max_tokens() is cut at its
 * end. */
eg_status eg_embed(eg_context *context, const char *const *texts, const size_t *bytes, size_t count,
                   const char *prompt_name, uint32_t dim, float *out);

/* ---- versions --------------------------------------------------------------------------------------------- */

/* Grows when a program that was compiled with an older header cannot run with the library. It is part of the name of
 * the shared library. A program that opens the library by hand compares it with eg_abi_version(). */
#define EMBGEMMA_ABI_VERSION 2

uint32_t eg_abi_version(void);
const char *eg_version(void); /* of the release, such as "0.1.0" */

/* ==== advanced =============================================================================================== */

/* ---- custom allocator ---------------------------------------------------------------------------------------- */

/* Both are called from the thread that calls the library, and must be safe to call from several threads if it is. */
typedef struct eg_allocator {
    void *(*allocate)(void *user, size_t bytes); /* 64-byte aligned; bytes is a multiple of 64; NULL to refuse */
    void (*release)(void *user, void *memory);
    void *user; /* passed on to both */
} eg_allocator;

/* Opens a model file that is already in memory.
 *   data:      (bytes,) 4-byte aligned, faster if 64-byte aligned; must outlive the model
 *   allocator: copied; the model and its contexts take all memory from it, except the stacks of threads. NULL for that
 *              of the C library. */
eg_status eg_model_open_memory(const void *data, size_t bytes, const eg_allocator *allocator, eg_model **model);

/* What eg_model_check() is for a file. */
eg_status eg_model_check_memory(const void *data, size_t bytes);

/* Opens a model file that is a part of an open file, such as an asset in an app's package. As with eg_model_open(), it
 * is mapped, and only rows of the embedding table that are used come into memory.
 *   descriptor: as of open(), on Windows as of _open(). It may be closed afterwards: the model has one of its own
 *   offset:     where the part begins: a multiple of 4, faster if of 64
 *   bytes:      its size; 0 for all up to the end */
eg_status eg_model_open_descriptor(int descriptor, uint64_t offset, uint64_t bytes, eg_model **model);

/* ---- token ids to vectors ------------------------------------------------------------------------------------ */

/* Embeds texts, given end to end.
 *   ids:       (offsets[texts],) token ids, <bos> and <eos> included
 *   offsets:   (texts + 1,) text i is ids[offsets[i]] … ids[offsets[i + 1] - 1]; at least one token each
 *   dim:       embedding size, 1 … hidden: the first dim rows of the head (a Matryoshka size)
 *   normalize: 1 to scale each vector to unit length, 0 to leave it as the head gives it
 *   out:       (texts, dim) float32; after EG_ERROR_MODEL only NaN, for texts that have no vector, and zeros
 * A text's vector does not depend, to the bit, on the other texts, their order, or the number of threads.
 * Calls on one context from several threads are safe and run one after another. */
eg_status eg_encode(eg_context *context, const int32_t *ids, const uint64_t *offsets, size_t texts, uint32_t dim,
                    uint32_t normalize, float *out);

/* The same, up to the states that a vector is the mean of: one for each token, after the final norm and without a head.
 *   out: (offsets[texts], eg_model_dim()) float32 */
eg_status eg_encode_tokens(eg_context *context, const int32_t *ids, const uint64_t *offsets, size_t texts, float *out);

/* ---- a tokenizer: texts to token ids -------------------------------------------------------------------- */

typedef struct eg_tokenizer eg_tokenizer;

/* Opens a tokenizer.
 *   table:          the tensor tokenizer.table of a model file; used in place, so it must outlive the tokenizer
 *   bos_id, eos_id: the tokens before and after every text: see the config of the model file
 *   allocator:      copied; NULL for the memory of the C library
 * Only the header of the table is checked. If the rest is corrupt, eg_tokenize fails or gives wrong ids, all of them
 * below eg_tokenizer_vocab(). */
eg_status eg_tokenizer_create(const void *table, size_t bytes, uint32_t bos_id, uint32_t eos_id,
                              const eg_allocator *allocator, eg_tokenizer **tokenizer);
void eg_tokenizer_free(eg_tokenizer *tokenizer);

/* The tokenizer of a model file, freed with the model; NULL if it has none. */
const eg_tokenizer *eg_model_tokenizer(const eg_model *model);

uint32_t eg_tokenizer_vocab(const eg_tokenizer *tokenizer);

/* The token ids of one text: <bos>, those of the text, <eos>.
 *   text:       UTF-8 (else EG_ERROR_ARGUMENT) that begins with the prompt, since the two are tokenized together
 *   max_tokens: 2 or more; longer texts are cut at their end, which is not read (a word without
 *               a place to cut it: but for twice what is kept and some 64 KB)
 *   ids:        has room for max_tokens, or for bytes + 2 if that is less
 *   count:      receives how many ids there are
 *   truncated:  receives 1 if the text had more, else 0
 * Any number of threads may use one tokenizer at once. */
eg_status eg_tokenize(const eg_tokenizer *tokenizer, const char *text, size_t bytes, size_t max_tokens, int32_t *ids,
                      size_t *count, uint32_t *truncated);

/* The same for several texts, end to end; their ids come end to end, as eg_encode takes them.
 *   text_offsets: (texts + 1,) text i is text[text_offsets[i]] … text[text_offsets[i + 1] - 1]
 *   ids:          (capacity,) with room for all texts, each counted as above
 *   offsets:      (texts + 1,) receives where the ids of each text begin, and last where they end
 *   truncated:    (texts,) receives 1 where a text had more than max_tokens, else 0 */
eg_status eg_tokenize_batch(const eg_tokenizer *tokenizer, const char *text, const uint64_t *text_offsets, size_t texts,
                            size_t max_tokens, int32_t *ids, size_t capacity, uint64_t *offsets, uint8_t *truncated);

/* ---- introspection ------------------------------------------------------------------------------------ */

/* The instruction sets this library was built with, best first. */
size_t eg_isa_count(void);
const char *eg_isa_name(size_t index);   /* NULL past the end */
uint32_t eg_isa_supported(size_t index); /* 1 if this CPU and its operating system can run it */

/* cffi: skip */
#if defined(__cplusplus)
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#endif
/* cffi: end of skip */
