#include "model/config.c"
#include "model/json.c"
#include "model/row_code.c"
#include "model/safetensors.c"
