/* parse.c: text to struct xref_program. One pass, a line at a time, no recursion: a line may only
 * name values of lines above it, so a program can't loop. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xref.h"

struct parser {
    struct xref_program *p;
    const struct xref_err *err;
    uint32_t line;
    char *at; /* rest of the line */
};

int xref_fail(const struct xref_err *err, int code, const char *format, ...)
{
    va_list args;

    if (err == NULL || err->text == NULL || err->bytes == 0)
        return code;
    va_start(args, format);
    vsnprintf(err->text, err->bytes, format, args);
    va_end(args);
    return code;
}

/* %.40s in messages: a hostile file must not fill them. */
#define BAD(ps, format, ...)                                                                       \
    xref_fail((ps)->err, XI_ENGINE_UNSUPPORTED, "line %u: " format, (ps)->line, __VA_ARGS__)

/* The next word of the line, NULL at its end. '#' begins a comment. */
static char *token(struct parser *ps)
{
    char *start;

    ps->at += strspn(ps->at, " \t\r");
    if (*ps->at == '\0' || *ps->at == '#') {
        *ps->at = '\0';
        return NULL;
    }
    start = ps->at;
    ps->at += strcspn(ps->at, " \t\r#");
    if (*ps->at == '#')
        *ps->at = '\0';
    else if (*ps->at != '\0')
        *ps->at++ = '\0';
    return start;
}

static int parse_float(const char *text, float *ret)
{
    char *end;

    *ret = strtof(text, &end);
    return end != text && *end == '\0' ? 0 : -1;
}

static int parse_count(const char *text, uint64_t *ret)
{
    char *end;

    errno = 0;
    *ret = strtoull(text, &end, 10);
    return text[0] >= '1' && text[0] <= '9' && errno == 0 && *end == '\0' ? 0 : -1;
}

static int name_is_good(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-");

    return n > 0 && n < XREF_NAME_MAX && name[n] == '\0' &&
           ((name[0] | 32) >= 'a' && (name[0] | 32) <= 'z' ? 1 : name[0] == '_');
}

static struct xref_value *find(struct xref_program *p, const char *name)
{
    for (uint32_t i = 0; i < p->n_values; i++)
        if (strcmp(p->values[i].name, name) == 0)
            return &p->values[i];
    return NULL;
}

/* name NULL: a literal. */
static int value_new(struct parser *ps, const char *name, enum xref_role role,
                     struct xref_value **ret)
{
    struct xref_value *v;

    if (name != NULL && !name_is_good(name))
        return BAD(ps, "\"%.40s\" is not a name", name);
    if (name != NULL && find(ps->p, name) != NULL)
        return BAD(ps, "\"%.40s\" is there already", name);
    if (ps->p->n_values == XREF_VALUES_MAX)
        return BAD(ps, "more than %d values", XREF_VALUES_MAX);
    v = &ps->p->values[ps->p->n_values++];
    memset(v, 0, sizeof(*v));
    if (name != NULL)
        snprintf(v->name, sizeof(v->name), "%s", name);
    v->role = role;
    v->tensor.size = sizeof(v->tensor);
    v->tensor.fd = -1;
    *ret = v;
    return XI_ENGINE_OK;
}

/* "[1,-1,4]" or "[]". */
static int parse_dims(struct parser *ps, const char *text, struct xi_tensor *t)
{
    const char *s = text;

    if (*s++ != '[')
        return BAD(ps, "\"%.40s\" is not a shape like [1,-1,4]", text);
    for (t->rank = 0; *s != ']';) {
        char *end;
        long long dim;
        if (t->rank == XI_MAX_RANK)
            return BAD(ps, "a shape has at most %d dimensions", XI_MAX_RANK);
        errno = 0;
        dim = strtoll(s, &end, 10);
        if (errno != 0 || end == s || dim < -1 || dim > (long long)XREF_TENSOR_MAX ||
            (*end != ',' && *end != ']') || (*end == ',' && end[1] == ']'))
            return BAD(ps, "\"%.40s\" is not a shape like [1,-1,4]", text);
        t->dims[t->rank++] = dim;
        s = *end == ',' ? end + 1 : end;
    }
    return s[1] == '\0' ? XI_ENGINE_OK : BAD(ps, "\"%.40s\" is not a shape", text);
}

