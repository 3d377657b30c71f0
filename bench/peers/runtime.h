/* runtime.h: ONNX Runtime by its own C interface, with nothing of ours in between: what the bare
 * baseline and the native backend for Triton run. One input and one output of floats; the output's
 * shape must be known, a free dimension counts as 1. */
#ifndef XI_BENCH_RUNTIME_H
#define XI_BENCH_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

enum { RUNTIME_RANK_MAX = 8 };

struct runtime;

struct runtime_input {
    const void *data;
    uint64_t bytes;
    const int64_t *dims;
    size_t rank;
    int is_uint8; /* else FP32 */
};

struct runtime_output {
    const char *name;
    int64_t dims[RUNTIME_RANK_MAX];
    size_t rank;
    uint64_t bytes;
};

/* A session of one thread; NULL, and why, in `why`. Lives as long as the process. */
struct runtime *runtime_open(const char *path, const char **why);

const struct runtime_output *runtime_output(const struct runtime *r);

/* Writes the output to `out`. NULL, or what went wrong. One call at a time for each runtime. */
const char *runtime_run(struct runtime *r, const struct runtime_input *in, void *out);

#endif
