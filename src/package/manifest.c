#include "package/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/name.h"
#include "core/package_record.h"
#include "package/manifest_parts.h"

static const char *const input_kinds[] = {"image", "video",   "audio", "text",
                                          "bytes", "tensors", NULL};
static const char *const output_kinds[] = {"bounding_boxes", "classes",   "keypoints", "mask",
                                           "text",           "embedding", "tensors",   NULL};
static const char *const top_keys[] = {
    "xpkg",  "name",   "version", "license", "description", "authors",  "source", "requires",
    "input", "output", "models",  "flow",    "split",       "escalate", "golden", NULL};

static void read_version(const struct xi_place *p)
{
    int64_t version = 0;

    p->reading->rc = xi_json_int(p->obj, p->path, "xpkg", XI_JSON_REQUIRED, 1, INT32_MAX, &version,
                                 p->reading->err);
    if (!xi_place_failed(p) && version != XI_MANIFEST_VERSION) {
        p->reading->rc = xi_fail(p->reading->err, XI_EVERSION,
                                 "manifest: schema version %lld, this xInfer reads version %d",
                                 (long long)version, XI_MANIFEST_VERSION);
        (void)xi_hint(p->reading->err, "update xInfer on this machine");
    }
}

static void read_identity(const struct xi_place *p, struct xi_manifest *ret)
{
    ret->name = xi_place_text(p, "name", XI_JSON_REQUIRED, XI_NAME_MAX);
    if (ret->name != NULL && !xi_name_valid(ret->name))
        xi_place_bad(p, "name", "\"%.60s\" may only have letters, digits, '.', '_' and '-'",
                     ret->name);
    ret->version = xi_place_text(p, "version", XI_JSON_REQUIRED, 64);
    if (ret->version != NULL && !xi_semver_valid(ret->version))
        xi_place_bad(p, "version", "\"%.60s\" is no semantic version like 1.0.0", ret->version);
    ret->license = xi_place_text(p, "license", 0, 63);
    ret->license = ret->license ? ret->license : "";
    ret->description = xi_place_text(p, "description", 0, 255);
    ret->description = ret->description ? ret->description : "";
    ret->authors = xi_place_texts(p, "authors", XI_PLACE_TEXT, 16, &ret->n_authors);
}

static void read_source(const struct xi_place *p, struct xi_manifest_source *ret)
{
    static const char *const known[] = {"path", "url", "file", "license", "sha256", NULL};
    struct xi_digest digest;

    xi_place_keys(p, known);
    ret->path = xi_place_path(p, "path", XI_JSON_REQUIRED, NULL);
    ret->url = xi_place_text(p, "url", 0, 1024);
    ret->file = xi_place_text(p, "file", 0, 255);
    ret->license = xi_place_text(p, "license", 0, 63);
    ret->sha256 = xi_place_text(p, "sha256", 0, XI_DIGEST_HEX);
    if (ret->sha256 != NULL && xi_digest_parse(ret->sha256, &digest) != 0)
        xi_place_bad(p, "sha256", "must be 64 lower-case hexadecimal digits");
    if (ret->path != NULL &&
        (strcmp(ret->path, "manifest.json") == 0 || strcmp(ret->path, "signature.json") == 0))
        xi_place_bad(p, "path", "\"%s\" has no source", ret->path);
}

static void read_sources(const struct xi_place *p, struct xi_manifest *ret)
{
    size_t n = 0;
    json_t *list = xi_place_list(p, "source", 0, XI_PACKAGE_ENTRIES_MAX, &n);

    ret->sources = xi_place_alloc(p, n, sizeof *ret->sources);
    ret->n_sources = ret->sources ? n : 0;
    for (size_t i = 0; i < ret->n_sources; i++) {
        struct xi_place item;
        if (!xi_place_item(p, "source", list, i, &item))
            return;
        read_source(&item, &ret->sources[i]);
    }
}

static void read_requires(const struct xi_place *p, struct xi_manifest *ret)
{
    static const char *const known[] = {"capabilities", "memory", NULL};
    struct xi_place child;

    if (!xi_place_object(p, "requires", 0, &child))
        return;
    xi_place_keys(&child, known);
    ret->capabilities =
        xi_place_texts(&child, "capabilities", XI_PLACE_WORD, 32, &ret->n_capabilities);
    ret->memory_required = (uint64_t)xi_place_int(&child, "memory", 0, (int64_t)1 << 53, 0);
}

