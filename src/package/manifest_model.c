#include <stdlib.h>
#include <string.h>

#include "core/package_record.h"
#include "core/version_range.h"
#include "package/manifest_parts.h"
#include "package/models.h"

enum { FILES_MAX = 64, RENAMES_MAX = XI_TENSORS_MAX, OPTIONS_MAX = 32, STATES_MAX = 32 };

static struct xi_port_spec *read_ports(const struct xi_place *p, const char *key, uint32_t *ret_n)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, key, 1, XI_TENSORS_MAX, &n);
    struct xi_port_spec *ports = xi_place_alloc(p, n, sizeof *ports);
    static const char *const known[] = {"name", "dtype", "shape", NULL};

    for (size_t i = 0; ports != NULL && i < n; i++) {
        struct xi_place item;
        if (!xi_place_item(p, key, list, i, &item))
            break;
        xi_place_keys(&item, known);
        xi_place_port(&item, &ports[i]);
        for (size_t k = 0; k < i; k++)
            if (strcmp(ports[k].name, ports[i].name) == 0)
                xi_place_bad(p, key, "has \"%.60s\" twice", ports[i].name);
    }
    *ret_n = ports ? (uint32_t)n : 0;
    return ports;
}

static void read_signature(const struct xi_place *p, struct xi_manifest_model *ret)
{
    static const char *const known[] = {"inputs", "outputs", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "signature", 0, &child))
        return;
    xi_place_keys(&child, known);
    ret->signature.inputs = read_ports(&child, "inputs", &ret->signature.n_inputs);
    ret->signature.outputs = read_ports(&child, "outputs", &ret->signature.n_outputs);
    ret->has_signature = 1;
}

static int has_port(const struct xi_manifest_model *model, int is_input, const char *name)
{
    const struct xi_signature *s = &model->signature;
    const struct xi_port_spec *ports = is_input ? s->inputs : s->outputs;
    uint32_t n = is_input ? s->n_inputs : s->n_outputs;

    if (!model->has_signature)
        return 1; /* the engine will tell */
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(ports[i].name, name) == 0)
            return 1;
    return 0;
}

static void read_state(const struct xi_place *p, const struct xi_manifest_model *model,
                       struct xi_manifest_state *ret)
{
    static const char *const known[] = {"input", "output", "dtype", "shape", "initial", NULL};
    json_t *name;

    xi_place_keys(p, known);
    ret->input = xi_place_text(p, "input", XI_JSON_REQUIRED, XI_TENSOR_NAME_MAX - 1);
    ret->output = xi_place_text(p, "output", XI_JSON_REQUIRED, XI_TENSOR_NAME_MAX - 1);
    if (xi_place_failed(p))
        return;
    struct xi_place named = *p; /* a state's port is called after its input */
    name = json_copy(p->obj);
    if (name == NULL || json_object_set(name, "name", json_object_get(p->obj, "input")) != 0) {
        p->reading->rc = xi_fail(p->reading->err, XI_ENOMEM, "manifest: out of memory");
        json_decref(name);
        return;
    }
    named.obj = name;
    xi_place_port(&named, &ret->port);
    json_decref(name);
    for (int i = 0; i < ret->port.rank; i++)
        if (ret->port.dims[i] < 0)
            xi_place_bad(p, "shape", "of a state must be fixed");
    if (ret->port.rank < 0 || ret->port.dtype == XI_DT_BYTES)
        xi_place_bad(p, "shape", "and a fixed-size dtype are needed for a state");
    ret->initial = xi_place_path(p, "initial", 0, "assets/");
    if (!xi_place_failed(p) &&
        (!has_port(model, 1, ret->input) || !has_port(model, 0, ret->output)))
        xi_place_bad(p, "input", "or output is not in the signature");
}

static void read_states(const struct xi_place *p, struct xi_manifest_model *ret)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, "state", 0, STATES_MAX, &n);

    ret->states = xi_place_alloc(p, n, sizeof *ret->states);
    for (size_t i = 0; ret->states != NULL && i < n; i++) {
        struct xi_place item;
        if (xi_place_item(p, "state", list, i, &item))
            read_state(&item, ret, &ret->states[i]);
    }
    ret->n_states = ret->states ? n : 0;
}

