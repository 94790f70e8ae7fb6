#include "common/crc32.c"
#include "common/error.c"
#include "common/memory.c"
#include "common/sha256.c"