static void read_output(const struct xi_place *p, const char *kind, struct xi_manifest *ret)
{
    for (size_t i = 0; output_kinds[i] != NULL; i++)
        if (strcmp(kind, output_kinds[i]) == 0) {
            for (size_t k = 0; k < ret->n_outputs; k++)
                if (strcmp(ret->outputs[k], kind) == 0)
                    xi_place_bad(p, "output", "has \"%s\" twice", kind);
            ret->outputs[ret->n_outputs++] = kind;
            return;
        }
    xi_place_bad(p, "output", "\"%.40s\" is not known", kind);
    const char *near = xi_nearest(kind, output_kinds);
    if (near != NULL)
        (void)xi_hint(p->reading->err, "did you mean \"%s\"?", near);
}

/* One kind as a string, or a list of kinds. */
static void read_semantics(const struct xi_place *p, struct xi_manifest *ret)
{
    const json_t *one = json_object_get(p->obj, "output");
    size_t n = 0;

    ret->input = xi_place_choice(p, "input", XI_JSON_REQUIRED, input_kinds);
    if (json_is_string(one)) {
        if (!xi_place_failed(p))
            read_output(p, json_string_value(one), ret);
        return;
    }
    json_t *list = xi_place_list(p, "output", 1, XI_MANIFEST_OUTPUTS_MAX, &n);
    for (size_t i = 0; i < n && !xi_place_failed(p); i++) {
        const char *kind = json_string_value(json_array_get(list, i));
        if (kind == NULL)
            xi_place_bad(p, "output", "must be a kind of output or a list of them");
        else
            read_output(p, kind, ret);
    }
}

static void check_model_name(const struct xi_place *p, const char *name,
                             const struct xi_manifest *m)
{
    if (!xi_name_valid(name))
        xi_place_bad(p, name, "is no name for a model");
    if (strcasecmp(name, "flow") == 0)
        xi_place_bad(p, name, "is reserved and no name for a model");
    for (size_t i = 0; i < m->n_models; i++)
        if (strcasecmp(name, m->models[i].name) == 0)
            xi_place_bad(p, name, "differs only in the case of letters from \"%s\"",
                         m->models[i].name);
}

static void read_models(const struct xi_place *p, struct xi_manifest *ret)
{
    struct xi_place models, child;
    const char *name;
    json_t *value;
    size_t variants = 0;

    if (!xi_place_object(p, "models", 1, &models))
        return;
    size_t n = json_object_size(models.obj);
    if (n > XI_RECORD_MODELS_MAX)
        xi_place_bad(p, "models", "has %zu members, at most %d are allowed", n,
                     XI_RECORD_MODELS_MAX);
    ret->models = xi_place_alloc(p, n, sizeof *ret->models);
    json_object_foreach(models.obj, name, value)
    {
        check_model_name(&models, name, ret);
        if (!xi_place_object(&models, name, 1, &child))
            return;
        struct xi_manifest_model *model = &ret->models[ret->n_models++];
        model->name = name;
        xi_manifest_read_model(&child, model);
        variants += model->n_variants;
    }
    if (variants > XI_RECORD_VARIANTS_MAX)
        xi_place_bad(p, "models", "have %zu variants, at most %d are allowed", variants,
                     XI_RECORD_VARIANTS_MAX);
    if (xi_manifest_model(ret, "main") == NULL)
        xi_place_bad(&models, "main", "is missing");
}

static void read_flow(const struct xi_place *p, struct xi_manifest *ret)
{
    static const char *const flows[] = {"flow.json", "flow.lua", NULL};

    ret->flow = xi_place_choice(p, "flow", 0, flows);
    if (ret->flow != NULL || xi_place_failed(p))
        return;
    if (strcmp(ret->input, "tensors") != 0)
        xi_place_bad(p, "input", "\"%s\" needs a flow; without one it is \"tensors\"", ret->input);
    if (ret->n_outputs != 1 || strcmp(ret->outputs[0], "tensors") != 0)
        xi_place_bad(p, "output", "other than \"tensors\" needs a flow");
}

static void read_top(const struct xi_place *p, struct xi_manifest *ret)
{
    read_version(p); /* first: a newer schema may have keys that we don't know */
    xi_place_keys(p, top_keys);
    read_identity(p, ret);
    read_sources(p, ret);
    read_requires(p, ret);
    read_semantics(p, ret);
    read_models(p, ret);
    read_flow(p, ret);
    xi_manifest_read_splits(p, ret);
    xi_manifest_read_escalate(p, ret);
    xi_manifest_read_goldens(p, ret);
}