static void read_batching(const struct xi_place *p, struct xi_manifest_model *ret)
{
    static const char *const known[] = {"max", "preferred", "max_delay_us", NULL};
    struct xi_place child;
    size_t n = 0;

    if (!xi_place_object(p, "batching", 0, &child))
        return;
    xi_place_keys(&child, known);
    ret->max_batch = (uint32_t)xi_place_int(&child, "max", 1, XI_BATCH_MAX, 1);
    ret->max_delay_us = (uint32_t)xi_place_int(&child, "max_delay_us", 0, 1000000, 0);
    json_t *list = xi_place_list(&child, "preferred", 0,
                                 sizeof ret->preferred_batch / sizeof *ret->preferred_batch, &n);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t size = json_is_integer(v) ? json_integer_value(v) : 0;
        if (size < 1 || size > ret->max_batch)
            xi_place_bad(&child, "preferred", "must hold sizes from 1 to max");
        ret->preferred_batch[i] = (uint32_t)size;
    }
    ret->n_preferred = n;
}

static void read_engine(const struct xi_place *p, struct xi_manifest_variant *ret)
{
    static const char *const known[] = {"name", "version", NULL};
    struct xi_place child;

    ret->engine_version = "";
    if (!xi_place_object(p, "engine", 1, &child))
        return;
    xi_place_keys(&child, known);
    ret->engine = xi_place_word(&child, "name", XI_JSON_REQUIRED, 31);
    const char *range = xi_place_text(&child, "version", 0, 63);
    if (range == NULL)
        return;
    if (!xi_version_range_valid(range))
        xi_place_bad(&child, "version", "\"%.40s\" is no range like \">=2025.0 <2027\"", range);
    ret->engine_version = range;
}

/* {"input name": "engine's name" or its index, …} of one direction, behind those already read. */
static void read_renames(const struct xi_place *p, const char *key, int is_input,
                         const struct xi_manifest_model *model, struct xi_manifest_variant *ret)
{
    struct xi_place child;
    const char *name;
    json_t *value;

    if (!xi_place_object(p, key, 0, &child))
        return;
    json_object_foreach(child.obj, name, value)
    {
        const char *to = json_string_value(value);
        json_int_t index = json_is_integer(value) ? json_integer_value(value) : -1;
        if (!has_port(model, is_input, name))
            xi_place_bad(&child, name, "is not in the signature");
        if (to == NULL && (index < 0 || index >= XI_TENSORS_MAX))
            xi_place_bad(&child, name, "must be the engine's name of it or its index");
        if (ret->n_renames == 2 * RENAMES_MAX)
            xi_place_bad(&child, name, "is one rename too many");
        if (xi_place_failed(p))
            return;
        ret->renames[ret->n_renames++] =
            (struct xi_manifest_rename){.direction = is_input ? XI_RENAME_INPUT : XI_RENAME_OUTPUT,
                                        .name = name,
                                        .engine_name = to,
                                        .engine_index = to ? 0 : (uint32_t)index};
    }
}

static void read_rename(const struct xi_place *p, const struct xi_manifest_model *model,
                        struct xi_manifest_variant *ret)
{
    static const char *const known[] = {"inputs", "outputs", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "rename", 0, &child))
        return;
    xi_place_keys(&child, known);
    ret->renames = xi_place_alloc(&child, 2 * RENAMES_MAX, sizeof *ret->renames);
    read_renames(&child, "inputs", 1, model, ret);
    read_renames(&child, "outputs", 0, model, ret);
}

/* Engine options are words, never files: a package must not make an engine open what it likes. */
static void read_options(const struct xi_place *p, struct xi_manifest_variant *ret)
{
    struct xi_place child;
    const char *key;
    json_t *value;

    if (!xi_place_object(p, "options", 0, &child))
        return;
    if (json_object_size(child.obj) > OPTIONS_MAX)
        xi_place_bad(p, "options", "has more than %d members", OPTIONS_MAX);
    ret->options = xi_place_alloc(&child, OPTIONS_MAX, sizeof *ret->options);
    json_object_foreach(child.obj, key, value)
    {
        const char *text = xi_place_text(&child, key, XI_JSON_REQUIRED, 128);
        if (text == NULL)
            return;
        if (!xi_text_is_word(key) || strlen(key) > 64)
            xi_place_bad(p, "options", "has the key \"%.40s\", which is no word", key);
        if (strpbrk(text, "/\\") != NULL)
            xi_place_bad(&child, key, "must not name a file");
        if (xi_place_failed(p))
            return;
        ret->options[ret->n_options++] = (struct xi_manifest_option){key, text};
    }
}

