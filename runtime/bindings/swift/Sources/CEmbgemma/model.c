#include "model/fingerprint.c"
#include "model/model.c"
#include "model/model_file.c"
