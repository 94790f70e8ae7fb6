#include "engine/encode.c"
