#include "common/error.h"

#include "common/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[EG_MESSAGE_BYTES];

/* 1 if a terminal may obey this valid UTF-8 character instead of showing it: controls of C0 and C1, line separators,
 * and marks that turn or hide text. The same as in errors.py. */
static int is_unprintable(const unsigned char *text, size_t bytes)
{
    static const struct range {
        unsigned first, last;
    } ranges[] = {{0, 0x1F},        {0x7F, 0x9F},     {0x61C, 0x61C},   {0x200E, 0x200F},  {0x2028, 0x202E},
                  {0x2060, 0x206F}, {0xFEFF, 0xFEFF}, {0xFFF9, 0xFFFB}, {0xE0000, 0xE007F}};
    unsigned character = bytes == 1 ? text[0] : text[0] & 0x7Fu >> bytes;
    for (size_t i = 1; i < bytes; i++) {
        character = character << 6 | (text[i] & 0x3Fu);
    }
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (character >= ranges[i].first && character <= ranges[i].last) {
            return 1;
        }
    }
    return 0;
}

eg_status eg_fail(eg_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    unsigned char *const text = (unsigned char *)message;
    const size_t length = strlen(message);
    for (size_t i = 0, bytes; i < length; i += bytes) { /* a character may be cut at the end, or by a precision */
        bytes = eg_character_bytes(text + i, length - i);
        if (bytes == 0 || is_unprintable(text + i, bytes)) {
            bytes = bytes > 0 ? bytes : 1;
            memset(text + i, '?', bytes);
        }
    }
    return status;
}

const char *eg_error_message(void) { return message; }
