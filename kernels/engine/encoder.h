/* The forward pass. It trusts its arguments: eg_encode, in encode.c, checks them. */
#ifndef EG_ENCODER_H
#define EG_ENCODER_H

#include "engine/context.h"

#include <stdatomic.h>

/* One call, shared by all threads. The scratch of the context is large enough and has the texts. */
typedef struct eg_call {
    eg_context *context;
    const int32_t *ids; /* (tokens,) of all texts, one after another */
    size_t tokens;
    size_t texts;
    uint32_t dim;              /* 0: the states of tokens are wanted, not the vectors of texts */
    uint32_t normalize;        /* 1: to unit length */
    float *out;                /* (texts, dim), or (tokens, hidden); a NaN in it for a text that has no vector */
    atomic_int unreadable;     /* set to 1 if a thread cannot read the model file */
    atomic_int without_vector; /* set to 1 if a vector is not finite, or too short to have a direction */
} eg_call;

/* What every thread of the pool runs; call: an eg_call. */
void eg_forward(void *call, eg_thread *thread);

#endif
