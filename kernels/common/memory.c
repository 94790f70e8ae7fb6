#include "common/memory.h"

#include "platform/platform.h"

#include <string.h>

static void *allocate_by_default(void *user, size_t bytes)
{
    (void)user;
    return eg_aligned_new(EG_ALIGNMENT, bytes);
}

static void release_by_default(void *user, void *memory)
{
    (void)user;
    eg_aligned_free(memory);
}

eg_allocator eg_allocator_or_default(const eg_allocator *given)
{
    return given != NULL ? *given : (eg_allocator){allocate_by_default, release_by_default, NULL};
}

void *eg_allocate_unset(const eg_allocator *allocator, size_t count, size_t size)
{
    if (size != 0 && count > (SIZE_MAX - EG_ALIGNMENT) / size) {
        return NULL;
    }
    const size_t lines = (count * size + EG_ALIGNMENT - 1) / EG_ALIGNMENT;
    return allocator->allocate(allocator->user, (lines > 0 ? lines : 1) * EG_ALIGNMENT);
}

void *eg_allocate(const eg_allocator *allocator, size_t count, size_t size)
{
    void *memory = eg_allocate_unset(allocator, count, size);
    return memory != NULL ? memset(memory, 0, count * size) : NULL;
}

void eg_release(const eg_allocator *allocator, void *memory)
{
    if (memory != NULL) {
        allocator->release(allocator->user, memory);
    }
}
