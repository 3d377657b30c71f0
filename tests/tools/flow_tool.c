/* flow_tool: runs a flow.json on one input without an engine, for tests and measurements.
 *
 *   flow_tool FLOW INPUT [-a ASSETS_DIR] [-t FILE:1,2,3]… [-o PICTURE.jpg] [-d DUMP] [-n TIMES]
 *
 * Every -t is an output of the flow's infer step: FP32 numbers in a file, and their shape. -d
 * writes the first input of infer to a file. The answer goes to stdout; with -n the best times of
 * the runs (microseconds: pre, post) go to stderr. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "flow/flow.h"

struct canned {
    struct xi_tensor outputs[XI_TENSORS_MAX];
    uint32_t n;
    const char *dump;
};

static void die(const char *what, const char *name)
{
    (void)fprintf(stderr, "flow_tool: %s: %s\n", what, name);
    exit(2);
}

static char *read_whole(const char *path, size_t *ret_bytes)
{
    FILE *f = fopen(path, "rb");
    char *data = NULL;
    size_t n = 0, room = 1 << 16, got;

    if (f == NULL)
        die("cannot open", path);
    do {
        room *= 2;
        data = realloc(data, room);
        if (data == NULL)
            die("out of memory", path);
        got = fread(data + n, 1, room - n, f);
        n += got;
    } while (got > 0 && n == room);
    (void)fclose(f);
    *ret_bytes = n;
    return data;
}

struct assets {
    const char *dir;
    char *last; /* the file handed out last, kept until the next */
};

static enum xi_rc read_asset(void *ctx, const char *path, const char **ret, size_t *ret_bytes,
                             struct xi_err *err)
{
    struct assets *a = ctx;
    char full[512];

    (void)snprintf(full, sizeof full, "%s/%s", a->dir ? a->dir : ".", path);
    if (access(full, R_OK) != 0)
        return xi_fail(err, XI_ENOENT, "there is no %s", path);
    free(a->last);
    *ret = a->last = read_whole(full, ret_bytes);
    return XI_OK;
}

static enum xi_rc infer(void *ctx, const char *model, const struct xi_tensor *inputs,
                        uint32_t n_inputs, struct xi_tensor *outputs, uint32_t n_outputs,
                        struct xi_err *err)
{
    const struct canned *c = ctx;

    (void)n_inputs;
    if (n_outputs != c->n)
        return xi_fail(err, XI_EENGINE, "%s: %u outputs wanted, %u given with -t", model, n_outputs,
                       c->n);
    if (c->dump != NULL) {
        FILE *f = fopen(c->dump, "wb");
        if (f == NULL || fwrite(inputs[0].data, 1, inputs[0].bytes, f) != inputs[0].bytes)
            die("cannot write", c->dump);
        (void)fclose(f);
    }
    for (uint32_t i = 0; i < n_outputs; i++)
        outputs[i] = c->outputs[i];
    return XI_OK;
}

static void add_tensor(struct canned *c, char *arg)
{
    char *shape = strrchr(arg, ':');
    int64_t dims[XI_MAX_RANK];
    int rank = 0;
    size_t bytes = 0;

    if (shape == NULL || c->n == XI_TENSORS_MAX)
        die("wanted is FILE:SHAPE", arg);
    *shape = '\0';
    if (xi_shape_parse(shape + 1, 0, dims, &rank, NULL) != XI_OK)
        die("not a shape", shape + 1);
    char *data = read_whole(arg, &bytes);
    c->outputs[c->n++] = xi_tensor_make(XI_DT_FP32, dims, rank, data, bytes);
}

static void report(const struct xi_err *err)
{
    (void)fprintf(stderr, "%s: %s%s%s\n", xi_rc_name(err->rc), err->msg, err->hint[0] ? "; " : "",
                  err->hint);
}

struct task {
    struct assets assets;
    const char *picture;
    long times;
    struct canned canned;
};

static int run(struct task *t, const struct xi_flow *flow, const char *input, size_t bytes)
{
    struct xi_str json, picture;
    struct xi_err err = {0};
    struct xi_flow_run *r = xi_flow_run_new(flow);
    struct xi_flow_engine engine = {.ctx = &t->canned, .infer = infer};
    struct xi_flow_timing timing, best = {UINT64_MAX, 0, UINT64_MAX};
    unsigned want = XI_ANSWER_JSON | (t->picture ? XI_ANSWER_PICTURE : 0);
    enum xi_rc rc = XI_OK;

    xi_str_init(&json, 256 * XI_MIB);
    xi_str_init(&picture, 256 * XI_MIB);
    for (long i = 0; rc == XI_OK && i < t->times; i++) {
        xi_str_clear(&json);
        xi_str_clear(&picture);
        rc = xi_flow_execute(r, &engine, input, bytes, want, &json, &picture, &timing, &err);
        best.pre_ns = timing.pre_ns < best.pre_ns ? timing.pre_ns : best.pre_ns;
        best.post_ns = timing.post_ns < best.post_ns ? timing.post_ns : best.post_ns;
    }
    if (rc != XI_OK) {
        report(&err);
    } else {
        (void)puts(xi_str_text(&json));
        if (t->times > 1)
            (void)fprintf(stderr, "pre %.1f post %.1f\n", (double)best.pre_ns / 1e3,
                          (double)best.post_ns / 1e3);
    }
    if (rc == XI_OK && t->picture != NULL) {
        FILE *f = fopen(t->picture, "wb");
        if (f == NULL || fwrite(picture.data, 1, picture.len, f) != picture.len)
            die("cannot write", t->picture);
        (void)fclose(f);
    }
    xi_str_fini(&json);
    xi_str_fini(&picture);
    xi_flow_run_free(r);
    return rc == XI_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct task t = {.times = 1};
    struct xi_flow *flow = NULL;
    struct xi_err err = {0};
    size_t bytes = 0, input_bytes = 0;
    int option;

    while ((option = getopt(argc, argv, "a:t:o:d:n:")) != -1) {
        if (option == 'a')
            t.assets.dir = optarg;
        else if (option == 'o')
            t.picture = optarg;
        else if (option == 'd')
            t.canned.dump = optarg;
        else if (option == 'n')
            t.times = strtol(optarg, NULL, 10);
        else if (option == 't')
            add_tensor(&t.canned, optarg);
        else
            return 2;
    }
    if (argc - optind != 2)
        die("wanted are", "FLOW INPUT");
    char *text = read_whole(argv[optind], &bytes);
    char *input = read_whole(argv[optind + 1], &input_bytes);
    struct xi_flow_assets assets = {.ctx = &t.assets, .read = read_asset};
    int rc = 1;
    if (xi_flow_parse(text, bytes, &assets, &flow, &err) == XI_OK)
        rc = run(&t, flow, input, input_bytes);
    else
        report(&err);
    xi_flow_free(flow);
    for (uint32_t i = 0; i < t.canned.n; i++)
        free(t.canned.outputs[i].data);
    free(t.assets.last);
    free(text);
    free(input);
    return rc;
}
