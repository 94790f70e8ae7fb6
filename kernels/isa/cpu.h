/* What this CPU and its operating system can run. */
#ifndef EG_CPU_H
#define EG_CPU_H

/* 1 if the instructions can be used, else 0; one function for each entry of the list in dispatch.c. */
int eg_cpu_has_avx2(void);
int eg_cpu_has_avxvnni(void);
int eg_cpu_has_avx512vnni(void);
int eg_cpu_has_avx512vbmi(void);
int eg_cpu_has_amx(void); /* asks the operating system for permission to use the tile registers */
int eg_cpu_has_neondot(void);
int eg_cpu_has_i8mm(void);
int eg_cpu_has_wasmrelaxed(void);

#endif
