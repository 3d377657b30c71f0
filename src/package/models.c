#define _GNU_SOURCE
#include "package/models.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "package/onnx.h"
#include "package/path.h"

#define XML_MAX (256 * XI_MIB)

struct format_rule {
    const char *format, *extension, *second;
};

static const struct format_rule rules[] = {
    {"onnx", ".onnx", NULL},
    {"tflite", ".tflite", NULL},
    {"openvino-ir", ".xml", ".bin"},
    {"reference", ".xref", NULL},
};

static const struct format_rule *rule_of(const char *format)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].format, format) == 0)
            return &rules[i];
    return NULL;
}

static size_t folder_bytes(const char *path)
{
    return (size_t)(xi_package_base_name(path) - path);
}

static enum xi_rc check_pair(const struct xi_manifest_variant *v, const struct format_rule *rule,
                             struct xi_err *err)
{
    size_t stem = strlen(v->files[0]) - strlen(rule->extension);

    if (v->n_files != 2 || !xi_package_has_extension(v->files[1], rule->second) ||
        strlen(v->files[1]) != stem + strlen(rule->second) ||
        strncmp(v->files[0], v->files[1], stem) != 0)
        return xi_fail(err, XI_EPACKAGE,
                       "variant \"%.60s\": format %s has two files, a %s and a %s of the same name",
                       v->id, v->format, rule->extension, rule->second);
    return XI_OK;
}

enum xi_rc xi_model_check_names(const struct xi_manifest_variant *variant, struct xi_err *err)
{
    const struct format_rule *rule = rule_of(variant->format);
    const char *first = variant->files[0];

    for (size_t i = 1; i < variant->n_files; i++)
        if (folder_bytes(variant->files[i]) != folder_bytes(first) ||
            strncmp(variant->files[i], first, folder_bytes(first)) != 0)
            return xi_fail(err, XI_EPACKAGE, "variant \"%.60s\": its files lie in several folders",
                           variant->id);
    if (rule == NULL)
        return XI_OK;
    if (!xi_package_has_extension(first, rule->extension))
        return xi_fail(err, XI_EPACKAGE, "variant \"%.60s\": a file of format %s ends with %s",
                       variant->id, variant->format, rule->extension);
    return rule->second ? check_pair(variant, rule, err) : XI_OK;
}

/* ---- ONNX ---- */

struct onnx_check {
    const struct xi_manifest_variant *variant;
    const struct xi_model_files *files;
};

static enum xi_rc check_external(void *ctx, const struct xi_onnx_external *external,
                                 struct xi_err *err)
{
    const struct onnx_check *c = ctx;
    uint64_t bytes = 0;
    int fd = -1;

    for (size_t i = 1; i < c->variant->n_files; i++) {
        if (strcmp(xi_package_base_name(c->variant->files[i]), external->location) != 0)
            continue;
        enum xi_rc rc = c->files->open(c->files->ctx, i, &fd, &bytes, err);
        if (rc != XI_OK)
            return rc;
        if (external->offset > bytes ||
            (external->length != UINT64_MAX && external->length > bytes - external->offset))
            return xi_fail(err, XI_EPACKAGE,
                           "external data \"%.60s\" has %llu bytes, a tensor wants %llu from %llu",
                           external->location, (unsigned long long)bytes,
                           (unsigned long long)external->length,
                           (unsigned long long)external->offset);
        return XI_OK;
    }
    return xi_fail(err, XI_EPACKAGE,
                   "external data in \"%.60s\", which is not another file of this variant",
                   external->location);
}

static enum xi_rc check_onnx(const struct xi_manifest_variant *v,
                             const struct xi_model_files *files, int fd, uint64_t bytes,
                             struct xi_err *err)
{
    struct onnx_check c = {.variant = v, .files = files};

    return xi_onnx_scan(fd, bytes, check_external, &c, err);
}

/* ---- OpenVINO IR ---- */

static enum xi_rc read_all(int fd, char *dst, size_t bytes, struct xi_err *err)
{
    for (size_t n = 0; n < bytes;) {
        ssize_t got = pread(fd, dst + n, bytes - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return xi_fail(err, XI_EIO, "reading the model: %s",
                           got < 0 ? strerror(errno) : "it ends early");
        n += (size_t)got;
    }
    return XI_OK;
}

/* The number of ` name="N"` within a tag. -1: not there, -2: not a number of up to 18 digits. */
static int64_t attribute(const char *tag, size_t bytes, const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 1; i + n + 2 < bytes; i++) {
        if (strchr(" \t\r\n", tag[i - 1]) == NULL || strncmp(tag + i, name, n) != 0 ||
            tag[i + n] != '=')
            continue;
        const char *p = tag + i + n + 2;
        char *end;
        if (*p < '0' || *p > '9')
            return -2;
        long long v = strtoll(p, &end, 10);
        return end - p > 18 || (*end != '"' && *end != '\'') ? -2 : v;
    }
    return -1;
}

