/* How a thread begins in a module with shared memory: the linker makes thread-local variables for such a one only. */
#include <stdint.h>

/* Bytes that a thread needs for its thread-local variables. */
__attribute__((export_name("eg_wasm_tls_bytes"))) uint32_t eg_wasm_tls_bytes(void)
{
    return (uint32_t)__builtin_wasm_tls_size();
}

/* eg_wasm_enter(stack, tls): the first call of a thread, with the end of its stack and memory for its thread-local
 * variables. No C code can run before it. */
__asm__(".globaltype __stack_pointer, i32\n"
        ".functype __wasm_init_tls (i32) -> ()\n"
        ".globl eg_wasm_enter\n"
        ".type eg_wasm_enter, @function\n"
        ".export_name eg_wasm_enter, eg_wasm_enter\n"
        "eg_wasm_enter:\n"
        ".functype eg_wasm_enter (i32, i32) -> ()\n"
        "local.get 0\n"
        "global.set __stack_pointer\n"
        "local.get 1\n"
        "call __wasm_init_tls\n"
        "end_function\n");
