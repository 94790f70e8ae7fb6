/* The integer matmul of every instruction set that this CPU has. */
#include "tests/kernels/isa/check_matmul.h"

int main(void)
{
    for (size_t i = 0; i < eg_isa_list_count; i++) {
        const eg_isa *isa = &eg_isa_list[i];
        if (isa->supported()) {
            check_matmul_ops(isa->name, isa->matmul);
        }
        printf("%s: %s\n", isa->name, isa->supported() ? "checked" : "this CPU cannot run it");
    }
    return check_result();
}
