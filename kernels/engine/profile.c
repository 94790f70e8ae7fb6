#include "engine/profile.h"

#include "embgemma_bench.h"
#include "platform/platform.h"

static const char *const names[EG_OPERATIONS] = {
    [EG_EMBED] = "embed",
    [EG_NORM] = "norm",
    [EG_QKV] = "qkv",
    [EG_PLACE_HEADS] = "place_heads",
    [EG_ATTENTION_SLIDING] = "attention_sliding",
    [EG_ATTENTION_FULL] = "attention_full",
    [EG_QUANTIZE] = "quantize",
    [EG_O] = "o",
    [EG_GATE_UP] = "gate_up",
    [EG_DOWN] = "down",
    [EG_POOL_AND_HEAD] = "pool_and_head",
    [EG_WAIT] = "wait",
};

void eg_watch_start(eg_stopwatch *watch, double *seconds)
{
    *watch = (eg_stopwatch){.seconds = seconds, .lap = seconds != NULL ? eg_now() : 0};
}

void eg_watch_lap(eg_stopwatch *watch, eg_operation operation)
{
    const double now = eg_now();
    watch->seconds[operation] += now - watch->lap - watch->waited;
    watch->seconds[EG_WAIT] += watch->waited;
    watch->lap = now;
    watch->waited = 0;
}

size_t eg_operation_count(void) { return EG_OPERATIONS; }

const char *eg_operation_name(size_t index) { return index < EG_OPERATIONS ? names[index] : NULL; }