/* "NAME DTYPE SHAPE" of input, output and const. */
static int parse_declaration(struct parser *ps, enum xref_role role, struct xref_value **ret)
{
    const char *name = token(ps), *dtype = token(ps), *dims = token(ps);
    struct xi_tensor dynamic;
    struct xref_value *v;
    uint64_t bytes;
    int rc;

    if (dims == NULL)
        return BAD(ps, "%s", "needs NAME DTYPE SHAPE");
    rc = value_new(ps, name, role, &v);
    if (rc != XI_ENGINE_OK)
        return rc;
    v->tensor.dtype = xref_dtype_parse(dtype);
    if (v->tensor.dtype == XI_DT_UNKNOWN)
        return BAD(ps, "\"%.40s\" is not a dtype", dtype);
    rc = parse_dims(ps, dims, &v->tensor);
    if (rc != XI_ENGINE_OK)
        return rc;
    dynamic = v->tensor; /* the fixed part alone must fit too */
    for (int i = 0; i < dynamic.rank; i++)
        if (dynamic.dims[i] == -1)
            dynamic.dims[i] = 1;
    if (xref_tensor_bytes(&dynamic, &bytes) != 0)
        return BAD(ps, "\"%.40s\" is larger than %llu bytes", name, XREF_TENSOR_MAX);
    v->assigned = role == XREF_INPUT;
    *ret = v;
    return XI_ENGINE_OK;
}

static int parse_port(struct parser *ps, enum xref_role role)
{
    uint32_t *n = role == XREF_INPUT ? &ps->p->n_inputs : &ps->p->n_outputs;
    uint32_t *list = role == XREF_INPUT ? ps->p->inputs : ps->p->outputs;
    struct xref_value *v;
    int rc;

    if (*n == XREF_PORTS_MAX)
        return BAD(ps, "more than %d inputs or outputs", XREF_PORTS_MAX);
    rc = parse_declaration(ps, role, &v);
    if (rc == XI_ENGINE_OK)
        list[(*n)++] = (uint32_t)(v - ps->p->values);
    return rc;
}

/* Values of a constant: "fill V", "iota", or one number an element. */
static int parse_numbers(struct parser *ps, float *data, uint64_t n)
{
    char *word = token(ps);
    float fill;

    if (word != NULL && strcmp(word, "iota") == 0) {
        for (uint64_t i = 0; i < n; i++)
            data[i] = (float)i;
        return XI_ENGINE_OK;
    }
    if (word != NULL && strcmp(word, "fill") == 0) {
        word = token(ps);
        if (word == NULL || parse_float(word, &fill) != 0)
            return BAD(ps, "%s", "fill needs a number");
        for (uint64_t i = 0; i < n; i++)
            data[i] = fill;
        return XI_ENGINE_OK;
    }
    for (uint64_t i = 0; i < n; i++, word = token(ps)) {
        if (word == NULL)
            return BAD(ps, "%llu numbers given, %llu wanted", (unsigned long long)i,
                       (unsigned long long)n);
        if (parse_float(word, &data[i]) != 0)
            return BAD(ps, "\"%.40s\" is not a number", word);
    }
    return word == NULL ? XI_ENGINE_OK : BAD(ps, "more than %llu numbers", (unsigned long long)n);
}

/* Takes the bytes of a constant from the file's budget. */
static int const_data(struct parser *ps, struct xref_value *v)
{
    uint64_t bytes;

    if (xref_tensor_bytes(&v->tensor, &bytes) != 0)
        return BAD(ps, "%s", "a constant's shape must be fixed");
    if (bytes > XREF_CONST_MAX - ps->p->const_bytes)
        return BAD(ps, "constants are larger than %llu bytes", XREF_CONST_MAX);
    v->tensor.data = calloc(1, bytes > 0 ? bytes : 1);
    if (v->tensor.data == NULL)
        return xref_fail(ps->err, XI_ENGINE_NO_MEMORY, "no memory for a constant of %llu bytes",
                         (unsigned long long)bytes);
    v->tensor.bytes = bytes;
    v->assigned = 1;
    ps->p->const_bytes += bytes;
    return XI_ENGINE_OK;
}

static int parse_const(struct parser *ps)
{
    struct xref_value *v;
    int rc = parse_declaration(ps, XREF_CONST, &v);

    if (rc != XI_ENGINE_OK)
        return rc;
    if (v->tensor.dtype != XI_DT_FP32)
        return BAD(ps, "%s", "constants are FP32");
    rc = const_data(ps, v);
    return rc != XI_ENGINE_OK ? rc : parse_numbers(ps, v->tensor.data, v->tensor.bytes / 4);
}

/* A name from above, or a number. */
static int parse_argument(struct parser *ps, const char *word, uint32_t *ret)
{
    struct xref_value *v = find(ps->p, word);
    float number;
    int rc;

    if (v == NULL && parse_float(word, &number) == 0 && !name_is_good(word)) {
        rc = value_new(ps, NULL, XREF_CONST, &v);
        if (rc != XI_ENGINE_OK)
            return rc;
        v->tensor.dtype = XI_DT_FP32;
        rc = const_data(ps, v);
        if (rc != XI_ENGINE_OK)
            return rc;
        *(float *)v->tensor.data = number;
    }
    if (v == NULL || !v->assigned)
        return BAD(ps, "\"%.40s\" has no value yet", word);
    *ret = (uint32_t)(v - ps->p->values);
    return XI_ENGINE_OK;
}

