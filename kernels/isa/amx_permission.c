/* Linux gives a process the 8 KiB of tile registers only when it asks for them (Documentation/arch/x86/xstate.rst). */
#define _GNU_SOURCE /* syscall */

int eg_amx_permission(void);

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_XSTATE_PERMISSION = 0x1023, XSTATE_TILE_DATA = 18 }; /* asm/prctl.h; absent from older headers */

/* 1 if this process may use the tile registers, now and in all its threads; 0 if the kernel is too old or refuses. */
int eg_amx_permission(void) { return syscall(SYS_arch_prctl, REQUEST_XSTATE_PERMISSION, XSTATE_TILE_DATA) == 0; }

#else

int eg_amx_permission(void) { return 0; }

#endif