static void read_accuracy(const struct xi_place *p, struct xi_manifest_variant *ret)
{
    static const char *const known[] = {"metric", "value", "data", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "accuracy", 0, &child))
        return;
    xi_place_keys(&child, known);
    ret->accuracy_metric = xi_place_text(&child, "metric", XI_JSON_REQUIRED, 64);
    ret->accuracy_data = xi_place_text(&child, "data", 0, 255);
    if (json_object_get(child.obj, "value") == NULL)
        xi_place_bad(&child, "value", "is missing");
    ret->accuracy = xi_place_number(&child, "value", -1e30, 1e30, 0);
}

static void read_variant(const struct xi_place *p, const struct xi_manifest_model *model,
                         struct xi_manifest_variant *ret)
{
    static const char *const known[] = {"id",        "files",   "format", "engine", "arch",
                                        "device",    "memory",  "ops",    "rename", "accuracy",
                                        "precision", "options", NULL};
    static const char *const precisions[] = {"f32", "f16", "bf16", "f8", "i8", "i4", NULL};
    const int64_t most = (int64_t)1 << 53;

    xi_place_keys(p, known);
    ret->id = xi_place_word(p, "id", XI_JSON_REQUIRED, 63);
    ret->files = xi_place_texts(p, "files", XI_PLACE_PATH, FILES_MAX, &ret->n_files);
    if (ret->n_files == 0)
        xi_place_bad(p, "files", "must name at least one file");
    for (size_t i = 0; i < ret->n_files; i++)
        if (strncmp(ret->files[i], "variants/", 9) != 0)
            xi_place_bad(p, "files", "\"%.60s\" must lie below variants/", ret->files[i]);
    ret->format = xi_place_word(p, "format", XI_JSON_REQUIRED, 23);
    read_engine(p, ret);
    ret->arch = xi_place_texts(p, "arch", XI_PLACE_WORD, 4, &ret->n_arch);
    for (size_t i = 0; i < ret->n_arch; i++)
        if (strlen(ret->arch[i]) > 15 ||
            strspn(ret->arch[i], "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(ret->arch[i]))
            xi_place_bad(p, "arch", "\"%.40s\" is no architecture like x86_64", ret->arch[i]);
    ret->device = xi_place_word(p, "device", 0, 15);
    ret->device = ret->device ? ret->device : "";
    ret->precision = xi_place_choice(p, "precision", XI_JSON_REQUIRED, precisions);
    ret->memory_bytes = (uint64_t)xi_place_int(p, "memory", 0, most, 0);
    ret->ops = (uint64_t)xi_place_int(p, "ops", 0, most, 0);
    read_rename(p, model, ret);
    read_accuracy(p, ret);
    read_options(p, ret);
    if (!xi_place_failed(p))
        p->reading->rc = xi_model_check_names(ret, p->reading->err);
}

static void read_variants(const struct xi_place *p, struct xi_manifest_model *ret)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, "variants", 1, XI_RECORD_VARIANTS_MAX, &n);

    ret->variants = xi_place_alloc(p, n, sizeof *ret->variants);
    ret->n_variants = ret->variants ? n : 0;
    for (size_t i = 0; i < ret->n_variants; i++) {
        struct xi_place item;
        if (!xi_place_item(p, "variants", list, i, &item))
            return;
        read_variant(&item, ret, &ret->variants[i]);
        for (size_t k = 0; k < i && !xi_place_failed(p); k++)
            if (strcmp(ret->variants[k].id, ret->variants[i].id) == 0)
                xi_place_bad(p, "variants", "has the id \"%s\" twice", ret->variants[i].id);
    }
}

void xi_manifest_read_model(const struct xi_place *p, struct xi_manifest_model *ret)
{
    static const char *const known[] = {"signature", "state", "batching", "variants", NULL};

    xi_place_keys(p, known);
    read_signature(p, ret);
    read_states(p, ret);
    read_batching(p, ret);
    read_variants(p, ret);
}

void xi_manifest_free_model(struct xi_manifest_model *model)
{
    xi_signature_fini(&model->signature);
    free(model->states);
    for (size_t i = 0; i < model->n_variants; i++) {
        free(model->variants[i].files);
        free(model->variants[i].arch);
        free(model->variants[i].renames);
        free(model->variants[i].options);
    }
    free(model->variants);
}
