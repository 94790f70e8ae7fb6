/* The message of the last error on this thread. */
#ifndef EG_ERROR_H
#define EG_ERROR_H

#include "embgemma.h"

enum { EG_MESSAGE_BYTES = 512 };

/* Sets the message, as printf does, and returns `status`: `return eg_fail(EG_ERROR_MODEL, "…", …);` What is not
 * valid UTF-8, and characters that a terminal obeys, become question marks: messages quote hostile files. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
eg_status eg_fail(eg_status status, const char *format, ...);

#endif