/* Field errors come from the JSON helpers as EINVAL; here they are the package's fault. */
static enum xi_rc blame_package(enum xi_rc rc, struct xi_err *err)
{
    if (rc == XI_EINVAL)
        return xi_wrap(err, XI_EPACKAGE, "manifest.json");
    if (rc == XI_EPACKAGE || rc == XI_EJSON || rc == XI_ETOOBIG)
        return xi_wrap(err, rc, "manifest.json");
    return rc;
}

enum xi_rc xi_manifest_parse(const char *json, size_t bytes, struct xi_manifest **ret,
                             struct xi_err *err)
{
    struct xi_manifest *m = calloc(1, sizeof *m);
    struct xi_reading reading = {.rc = XI_OK, .err = err};
    struct xi_place top = {.reading = &reading};

    if (m == NULL)
        return xi_fail(err, XI_ENOMEM, "manifest: out of memory");
    reading.rc = xi_json_parse(json, bytes, XI_MANIFEST_MAX, &m->root, err);
    top.obj = m->root;
    if (reading.rc == XI_OK && !json_is_object(m->root))
        reading.rc = xi_fail(err, XI_EPACKAGE, "must be a JSON object");
    if (reading.rc == XI_OK)
        read_top(&top, m);
    if (reading.rc != XI_OK) {
        xi_manifest_free(m);
        return blame_package(reading.rc, err);
    }
    *ret = m;
    return XI_OK;
}

void xi_manifest_free(struct xi_manifest *manifest)
{
    if (manifest == NULL)
        return;
    for (size_t i = 0; i < manifest->n_models; i++)
        xi_manifest_free_model(&manifest->models[i]);
    xi_manifest_free_goldens(manifest);
    free(manifest->models);
    free(manifest->authors);
    free(manifest->sources);
    free(manifest->capabilities);
    free(manifest->splits);
    if (manifest->escalate != NULL)
        free(manifest->escalate->bands);
    free(manifest->escalate);
    json_decref(manifest->root);
    free(manifest);
}

const struct xi_manifest_model *xi_manifest_model(const struct xi_manifest *manifest,
                                                  const char *name)
{
    for (size_t i = 0; i < manifest->n_models; i++)
        if (strcmp(manifest->models[i].name, name) == 0)
            return &manifest->models[i];
    return NULL;
}

struct visit {
    xi_manifest_path_fn fn;
    void *ctx;
    enum xi_rc rc;
    struct xi_err *err;
};

static void visit(struct visit *v, const char *path, const char *what, uint64_t bytes)
{
    if (v->rc == XI_OK && path != NULL)
        v->rc = v->fn(v->ctx, path, what, bytes, v->err);
}

static uint64_t port_bytes(const struct xi_port_spec *port)
{
    uint64_t bytes = UINT64_MAX;

    if (xi_shape_bytes(port->dtype, port->dims, port->rank, &bytes, NULL) != XI_OK)
        return UINT64_MAX;
    return bytes;
}

static void visit_model(struct visit *v, const struct xi_manifest_model *m)
{
    for (size_t i = 0; i < m->n_states; i++)
        visit(v, m->states[i].initial, "initial state", port_bytes(&m->states[i].port));
    for (size_t i = 0; i < m->n_variants; i++)
        for (size_t k = 0; k < m->variants[i].n_files; k++)
            visit(v, m->variants[i].files[k], "variant file", UINT64_MAX);
}

static void visit_golden(struct visit *v, const struct xi_manifest_golden *g)
{
    visit(v, g->input_file, "golden input", UINT64_MAX);
    visit(v, g->expect_file, "golden answer", UINT64_MAX);
    for (size_t i = 0; i < g->n_inputs; i++)
        visit(v, g->inputs[i].file, "golden input", port_bytes(&g->inputs[i].port));
    for (size_t i = 0; i < g->n_expects; i++)
        visit(v, g->expects[i].file, "golden answer", port_bytes(&g->expects[i].port));
}

enum xi_rc xi_manifest_each_path(const struct xi_manifest *manifest, xi_manifest_path_fn fn,
                                 void *ctx, struct xi_err *err)
{
    struct visit v = {.fn = fn, .ctx = ctx, .rc = XI_OK, .err = err};

    visit(&v, manifest->flow, "flow", UINT64_MAX);
    for (size_t i = 0; i < manifest->n_models; i++)
        visit_model(&v, &manifest->models[i]);
    for (size_t i = 0; i < manifest->n_goldens; i++)
        visit_golden(&v, &manifest->goldens[i]);
    for (size_t i = 0; i < manifest->n_sources; i++)
        visit(&v, manifest->sources[i].path, "source", UINT64_MAX);
    return v.rc;
}
