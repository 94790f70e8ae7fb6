#include "model/json.h"

#include "common/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_DIGITS = 40,        /* of a number; 17 are enough for any double */
    MOST_EXPONENT = 9999,    /* beyond it, every double of MOST_DIGITS digits is 0 or infinite */
    FIRST_PRINTABLE = 0x20,  /* characters below must be escaped */
    HIGH_SURROGATE = 0xD800, /* first of those that begin a pair, */
    LOW_SURROGATE = 0xDC00,  /* of those that end one, */
    PAST_SURROGATES = 0xE000,
    PLANE = 0x10000, /* first character that UTF-16 writes as a pair */
};

eg_json eg_json_read(eg_string text) { return (eg_json){text.text, text.text + text.bytes, NULL}; }

void eg_json_fail(eg_json *json, const char *problem)
{
    if (json->problem == NULL) {
        json->problem = problem;
    }
    json->at = json->end;
}

int eg_string_is(eg_string string, const char *expected)
{
    return string.bytes == strlen(expected) && memcmp(string.text, expected, string.bytes) == 0;
}

/* ---- punctuation ---------------------------------------------------------------------------------------------- */

/* The next character, 0 at the end; no valid text has a 0. */
static char peek(const eg_json *json) { return json->at < json->end ? *json->at : '\0'; }

static void skip_space(eg_json *json)
{
    while (peek(json) == ' ' || peek(json) == '\n' || peek(json) == '\r' || peek(json) == '\t') {
        json->at++;
    }
}

/* Takes `expected`, which is not 0, if it is the very next character. */
static int take_here(eg_json *json, char expected)
{
    const int there = peek(json) == expected;
    json->at += there;
    return there;
}

/* Takes `expected` if it comes next, after white space. */
static int take(eg_json *json, char expected)
{
    skip_space(json);
    return take_here(json, expected);
}

int eg_json_open(eg_json *json, char bracket)
{
    if (!take(json, bracket)) {
        eg_json_fail(json, bracket == '{' ? "expected an object" : "expected a list");
        return 0;
    }
    return !take(json, bracket == '{' ? '}' : ']');
}

int eg_json_more(eg_json *json, char bracket)
{
    if (take(json, ',')) {
        return 1;
    }
    if (!take(json, bracket == '{' ? '}' : ']')) {
        eg_json_fail(json, "expected a comma or the closing bracket");
    }
    return 0;
}

void eg_json_finish(eg_json *json)
{
    skip_space(json);
    if (json->at != json->end) {
        eg_json_fail(json, "expected the end of the text");
    }
}

/* ---- strings -------------------------------------------------------------------------------------------------- */

/* Writes a character as UTF-8; returns the place after it. */
static char *put(char *to, uint32_t character)
{
    if (character < 0x80) {
        *to++ = (char)character;
        return to;
    }
    const int more = character < 0x800 ? 1 : character < PLANE ? 2 : 3; /* bytes of 6 bits after the first */
    static const unsigned char first[] = {0, 0xC0, 0xE0, 0xF0};
    *to++ = (char)(first[more] | character >> 6 * more);
    for (int i = more - 1; i >= 0; i--) {
        *to++ = (char)(0x80 | (character >> 6 * i & 0x3F));
    }
    return to;
}

/* The four digits of \uXXXX. */
static uint32_t hex(eg_json *json)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const char c = peek(json);
        uint32_t digit;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
            digit = (uint32_t)((c | 0x20) - 'a') + 10;
        } else {
            eg_json_fail(json, "expected four hexadecimal digits after \\u");
            return 0;
        }
        value = value << 4 | digit;
        json->at++;
    }
    return value;
}

/* Decodes what follows a backslash. */
static char *unescape(eg_json *json, char *to)
{
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char name = peek(json);
    const char *known = name != '\0' ? strchr(names, name) : NULL;
    if (known != NULL) {
        json->at++;
        *to = meanings[known - names];
        return to + 1;
    }
    if (!take_here(json, 'u')) {
        eg_json_fail(json, "a string has an unknown escape");
        return to;
    }
    uint32_t character = hex(json);
    if (character >= HIGH_SURROGATE && character < LOW_SURROGATE && json->end - json->at >= 2 && json->at[0] == '\\' &&
        json->at[1] == 'u') {
        json->at += 2;
        const uint32_t low = hex(json);
        if (low >= LOW_SURROGATE && low < PAST_SURROGATES) {
            character = PLANE + ((character - HIGH_SURROGATE) << 10) + (low - LOW_SURROGATE);
        }
    }
    if (character >= HIGH_SURROGATE && character < PAST_SURROGATES) {
        eg_json_fail(json, "a string has half of a surrogate pair");
        return to;
    }
    return put(to, character);
}

