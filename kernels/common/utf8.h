/* Valid UTF-8: the shortest form of each character, no surrogate, at most U+10FFFF. */
#ifndef EG_UTF8_H
#define EG_UTF8_H

#include <stddef.h>

/* Bytes of the valid UTF-8 character at the beginning of text[0 … bytes), by table 3-7 of the Unicode standard; 0 if
 * there is none. */
static inline size_t eg_character_bytes(const unsigned char *text, size_t bytes)
{
    const unsigned char first = text[0];
    if (first < 0x80) {
        return 1;
    }
    if (first < 0xC2 || first > 0xF4) {
        return 0;
    }
    const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (length > bytes) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    const int wrong = (first == 0xE0 && text[1] < 0xA0) || (first == 0xED && text[1] > 0x9F) ||
                      (first == 0xF0 && text[1] < 0x90) || (first == 0xF4 && text[1] > 0x8F);
    return wrong ? 0 : length;
}

#endif
