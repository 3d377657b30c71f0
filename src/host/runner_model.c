/* runner_model.c: choosing a variant, loading it, and which port of the engine is which tensor of
 * the package. Engines rename ports and reorder nothing, so names decide and order is the rest. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/utsname.h>

#include "core/version_range.h"
#include "host/runner_impl.h"

/* ---- which variant, which device ---- */

static int arch_fits(const struct xi_manifest_variant *v)
{
    struct utsname u;

    if (v->n_arch == 0 || uname(&u) != 0)
        return 1;
    for (size_t i = 0; i < v->n_arch; i++)
        if (strcmp(v->arch[i], u.machine) == 0)
            return 1;
    return 0;
}

static int variant_fits(const struct xi_runner *r, const struct xi_manifest_variant *v)
{
    if (strcmp(v->engine, r->engine->name) != 0 || !arch_fits(v))
        return 0;
    return v->engine_version[0] == '\0' ||
           xi_version_range_match(v->engine_version, r->engine->probe.version);
}

static const struct {
    const char *name;
    enum xi_device_kind kind;
} kinds[] = {{"cpu", XI_DEV_CPU}, {"gpu", XI_DEV_GPU}, {"npu", XI_DEV_NPU}, {"fpga", XI_DEV_FPGA}};

/* Id of the device to load on: an id as the engine says it, or the first of a kind. */
static enum xi_rc pick_device(const struct xi_runner *r, const char *want, const char **ret,
                              struct xi_err *err)
{
    const struct xi_engine_probe *p = &r->engine->probe;

    for (uint32_t i = 0; i < p->n_devices; i++)
        if (want[0] == '\0' || strcmp(p->devices[i].id, want) == 0) {
            *ret = p->devices[i].id;
            return XI_OK;
        }
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (uint32_t i = 0; i < p->n_devices; i++)
            if (strcasecmp(kinds[k].name, want) == 0 && p->devices[i].kind == kinds[k].kind) {
                *ret = p->devices[i].id;
                return XI_OK;
            }
    if (p->n_devices == 0)
        return xi_fail(err, XI_ENOENGINE, "the engine finds no device here");
    return xi_fail(err, XI_EUNSUPPORTED, "no device \"%.32s\" here; the engine has \"%s\"%s", want,
                   p->devices[0].id, p->n_devices > 1 ? " and others" : "");
}

static const char *wanted_device(const struct xi_manifest_variant *v,
                                 const struct xi_runner_spec *spec)
{
    int is_auto =
        spec->device == NULL || spec->device[0] == '\0' || strcmp(spec->device, "auto") == 0;

    return is_auto ? v->device : spec->device;
}

/* ---- loading ---- */

/* "input=1,3,640,640" */
static enum xi_rc largest_shape(const struct xi_manifest_model *said, const char *text,
                                uint32_t max_batch, struct xi_tensor ret[XI_TENSORS_MAX],
                                struct xi_err *err)
{
    size_t name = strcspn(text, "=");
    int64_t dims[XI_MAX_RANK];
    int rank = 0;
    enum xi_rc rc = text[name] == '=' ? xi_shape_parse(text + name + 1, 1, dims, &rank, err)
                                      : xi_fail(err, XI_EINVAL, "no \"=\"");

    if (rc != XI_OK)
        return xi_wrap(err, XI_EINVAL, "max_shape \"%.100s\"", text);
    for (uint32_t i = 0; i < said->signature.n_inputs; i++) {
        if (strlen(said->signature.inputs[i].name) != name ||
            strncmp(said->signature.inputs[i].name, text, name) != 0)
            continue;
        if (rank > 0 && dims[0] >= 0 && dims[0] < (int64_t)max_batch && max_batch > 1)
            dims[0] = max_batch;
        ret[i] = xi_tensor_make(said->signature.inputs[i].dtype, dims, rank, NULL, 0);
        return XI_OK;
    }
    return xi_fail(err, XI_EINVAL, "max_shape: the model has no input \"%.*s\"", (int)name, text);
}

/* "input=1,3,640,640;other=1,8" as one tensor for each input of the signature, which is in the
 * engine's order: -1 where it says nothing, and never under a full batch. 0: not to be passed on.
 */
