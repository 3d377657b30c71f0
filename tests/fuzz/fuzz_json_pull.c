/* Any text as JSON: our reader and jansson agree on what is JSON, and on its numbers. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "wire/json_pull.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum xi_json_token read_all(const char *text, size_t n)
{
    struct xi_json_pull j;
    enum xi_json_token t;
    size_t tokens = 0, len;

    xi_json_pull_init(&j, text, n);
    do {
        t = xi_json_pull_next(&j);
        XI_ASSERT(++tokens <= n + 2 && j.depth <= XI_JSON_DEPTH_MAX);
        if (t == XI_TOKEN_KEY || t == XI_TOKEN_STRING)
            XI_ASSERT(xi_json_pull_text(&j, NULL, 0, &len, NULL) == XI_OK && len <= j.text_len);
        if (t == XI_TOKEN_NUMBER)
            (void)xi_json_double(j.text, j.text_len);
    } while (t != XI_TOKEN_END && t != XI_TOKEN_ERROR);
    XI_ASSERT(t != XI_TOKEN_ERROR || j.err.rc == XI_EJSON);
    return t;
}

/* Could the text be over one of our limits: 64 levels, 1,024 characters of a number? jansson also
 * lets a NUL stand behind the value. */
static int has_limits(const char *text, size_t n)
{
    size_t brackets = 0, run = 0, longest = 0;

    for (size_t i = 0; i < n; i++) {
        brackets += text[i] == '[' || text[i] == '{';
        run = strchr("0123456789.eE+-", text[i]) != NULL ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return memchr(text, 0, n) != NULL || brackets > XI_JSON_DEPTH_MAX ||
           longest >= XI_JSON_NUMBER_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_error_t error;

    if (size > 65536)
        return 0;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0'; /* for strspn */
    int ours = read_all(text, size) == XI_TOKEN_END;
    json_t *theirs = json_loadb(text, size, flags, &error);
    /* What jansson takes we take, up to our own limits; it also refuses numbers that overflow. */
    XI_ASSERT(theirs == NULL || ours || has_limits(text, size));
    if (theirs != NULL && json_is_real(theirs)) {
        size_t skip = strspn(text, " \t\r\n"), n = size - skip;
        while (n > 0 && strchr(" \t\r\n", text[skip + n - 1]) != NULL)
            n--;
        XI_ASSERT(xi_json_double(text + skip, n) == json_real_value(theirs));
    }
    json_decref(theirs);
    free(text);
    return 0;
}
