#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[EG_MESSAGE_BYTES];

eg_status eg_fail(eg_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    for (char *c = message; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7F) {
            *c = '?';
        }
    }
    return status;
}

const char *eg_error_message(void) { return message; }