/* What the operation makes must fit what the result was declared as. */
static int check_shape(struct parser *ps, const struct xref_op *op, struct xref_value *result)
{
    const struct xi_tensor *args[XREF_ARGS_MAX] = {NULL};
    struct xi_tensor made = {.size = sizeof(made), .fd = -1};
    char why[128] = "";

    for (uint32_t i = 0; i < op->n_args; i++)
        args[i] = &ps->p->values[op->args[i]].tensor;
    if (op->kind->shape(args, &made, why) != 0)
        return BAD(ps, "%s: %s", op->kind->name, why);
    if (result->role == XREF_TEMP)
        result->tensor = made;
    else if (!xref_tensor_fits(&result->tensor, &made))
        return BAD(ps, "%s makes %s of rank %d, which is not what \"%.40s\" was declared as",
                   op->kind->name, xref_dtype_name(made.dtype), made.rank, result->name);
    result->tensor.data = NULL;
    return XI_ENGINE_OK;
}

/* "RESULT = OP ARGUMENT [ARGUMENT]" */
static int parse_op(struct parser *ps, const char *result_name)
{
    const char *equals = token(ps), *kind = token(ps), *word;
    struct xref_op op = {.line = ps->line};
    struct xref_value *result;
    int rc;

    if (equals == NULL || strcmp(equals, "=") != 0 || kind == NULL)
        return BAD(ps, "\"%.40s\" begins no statement; write RESULT = OP ARGUMENTS", result_name);
    op.kind = xref_op_find(kind);
    if (op.kind == NULL)
        return BAD(ps, "no operation \"%.40s\"", kind);
    if (ps->p->n_ops == XREF_OPS_MAX)
        return BAD(ps, "more than %d operations", XREF_OPS_MAX);
    while (op.n_args < op.kind->n_args && (word = token(ps)) != NULL) {
        rc = parse_argument(ps, word, &op.args[op.n_args++]);
        if (rc != XI_ENGINE_OK)
            return rc;
    }
    if (op.n_args < op.kind->n_args)
        return BAD(ps, "%s takes %u arguments", kind, op.kind->n_args);
    result = find(ps->p, result_name);
    if (result != NULL && (result->role != XREF_OUTPUT || result->assigned))
        return BAD(ps, "\"%.40s\" has a value already", result_name);
    rc = result != NULL ? XI_ENGINE_OK : value_new(ps, result_name, XREF_TEMP, &result);
    if (rc == XI_ENGINE_OK)
        rc = check_shape(ps, &op, result);
    if (rc != XI_ENGINE_OK)
        return rc;
    result->assigned = 1;
    op.result = (uint32_t)(result - ps->p->values);
    ps->p->ops[ps->p->n_ops++] = op;
    return XI_ENGINE_OK;
}

/* "fault NAME [VALUE] [at N] [from N] [when V]" */
static int parse_fault(struct parser *ps)
{
    struct xref_fault f = {.from = 1};
    const char *name = token(ps), *word, *value = NULL;
    int takes = name == NULL ? -1 : xref_fault_takes_value(name);

    if (takes < 0)
        return BAD(ps, "no fault \"%.40s\"", name == NULL ? "" : name);
    if (ps->p->n_faults == XREF_FAULTS_MAX)
        return BAD(ps, "more than %d faults", XREF_FAULTS_MAX);
    if (takes)
        value = token(ps);
    if ((takes && value == NULL) || xref_fault_parse(name, value, &f) != 0)
        return BAD(ps, "fault %s can't take \"%.40s\"", name, value == NULL ? "" : value);
    while ((word = token(ps)) != NULL) {
        const char *number = token(ps);
        int bad = number == NULL;
        if (!bad && strcmp(word, "at") == 0)
            bad = parse_count(number, &f.at);
        else if (!bad && strcmp(word, "from") == 0)
            bad = parse_count(number, &f.from);
        else if (!bad && strcmp(word, "when") == 0)
            bad = parse_float(number, &f.when), f.has_when = 1;
        else
            bad = 1;
        if (bad)
            return BAD(ps, "after a fault come at N, from N or when V, not \"%.40s\"", word);
    }
    ps->p->faults[ps->p->n_faults++] = f;
    return XI_ENGINE_OK;
}

