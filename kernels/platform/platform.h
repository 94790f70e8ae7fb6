/* What differs between operating systems: memory, files, threads, the clock, and what is known of the CPU. No other
 * folder asks which system it is compiled for. posix.c and posix_cpu.c have it all for Linux, Android, macOS and iOS,
 * windows.c for Windows, wasm.c for WebAssembly. Functions that can fail return 1 on success, else 0, unless they say
 * otherwise. */
#ifndef EG_PLATFORM_H
#define EG_PLATFORM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__wasm__)
#include <stdatomic.h>
#elif !defined(_WIN32)
#include <pthread.h>
#endif

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* bytes is a multiple of alignment, a power of two; NULL if refused. Free it by the other one only. */
void *eg_aligned_new(size_t alignment, size_t bytes);
void eg_aligned_free(void *memory);

/* ---- files --------------------------------------------------------------------------------------------------------*/

/* A file, or a part of one, open for reading and mapped. It may be replaced by a rename meanwhile. */
typedef struct eg_mapped_file {
    void *data; /* NULL: none */
    size_t bytes;
    uint64_t offset; /* of data in the file */
    intptr_t handle; /* of the open file */
} eg_mapped_file;

typedef enum eg_map_status {
    EG_MAPPED,
    EG_MAP_NOT_OPENED,
    EG_MAP_NOT_A_FILE, /* but a folder, or a pipe, which must not make it wait */
    EG_MAP_BAD_SIZE,   /* empty, or above the machine's addresses */
    EG_MAP_BAD_PART,   /* the file ends before it */
    EG_MAP_REFUSED
} eg_map_status;

enum { EG_REASON_BYTES = 256 };

/* path: UTF-8. reason: what the system says of EG_MAP_NOT_OPENED and EG_MAP_REFUSED, in UTF-8. */
eg_map_status eg_file_map(const char *path, eg_mapped_file *file, char reason[EG_REASON_BYTES]);

/* The same for a part of a file that is open already, which stays open: the mapping has a handle of its own.
 *   descriptor: as of open(), on Windows as of _open()
 *   bytes:      0 for all that follows the offset */
eg_map_status eg_file_map_part(int descriptor, uint64_t offset, uint64_t bytes, eg_mapped_file *file,
                               char reason[EG_REASON_BYTES]);

/* Does nothing if there is no file. */
void eg_file_unmap(const eg_mapped_file *file);

/* Reads bytes at an offset from the data's begin, not by way of the mapping. */
int eg_file_read(const eg_mapped_file *file, size_t offset, size_t bytes, void *to);

/* Gives back the memory of a part of the mapping, which is read again when it is next used. */
void eg_file_forget(const eg_mapped_file *file, const void *begin, size_t bytes);

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#if defined(_WIN32)
typedef struct eg_mutex {
    void *lock; /* an SRWLOCK */
} eg_mutex;
typedef struct eg_condition {
    void *variable; /* a CONDITION_VARIABLE */
} eg_condition;
typedef void *eg_thread_handle;
#elif defined(__wasm__)
typedef struct eg_mutex {
    atomic_int state;
} eg_mutex;
typedef struct eg_condition {
    atomic_int wakes;
} eg_condition;
typedef int eg_thread_handle;
#else
typedef pthread_mutex_t eg_mutex;
typedef pthread_cond_t eg_condition;
typedef pthread_t eg_thread_handle;
#endif

/* Must stay where it is until it is joined. */
typedef struct eg_system_thread {
    void (*body)(void *argument);
    void *argument;
    eg_thread_handle handle;
} eg_system_thread;

int eg_mutex_create(eg_mutex *mutex);
void eg_mutex_free(eg_mutex *mutex);
void eg_mutex_lock(eg_mutex *mutex);
void eg_mutex_unlock(eg_mutex *mutex);

int eg_condition_create(eg_condition *condition);
void eg_condition_free(eg_condition *condition);
void eg_condition_wait(eg_condition *condition, eg_mutex *mutex);
void eg_condition_wake_all(eg_condition *condition);

int eg_thread_start(eg_system_thread *thread, void (*body)(void *argument), void *argument);
void eg_thread_join(eg_system_thread *thread);
void eg_thread_yield(void);

/* Tells a process from one that is forked off it, in some 0.1 µs. */
long eg_process(void);

double eg_now(void); /* seconds of a monotonic clock */

/* ---- the CPU ----------------------------------------------------------------------------------------------------- */

/* Physical cores that this process may run on: hardware threads that share a core are counted once, and on a CPU
 * with cores of several speeds only the fastest kind counts. No more than the quota of its container, at least 1. */
size_t eg_cpu_cores(void);

/* That quota on Linux, in CPUs rounded up; SIZE_MAX if there is none. root is "", or in tests a folder with proc/ and
 * sys/. */
size_t eg_cpu_quota(const char *root);

/* Of 64-bit ARM, whose instructions cannot say what it has: a sum of the following. */
unsigned eg_arm_features(void);
enum { EG_ARM_DOTPROD = 1, EG_ARM_I8MM = 2 };

/* 1 if this process may use the tile registers of AMX, now and in all its threads; else 0. Asks the system for them. */
int eg_amx_permission(void);

#endif
