/* Memory from the allocator that the user chose: see eg_allocator in embgemma.h. */
#ifndef EG_MEMORY_H
#define EG_MEMORY_H

#include "embgemma.h"

enum { EG_ALIGNMENT = 64 }; /* bytes: a cache line, the widest vector load, and a row of an AMX tile */

/* *given, or the allocator of the C library if it is NULL. */
eg_allocator eg_allocator_or_default(const eg_allocator *given);

/* count · size bytes, EG_ALIGNMENT aligned, all 0; NULL if refused. */
void *eg_allocate(const eg_allocator *allocator, size_t count, size_t size);

/* The same, not set to 0. */
void *eg_allocate_unset(const eg_allocator *allocator, size_t count, size_t size);

/* Does nothing if memory is NULL. */
void eg_release(const eg_allocator *allocator, void *memory);

#endif
