#include "core/package_record.h"

#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "core/version_range.h"

enum { MAGIC = 0x31525058 /* "XPR1" */ };

/* ---- one description of the layout, walked by writer, reader and size ---- */

/* Exactly one of out and in is set; neither: only the length is counted. */
struct cursor {
    struct xi_str *out;
    const uint8_t *in;
    size_t at, bytes;
    const char *bad; /* the first field that broke a rule */
};

static void raw(struct cursor *c, void *data, size_t n, const char *what)
{
    if (c->out != NULL) {
        xi_str_add(c->out, data, n);
    } else if (c->in != NULL) {
        if (n > c->bytes - c->at) {
            c->bad = c->bad ? c->bad : what;
            return;
        }
        memcpy(data, c->in + c->at, n);
    }
    c->at += n;
}

static void u64(struct cursor *c, uint64_t *v, const char *what)
{
    uint8_t b[8];

    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (uint8_t)(*v >> (8 * i));
    raw(c, b, sizeof b, what);
    if (c->in == NULL || c->bad != NULL)
        return;
    *v = 0;
    for (size_t i = 0; i < sizeof b; i++)
        *v |= (uint64_t)b[i] << (8 * i);
}

static void u32(struct cursor *c, uint32_t *v, const char *what)
{
    uint8_t b[4] = {(uint8_t)*v, (uint8_t)(*v >> 8), (uint8_t)(*v >> 16), (uint8_t)(*v >> 24)};

    raw(c, b, sizeof b, what);
    if (c->in != NULL && c->bad == NULL)
        *v = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* A terminated text whose field is NUL behind it. */
static int is_padded(const char *text, size_t field)
{
    size_t n = 0;

    while (n < field && text[n])
        n++;
    if (n == field)
        return 0;
    for (; n < field; n++)
        if (text[n])
            return 0;
    return 1;
}

static void text(struct cursor *c, char *value, size_t field, const char *what)
{
    static const char zeros[XI_PACKAGE_PATH_MAX + 1];

    if (c->out != NULL) {
        size_t n = strnlen(value, field - 1);
        xi_str_add(c->out, value, n);
        xi_str_add(c->out, zeros, field - n);
        return;
    }
    raw(c, value, field, what);
    if (c->bad == NULL && c->in != NULL && !is_padded(value, field))
        c->bad = what;
}

#define TEXT(c, record, field, what) text(c, (record)->field, sizeof(record)->field, what)

static void walk_head(struct cursor *c, struct xi_package_record *r)
{
    uint32_t magic = MAGIC;

    u32(c, &magic, "format");
    if (magic != MAGIC && c->bad == NULL)
        c->bad = "format";
    TEXT(c, r, name, "name");
    TEXT(c, r, version, "version");
    TEXT(c, r, license, "license");
    TEXT(c, r, description, "description");
    TEXT(c, r, input, "input");
    for (int i = 0; i < XI_RECORD_OUTPUTS_MAX; i++)
        TEXT(c, r, outputs[i], "outputs");
    raw(c, r->digest.bytes, sizeof r->digest.bytes, "digest");
    u64(c, &r->archive_bytes, "archive_bytes");
    u64(c, &r->memory_required, "memory_required");
    u32(c, &r->flags, "flags");
    u32(c, &r->n_goldens, "n_goldens");
    u32(c, &r->flow_blob, "flow_blob");
    u32(c, &r->n_models, "n_models");
    u32(c, &r->n_variants, "n_variants");
    u32(c, &r->n_files, "n_files");
    u32(c, &r->n_blobs, "n_blobs");
}

static void walk_model(struct cursor *c, struct xi_record_model *m)
{
    TEXT(c, m, name, "model name");
    u32(c, &m->first_variant, "first_variant");
    u32(c, &m->n_variants, "n_variants of a model");
    u32(c, &m->max_batch, "max_batch");
    u32(c, &m->stateful, "stateful");
}

static void walk_variant(struct cursor *c, struct xi_record_variant *v)
{
    TEXT(c, v, id, "variant id");
    TEXT(c, v, engine, "engine");
    TEXT(c, v, engine_version, "engine_version");
    TEXT(c, v, format, "format");
    TEXT(c, v, device, "device");
    TEXT(c, v, arch, "arch");
    TEXT(c, v, precision, "precision");
    u64(c, &v->memory_bytes, "memory_bytes");
    u64(c, &v->ops, "ops");
    u32(c, &v->first_file, "first_file");
    u32(c, &v->n_files, "n_files of a variant");
}

static void walk_blob(struct cursor *c, struct xi_record_blob *b)
{
    raw(c, b->sha256.bytes, sizeof b->sha256.bytes, "blob digest");
    u64(c, &b->bytes, "blob bytes");
    TEXT(c, b, path, "blob path");
}

static void walk_arrays(struct cursor *c, struct xi_package_record *r)
{
    for (uint32_t i = 0; i < r->n_models; i++)
        walk_model(c, &r->models[i]);
    for (uint32_t i = 0; i < r->n_variants; i++)
        walk_variant(c, &r->variants[i]);
    for (uint32_t i = 0; i < r->n_files; i++)
        u32(c, &r->files[i], "files");
    for (uint32_t i = 0; i < r->n_blobs; i++)
        walk_blob(c, &r->blobs[i]);
}

/* ---- memory ---- */

static int counts_allowed(const struct xi_package_record *r)
{
    return r->n_models <= XI_RECORD_MODELS_MAX && r->n_variants <= XI_RECORD_VARIANTS_MAX &&
           r->n_files <= XI_RECORD_FILES_MAX && r->n_blobs <= XI_PACKAGE_ENTRIES_MAX;
}

enum xi_rc xi_record_alloc(struct xi_package_record *record, struct xi_err *err)
{
    if (!counts_allowed(record))
        return xi_fail(err, XI_ETOOBIG,
                       "package record: %u models, %u variants, %u file references, %u files; at "
                       "most %d, %d, %d, %d are allowed",
                       record->n_models, record->n_variants, record->n_files, record->n_blobs,
                       XI_RECORD_MODELS_MAX, XI_RECORD_VARIANTS_MAX, XI_RECORD_FILES_MAX,
                       XI_PACKAGE_ENTRIES_MAX);
    record->models = calloc(record->n_models + 1u, sizeof *record->models);
    record->variants = calloc(record->n_variants + 1u, sizeof *record->variants);
    record->files = calloc(record->n_files + 1u, sizeof *record->files);
    record->blobs = calloc(record->n_blobs + 1u, sizeof *record->blobs);
    if (record->models && record->variants && record->files && record->blobs)
        return XI_OK;
    xi_record_fini(record);
    return xi_fail(err, XI_ENOMEM, "package record: out of memory");
}

void xi_record_fini(struct xi_package_record *record)
{
    free(record->models);
    free(record->variants);
    free(record->files);
    free(record->blobs);
    *record = (struct xi_package_record){0};
}

void xi_record_free(struct xi_package_record *record)
{
    if (record == NULL)
        return;
    xi_record_fini(record);
    free(record);
}

/* ---- rules ---- */

static int is_word(const char *s)
{
    for (; *s; s++)
        if (!((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
              *s == '_' || *s == '-' || *s == '.'))
            return 0;
    return 1;
}

static int is_words(const char *s)
{
    for (; *s; s++)
        if (*s != ' ' && !((*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || *s == '_'))
            return 0;
    return 1;
}

static int is_printable(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return 0;
    return 1;
}

/* The daemon builds link names from paths: the rule of the archive, checked again. */
static int is_safe_path(const char *p)
{
    int at_start = 1;

    for (; *p; p++) {
        char word[2] = {*p, '\0'};
        if (*p == '/' ? at_start : !is_word(word) && *p != '+')
            return 0;
        if (at_start && *p == '.')
            return 0;
        at_start = *p == '/';
    }
    return !at_start;
}

static const char *broken_head(const struct xi_package_record *r)
{
    const uint32_t all =
        XI_RECORD_SIGNED | XI_RECORD_FLOW | XI_RECORD_FLOW_LUA | XI_RECORD_FLOW_IMAGE;
    int has_flow = (r->flags & XI_RECORD_FLOW) != 0;

    if (!xi_name_valid(r->name))
        return "name";
    if (!xi_semver_valid(r->version))
        return "version";
    if (!is_printable(r->license) || !is_printable(r->description))
        return "license or description";
    if (!is_word(r->input))
        return "input";
    for (int i = 0; i < XI_RECORD_OUTPUTS_MAX; i++)
        if (!is_word(r->outputs[i]))
            return "outputs";
    if ((r->flags & ~all) != 0 ||
        (!has_flow && (r->flags & (XI_RECORD_FLOW_LUA | XI_RECORD_FLOW_IMAGE)) != 0))
        return "flags";
    if (has_flow ? r->flow_blob >= r->n_blobs : r->flow_blob != XI_RECORD_NONE)
        return "flow_blob";
    if (r->n_models == 0 || r->n_blobs == 0 || !counts_allowed(r))
        return "a count";
    if (r->archive_bytes > XI_PACKAGE_MAX)
        return "archive_bytes";
    return NULL;
}

static const char *broken_models(const struct xi_package_record *r)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < r->n_models; i++) {
        const struct xi_record_model *m = &r->models[i];
        if (!xi_name_valid(m->name) || xi_record_find_model(r, m->name) != (int)i)
            return "model name";
        if (m->first_variant != next || m->n_variants == 0 || m->n_variants > r->n_variants - next)
            return "variants of a model";
        if (m->stateful > 1 || m->max_batch > XI_BATCH_MAX)
            return "model";
        next += m->n_variants;
    }
    return next == r->n_variants && xi_record_find_model(r, "main") >= 0 ? NULL : "models";
}

static const char *broken_variants(const struct xi_package_record *r)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < r->n_variants; i++) {
        const struct xi_record_variant *v = &r->variants[i];
        if (!is_word(v->id) || !*v->id || !is_word(v->engine) || !*v->engine)
            return "variant id or engine";
        if (!xi_version_range_valid(v->engine_version))
            return "engine_version";
        if (!is_word(v->format) || !*v->format || !is_word(v->device) || !is_words(v->arch) ||
            !is_word(v->precision) || !*v->precision)
            return "variant";
        if (v->first_file != next || v->n_files == 0 || v->n_files > r->n_files - next)
            return "files of a variant";
        next += v->n_files;
    }
    return next == r->n_files ? NULL : "files";
}

