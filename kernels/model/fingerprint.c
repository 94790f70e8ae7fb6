/* Names what made a vector: "Fingerprint" in export/FORMAT.md. Twin of fingerprint.py. */
#include "common/error.h"
#include "common/sha256.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>

/* Grows when this release gives vectors of a file that differ from those of an earlier one by more than rounding. */
#define VECTORS_VERSION "1"

enum { TEXT_DIGITS = 16 }; /* of 64 bits */

static void add_text(eg_sha256 *hash, const char *text) { eg_sha256_add(hash, text, strlen(text)); }

static void add_stated(eg_sha256 *hash, const eg_safetensors *file, const char *key)
{
    const eg_string value = eg_metadata(file, key);
    add_text(hash, "\n");
    add_text(hash, key);
    add_text(hash, "=");
    eg_sha256_add(hash, value.text, value.bytes);
}

void eg_model_digest(const eg_safetensors *file, char digest[EG_DIGEST_DIGITS + 1])
{
    eg_sha256 hash = eg_sha256_begin();
    add_text(&hash, "embgemma vectors " VECTORS_VERSION);
    add_stated(&hash, file, "config");
    add_stated(&hash, file, "data_sha256");
    for (size_t i = 0; i < file->tensor_count; i++) {
        const eg_tensor *tensor = &file->tensors[i];
        add_text(&hash, "\n");
        add_text(&hash, tensor->name);
        add_text(&hash, " ");
        add_text(&hash, eg_dtype_name(tensor->dtype));
        for (uint32_t dimension = 0; dimension < tensor->rank; dimension++) {
            char size[24];
            snprintf(size, sizeof size, " %llu", (unsigned long long)tensor->shape[dimension]);
            add_text(&hash, size);
        }
    }
    char hex[EG_SHA256_DIGITS + 1];
    eg_sha256_end(&hash, hex);
    snprintf(digest, EG_DIGEST_DIGITS + 1, "%.*s", EG_DIGEST_DIGITS, hex);
}

eg_status eg_model_fingerprint(const eg_model *model, const char *prompt_name, uint32_t dim, char *out)
{
    if (model == NULL || out == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_model_fingerprint needs a model and a place for the text");
    }
    if (dim == 0 || dim > model->config.hidden) {
        return eg_fail(EG_ERROR_ARGUMENT, "embedding size %u: expected 1 … %u", dim, model->config.hidden);
    }
    eg_string prompt;
    const eg_status status = eg_choose_prompt(&model->file, prompt_name, &prompt);
    if (status == EG_OK) {
        char hex[EG_SHA256_DIGITS + 1];
        eg_sha256 hash = eg_sha256_begin();
        snprintf(hex, sizeof hex, "%u\n", model->config.max_tokens);
        add_text(&hash, hex);
        eg_sha256_add(&hash, prompt.text, prompt.bytes);
        eg_sha256_end(&hash, hex);
        snprintf(out, EG_FINGERPRINT_BYTES, "%s-%u-%.*s", model->file.digest, dim, TEXT_DIGITS, hex);
    }
    return status;
}
