/* input.h: what `infer` and `run` send and get: a file with its content type, and the answer's
 * parts. Single-threaded. */
#ifndef XI_CLI_INPUT_H
#define XI_CLI_INPUT_H

#include "cli/cli.h"

struct xi_input {
    char *data; /* free() */
    size_t bytes;
    const char *content_type; /* by the file's first bytes */
};

/* "-" is standard input. ENOENT, ETOOBIG. */
enum xi_rc xi_input_read(const char *path, struct xi_input *ret, struct xi_err *err) XI_MUST_CHECK;

/* What came back: a JSON object and, where asked for, a picture (borrowed from answer). */
struct xi_result {
    json_t *json; /* json_decref */
    const void *picture;
    size_t picture_bytes;
};
enum xi_rc xi_result_read(const struct xi_answer *answer, struct xi_result *ret,
                          struct xi_err *err) XI_MUST_CHECK;

enum xi_rc xi_file_write(const char *path, const void *data, size_t bytes,
                         struct xi_err *err) XI_MUST_CHECK;

#endif
