/* Opens safetensors data without trusting it: every entry of its header is checked. Twin of safetensors_file.py.
 *
 * The format (https://github.com/huggingface/safetensors#format): the length of the header as uint64, the header as a
 * JSON object, then the tensors' bytes without holes. Everything is little-endian. */
#ifndef EG_SAFETENSORS_H
#define EG_SAFETENSORS_H

#include "model/json.h"
#include "common/memory.h"

typedef enum eg_dtype { EG_F32 = 0, EG_F16 = 1, EG_I8 = 2, EG_U8 = 3 } eg_dtype;

enum { EG_MAX_RANK = 4 }; /* dimensions of a tensor */

typedef struct eg_tensor {
    const char *name;
    eg_dtype dtype;
    uint32_t rank;
    uint64_t shape[EG_MAX_RANK]; /* elements, outermost first */
    const void *data;
} eg_tensor;

typedef struct eg_pair {
    eg_string key, value;
} eg_pair;

typedef struct eg_safetensors {
    char *header;      /* a copy, decoded in place: all strings point into it */
    eg_pair *metadata; /* (metadata_count,) sorted by key, no key twice */
    size_t metadata_count;
    eg_tensor *tensors; /* (tensor_count,) in file order; their data covers the file to its end */
    size_t tensor_count;
    const void *data; /* (data_bytes,) of all tensors */
    size_t data_bytes;
} eg_safetensors;

/* data: (bytes,), 4-byte aligned. Fails with EG_ERROR_MODEL for anything that the format does not allow; then nothing
 * needs to be freed. */
eg_status eg_safetensors_read(const void *data, size_t bytes, const eg_allocator *allocator, eg_safetensors *file);
void eg_safetensors_free(eg_safetensors *file, const eg_allocator *allocator);

/* The metadata's value of a key; its text is NULL if there is none. */
eg_string eg_metadata(const eg_safetensors *file, const char *key);

const char *eg_dtype_name(eg_dtype dtype); /* as the header has it: "F32" */
size_t eg_tensor_bytes(const eg_tensor *tensor);

#endif
