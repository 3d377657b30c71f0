/* xref.h: what the files of the reference engine share. Not seen outside this plugin.
 *
 * A model is a straight list of operations over named values. Loading parses the text into a
 * struct xref_program (read-only afterwards, so any number of requests may run it at once); a
 * request holds where each value lies right now. See README.md for the format. */
#ifndef XREF_H
#define XREF_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "xinfer/engine.h"

#ifndef XREF_NAME
#define XREF_NAME "reference"
#endif

/* Caps on what a file may ask for; each is checked before anything is allocated. */
#define XREF_FILE_MAX   (16u << 20)
#define XREF_NAME_MAX   64
#define XREF_PORTS_MAX  64
#define XREF_VALUES_MAX 512
#define XREF_OPS_MAX    256
#define XREF_ARGS_MAX   2
#define XREF_FAULTS_MAX 16
#define XREF_TENSOR_MAX (1ull << 30)   /* bytes of one tensor */
#define XREF_CONST_MAX  (256ull << 20) /* bytes of all constants together */

/* The caller's error buffer. */
struct xref_err {
    char *text;
    size_t bytes;
};
/* Writes the sentence, returns code. */
int xref_fail(const struct xref_err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum xref_role { XREF_TEMP = 0, XREF_INPUT, XREF_OUTPUT, XREF_CONST, XREF_HIDDEN };

struct xref_value {
    char name[XREF_NAME_MAX]; /* "" for a literal */
    enum xref_role role;
    int assigned;                /* an operation writes it, or it is an input or a constant */
    struct xi_tensor tensor;     /* declared dtype and shape (-1 free); data only for constants */
    char becomes[XREF_NAME_MAX]; /* hidden: the value that it has in the next run */
    uint32_t next;               /* its index */
};

struct xref_op_kind;
struct xref_op {
    const struct xref_op_kind *kind;
    uint32_t line; /* in the file, for messages */
    uint32_t result, n_args;
    uint32_t args[XREF_ARGS_MAX];
};

enum xref_fault_kind {
    XREF_DELAY_MS,
    XREF_SPIN_MS,
    XREF_CRASH,
    XREF_HANG,
    XREF_STOP,
    XREF_LEAK,
    XREF_EXHAUST,
    XREF_FAIL,
    XREF_WRONG,
    XREF_PRINT,
    XREF_THREADS,
    XREF_FDS,
    XREF_LOAD_DELAY_MS,
    XREF_LOAD_FAIL,
    XREF_LOAD_CRASH,
    XREF_LOAD_HANG,
    XREF_HOLD,
    XREF_CLAIM
};

struct xref_fault {
    enum xref_fault_kind kind;
    int64_t amount;    /* ms, bytes, a count, an engine code or a way to crash */
    uint64_t at, from; /* only in that run of the model, from that run on; 0: any */
    int has_when;
    float when; /* only where the first input begins with this */
};

/* What a run takes: a part of its own and one for each row of the first input. */
struct xref_cost {
    uint32_t setup_us, row_us;
    int spins; /* on a core; else asleep */
};

struct xref_program {
    uint32_t n_values, n_ops, n_inputs, n_outputs, n_faults;
    uint32_t inputs[XREF_PORTS_MAX], outputs[XREF_PORTS_MAX]; /* indexes of values */
    struct xref_value values[XREF_VALUES_MAX];
    struct xref_op ops[XREF_OPS_MAX];
    struct xref_fault faults[XREF_FAULTS_MAX];
    uint64_t const_bytes;
    uint32_t n_hidden;
    struct xref_cost cost;
};

/* parse: text is NUL-terminated at text[bytes] and is written to (tokens are cut in place).
 * On failure the program may hold constants: xref_program_fini frees them, as always. */
int xref_parse(char *text, size_t bytes, struct xref_program *ret, const struct xref_err *err);
void xref_program_fini(struct xref_program *program);

/* ops */
struct xref_op_kind {
    const char *name;
    uint32_t n_args;
    /* Result's dtype, rank, dims and bytes from the arguments'. At load dims may be -1 and data
     * NULL; at run both are real. Writes the complaint's second half on failure. */
    int (*shape)(const struct xi_tensor *const args[], struct xi_tensor *ret, char why[128]);
    void (*run)(const struct xi_tensor *const args[], struct xi_tensor *out);
};
const struct xref_op_kind *xref_op_find(const char *name);
/* Bytes of a tensor without -1 dims: 0 and *ret, or -1 when over XREF_TENSOR_MAX. */
int xref_tensor_bytes(const struct xi_tensor *tensor, uint64_t *ret);
uint32_t xref_dtype_bytes(uint32_t dtype); /* 0: UNKNOWN or BYTES */
const char *xref_dtype_name(uint32_t dtype);
uint32_t xref_dtype_parse(const char *name);
/* Equal dtype and rank, dims equal or -1 on either side. */
int xref_tensor_fits(const struct xi_tensor *declared, const struct xi_tensor *given);

/* cost: 0, or -1 when it makes no sense, or when the run was cancelled. */
int xref_cost_parse(const char *setup, const char *row, int spins, struct xref_cost *ret);
int xref_cost_pay(const struct xref_cost *cost, const struct xi_tensor *first,
                  atomic_int *cancelled);

/* identity: what differs between the plugins that are built from these sources. */
struct xref_identity {
    const char *version;
    uint32_t n_devices;
    const struct xi_engine_device *devices;
};
extern const struct xref_identity xref_identity;

/* faults */
int xref_fault_parse(const char *name, const char *value, struct xref_fault *ret);
int xref_fault_takes_value(const char *name); /* -1: no such fault */
/* Those meant for load. *ret_held is memory to free at unload. */
int xref_faults_at_load(const struct xref_program *program, void **ret_held, uint64_t *ret_bytes,
                        const struct xref_err *err);
/* Those meant before the run-th run (from 1). first: the first input as bound. */
int xref_faults_at_run(const struct xref_program *program, uint64_t run,
                       const struct xi_tensor *first, atomic_int *cancelled,
                       const struct xref_err *err);
/* Bytes that the model only says it holds. */
uint64_t xref_faults_claim(const struct xref_program *program);
int xref_fault_is_wrong(const struct xref_program *program, uint64_t run,
                        const struct xi_tensor *first);

#endif
