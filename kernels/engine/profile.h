/* Measures what the time of a call is spent on: after each step, the forward pass names it. When profiling is off, this
 * costs one comparison a step. */
#ifndef EG_PROFILE_H
#define EG_PROFILE_H

/* In model order; eg_operation_name() has their names. */
typedef enum eg_operation {
    EG_EMBED,             /* rows of the embedding table */
    EG_NORM,              /* norms, residual sums, and quantisation of normed rows */
    EG_QKV,               /* the product of this matrix, in float32; so are EG_O, EG_GATE_UP and EG_DOWN */
    EG_PLACE_HEADS,       /* norm and rotation of queries and keys; keys and values to their panels */
    EG_ATTENTION_SLIDING, /* scores, softmax and weighted sums */
    EG_ATTENTION_FULL,
    EG_QUANTIZE, /* inputs of o and down */
    EG_O,
    EG_GATE_UP, /* and GeGLU */
    EG_DOWN,
    EG_POOL_AND_HEAD, /* final norm, mean, head, unit length */
    EG_WAIT,          /* for other threads */
    EG_OPERATIONS,
} eg_operation;

/* Of one thread in one call. */
typedef struct eg_stopwatch {
    double *seconds; /* (EG_OPERATIONS,) to which laps are added; NULL: off */
    double lap;      /* when the current lap began, in seconds */
    double waited;   /* seconds of it spent waiting */
} eg_stopwatch;

/* Begins the first lap. seconds: (EG_OPERATIONS,) or NULL. */
void eg_watch_start(eg_stopwatch *watch, double *seconds);
void eg_watch_lap(eg_stopwatch *watch, eg_operation operation);

/* Ends a lap, which was spent on `operation`, and begins the next. */
static inline void eg_lap(eg_stopwatch *watch, eg_operation operation)
{
    if (watch->seconds != 0) {
        eg_watch_lap(watch, operation);
    }
}

#endif
