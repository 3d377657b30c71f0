#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "flow/step.h"

void xi_labels_fini(struct xi_labels *labels)
{
    free(labels->path);
    free(labels->text);
    free(labels->offsets);
    *labels = (struct xi_labels){0};
}

const char *xi_label(const struct xi_labels *labels, uint32_t i)
{
    if (labels == NULL || i >= labels->n)
        return NULL;
    return labels->text + labels->offsets[i];
}

/* Cuts text into lines in place; a line end of either kind, none needed after the last. */
static enum xi_rc cut_lines(struct xi_labels *labels, size_t bytes, struct xi_err *err)
{
    size_t lines = 0;

    for (size_t i = 0; i < bytes; i++)
        lines += labels->text[i] == '\n';
    if (bytes > 0 && labels->text[bytes - 1] != '\n')
        lines++;
    if (lines == 0 || lines > XI_FLOW_LABEL_LINES_MAX)
        return xi_fail(err, XI_EFLOW, "%.80s has %zu lines, allowed are 1 to %d", labels->path,
                       lines, XI_FLOW_LABEL_LINES_MAX);
    labels->offsets = calloc(lines, sizeof *labels->offsets);
    if (labels->offsets == NULL)
        return xi_fail(err, XI_ENOMEM, "%.80s: out of memory", labels->path);
    size_t start = 0;
    for (size_t i = 0; i <= bytes && labels->n < lines; i++) {
        if (i < bytes && labels->text[i] != '\n')
            continue;
        labels->text[i] = '\0';
        if (i > start && labels->text[i - 1] == '\r')
            labels->text[i - 1] = '\0';
        labels->offsets[labels->n++] = (uint32_t)start;
        start = i + 1;
    }
    return XI_OK;
}

static enum xi_rc read_labels(const struct xi_flow_assets *assets, const char *path,
                              struct xi_labels *labels, struct xi_err *err)
{
    const char *text = NULL;
    size_t bytes = 0;

    if (assets == NULL || assets->read == NULL)
        return xi_fail(err, XI_EFLOW, "there are no assets to read \"%.80s\" from", path);
    enum xi_rc rc = assets->read(assets->ctx, path, &text, &bytes, err);
    if (rc != XI_OK)
        return rc;
    if (bytes > XI_FLOW_LABELS_BYTES_MAX)
        return xi_fail(err, XI_EFLOW, "%.80s has %zu bytes, the limit is %llu", path, bytes,
                       XI_FLOW_LABELS_BYTES_MAX);
    if (bytes > 0 && memchr(text, 0, bytes) != NULL)
        return xi_fail(err, XI_EFLOW, "%.80s is not a text file", path);
    labels->path = strdup(path);
    labels->text = malloc(bytes + 1);
    if (labels->path == NULL || labels->text == NULL)
        return xi_fail(err, XI_ENOMEM, "%.80s: out of memory", path);
    if (bytes > 0)
        memcpy(labels->text, text, bytes);
    labels->text[bytes] = '\0';
    return cut_lines(labels, bytes, err);
}

enum xi_rc xi_labels_get(struct xi_flow_parser *p, const json_t *obj, const struct xi_labels **ret,
                         struct xi_err *err)
{
    struct xi_flow *flow = p->flow;
    const char *path = NULL;
    enum xi_rc rc = xi_json_string(obj, "", "labels", XI_JSON_OPTIONAL, &path, err);

    *ret = NULL;
    if (rc != XI_OK || path == NULL)
        return rc;
    for (uint32_t i = 0; i < flow->n_labels; i++)
        if (strcmp(flow->labels[i].path, path) == 0) {
            *ret = &flow->labels[i];
            return XI_OK;
        }
    if (flow->n_labels == XI_FLOW_LABELS_MAX)
        return xi_fail(err, XI_EFLOW, "over %d different label files", XI_FLOW_LABELS_MAX);
    struct xi_labels labels = {0};
    rc = read_labels(p->assets, path, &labels, err);
    if (rc != XI_OK) {
        xi_labels_fini(&labels);
        return rc;
    }
    flow->labels[flow->n_labels] = labels;
    *ret = &flow->labels[flow->n_labels++];
    return XI_OK;
}
