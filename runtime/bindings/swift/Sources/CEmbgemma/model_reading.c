#include "model/config.c"
#include "model/json.c"
#include "model/safetensors.c"
