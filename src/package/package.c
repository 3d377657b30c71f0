#include "package/package.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "package/path.h"

struct naming {
    const struct xi_package_item *items;
    size_t n;
    unsigned char *named; /* one flag an item */
};

static int by_path(const void *a, const void *b)
{
    const struct xi_package_item *x = a, *y = b;

    return xi_package_path_order(x->path, y->path);
}

static enum xi_rc mark_named(void *ctx, const char *path, const char *what, uint64_t bytes,
                             struct xi_err *err)
{
    struct naming *n = ctx;
    struct xi_package_item key = {.path = path};
    const struct xi_package_item *item = bsearch(&key, n->items, n->n, sizeof key, by_path);

    if (item == NULL)
        return xi_fail(err, XI_EPACKAGE,
                       "manifest.json: names \"%.70s\" (%s), which is not in the "
                       "package",
                       path, what);
    n->named[item - n->items] = 1;
    if (bytes != UINT64_MAX && item->bytes != bytes)
        return xi_fail(err, XI_EPACKAGE,
                       "entry \"%.70s\": has %llu bytes, as %s manifest.json wants %llu", path,
                       (unsigned long long)item->bytes, what, (unsigned long long)bytes);
    return XI_OK;
}

static int may_be_unnamed(const char *path)
{
    return strncmp(path, "assets/", 7) == 0 || strcmp(path, "manifest.json") == 0 ||
           strcmp(path, "signature.json") == 0;
}

enum xi_rc xi_package_names_check(const struct xi_manifest *manifest,
                                  const struct xi_package_item *items, size_t n, struct xi_err *err)
{
    struct naming naming = {.items = items, .n = n, .named = calloc(n + 1, 1)};

    if (naming.named == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the package: out of memory");
    enum xi_rc rc = xi_manifest_each_path(manifest, mark_named, &naming, err);
    for (size_t i = 0; i < n && rc == XI_OK; i++)
        if (!naming.named[i] && !may_be_unnamed(items[i].path))
            rc = xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": manifest.json doesn't name it",
                         items[i].path);
    free(naming.named);
    return rc;
}

static enum xi_rc check_names(const struct xi_package *p, struct xi_err *err)
{
    size_t n = xi_archive_count(p->archive);
    struct xi_package_item *items = calloc(n, sizeof *items);

    if (items == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the package: out of memory");
    for (size_t i = 0; i < n; i++) {
        const struct xi_entry *e = xi_archive_entry(p->archive, i);
        items[i] = (struct xi_package_item){.path = e->path, .bytes = e->bytes};
    }
    enum xi_rc rc = xi_package_names_check(p->manifest, items, n, err);
    free(items);
    return rc;
}

enum xi_rc xi_package_open(int fd, struct xi_package **ret, struct xi_err *err)
{
    struct xi_package *p = calloc(1, sizeof *p);
    char *json = NULL;
    size_t bytes = 0;

    if (p == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the package: out of memory");
    enum xi_rc rc = xi_archive_open(fd, &p->archive, err);
    if (rc == XI_OK)
        rc = xi_archive_read(p->archive, 0, XI_MANIFEST_MAX, &json, &bytes, err);
    if (rc == XI_OK)
        rc = xi_manifest_parse(json, bytes, &p->manifest, err);
    if (rc == XI_OK)
        rc = check_names(p, err);
    free(json);
    if (rc != XI_OK) {
        xi_package_close(p);
        return rc;
    }
    *ret = p;
    return XI_OK;
}

void xi_package_close(struct xi_package *package)
{
    if (package == NULL)
        return;
    xi_manifest_free(package->manifest);
    xi_archive_close(package->archive);
    free(package);
}

static enum xi_rc check_sources(const struct xi_package *p, struct xi_err *err)
{
    for (size_t i = 0; i < p->manifest->n_sources; i++) {
        const struct xi_manifest_source *s = &p->manifest->sources[i];
        struct xi_digest want;
        if (s->sha256 == NULL || xi_digest_parse(s->sha256, &want) != 0)
            continue;
        int index = xi_archive_find(p->archive, s->path);
        XI_ASSERT(index >= 0);
        if (!xi_digest_equal(&want, &xi_archive_entry(p->archive, (size_t)index)->sha256))
            return xi_fail(err, XI_EDIGEST,
                           "entry \"%.70s\": is not the file with the SHA-256 %.16s… that "
                           "manifest.json names as its source",
                           s->path, s->sha256);
    }
    return XI_OK;
}

enum xi_rc xi_package_verify(struct xi_package *package, const struct xi_archive_sink *sink,
                             struct xi_digest *ret, struct xi_err *err)
{
    struct xi_digest digest;
    enum xi_rc rc = xi_archive_verify(package->archive, sink, &digest, err);