static enum xi_rc largest_shapes(const struct xi_manifest_model *said, const char *text,
                                 uint32_t max_batch, struct xi_tensor ret[XI_TENSORS_MAX],
                                 uint32_t *ret_n, struct xi_err *err)
{
    char one[512];
    enum xi_rc rc = XI_OK;

    *ret_n = 0;
    if (text == NULL || text[0] == '\0' || !said->has_signature)
        return XI_OK;
    for (uint32_t i = 0; i < said->signature.n_inputs; i++) {
        const struct xi_port_spec *p = &said->signature.inputs[i];
        ret[i] = xi_tensor_make(p->dtype, p->dims, p->rank < 0 ? 0 : p->rank, NULL, 0);
    }
    while (text[0] != '\0' && rc == XI_OK) {
        size_t n = strcspn(text, ";");
        (void)snprintf(one, sizeof one, "%.*s", (int)n, text);
        text += n + (text[n] == ';');
        rc = largest_shape(said, one, max_batch, ret, err);
    }
    *ret_n = said->signature.n_inputs;
    return rc;
}

static enum xi_rc load_variant(struct xi_runner *r, const struct xi_manifest_model *said,
                               const struct xi_manifest_variant *v,
                               const struct xi_runner_spec *spec, struct xi_engine_model **ret,
                               struct xi_err *err)
{
    struct xi_tensor largest[XI_TENSORS_MAX];
    uint32_t n_largest = 0;
    char path[1024], text[XI_ENGINE_ERR_BYTES] = "";
    struct xi_engine_key keys[32];
    const char *device = NULL;
    enum xi_rc rc = pick_device(r, wanted_device(v, spec), &device, err);

    if (rc == XI_OK)
        rc = largest_shapes(said, spec->max_shape, spec->max_batch, largest, &n_largest, err);
    if (rc != XI_OK)
        return rc;
    if (v->n_files == 0 || v->n_options > sizeof keys / sizeof *keys ||
        snprintf(path, sizeof path, "%s/%s", r->link_dir, v->files[0]) >= (int)sizeof path)
        return xi_fail(err, XI_EPACKAGE, "variant \"%s\" has no usable file", v->id);
    for (size_t i = 0; i < v->n_options; i++)
        keys[i] = (struct xi_engine_key){.key = v->options[i].key, .value = v->options[i].value};
    struct xi_engine_source source = {
        .size = sizeof source, .fd = -1, .path = path, .format = v->format};
    struct xi_engine_options options = {
        .size = sizeof options,
        .threads = spec->threads ? spec->threads : 1,
        .streams = spec->lanes,
        .device = device,
        .precision = v->precision && v->precision[0] ? v->precision : "f32",
        .cache_dir = spec->cache_dir && spec->cache_dir[0] ? spec->cache_dir : NULL,
        .max_shapes = n_largest > 0 ? largest : NULL,
        .n_max_shapes = n_largest,
        .n_keys = (uint32_t)v->n_options,
        .keys = keys};
    int code = r->table->load(r->engine->handle, &source, &options, ret, text, sizeof text);
    if (code != XI_ENGINE_OK)
        return xi_plugin_fail(err, code == XI_ENGINE_BAD_INPUT ? XI_ENGINE_UNSUPPORTED : code,
                              text);
    (void)snprintf(r->info.device, sizeof r->info.device, "%s", device);
    return XI_OK;
}

/* ---- ports ---- */

static uint32_t count_ports(const struct xi_runner *r, struct xi_engine_model *m, int direction)
{
    uint32_t n = 0;

    while (n <= XI_TENSORS_MAX && r->table->port(m, direction, n) != NULL)
        n++;
    return n;
}

/* The engine's port for tensor i: as the variant's renaming says, else of the same name, else of
 * the same number. count: no such port. */
