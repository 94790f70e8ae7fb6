#include "model/config.h"

#include "common/error.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum {
    GRAIN = 64,          /* every width is a multiple, and so is the vocab: see DIMENSION_GRAIN in config.py */
    MAX_WIDTH = 1 << 16, /* the bounds of config.py: what no model comes near */
    MAX_VOCAB = 1 << 22,
    MAX_TOKENS = 1 << 17,
};

typedef struct config_field {
    const char *name;
    size_t offset;                             /* in an eg_config */
    enum { INTEGER, NUMBER, LAYER_LIST } kind; /* uint32_t, double, full_attention */
    uint32_t least, most, grain;               /* of an integer */
} config_field;

#define FIELD(name, ...) {#name, offsetof(eg_config, name), __VA_ARGS__}
static const config_field config_fields[] = {
    FIELD(layers, INTEGER, 1, EG_MAX_LAYERS, 1),
    FIELD(hidden, INTEGER, 1, MAX_WIDTH, GRAIN),
    FIELD(ffn, INTEGER, 1, MAX_WIDTH, GRAIN),
    FIELD(heads, INTEGER, 1, MAX_WIDTH, 1),
    FIELD(kv_heads, INTEGER, 1, MAX_WIDTH, 1),
    FIELD(head_dim, INTEGER, 1, MAX_WIDTH, GRAIN),
    FIELD(vocab, INTEGER, 1, MAX_VOCAB, GRAIN),
    FIELD(max_tokens, INTEGER, 2, MAX_TOKENS, 1), /* <bos> and <eos> */
    FIELD(window, INTEGER, 0, MAX_TOKENS, 1),
    FIELD(bos_id, INTEGER, 0, MAX_VOCAB, 1),
    FIELD(eos_id, INTEGER, 0, MAX_VOCAB, 1),
    FIELD(rope_theta_sliding, NUMBER, 0, 0, 0),
    FIELD(rope_theta_full, NUMBER, 0, 0, 0),
    FIELD(rms_norm_eps, NUMBER, 0, 0, 0),
    {"full_attention_layers", offsetof(eg_config, full_attention), LAYER_LIST, 0, 0, 0},
};
enum { CONFIG_FIELDS = sizeof config_fields / sizeof config_fields[0] };

static void read_layer_list(eg_json *json, uint8_t *full_attention)
{
    for (int more = eg_json_open(json, '['); more; more = eg_json_more(json, '[')) {
        const uint64_t layer = eg_json_integer(json);
        if (layer >= EG_MAX_LAYERS) {
            eg_json_fail(json, "full_attention_layers has a layer that cannot be");
            return;
        }
        full_attention[layer] = 1;
    }
}

static void read_field(eg_json *json, const config_field *field, eg_config *config)
{
    void *place = (char *)config + field->offset;
    if (field->kind == LAYER_LIST) {
        read_layer_list(json, place);
    } else if (field->kind == NUMBER) {
        const double number = eg_json_number(json);
        memcpy(place, &number, sizeof number);
    } else {
        const uint64_t integer = eg_json_integer(json);
        if (integer > UINT32_MAX) {
            eg_json_fail(json, "an integer is too large");
        }
        const uint32_t value = (uint32_t)integer;
        memcpy(place, &value, sizeof value);
    }
}

static eg_status check_field(const config_field *field, const eg_config *config)
{
    const char *place = (const char *)config + field->offset;
    if (field->kind == INTEGER) {
        uint32_t value;
        memcpy(&value, place, sizeof value);
        if (value < field->least || value > field->most || value % field->grain != 0) {
            return eg_fail(EG_ERROR_MODEL, "config field %s is %u: expected %u … %u, a multiple of %u", field->name,
                           value, field->least, field->most, field->grain);
        }
    } else if (field->kind == NUMBER) {
        double value;
        memcpy(&value, place, sizeof value);
        if (!(value > 0 && isfinite(value))) {
            return eg_fail(EG_ERROR_MODEL, "config field %s is %g: expected a positive finite number", field->name,
                           value);
        }
    }
    return EG_OK;
}

/* What fields must be to each other. */
static eg_status check_together(const eg_config *config)
{
    if (config->bos_id >= config->vocab || config->eos_id >= config->vocab) {
        return eg_fail(EG_ERROR_MODEL, "bos_id %u and eos_id %u: expected below %u, the vocab", config->bos_id,
                       config->eos_id, config->vocab);
    }
    if (config->heads % config->kv_heads != 0 || (uint64_t)config->heads * config->head_dim > MAX_WIDTH) {
        return eg_fail(EG_ERROR_MODEL,
                       "%u heads over %u key/value heads of %u: expected a multiple, and at most %d columns",
                       config->heads, config->kv_heads, config->head_dim, MAX_WIDTH);
    }
    for (uint32_t layer = config->layers; layer < EG_MAX_LAYERS; layer++) {
        if (config->full_attention[layer]) {
            return eg_fail(EG_ERROR_MODEL, "full_attention_layers has layer %u: expected below %u, the layers", layer,
                           config->layers);
        }
    }
    return EG_OK;
}

eg_status eg_config_read(eg_string text, eg_config *config)
{
    *config = (eg_config){.layers = 0};
    int seen[CONFIG_FIELDS] = {0};
    eg_json json = eg_json_read(text);
    for (int more = eg_json_open(&json, '{'); more; more = eg_json_more(&json, '{')) {
        const eg_string key = eg_json_key(&json);
        size_t i = 0;
        while (i < CONFIG_FIELDS && !eg_string_is(key, config_fields[i].name)) {
            i++;
        }
        if (i == CONFIG_FIELDS || seen[i]) {
            eg_json_fail(&json, "there is a field that no config has, or one twice");
            break;
        }
        seen[i] = 1;
        read_field(&json, &config_fields[i], config);
    }
    eg_json_finish(&json);
    if (json.problem != NULL) {
        return eg_fail(EG_ERROR_MODEL, "the config is damaged: %s; convert the checkpoint again", json.problem);
    }
    for (size_t i = 0; i < CONFIG_FIELDS; i++) {
        if (!seen[i]) {
            return eg_fail(EG_ERROR_MODEL, "the config lacks %s; convert the checkpoint again", config_fields[i].name);
        }
        const eg_status status = check_field(&config_fields[i], config);
        if (status != EG_OK) {
            return status;
        }
    }
    return check_together(config);
}
