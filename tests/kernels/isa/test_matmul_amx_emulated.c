/* The AMX matmul on any CPU: its source compiled with tile intrinsics in plain C. test_matmul.c runs the real ones. */
#define EG_AMX_EMULATION
#define eg_matmul__amx eg_matmul__amx_emulated /* the engine's library has the real one */
#include "tests/kernels/isa/amx_emulation.h"

#include "isa/matmul_amx.c"
#include "tests/kernels/isa/check_matmul.h"

int main(void)
{
    check_matmul_ops("amx, emulated", &eg_matmul__amx_emulated);
    return check_result();
}