static uint32_t map_port(const struct xi_runner *r, const struct xi_runner_model *m, int direction,
                         uint32_t i, const char *name, uint32_t count)
{
    const struct xi_engine_table *t = r->table;
    const char *wanted = name;

    for (size_t k = 0; k < m->variant->n_renames; k++) {
        const struct xi_manifest_rename *n = &m->variant->renames[k];
        if ((n->direction == XI_RENAME_INPUT) != (direction == XI_INPUT) ||
            strcmp(n->name, name) != 0)
            continue;
        if (n->engine_name == NULL)
            return n->engine_index < count ? n->engine_index : count;
        wanted = n->engine_name;
    }
    for (uint32_t k = 0; k < count; k++) {
        const char *has = t->port(m->handle, direction, k)->name;
        if (has != NULL && strcmp(has, wanted) == 0)
            return k;
    }
    return wanted == name && i < count ? i : count;
}

static void spec_of_port(const struct xi_port *port, const char *prefix, uint32_t i,
                         struct xi_port_spec *ret)
{
    *ret = (struct xi_port_spec){.dtype = (enum xi_dtype)port->dtype, .rank = port->rank};
    if (ret->rank > XI_MAX_RANK || ret->rank < -1)
        ret->rank = -1;
    memcpy(ret->dims, port->dims, sizeof ret->dims);
    if (port->name != NULL && port->name[0] != '\0')
        (void)snprintf(ret->name, sizeof ret->name, "%s", port->name);
    else
        (void)snprintf(ret->name, sizeof ret->name, "%s%u", prefix, i);
}

/* What the package says, held against the port: a type or shape that differs is a wrong package;
 * what the package leaves open the port decides. */
static enum xi_rc merge_port(struct xi_port_spec *say, const struct xi_port_spec *is,
                             struct xi_err *err)
{
    char a[96], b[96];
    int fits = say->dtype == is->dtype || say->dtype == XI_DT_UNKNOWN;

    if (say->dtype == XI_DT_UNKNOWN)
        say->dtype = is->dtype;
    if (say->rank < 0) {
        say->rank = is->rank;
        memcpy(say->dims, is->dims, sizeof say->dims);
    }
    fits = fits && (is->rank < 0 || say->rank == is->rank);
    for (int i = 0; fits && is->rank >= 0 && i < say->rank; i++) {
        if (say->dims[i] < 0)
            say->dims[i] = is->dims[i];
        fits = is->dims[i] < 0 || is->dims[i] == say->dims[i];
    }
    if (fits)
        return XI_OK;
    return xi_fail(err, XI_EMODEL, "\"%.60s\": package says %s %s, the model has %s %s", say->name,
                   xi_dtype_name(say->dtype), xi_shape_text(say->dims, say->rank, a, sizeof a),
                   xi_dtype_name(is->dtype),
                   xi_shape_text(is->dims, is->rank < 0 ? 0 : is->rank, b, sizeof b));
}

