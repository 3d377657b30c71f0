#include "package/inspect.h"

#include <string.h>

#include "core/tensor.h"
#include "package/package.h"

static int dump_callback(const char *buffer, size_t size, void *data)
{
    xi_str_add(data, buffer, size);
    return 0;
}

static void put_entries(const struct xi_archive *a, struct xi_str *out)
{
    char hex[XI_DIGEST_HEX + 1];

    for (size_t i = 0; i < xi_archive_count(a); i++) {
        const struct xi_entry *e = xi_archive_entry(a, i);
        xi_digest_text(&e->sha256, hex);
        xi_str_printf(out, "%s{\"path\":\"%s\",\"bytes\":%llu,\"sha256\":\"%s\"}", i ? "," : "",
                      e->path, (unsigned long long)e->bytes, hex);
    }
}

static enum xi_rc put_json(const struct xi_package *p, const struct xi_digest *digest,
                           struct xi_str *out)
{
    char hex[XI_DIGEST_HEX + 1];

    xi_digest_text(digest, hex);
    xi_str_printf(out, "{\"digest\":\"sha256:%s\",\"bytes\":%llu,\"signed\":%s,\"manifest\":", hex,
                  (unsigned long long)xi_archive_bytes(p->archive),
                  xi_archive_has_signature(p->archive) ? "true" : "false");
    if (json_dump_callback(p->manifest->root, dump_callback, out, JSON_COMPACT) != 0)
        return XI_ENOMEM;
    xi_str_puts(out, ",\"entries\":[");
    put_entries(p->archive, out);
    xi_str_puts(out, "]}");
    return XI_OK;
}

static void put_size(uint64_t bytes, struct xi_str *out)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"};
    double v = (double)bytes;
    size_t unit = 0;

    for (; v >= 1024 && unit < 3; unit++)
        v /= 1024;
    xi_str_printf(out, unit == 0 ? "%.0f %s" : "%.1f %s", v, units[unit]);
}

static void put_ports(const char *title, const struct xi_port_spec *ports, uint32_t n,
                      struct xi_str *out)
{
    char shape[128];

    for (uint32_t i = 0; i < n; i++)
        xi_str_printf(out, "    %-8s %-28s %s %s\n", i == 0 ? title : "", ports[i].name,
                      xi_dtype_name(ports[i].dtype),
                      ports[i].rank < 0
                          ? "any shape"
                          : xi_shape_text(ports[i].dims, ports[i].rank, shape, sizeof shape));
}

static void put_variant(const struct xi_package *p, const struct xi_manifest_variant *v,
                        struct xi_str *out)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < v->n_files; i++) {
        int index = xi_archive_find(p->archive, v->files[i]);
        bytes += index < 0 ? 0 : xi_archive_entry(p->archive, (size_t)index)->bytes;
    }
    xi_str_printf(out, "    variant  %s: %s, %s%s%s, %s", v->id, v->format, v->engine,
                  *v->engine_version ? " " : "", v->engine_version, v->precision);
    if (*v->device)
        xi_str_printf(out, ", for %s", v->device);
    xi_str_puts(out, ", ");
    put_size(bytes, out);
    if (v->memory_bytes > 0) {
        xi_str_puts(out, ", needs about ");
        put_size(v->memory_bytes, out);
    }
    if (v->accuracy_metric != NULL)
        xi_str_printf(out, ", %s %.4g", v->accuracy_metric, v->accuracy);
    xi_str_puts(out, "\n");
}

static void put_models(const struct xi_package *p, struct xi_str *out)
{
    for (size_t i = 0; i < p->manifest->n_models; i++) {
        const struct xi_manifest_model *m = &p->manifest->models[i];
        xi_str_printf(out, "  model %s%s\n", m->name,
                      m->has_signature ? "" : " (tensors as the engine reports them)");
        put_ports("inputs", m->signature.inputs, m->signature.n_inputs, out);
        put_ports("outputs", m->signature.outputs, m->signature.n_outputs, out);
        for (size_t k = 0; k < m->n_variants; k++)
            put_variant(p, &m->variants[k], out);
    }
}

static void put_origin(const struct xi_manifest *m, struct xi_str *out)
{
    for (size_t i = 0; i < m->n_authors; i++)
        xi_str_printf(out, "  author   %s\n", m->authors[i]);
    for (size_t i = 0; i < m->n_sources; i++) {
        const struct xi_manifest_source *s = &m->sources[i];
        xi_str_printf(out, "  source   %s%s%s%s%s%s\n", s->path, s->url ? " from " : "",
                      s->url ? s->url : "", s->license ? " (" : "", s->license ? s->license : "",
                      s->license ? ")" : "");
    }
}

static enum xi_rc put_text(const struct xi_package *p, const struct xi_digest *digest,
                           struct xi_str *out)
{
    const struct xi_manifest *m = p->manifest;
    char hex[XI_DIGEST_HEX + 1];

    xi_digest_text(digest, hex);
    xi_str_printf(out, "%s %s%s%s\n", m->name, m->version, *m->license ? ", " : "", m->license);
    if (*m->description)
        xi_str_printf(out, "  %s\n", m->description);
    xi_str_printf(out, "  digest   sha256:%s\n  size     ", hex);
    put_size(xi_archive_bytes(p->archive), out);
    xi_str_printf(out, ", %zu entries, %s\n  %s → ", xi_archive_count(p->archive),
                  xi_archive_has_signature(p->archive) ? "has a signature" : "not signed",
                  m->input);
    for (size_t i = 0; i < m->n_outputs; i++)
        xi_str_printf(out, "%s%s", i ? ", " : "", m->outputs[i]);
    xi_str_printf(out, "%s%s, %zu golden%s\n", m->flow ? " by " : "", m->flow ? m->flow : "",
                  m->n_goldens, m->n_goldens == 1 ? "" : "s");
    put_models(p, out);
    put_origin(m, out);
    xi_str_puts(out, "  entries\n");
    for (size_t i = 0; i < xi_archive_count(p->archive); i++) {
        const struct xi_entry *e = xi_archive_entry(p->archive, i);
        xi_digest_text(&e->sha256, hex);
        xi_str_printf(out, "    %14llu  %.12s  %s\n", (unsigned long long)e->bytes, hex, e->path);
    }
    return XI_OK;
}

static enum xi_rc inspect(int fd, struct xi_str *out,
                          enum xi_rc (*put)(const struct xi_package *, const struct xi_digest *,
                                            struct xi_str *),
                          struct xi_err *err)
{
    struct xi_package *package = NULL;
    struct xi_digest digest;
    enum xi_rc rc = xi_package_open(fd, &package, err);

    if (rc == XI_OK)
        rc = xi_package_verify(package, NULL, &digest, err);
    if (rc == XI_OK) {
        rc = put(package, &digest, out);
        if (rc != XI_OK)
            rc = xi_fail(err, rc, "describing the package: out of memory");
    }
    if (rc == XI_OK)
        rc = xi_str_check(out, err, "description of the package");
    xi_package_close(package);
    return rc;
}

enum xi_rc xi_package_inspect_json(int fd, struct xi_str *out, struct xi_err *err)
{
    return inspect(fd, out, put_json, err);
}

enum xi_rc xi_package_inspect_text(int fd, struct xi_str *out, struct xi_err *err)
{
    return inspect(fd, out, put_text, err);
}
