/* Memory, files and threads of Linux, Android, macOS and iOS. */
#define _DEFAULT_SOURCE /* madvise */
#define _DARWIN_C_SOURCE
#include "platform/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- memory ------------------------------------------------------------------------------------------------------ */

void *eg_aligned_new(size_t alignment, size_t bytes)
{
    void *memory = NULL; /* aligned_alloc came to Android late */
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

void eg_aligned_free(void *memory) { free(memory); }

/* ---- files ------------------------------------------------------------------------------------------------------- */

static eg_map_status fail(eg_map_status status, char reason[EG_REASON_BYTES])
{
    snprintf(reason, EG_REASON_BYTES, "%s", strerror(errno));
    return status;
}

/* Bytes of a mapping, which begins with a page, before the byte at an address or an offset. */
static size_t bytes_before(uint64_t place) { return (size_t)(place % (uint64_t)sysconf(_SC_PAGESIZE)); }

/* Takes over the descriptor, which is closed after an error. */
static eg_map_status map(int descriptor, uint64_t offset, uint64_t bytes, eg_mapped_file *file,
                         char reason[EG_REASON_BYTES])
{
    struct stat about;
    eg_map_status status = EG_MAPPED;
    if (descriptor < 0) {
        return fail(EG_MAP_NOT_OPENED, reason);
    }
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode)) {
        status = EG_MAP_NOT_A_FILE;
    } else if (offset > (uint64_t)about.st_size || bytes > (uint64_t)about.st_size - offset) {
        status = EG_MAP_BAD_PART;
    } else {
        bytes = bytes > 0 ? bytes : (uint64_t)about.st_size - offset;
        const size_t before = bytes_before(offset);
        if (bytes == 0 || bytes > SIZE_MAX - before) {
            status = EG_MAP_BAD_SIZE;
        } else {
            char *pages = mmap(NULL, before + (size_t)bytes, PROT_READ, MAP_SHARED, descriptor,
                               (off_t)(offset - before));
            if (pages != MAP_FAILED) {
                *file = (eg_mapped_file){pages + before, (size_t)bytes, offset, descriptor};
                return EG_MAPPED;
            }
            status = fail(EG_MAP_REFUSED, reason);
        }
    }
    close(descriptor);
    return status;
}

eg_map_status eg_file_map(const char *path, eg_mapped_file *file, char reason[EG_REASON_BYTES])
{
    return map(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), 0, 0, file, reason);
}

eg_map_status eg_file_map_part(int descriptor, uint64_t offset, uint64_t bytes, eg_mapped_file *file,
                               char reason[EG_REASON_BYTES])
{
    return map(fcntl(descriptor, F_DUPFD_CLOEXEC, 0), offset, bytes, file, reason);
}

void eg_file_unmap(const eg_mapped_file *file)
{
    if (file->data != NULL) {
        const size_t before = bytes_before(file->offset);
        munmap((char *)file->data - before, before + file->bytes);
        close((int)file->handle);
    }
}

int eg_file_read(const eg_mapped_file *file, size_t offset, size_t bytes, void *to)
{
    off_t at = (off_t)(file->offset + offset);
    char *next = to;
    while (bytes > 0) {
        const ssize_t got = pread((int)file->handle, next, bytes, at);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return 0;
        }
        if (got > 0) {
            next += got;
            at += got;
            bytes -= (size_t)got;
        }
    }
    return 1;
}

void eg_file_forget(const eg_mapped_file *file, const void *begin, size_t bytes)
{
    (void)file;
    const size_t before = bytes_before((uintptr_t)begin);
    (void)madvise((char *)begin - before, before + bytes, MADV_DONTNEED); /* of a file: nothing is lost */
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

int eg_mutex_create(eg_mutex *mutex) { return pthread_mutex_init(mutex, NULL) == 0; }

void eg_mutex_free(eg_mutex *mutex) { pthread_mutex_destroy(mutex); }

void eg_mutex_lock(eg_mutex *mutex) { pthread_mutex_lock(mutex); }

void eg_mutex_unlock(eg_mutex *mutex) { pthread_mutex_unlock(mutex); }

int eg_condition_create(eg_condition *condition) { return pthread_cond_init(condition, NULL) == 0; }

void eg_condition_free(eg_condition *condition) { pthread_cond_destroy(condition); }

void eg_condition_wait(eg_condition *condition, eg_mutex *mutex) { pthread_cond_wait(condition, mutex); }

void eg_condition_wake_all(eg_condition *condition) { pthread_cond_broadcast(condition); }

static void *begin(void *argument)
{
    const eg_system_thread *thread = argument;
    thread->body(thread->argument);
    return NULL;
}

int eg_thread_start(eg_system_thread *thread, void (*body)(void *argument), void *argument)
{
    enum { STACK_BYTES = 1 << 20 }; /* as on Windows; the engine takes 90 KB, and musl gives 128 */
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        return 0;
    }
    thread->body = body;
    thread->argument = argument;
    const int started = pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0 &&
                        pthread_create(&thread->handle, &attributes, begin, thread) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

void eg_thread_join(eg_system_thread *thread) { pthread_join(thread->handle, NULL); }

void eg_thread_yield(void) { sched_yield(); }

long eg_process(void) { return (long)getpid(); }

double eg_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}