static const char *broken_blobs(const struct xi_package_record *r)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < r->n_files; i++)
        if (r->files[i] >= r->n_blobs)
            return "files";
    for (uint32_t i = 0; i < r->n_blobs; i++) {
        if (!is_safe_path(r->blobs[i].path))
            return "blob path";
        if (r->blobs[i].bytes > XI_PACKAGE_MAX - total)
            return "blob bytes";
        total += r->blobs[i].bytes;
    }
    return strcmp(r->blobs[0].path, "manifest.json") == 0 ? NULL : "blob path";
}

enum xi_rc xi_record_check(const struct xi_package_record *record, struct xi_err *err)
{
    const char *bad = broken_head(record);

    if (bad == NULL)
        bad = broken_models(record);
    if (bad == NULL)
        bad = broken_variants(record);
    if (bad == NULL)
        bad = broken_blobs(record);
    if (bad == NULL)
        return XI_OK;
    return xi_fail(err, XI_EPROTO, "package record: %s is not allowed", bad);
}

enum xi_rc xi_record_encode(const struct xi_package_record *record, struct xi_str *out,
                            struct xi_err *err)
{
    struct cursor c = {.out = out};
    struct xi_package_record copy = *record; /* the walk takes it as changeable; a writer reads */
    enum xi_rc rc = xi_record_check(record, err);

