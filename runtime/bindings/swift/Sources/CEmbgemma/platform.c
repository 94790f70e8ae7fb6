#include "platform/posix.c"
#include "platform/posix_cpu.c"
#include "platform/cpu_quota.c"
