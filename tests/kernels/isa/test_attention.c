/* The products of attention on every instruction set that this CPU has, in float32 and in int16. */
#include "tests/kernels/isa/check_attention.h"

int main(void)
{
    for (size_t i = 0; i < eg_isa_list_count; i++) {
        const eg_isa *isa = &eg_isa_list[i];
        if (!isa->supported()) {
            continue;
        }
        check_attention_ops(isa->name, &isa->vector->attention);
        if (isa->attention != NULL) {
            check_attention_ops(isa->name, isa->attention);
        }
    }
    return check_result();
}
