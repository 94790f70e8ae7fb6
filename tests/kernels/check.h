/* What the engine's C tests share: checks that count failures, random numbers, and memory that notices bad writes. */
#ifndef EG_TESTS_CHECK_H
#define EG_TESTS_CHECK_H

#include "platform/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures;

/* CHECK(condition, format, ...): the format says which case it was. Reports the first few failures, counts them all. */
#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition) && check_failures++ < 20) {                                                                   \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
        }                                                                                                              \
    } while (0)

/* The value of main(). */
static inline int check_result(void)
{
    if (check_failures) {
        fprintf(stderr, "%d checks failed\n", check_failures);
    }
    return check_failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- random numbers: splitmix64 (https://prng.di.unimi.it/splitmix64.c), the same on every machine ---------- */

static inline uint64_t random_bits(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in low … high. */
static inline int random_int(uint64_t *state, int low, int high)
{
    return low + (int)(random_bits(state) % (uint64_t)(high - low + 1));
}

/* Uniform in [-range, range). */
static inline float random_float(uint64_t *state, float range)
{
    const double unit = (double)(random_bits(state) >> 11) / 9007199254740992.0; /* 2^53 */
    return (float)((2.0 * unit - 1.0) * (double)range);
}

/* ---- memory: 64-byte aligned; outputs lie between guard bytes ------------------------------------------------- */

enum { CHECK_ALIGNMENT = 64, CHECK_GUARD = 64, CHECK_GUARD_BYTE = 0xA5 };

/* For inputs: exactly `bytes`, so that the address sanitizer sees a read past the end. Free it with
 * eg_aligned_free(). */
static inline void *aligned_new(size_t bytes)
{
    const size_t lines = (bytes + CHECK_ALIGNMENT - 1) / CHECK_ALIGNMENT;
    void *memory = eg_aligned_new(CHECK_ALIGNMENT, lines * CHECK_ALIGNMENT);
    if (!memory) {
        fputs("out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    return memory;
}

/* For outputs: guard bytes before and behind, everything filled with them. */
static inline void *guarded_new(size_t bytes)
{
    unsigned char *memory = aligned_new(bytes + 2 * CHECK_GUARD);
    memset(memory, CHECK_GUARD_BYTE, bytes + 2 * CHECK_GUARD);
    return memory + CHECK_GUARD;
}

/* Frees an output; 1 if nothing was written outside its `bytes`. */
static inline int guarded_free(void *output, size_t bytes)
{
    unsigned char *memory = (unsigned char *)output - CHECK_GUARD;
    int intact = 1;
    for (size_t i = 0; i < CHECK_GUARD; i++) {
        intact &= memory[i] == CHECK_GUARD_BYTE && memory[CHECK_GUARD + bytes + i] == CHECK_GUARD_BYTE;
    }
    eg_aligned_free(memory);
    return intact;
}

/* ---- an eg_allocator's functions that refuse memory after some allocations -------------------------------------- */

typedef struct budget {
    size_t left; /* allocations that will be granted */
    size_t held;
} budget;

static inline void *budget_allocate(void *user, size_t bytes)
{
    budget *b = user;
    CHECK(bytes > 0 && bytes % CHECK_ALIGNMENT == 0, "%zu bytes", bytes);
    if (b->left == 0) {
        return NULL;
    }
    b->left--;
    b->held++;
    return aligned_new(bytes);
}

static inline void budget_release(void *user, void *memory)
{
    ((budget *)user)->held--;
    eg_aligned_free(memory);
}

#endif
