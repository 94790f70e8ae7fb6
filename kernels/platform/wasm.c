/* WebAssembly: memory that the program around it shares out, and threads that it starts beforehand. There are no files.
 *
 * A module cannot start a thread. The program makes Workers, instantiates the module in each over the same memory,
 * gives each a stack, and calls eg_wasm_serve(), which waits for a body to run. eg_thread_start() hands the body over.
 */
#include "platform/platform.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name)             __attribute__((export_name(#name))) name
#define IMPORT(name)             __attribute__((import_module("embgemma"), import_name(#name)))
#define WAIT(address, value, ns) __builtin_wasm_memory_atomic_wait32((int *)(address), value, ns)
#define WAKE(address, count)     __builtin_wasm_memory_atomic_notify((int *)(address), count)

enum { FOREVER = -1, EVERYBODY = 0x7FFFFFFF, MOST_THREADS = 64, YIELD_NS = 10000 };

IMPORT(now) double now(void); /* seconds */
IMPORT(cores) uint32_t cores(void);

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* The C library rounds a large block up to a power of two. Such blocks are taken here instead, as so many pages of the
 * module's memory. They are few: scratch, rotary tables, a tokenizer. Only the program's own thread asks for them. */
enum { PAGE = 65536, LARGE = 4 * PAGE, MOST_BLOCKS = 256 };

typedef struct large_block {
    uintptr_t begin, pages; /* begin: in pages */
    int used;
} large_block;

static large_block blocks[MOST_BLOCKS]; /* by address; free neighbours are one */
static size_t block_count;

static void insert_block(size_t index, large_block block)
{
    memmove(blocks + index + 1, blocks + index, (block_count - index) * sizeof *blocks);
    blocks[index] = block;
    block_count++;
}

/* Makes a block and a free one behind it one block. */
static void join_with_next(size_t index)
{
    blocks[index].pages += blocks[index + 1].pages;
    block_count--;
    memmove(blocks + index + 1, blocks + index + 2, (block_count - index - 1) * sizeof *blocks);
}

static int is_free_after(size_t index)
{
    const large_block *block = &blocks[index];
    return index + 1 < block_count && !block[1].used && block->begin + block->pages == block[1].begin;
}

/* The smallest free block of so many pages, or else the last one, made larger; block_count if there is no memory. */
static size_t find_block(uintptr_t pages)
{
    size_t best = block_count;
    for (size_t i = 0; i < block_count; i++) {
        if (!blocks[i].used && blocks[i].pages >= pages &&
            (best == block_count || blocks[i].pages < blocks[best].pages)) {
            best = i;
        }
    }
    if (best < block_count) {
        return best;
    }
    large_block *last = block_count > 0 ? &blocks[block_count - 1] : NULL;
    const uintptr_t end = __builtin_wasm_memory_size(0);
    const int grows = last != NULL && !last->used && last->begin + last->pages == end;
    const uintptr_t more = grows ? pages - last->pages : pages;
    if (__builtin_wasm_memory_grow(0, more) == SIZE_MAX) {
        return block_count;
    }
    if (grows) {
        last->pages = pages;
    } else {
        insert_block(block_count, (large_block){.begin = end, .pages = more});
    }
    return block_count - 1;
}

static void *large_new(size_t bytes)
{
    const uintptr_t pages = (bytes - 1) / PAGE + 1;
    const size_t index = find_block(pages);
    if (index == block_count) {
        return NULL;
    }
    large_block *block = &blocks[index];
    if (block->pages > pages) {
        insert_block(index + 1, (large_block){.begin = block->begin + pages, .pages = block->pages - pages});
        block->pages = pages;
    }
    block->used = 1;
    return (void *)(block->begin * PAGE);
}

void *EXPORT(eg_aligned_new)(size_t alignment, size_t bytes)
{
    const int has_room = block_count + 2 <= MOST_BLOCKS; /* for a new one and what is split off */
    return bytes < LARGE || !has_room ? aligned_alloc(alignment, bytes) : large_new(bytes);
}