static enum xi_rc check_constant(const char *tag, size_t bytes, uint64_t bin_bytes,
                                 struct xi_err *err)
{
    int64_t offset = attribute(tag, bytes, "offset"), size = attribute(tag, bytes, "size");

    if (offset == -1 || size == -1)
        return XI_OK; /* not a constant's data */
    if (offset < 0 || size < 0 || (uint64_t)offset > bin_bytes ||
        (uint64_t)size > bin_bytes - (uint64_t)offset)
        return xi_fail(err, XI_EPACKAGE,
                       "a constant of %lld bytes from %lld, its .bin has %llu bytes",
                       (long long)size, (long long)offset, (unsigned long long)bin_bytes);
    return XI_OK;
}

static enum xi_rc check_dim(const char *text, struct xi_err *err)
{
    char *end;
    long long v = strtoll(text, &end, 10);

    if (end == text || *end != '<' || v < -1 || v > INT32_MAX)
        return xi_fail(err, XI_EPACKAGE, "a dimension that is not a number from -1 to %d",
                       INT32_MAX);
    return XI_OK;
}

static enum xi_rc check_tag(const char *tag, uint64_t bin_bytes, struct xi_err *err)
{
    const char *end = strpbrk(tag + 1, "<>");

    if (strncmp(tag, "<!DOCTYPE", 9) == 0 || strncmp(tag, "<!ENTITY", 8) == 0)
        return xi_fail(err, XI_EPACKAGE, "its .xml has a document type or entities");
    if (end == NULL || *end != '>')
        return xi_fail(err, XI_EPACKAGE, "its .xml has a tag that doesn't end");
    if (strncmp(tag, "<dim>", 5) == 0)
        return check_dim(tag + 5, err);
    if (strncmp(tag, "<data", 5) == 0)
        return check_constant(tag, (size_t)(end - tag), bin_bytes, err);
    return XI_OK;
}

static enum xi_rc check_xml(const char *xml, uint64_t bin_bytes, struct xi_err *err)
{
    enum xi_rc rc = XI_OK;

    if (strstr(xml, "<net") == NULL)
        return xi_fail(err, XI_EPACKAGE, "its .xml has no <net>");
    for (const char *p = strchr(xml, '<'); p != NULL && rc == XI_OK; p = strchr(p + 1, '<'))
        rc = check_tag(p, bin_bytes, err);
    return rc;
}

static enum xi_rc check_ir(const struct xi_model_files *files, int fd, uint64_t bytes,
                           struct xi_err *err)
{
    uint64_t bin_bytes = 0;
    char *xml = NULL;
    int bin = -1;

    if (bytes > XML_MAX)
        return xi_fail(err, XI_EPACKAGE, "its .xml has %llu bytes, at most %llu are allowed",
                       (unsigned long long)bytes, XML_MAX);
    xml = malloc((size_t)bytes + 1);
    if (xml == NULL)
        return xi_fail(err, XI_ENOMEM, "reading the model: out of memory");
    enum xi_rc rc = read_all(fd, xml, (size_t)bytes, err);
    xml[bytes] = '\0';
    if (rc == XI_OK && strlen(xml) != bytes)
        rc = xi_fail(err, XI_EPACKAGE, "its .xml has a NUL byte");
    if (rc == XI_OK)
        rc = files->open(files->ctx, 1, &bin, &bin_bytes, err);
    if (rc == XI_OK)
        rc = check_xml(xml, bin_bytes, err);
    free(xml);
    return rc;
}

/* A FlatBuffer with the file identifier "TFL3" in bytes 4 to 7. */
static enum xi_rc check_tflite(int fd, uint64_t bytes, struct xi_err *err)
{
    char head[8];

    if (bytes < sizeof head)
        return xi_fail(err, XI_EPACKAGE, "no TFLite model: it has %llu bytes",
                       (unsigned long long)bytes);
    enum xi_rc rc = read_all(fd, head, sizeof head, err);
    if (rc == XI_OK && memcmp(head + 4, "TFL3", 4) != 0)
        rc = xi_fail(err, XI_EPACKAGE, "no TFLite model: its mark TFL3 is missing");
    return rc;
}

enum xi_rc xi_model_check_files(const struct xi_manifest_variant *variant,
                                const struct xi_model_files *files, struct xi_err *err)
{
    uint64_t bytes = 0;
    int fd = -1;
    enum xi_rc rc = files->open(files->ctx, 0, &fd, &bytes, err);

    if (rc != XI_OK)
        return rc;
    if (bytes == 0)
        rc = xi_fail(err, XI_EPACKAGE, "it is empty");
    else if (strcmp(variant->format, "onnx") == 0)
        rc = check_onnx(variant, files, fd, bytes, err);
    else if (strcmp(variant->format, "openvino-ir") == 0)
        rc = check_ir(files, fd, bytes, err);
    else if (strcmp(variant->format, "tflite") == 0)
        rc = check_tflite(fd, bytes, err);
    return rc == XI_OK || rc == XI_EIO || rc == XI_ENOMEM
               ? rc
               : xi_wrap(err, rc, "entry \"%.70s\"", variant->files[0]);
}