    if (rc != XI_OK)
        return rc;
    walk_head(&c, &copy);
    walk_arrays(&c, &copy);
    return xi_str_check(out, err, "package record");
}

static uint64_t arrays_bytes(const struct xi_package_record *r)
{
    struct cursor c = {0};
    struct xi_record_model m = {0};
    struct xi_record_variant v = {0};
    struct xi_record_blob b = {0};

    walk_model(&c, &m);
    uint64_t model = c.at;
    walk_variant(&c, &v);
    uint64_t variant = c.at - model;
    c.at = 0;
    walk_blob(&c, &b);
    return r->n_models * model + r->n_variants * variant + r->n_files * 4ull + r->n_blobs * c.at;
}

enum xi_rc xi_record_decode(const void *data, size_t bytes, struct xi_package_record *ret,
                            struct xi_err *err)
{
    struct cursor c = {.in = data, .bytes = bytes};
    struct xi_package_record r = {0};

    if (bytes > XI_RECORD_BYTES_MAX)
        return xi_fail(err, XI_ETOOBIG, "package record: %zu bytes", bytes);
    walk_head(&c, &r);
    if (c.bad != NULL)
        return xi_fail(err, XI_EPROTO, "package record: %s is not allowed", c.bad);
    if (!counts_allowed(&r) || arrays_bytes(&r) != bytes - c.at)
        return xi_fail(err, XI_EPROTO, "package record: %zu bytes do not fit its counts", bytes);
    enum xi_rc rc = xi_record_alloc(&r, err);
    if (rc != XI_OK)
        return rc;
    walk_arrays(&c, &r);
    if (c.bad != NULL)
        rc = xi_fail(err, XI_EPROTO, "package record: %s is not allowed", c.bad);
    else
        rc = xi_record_check(&r, err);
    if (rc != XI_OK) {
        xi_record_fini(&r);
        return rc;
    }
    *ret = r;
    return XI_OK;
}

int xi_record_find_model(const struct xi_package_record *record, const char *name)
{
    for (uint32_t i = 0; i < record->n_models; i++)
        if (strcmp(record->models[i].name, name) == 0)
            return (int)i;
    return -1;
}
