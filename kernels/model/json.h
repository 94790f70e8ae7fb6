/* Reads JSON in place: a cursor. The caller says what comes next, since a model file has one form for every value.
 *
 * Nothing is skipped unread, so no text makes it nest. Strings are decoded in place. Strict: valid UTF-8, no lone
 * surrogate, no comment, no trailing comma. After the first problem the cursor stays at the end, so a caller may look
 * at `problem` once, when all is read:
 *
 *     for (int more = eg_json_open(&json, '{'); more; more = eg_json_more(&json, '{')) {
 *         const eg_string key = eg_json_key(&json);
 *         …
 *     }
 *     eg_json_finish(&json);
 */
#ifndef EG_JSON_H
#define EG_JSON_H

#include <stddef.h>
#include <stdint.h>

/* UTF-8 that ends with a 0, which `bytes` does not count; there may be more inside. */
typedef struct eg_string {
    char *text;
    size_t bytes;
} eg_string;

typedef struct eg_json {
    char *at, *end;
    const char *problem; /* what was expected but not found; NULL if all is well */
} eg_json;

/* The text is written to: decoded strings replace encoded ones. */
eg_json eg_json_read(eg_string text);

/* Reports a problem of the caller's own; the first one stays. */
void eg_json_fail(eg_json *json, const char *problem);

/* bracket: '{' of an object or '[' of a list. Both return 1 if another item follows. */
int eg_json_open(eg_json *json, char bracket);
int eg_json_more(eg_json *json, char bracket);

eg_string eg_json_key(eg_json *json); /* and the colon after it */
eg_string eg_json_string(eg_json *json);
uint64_t eg_json_integer(eg_json *json); /* 0 or more, without fraction or exponent */
double eg_json_number(eg_json *json);    /* rounded correctly, in any locale; infinite if it is too large */
int eg_json_null(eg_json *json);         /* 1 if there was a null; else nothing is read */

/* Nothing but white space may be left. */
void eg_json_finish(eg_json *json);

/* 1 if the two are the same bytes. */
int eg_string_is(eg_string string, const char *expected);

#endif
