/* The program `embgemma`: the commands of the Python package that a device without Python needs. */
#ifndef EG_PROGRAM_H
#define EG_PROGRAM_H

#include "embgemma.h"

/* Of the command line. NULL and 0 leave the choice to the engine. */
typedef struct eg_options {
    const char *model;       /* path of a model file */
    const char *isa;         /* --isa NAME */
    const char *prompt_name; /* --prompt-name NAME */
    uint32_t threads;        /* --threads N */
    uint32_t dim;            /* --dim N */
    double seconds;          /* --seconds S, of timing */
} eg_options;

/* Ends the program with the message of the last error unless the status is EG_OK. */
void eg_must(eg_status status);

/* Measures as `embgemma-bench --device cpu` does for one model file, and prints its page. */
void eg_bench(const eg_options *options);

#endif