    if (rc == XI_OK)
        rc = check_sources(package, err);
    if (rc == XI_OK)
        *ret = digest;
    return rc;
}

/* ---- record ---- */

static void copy_text(char *dst, size_t room, const char *src)
{
    size_t n = strlen(src);

    XI_ASSERT(n < room); /* the manifest's limits are the record's fields */
    memcpy(dst, src, n + 1);
}

#define COPY(dst, src) copy_text(dst, sizeof(dst), src)

static void fill_head(const struct xi_package *p, struct xi_package_record *r)
{
    const struct xi_manifest *m = p->manifest;

    COPY(r->name, m->name);
    COPY(r->version, m->version);
    COPY(r->license, m->license);
    COPY(r->description, m->description);
    COPY(r->input, m->input);
    for (size_t i = 0; i < m->n_outputs; i++)
        COPY(r->outputs[i], m->outputs[i]);
    r->archive_bytes = xi_archive_bytes(p->archive);
    r->memory_required = m->memory_required;
    r->n_goldens = (uint32_t)m->n_goldens;
    r->flow_blob = XI_RECORD_NONE;
    if (xi_archive_has_signature(p->archive))
        r->flags |= XI_RECORD_SIGNED;
    if (m->flow == NULL)
        return;
    r->flags |= XI_RECORD_FLOW;
    r->flow_blob = (uint32_t)xi_archive_find(p->archive, m->flow);
    if (strcmp(m->flow, "flow.lua") == 0)
        r->flags |= XI_RECORD_FLOW_LUA;
    if (strcmp(m->input, "image") == 0)
        r->flags |= XI_RECORD_FLOW_IMAGE;
}

static void count(const struct xi_package *p, struct xi_package_record *r)
{
    r->n_models = (uint32_t)p->manifest->n_models;
    for (size_t i = 0; i < p->manifest->n_models; i++) {
        const struct xi_manifest_model *m = &p->manifest->models[i];
        r->n_variants += (uint32_t)m->n_variants;
        for (size_t k = 0; k < m->n_variants; k++)
            r->n_files += (uint32_t)m->variants[k].n_files;
    }
    r->n_blobs = (uint32_t)xi_archive_count(p->archive);
}

static void fill_variant(const struct xi_package *p, const struct xi_manifest_variant *v,
                         struct xi_package_record *r, struct xi_record_variant *ret, uint32_t *file)
{
    COPY(ret->id, v->id);
    COPY(ret->engine, v->engine);
    COPY(ret->engine_version, v->engine_version);
    COPY(ret->format, v->format);
    COPY(ret->device, v->device);
    COPY(ret->precision, v->precision);
    for (size_t i = 0, at = 0; i < v->n_arch; i++)
        at += (size_t)snprintf(ret->arch + at, sizeof ret->arch - at, "%s%s", i ? " " : "",
                               v->arch[i]);
    ret->memory_bytes = v->memory_bytes;
    ret->ops = v->ops;
    ret->first_file = *file;
    ret->n_files = (uint32_t)v->n_files;
    for (size_t i = 0; i < v->n_files; i++)
        r->files[(*file)++] = (uint32_t)xi_archive_find(p->archive, v->files[i]);
}

static void fill_models(const struct xi_package *p, struct xi_package_record *r)
{
    uint32_t variant = 0, file = 0;

    for (uint32_t i = 0; i < r->n_models; i++) {
        const struct xi_manifest_model *m = &p->manifest->models[i];
        struct xi_record_model *ret = &r->models[i];
        COPY(ret->name, m->name);
        ret->first_variant = variant;
        ret->n_variants = (uint32_t)m->n_variants;
        ret->max_batch = m->max_batch;
        ret->stateful = m->n_states > 0;
        for (size_t k = 0; k < m->n_variants; k++)
            fill_variant(p, &m->variants[k], r, &r->variants[variant++], &file);
    }
}

enum xi_rc xi_package_record(const struct xi_package *package, const struct xi_digest *digest,
                             struct xi_package_record *ret, struct xi_err *err)
{
    struct xi_package_record r = {.digest = *digest};

    count(package, &r);
    enum xi_rc rc = xi_record_alloc(&r, err);
    if (rc != XI_OK)
        return rc == XI_ETOOBIG ? xi_wrap(err, XI_EPACKAGE, "manifest.json") : rc;
    fill_head(package, &r);
    fill_models(package, &r);
    for (uint32_t i = 0; i < r.n_blobs; i++) {
        const struct xi_entry *e = xi_archive_entry(package->archive, i);
        r.blobs[i].sha256 = e->sha256;
        r.blobs[i].bytes = e->bytes;
        COPY(r.blobs[i].path, e->path);
    }
    rc = xi_record_check(&r, err);
    if (rc != XI_OK) {
        xi_record_fini(&r);
        return rc;
    }
    *ret = r;
    return XI_OK;
}