/* Copies a character of several bytes. */
static char *copy_character(eg_json *json, char *to)
{
    const size_t bytes = eg_character_bytes((const unsigned char *)json->at, (size_t)(json->end - json->at));
    if (bytes == 0) {
        eg_json_fail(json, "a string is not valid UTF-8");
        return to;
    }
    memmove(to, json->at, bytes);
    json->at += bytes;
    return to + bytes;
}

eg_string eg_json_string(eg_json *json)
{
    static char nothing[1];
    if (!take(json, '"')) {
        eg_json_fail(json, "expected a string");
    }
    char *const text = json->at, *to = text;
    while (json->at < json->end) {
        const unsigned char c = (unsigned char)*json->at;
        if (c == '"') {
            json->at++;
            *to = '\0'; /* over the quote, or before it */
            return (eg_string){text, (size_t)(to - text)};
        }
        if (c == '\\') {
            json->at++;
            to = unescape(json, to);
        } else if (c < FIRST_PRINTABLE) {
            eg_json_fail(json, "a string has a control character");
        } else if (c < 0x80) {
            *to++ = *json->at++;
        } else {
            to = copy_character(json, to);
        }
    }
    eg_json_fail(json, "expected the end of a string");
    return (eg_string){nothing, 0};
}

eg_string eg_json_key(eg_json *json)
{
    const eg_string key = eg_json_string(json);
    if (!take(json, ':')) {
        eg_json_fail(json, "expected a colon");
    }
    return key;
}

/* ---- numbers -------------------------------------------------------------------------------------------------- */

static int is_digit(char c) { return c >= '0' && c <= '9'; }

uint64_t eg_json_integer(eg_json *json)
{
    skip_space(json);
    const char *first = json->at;
    uint64_t value = 0;
    while (is_digit(peek(json))) {
        const uint64_t digit = (uint64_t)(*json->at - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            eg_json_fail(json, "an integer is too large");
            return 0;
        }
        value = 10 * value + digit;
        json->at++;
    }
    if (json->at == first || (*first == '0' && json->at > first + 1)) {
        eg_json_fail(json, "expected an integer of 0 or more");
        return 0;
    }
    return value;
}

/* Appends a row of digits to those of a number; returns how many there were. */
static int take_digits(eg_json *json, char *digits, size_t *count)
{
    int taken = 0;
    for (; is_digit(peek(json)); taken++, json->at++) {
        if (*count == MOST_DIGITS) {
            eg_json_fail(json, "a number has too many digits");
            return 0;
        }
        digits[(*count)++] = *json->at;
    }
    if (taken == 0) {
        eg_json_fail(json, "expected a digit");
    }
    return taken;
}

/* 0 if there is none. */
static int take_exponent(eg_json *json)
{
    if (!take_here(json, 'e') && !take_here(json, 'E')) {
        return 0;
    }
    const char sign = peek(json);
    if (sign == '+' || sign == '-') {
        json->at++;
    }
    int exponent = 0;
    const char *first = json->at;
    for (; is_digit(peek(json)); json->at++) {
        exponent = exponent < MOST_EXPONENT ? 10 * exponent + (*json->at - '0') : exponent;
    }
    if (json->at == first) {
        eg_json_fail(json, "expected a digit");
    }
    return sign == '-' ? -exponent : exponent;
}

double eg_json_number(eg_json *json)
{
    const int negative = take(json, '-');
    char digits[MOST_DIGITS + 16]; /* and an exponent */
    size_t count = 0;
    if (take_digits(json, digits, &count) > 1 && digits[0] == '0') {
        eg_json_fail(json, "a number begins with 0");
    }
    int exponent = 0;
    if (take_here(json, '.')) {
        exponent = -take_digits(json, digits, &count);
    }
    exponent += take_exponent(json);
    if (json->problem != NULL) {
        return 0;
    }
    /* strtod() rounds correctly, and without a decimal point it reads the same in every locale. */
    snprintf(digits + count, sizeof digits - count, "e%d", exponent);
    const double value = strtod(digits, NULL);
    return negative ? -value : value;
}

int eg_json_null(eg_json *json)
{
    skip_space(json);
    if (json->end - json->at < 4 || memcmp(json->at, "null", 4) != 0) {
        return 0;
    }
    json->at += 4;
    return 1;
}
