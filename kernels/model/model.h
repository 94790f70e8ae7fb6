/* A model in memory: the tensors of a model file, bound to the places where the forward pass uses them. */
#ifndef EG_MODEL_H
#define EG_MODEL_H

#include "model/config.h"
#include "model/row_code.h"
#include "model/safetensors.h"
#include "platform/platform.h"

/* A weight matrix in panels, (out_features, in_features); its dtype is its format: F32 float32, I8 int8, U8 int4. */
typedef struct eg_matrix {
    eg_dtype dtype;
    size_t out_features;
    size_t in_features;
    const void *panels;
    const uint8_t *codebooks; /* (out_features / 16, in_features / 64, 16) of int4, else NULL */
    const float *scale;       /* (out_features,); NULL for float32 */
} eg_matrix;

enum { EG_ROW_GROUP = 64 };

/* Consecutive rows of the embedding table. */
typedef struct eg_row_group {
    uint32_t rates_before;       /* the sum of the rates of the rows before them */
    uint8_t rates[EG_ROW_GROUP]; /* theirs */
} eg_row_group;

/* The embedding table. Rows of F32 and I8 are (vocab, hidden). Those of U8 are end to end and differ in their rates. */
typedef struct eg_embedding {
    eg_dtype dtype;
    const void *rows;
    size_t bytes;          /* of all rows */
    eg_row_group *groups;  /* (vocab / EG_ROW_GROUP,); like the codes, NULL unless U8 */
    eg_row_code *codes;    /* (EG_RATES,) made of those of the rates that rows have */
    const uint16_t *scale; /* (vocab,) float16; NULL for float32 */
} eg_embedding;

typedef struct eg_layer {
    int full_attention;
    const float *input_norm;          /* (hidden,) */
    eg_matrix qkv;                    /* hidden → (heads + 2 · kv_heads) · head_dim */
    const float *q_norm;              /* (head_dim,), attention scale included */
    const float *k_norm;              /* (head_dim,) */
    eg_matrix o;                      /* heads · head_dim → hidden */
    const float *post_attention_norm; /* (hidden,) */
    const float *pre_ffn_norm;        /* (hidden,) */
    eg_matrix gate_up;                /* hidden → 2 · ffn, in alternating panels of gate and up */
    eg_matrix down;                   /* ffn → hidden */
    const float *post_ffn_norm;       /* (hidden,) */
} eg_layer;

typedef struct eg_prompt {
    eg_string name, text;
} eg_prompt;

enum { EG_DIGEST_DIGITS = 32 }; /* hexadecimal, of 128 bits */

/* What a model has besides its weights. */
typedef struct eg_model_file {
    eg_mapped_file mapped; /* none if the file is in memory of the caller */
    char *header;          /* the prompts point into it */
    eg_prompt *prompts;    /* (prompt_count,) in the order of the file */
    size_t prompt_count;
    const eg_prompt *default_prompt; /* NULL if it has none */
    char digest[EG_DIGEST_DIGITS + 1];
    eg_tokenizer *tokenizer; /* NULL if it has none */
} eg_model_file;

struct eg_model {
    eg_allocator allocator; /* the model's and its contexts' */
    eg_config config;
    eg_embedding embedding;
    eg_layer *layers;
    const float *final_norm; /* (hidden,) */
    eg_matrix head;          /* hidden → hidden */
    eg_model_file file;
};

/* Binds the tensors of a file to a model, which has no `file` yet. They must come in the order of the format, each of
 * the type and shape that the config asks for, norms and scales finite and not all zeros. tokenizer_table: receives
 * NULL if there is none. After an error nothing needs to be freed. */
eg_status eg_model_bind(const eg_config *config, const eg_safetensors *file, const eg_allocator *allocator,
                        eg_model **model, const eg_tensor **tokenizer_table);

/* NULL if there is none of this name. */
const eg_prompt *eg_find_prompt(const eg_model_file *file, const char *name);

/* The text of a prompt by its name; of the default one for NULL, empty for "". */
eg_status eg_choose_prompt(const eg_model_file *file, const char *name, eg_string *prompt);

/* Names all that makes the vectors of token ids, and the ids of a text. To be called before the config is read. */
void eg_model_digest(const eg_safetensors *file, char digest[EG_DIGEST_DIGITS + 1]);

/* 1 if rows of the embedding table must be read by eg_read_rows, not in memory. A page fault in a mapping brings at
 * least 16 pages into a process, and a row needs a tenth of one: 256 tokens took 27 MB of memory, and of reading from
 * disk. */
int eg_reads_rows(const eg_model *model);

/* Bytes for a row of the embedding table that is read from the file: the longest that there may be, and what is read
 * ahead behind it, which must not be the next row's: another thread may be writing that. */
size_t eg_row_room(const eg_model *model);

/* Where a row of the embedding table lies. */
typedef struct eg_row {
    size_t begin, bytes;
    const eg_row_code *code; /* NULL unless the table is U8 */
} eg_row;

eg_row eg_row_of(const eg_model *model, int32_t id);

/* Reads the rows of tokens from the file: rows (tokens, eg_row_room()), scale (tokens,), unless float32. 0 if the
 * file cannot be read. */
int eg_read_rows(const eg_model *model, const int32_t *ids, size_t tokens, void *rows, uint16_t *scale);

#endif