/* "hidden NAME DTYPE SHAPE NEXT": state that the request keeps, zeros at first. */
static int parse_hidden(struct parser *ps)
{
    struct xref_value *v;
    const char *next;
    int rc = parse_declaration(ps, XREF_HIDDEN, &v);

    if (rc != XI_ENGINE_OK)
        return rc;
    next = token(ps);
    if (xref_tensor_bytes(&v->tensor, &v->tensor.bytes) != 0 || v->tensor.dtype == XI_DT_BYTES)
        return BAD(ps, "%s", "hidden state has a fixed size");
    if (next == NULL || !name_is_good(next))
        return BAD(ps, "%s", "behind hidden state stands the name of its next value");
    snprintf(v->becomes, sizeof(v->becomes), "%s", next);
    v->assigned = 1;
    ps->p->n_hidden++;
    return XI_ENGINE_OK;
}

/* "cost-us SETUP ROW", "spin-us SETUP ROW" */
static int parse_cost(struct parser *ps, int spins)
{
    const char *setup = token(ps), *row = token(ps);

    if (xref_cost_parse(setup, row, spins, &ps->p->cost) == 0)
        return XI_ENGINE_OK;
    return BAD(ps, "%s", "a cost is two numbers of microseconds: of each run, of each row");
}

static int parse_line(struct parser *ps)
{
    char *word = token(ps), *rest;
    int rc;

    if (word == NULL)
        return XI_ENGINE_OK;
    if (strcmp(word, "input") == 0)
        rc = parse_port(ps, XREF_INPUT);
    else if (strcmp(word, "output") == 0)
        rc = parse_port(ps, XREF_OUTPUT);
    else if (strcmp(word, "const") == 0)
        rc = parse_const(ps);
    else if (strcmp(word, "fault") == 0)
        rc = parse_fault(ps);
    else if (strcmp(word, "hidden") == 0)
        rc = parse_hidden(ps);
    else if (strcmp(word, "cost-us") == 0 || strcmp(word, "spin-us") == 0)
        rc = parse_cost(ps, word[0] == 's');
    else
        rc = parse_op(ps, word);
    if (rc != XI_ENGINE_OK)
        return rc;
    rest = token(ps);
    return rest == NULL ? XI_ENGINE_OK : BAD(ps, "\"%.40s\" is too much", rest);
}

static int find_next(struct parser *ps)
{
    struct xref_program *p = ps->p;

    for (uint32_t i = 0; i < p->n_values; i++) {
        struct xref_value *v = &p->values[i], *next;
        if (v->role != XREF_HIDDEN)
            continue;
        next = find(p, v->becomes);
        if (next == NULL || !next->assigned || !xref_tensor_fits(&v->tensor, &next->tensor))
            return xref_fail(ps->err, XI_ENGINE_UNSUPPORTED,
                             "nothing like \"%s\" is made to become it", v->name);
        v->next = (uint32_t)(next - p->values);
    }
    return XI_ENGINE_OK;
}

static int finish(struct parser *ps)
{
    struct xref_program *p = ps->p;

    if (p->n_outputs == 0)
        return xref_fail(ps->err, XI_ENGINE_UNSUPPORTED, "the model has no output");
    for (uint32_t i = 0; i < p->n_outputs; i++)
        if (!p->values[p->outputs[i]].assigned)
            return xref_fail(ps->err, XI_ENGINE_UNSUPPORTED, "nothing computes output \"%s\"",
                             p->values[p->outputs[i]].name);
    return find_next(ps);
}

int xref_parse(char *text, size_t bytes, struct xref_program *ret, const struct xref_err *err)
{
    struct parser ps = {.p = ret, .err = err};
    char *next = text, *end = text + bytes;
    int rc;

    while (next < end) {
        char *line = next, *newline = memchr(line, '\n', (size_t)(end - line));
        next = newline == NULL ? end : newline + 1;
        if (newline != NULL)
            *newline = '\0';
        ps.at = line;
        ps.line++;
        if (memchr(line, '\0', (size_t)(next - line)) != newline)
            return BAD(&ps, "%s", "a zero byte");
        if (ps.line == 1) {
            if (strncmp(line, "xref 1", 6) != 0 || strspn(line + 6, " \t\r") != strlen(line + 6))
                return xref_fail(err, XI_ENGINE_UNSUPPORTED,
                                 "not a reference model: its first line must be \"xref 1\"");
            continue;
        }
        rc = parse_line(&ps);
        if (rc != XI_ENGINE_OK)
            return rc;
    }
    return finish(&ps);
}

void xref_program_fini(struct xref_program *p)
{
    for (uint32_t i = 0; i < p->n_values; i++)
        if (p->values[i].role == XREF_CONST)
            free(p->values[i].tensor.data);
}