void EXPORT(eg_aligned_free)(void *memory)
{
    for (size_t i = 0; i < block_count; i++) {
        if (memory == (void *)(blocks[i].begin * PAGE)) {
            blocks[i].used = 0;
            if (is_free_after(i)) {
                join_with_next(i);
            }
            if (i > 0 && !blocks[i - 1].used && is_free_after(i - 1)) {
                join_with_next(i - 1);
            }
            return;
        }
    }
    free(memory);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static eg_map_status refuse(char reason[EG_REASON_BYTES])
{
    snprintf(reason, EG_REASON_BYTES, "WebAssembly has no files; use eg_model_open_memory");
    return EG_MAP_NOT_OPENED;
}

eg_map_status eg_file_map(const char *path, eg_mapped_file *file, char reason[EG_REASON_BYTES])
{
    (void)path, (void)file;
    return refuse(reason);
}

eg_map_status eg_file_map_part(int descriptor, uint64_t offset, uint64_t bytes, eg_mapped_file *file,
                               char reason[EG_REASON_BYTES])
{
    (void)descriptor, (void)offset, (void)bytes, (void)file;
    return refuse(reason);
}

void eg_file_unmap(const eg_mapped_file *file) { (void)file; }

int eg_file_read(const eg_mapped_file *file, size_t offset, size_t bytes, void *to)
{
    (void)file;
    (void)offset;
    (void)bytes;
    (void)to;
    return 0;
}

void eg_file_forget(const eg_mapped_file *file, const void *begin, size_t bytes)
{
    (void)file;
    (void)begin;
    (void)bytes;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

enum { FREE, HELD, CONTENDED }; /* of a mutex; the last: someone waits */

int eg_mutex_create(eg_mutex *mutex)
{
    atomic_init(&mutex->state, FREE);
    return 1;
}

void eg_mutex_free(eg_mutex *mutex) { (void)mutex; }

void eg_mutex_lock(eg_mutex *mutex)
{
    int state = FREE;
    if (!atomic_compare_exchange_strong(&mutex->state, &state, HELD)) {
        while (atomic_exchange(&mutex->state, CONTENDED) != FREE) {
            WAIT(&mutex->state, CONTENDED, FOREVER);
        }
    }
}

void eg_mutex_unlock(eg_mutex *mutex)
{
    if (atomic_exchange(&mutex->state, FREE) == CONTENDED) {
        WAKE(&mutex->state, 1);
    }
}

int eg_condition_create(eg_condition *condition)
{
    atomic_init(&condition->wakes, 0);
    return 1;
}

void eg_condition_free(eg_condition *condition) { (void)condition; }

void eg_condition_wait(eg_condition *condition, eg_mutex *mutex)
{
    const int wakes = atomic_load(&condition->wakes);
    eg_mutex_unlock(mutex);
    WAIT(&condition->wakes, wakes, FOREVER); /* returns at once if a wake came meanwhile */
    eg_mutex_lock(mutex);
}

void eg_condition_wake_all(eg_condition *condition)
{
    atomic_fetch_add(&condition->wakes, 1);
    WAKE(&condition->wakes, EVERYBODY);
}

/* What a thread of the program does. */
enum { NOT_THERE, IDLE, BUSY };

static atomic_int states[MOST_THREADS];
static eg_system_thread *bodies[MOST_THREADS];

/* Runs the bodies that are handed to thread `index`, 0 … MOST_THREADS - 1, for as long as its Worker lives. */
void EXPORT(eg_wasm_serve)(uint32_t index)
{
    atomic_int *state = &states[index];
    for (;;) {
        atomic_store(state, IDLE);
        WAKE(state, EVERYBODY);
        while (atomic_load(state) != BUSY) {
            WAIT(state, IDLE, FOREVER);
        }
        bodies[index]->body(bodies[index]->argument);
    }
}

/* Waits until the first `count` threads serve. */
void EXPORT(eg_wasm_await)(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        while (atomic_load(&states[i]) == NOT_THERE) {
            WAIT(&states[i], NOT_THERE, FOREVER);
        }
    }
}

int eg_thread_start(eg_system_thread *thread, void (*body)(void *argument), void *argument)
{
    thread->body = body;
    thread->argument = argument;
    for (int i = 0; i < MOST_THREADS; i++) {
        if (atomic_load(&states[i]) == IDLE) { /* only the program's own thread makes it busy */
            thread->handle = i;
            bodies[i] = thread;
            atomic_store(&states[i], BUSY);
            WAKE(&states[i], EVERYBODY);
            return 1;
        }
    }
    return 0;
}

void eg_thread_join(eg_system_thread *thread)
{
    while (atomic_load(&states[thread->handle]) == BUSY) {
        WAIT(&states[thread->handle], BUSY, FOREVER);
    }
}

/* Sleeps, since nothing lets others run but that. */
void eg_thread_yield(void)
{
    static int never;
    WAIT(&never, 0, YIELD_NS);
}

long eg_process(void) { return 1; }

double eg_now(void) { return now(); }

/* ---- the CPU ----------------------------------------------------------------------------------------------------- */

size_t eg_cpu_cores(void) { return cores(); }

size_t eg_cpu_quota(const char *root)
{
    (void)root;
    return SIZE_MAX;
}

unsigned eg_arm_features(void) { return 0; }

int eg_amx_permission(void) { return 0; }