static enum xi_rc map_side(struct xi_runner *r, struct xi_runner_model *m, int direction,
                           const struct xi_manifest_model *said, struct xi_err *err)
{
    int in = direction == XI_INPUT;
    uint32_t has = count_ports(r, m->handle, direction), n = has;
    uint32_t *map = in ? m->in_map : m->out_map;

    if (said->has_signature)
        n = in ? said->signature.n_inputs : said->signature.n_outputs;
    if (has > XI_TENSORS_MAX || n > XI_TENSORS_MAX || (in && n != has))
        return xi_fail(err, XI_EMODEL, "package says %u %s, the model has %u", n,
                       in ? "inputs" : "outputs", has);
    struct xi_port_spec *specs = calloc(n ? n : 1, sizeof *specs), is;
    if (specs == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for a signature");
    *(in ? &m->signature.inputs : &m->signature.outputs) = specs;
    *(in ? &m->signature.n_inputs : &m->signature.n_outputs) = n;
    for (uint32_t i = 0; i < n; i++) {
        if (said->has_signature)
            specs[i] = in ? said->signature.inputs[i] : said->signature.outputs[i];
        map[i] = said->has_signature ? map_port(r, m, direction, i, specs[i].name, has) : i;
        if (map[i] >= has)
            return xi_fail(err, XI_EMODEL, "the model has no %s \"%.100s\"",
                           in ? "input" : "output", specs[i].name);
        spec_of_port(r->table->port(m->handle, direction, map[i]), in ? "input" : "output", i, &is);
        if (!said->has_signature)
            specs[i] = is;
        else if (merge_port(&specs[i], &is, err) != XI_OK)
            return XI_EMODEL;
    }
    return XI_OK;
}

/* ---- state ---- */

/* The port of this name goes behind all others, with the shape that the package fixes. */
static enum xi_rc move_state(struct xi_port_spec *specs, uint32_t *map, uint32_t n,
                             const char *name, const struct xi_port_spec *fixed, struct xi_err *err)
{
    uint32_t at = 0;

    while (at < n && strcmp(specs[at].name, name) != 0)
        at++;
    if (at == n)
        return xi_fail(err, XI_EMODEL, "the model has no port \"%.100s\" for its state", name);
    struct xi_port_spec is = specs[at], state = *fixed;
    uint32_t port = map[at];
    memmove(&specs[at], &specs[at + 1], (n - at - 1) * sizeof *specs);
    memmove(&map[at], &map[at + 1], (n - at - 1) * sizeof *map);
    enum xi_rc rc = merge_port(&state, &is, err);
    memcpy(state.name, is.name, sizeof state.name);
    specs[n - 1] = state;
    map[n - 1] = port;
    return rc;
}

static enum xi_rc initial_state(struct xi_runner *r, struct xi_runner_model *m, uint32_t k,
                                const char *path, struct xi_err *err)
{
    const struct xi_port_spec *p = &m->signature.inputs[m->signature.n_inputs + k];
    char *data = NULL;
    size_t bytes = 0;
    enum xi_rc rc = xi_shape_bytes(p->dtype, p->dims, p->rank, &m->state_bytes[k], err);

    if (rc != XI_OK || m->state_bytes[k] > XI_BODY_MAX)
        return xi_fail(err, XI_EMODEL, "state \"%.60s\" is too large", p->name);
    if (path != NULL)
        rc = xi_runner_read(r, path, XI_BODY_MAX, &data, &bytes, err);
    if (rc == XI_OK && path != NULL && bytes != m->state_bytes[k])
        rc = xi_fail(err, XI_EPACKAGE, "%s has %zu bytes, the state has %llu", path, bytes,
                     (unsigned long long)m->state_bytes[k]);
    m->initial[k] = aligned_alloc(64, (m->state_bytes[k] / 64 + 1) * 64);
    if (rc == XI_OK && m->initial[k] == NULL)
        rc = xi_fail(err, XI_ENOMEM, "no memory for a state");
    if (rc == XI_OK && path != NULL)
        memcpy(m->initial[k], data, bytes);
    else if (rc == XI_OK)
        memset(m->initial[k], 0, m->state_bytes[k]);
    free(data);
    return rc;
}

static enum xi_rc take_states(struct xi_runner *r, struct xi_runner_model *m,
                              const struct xi_manifest_model *said, struct xi_err *err)
{
    struct xi_signature *s = &m->signature;
    uint32_t n_in = s->n_inputs, n_out = s->n_outputs;
    enum xi_rc rc = XI_OK;

    if (said->n_states > n_in || said->n_states > n_out)
        return xi_fail(err, XI_EMODEL, "%zu states in a model of %u inputs and %u outputs",
                       said->n_states, n_in, n_out);
    for (size_t k = 0; k < said->n_states && rc == XI_OK; k++) {
        const struct xi_manifest_state *st = &said->states[k];
        rc = move_state(s->inputs, m->in_map, n_in, st->input, &st->port, err);
        if (rc == XI_OK)
            rc = move_state(s->outputs, m->out_map, n_out, st->output, &st->port, err);
    }
    m->n_states = (uint32_t)said->n_states;
    s->n_inputs -= m->n_states;
    s->n_outputs -= m->n_states;
    for (uint32_t k = 0; k < m->n_states && rc == XI_OK; k++)
        rc = initial_state(r, m, k, said->states[k].initial, err);
    return rc;
}

/* ---- batches ---- */

/* Axis 0 of every port is free: then it is the batch. */
static int batches(const struct xi_runner *r, const struct xi_runner_model *m)
{
    for (int direction = XI_INPUT; direction <= XI_OUTPUT; direction++) {
        const struct xi_port *p;
        for (uint32_t i = 0; (p = r->table->port(m->handle, direction, i)) != NULL; i++)
            if (p->rank < 1 || p->dims[0] != -1 || xi_dtype_bytes((enum xi_dtype)p->dtype) == 0)
                return 0;
    }
    return xi_runner_n_in(m) > 0;
}

/* Outputs whose size the model fixes are bound where the caller wants them. */
static void find_static_outputs(struct xi_runner *r, struct xi_runner_model *m)
{
    for (uint32_t i = 0; i < xi_runner_n_out(m); i++) {
        const struct xi_port *p = r->table->port(m->handle, XI_OUTPUT, m->out_map[i]);
        m->out_static[i] = p->rank >= 0 && xi_shape_bytes((enum xi_dtype)p->dtype, p->dims, p->rank,
                                                          &m->out_bytes[i], NULL) == XI_OK;
    }
}

void xi_runner_model_unload(struct xi_runner *r, struct xi_runner_model *m)
{
    xi_signature_fini(&m->signature);
    for (uint32_t k = 0; k < XI_TENSORS_MAX; k++) {
        free(m->initial[k]);
        m->initial[k] = NULL;
    }
    m->n_states = 0;
    if (m->handle != NULL)
        r->table->unload(m->handle);
    m->handle = NULL;
}

static enum xi_rc try_variant(struct xi_runner *r, struct xi_runner_model *m,
                              const struct xi_manifest_model *said,
                              const struct xi_manifest_variant *v,
                              const struct xi_runner_spec *spec, struct xi_err *err)
{
    m->name = said->name;
    m->variant = v;
    enum xi_rc rc = load_variant(r, said, v, spec, &m->handle, err);
    if (rc == XI_OK)
        rc = map_side(r, m, XI_INPUT, said, err);
    if (rc == XI_OK)
        rc = map_side(r, m, XI_OUTPUT, said, err);
    if (rc == XI_OK)
        rc = take_states(r, m, said, err);
    if (rc != XI_OK) {
        xi_runner_model_unload(r, m);
        return xi_wrap(err, rc, "variant \"%.40s\"", v->id);
    }
    find_static_outputs(r, m);
    m->batches = batches(r, m);
    return XI_OK;
}

/* The variant asked for (of main), else the first of this engine that loads. */
static enum xi_rc load_model(struct xi_runner *r, struct xi_runner_model *m,
                             const struct xi_manifest_model *said, const char *variant,
                             const struct xi_runner_spec *spec, struct xi_err *err)
{
    enum xi_rc rc = xi_fail(err, XI_ENOENGINE, "model \"%.60s\" has no variant for engine \"%s\"",
                            said->name, r->engine->name);

    for (size_t i = 0; i < said->n_variants; i++) {
        const struct xi_manifest_variant *v = &said->variants[i];
        if (variant[0] != '\0' ? strcmp(variant, v->id) != 0 : !variant_fits(r, v))
            continue;
        rc = try_variant(r, m, said, v, spec, err);
        if (rc == XI_OK)
            return XI_OK;
    }
    return rc;
}

enum xi_rc xi_runner_models_load(struct xi_runner *r, const struct xi_runner_spec *spec,
                                 struct xi_err *err)
{
    const struct xi_manifest *man = r->manifest;
    const struct xi_manifest_model *main_model = xi_manifest_model(man, "main");

    if (main_model == NULL)
        return xi_fail(err, XI_EPACKAGE, "package has no model \"main\"");
    r->models = calloc(man->n_models, sizeof *r->models);
    if (r->models == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for %zu models", man->n_models);
    enum xi_rc rc =
        load_model(r, &r->models[0], main_model, spec->variant ? spec->variant : "", spec, err);
    if (rc != XI_OK)
        return rc;
    r->n_models = 1;
    (void)snprintf(r->info.variant, sizeof r->info.variant, "%s", r->models[0].variant->id);
    for (size_t i = 0; i < man->n_models && rc == XI_OK; i++) {
        if (&man->models[i] == main_model)
            continue;
        rc = load_model(r, &r->models[r->n_models], &man->models[i], "", spec, err);
        if (rc == XI_OK)
            r->n_models++;
    }
    return rc;
}
