/* What a model that was opened from a file has besides its weights. */
#ifndef EG_MODEL_FILE_H
#define EG_MODEL_FILE_H

#include "model/json.h"
#include "common/memory.h"

#define EG_FORMAT_VERSION "4" /* of export/FORMAT.md: the one that this release reads */

typedef struct eg_prompt {
    eg_string name, text;
} eg_prompt;

typedef struct eg_model_file {
    void *mapping; /* NULL if the file lies in memory of the caller */
    size_t mapping_bytes;
    int descriptor;     /* of the same file; none without a mapping */
    char *header;       /* the prompts lie in it */
    eg_prompt *prompts; /* (prompt_count,) in the order of the file */
    size_t prompt_count;
    const eg_prompt *default_prompt; /* NULL if it has none */
    eg_tokenizer *tokenizer;         /* NULL if it has none */
} eg_model_file;

/* NULL if there is none of this name. */
const eg_prompt *eg_find_prompt(const eg_model_file *file, const char *name);

void eg_model_file_close(eg_model_file *file, const eg_allocator *allocator);

#endif
