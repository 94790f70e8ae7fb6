/* What this CPU and its operating system can run. */
#ifndef EG_CPU_H
#define EG_CPU_H

#include <stddef.h>

/* 1 if the instructions can be used, else 0; one function for each entry of the list in dispatch.c. */
int eg_cpu_always(void);
int eg_cpu_has_avx2(void);
int eg_cpu_has_avxvnni(void);
int eg_cpu_has_avx512vnni(void);
int eg_cpu_has_avx512vbmi(void);
int eg_cpu_has_amx(void); /* asks the kernel for permission to use the tile registers */
int eg_cpu_has_neondot(void);
int eg_cpu_has_i8mm(void);

/* Physical cores that this process may run on: hardware threads that share a core are counted once, and on a CPU
 * with cores of several speeds only the fastest kind counts. No more than the quota of its cgroups, at least 1. */
size_t eg_cpu_cores(void);

/* That quota, in CPUs rounded up; SIZE_MAX if there is none. root is "", or in tests a folder with proc/ and sys/. */
size_t eg_cpu_quota(const char *root);

#endif
