/* The config of a model file: shapes and constants of the encoder, rule 6 of export/FORMAT.md. Twin of config.py. */
#ifndef EG_CONFIG_H
#define EG_CONFIG_H

#include "embgemma.h"
#include "model/json.h"

enum { EG_MAX_LAYERS = 256 }; /* the bound of config.py: what no model comes near */

typedef struct eg_config {
    uint32_t layers;
    uint32_t hidden;
    uint32_t ffn;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t vocab;
    uint32_t max_tokens;
    uint32_t window; /* a sliding layer attends iff |i - j| <= window */
    uint32_t bos_id, eos_id;
    uint8_t full_attention[EG_MAX_LAYERS]; /* (layers,): 1 where a layer attends to all tokens */
    double rope_theta_sliding;
    double rope_theta_full;
    double rms_norm_eps;
} eg_config;

/* Reads and checks the JSON object that a model file stores. */
eg_status eg_config_read(eg_string text, eg_config *config);

#endif
