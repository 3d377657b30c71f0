/* manifest.h: manifest.json, schema v1, parsed and validated (docs/package-format.md,
 * docs/xpkg.schema.json). Immutable once parsed; may be shared by threads.
 *
 * Every string is borrowed from the manifest and lives until xi_manifest_free. Optional strings
 * are NULL when absent unless said otherwise. Errors: EPACKAGE names the member ("models.main.
 * variants[0].format"), EVERSION a schema newer than ours, EJSON, ETOOBIG, ENOMEM. */
#ifndef XI_PACKAGE_MANIFEST_H
#define XI_PACKAGE_MANIFEST_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"
#include "core/tensor.h"

#define XI_MANIFEST_VERSION     1
#define XI_MANIFEST_OUTPUTS_MAX 4

/* Where an entry came from. */
struct xi_manifest_source {
    const char *path; /* the entry */
    const char *url;  /* a package URL (purl) or a web address; NULL */
    const char *file; /* inside what the URL names; NULL */
    const char *license;
    const char *sha256; /* of the entry, 64 lower-case hex; NULL */
};

/* A state tensor: what comes out as `output` goes in as `input` of the sequence's next request. */
struct xi_manifest_state {
    const char *input, *output;
    struct xi_port_spec port;
    const char *initial; /* entry with the first value, NULL: zeros */
};

/* Signature name → engine's name, or its index when engine_name is NULL. */
struct xi_manifest_rename {
    enum { XI_RENAME_INPUT, XI_RENAME_OUTPUT } direction;
    const char *name;
    const char *engine_name;
    uint32_t engine_index;
};

struct xi_manifest_option {
    const char *key, *value;
};

struct xi_manifest_variant {
    const char *id;
    const char **files; /* the first is the one to load */
    size_t n_files;
    const char *format, *engine;
    const char *engine_version; /* "" for any */
    const char **arch;          /* none: any */
    size_t n_arch;
    const char *device; /* "" for any */
    const char *precision;
    uint64_t memory_bytes, ops; /* estimates, 0: unknown */
    const char *accuracy_metric, *accuracy_data;
    double accuracy;
    struct xi_manifest_rename *renames;
    size_t n_renames;
    struct xi_manifest_option *options;
    size_t n_options;
};

struct xi_manifest_model {
    const char *name;
    int has_signature;
    struct xi_signature signature;
    struct xi_manifest_state *states;
    size_t n_states;
    uint32_t max_batch; /* 0: says nothing */
    uint32_t max_delay_us;
    uint32_t preferred_batch[8];
    size_t n_preferred;
    struct xi_manifest_variant *variants;
    size_t n_variants;
};

/* A cut of a model into two other models of the package. */
struct xi_manifest_split {
    const char *id, *model;
    struct xi_port_spec port; /* the tensor that crosses */
    uint64_t bytes;
    double share;                  /* of the work that lies before the cut, 0..1 */
    const char *head, *tail;       /* models; NULL: engines that cut by themselves */
    const char *encoder, *decoder; /* models of a trained bottleneck; NULL */
    double atol, rtol;
};

struct xi_manifest_band {
    const char *label; /* "*" for all others */
    double reject_below, accept_from;
};

struct xi_manifest_escalate {
    const char *when; /* NULL: no rule, bands only */
    const char *package;
    double min_tops;
    const char *send;     /* auto, encoded, raw, tensor, bottleneck */
    const char *fallback; /* local, error */
    uint32_t deadline_ms;
    double audit; /* share of requests escalated to measure what is overlooked */
    int regions, per_track;
    struct xi_manifest_band *bands;
    size_t n_bands;
};

/* A tensor of a golden: its values lie in an entry (raw, little-endian) or in the manifest. */
struct xi_manifest_tensor {
    struct xi_port_spec port;
    const char *file;
    const json_t *data; /* flat array of numbers */
};

struct xi_manifest_golden {
    const char *id;
    const char *model;                   /* NULL: the flow */
    const char *input_file, *input_type; /* an encoded input, or */
    struct xi_manifest_tensor *inputs;   /* tensors */
    size_t n_inputs;
    const char *expect_file; /* the flow's answer as JSON, or */
    struct xi_manifest_tensor *expects;
    size_t n_expects;
    double atol, rtol; /* of tensors and of other numbers of an answer */
    int says_how_near; /* they are the package's own: whole numbers may differ as well */
    double extra;      /* highest score of a detection that was not expected */
    double score, iou; /* of detections: largest difference of scores, least overlap of boxes */
};

struct xi_manifest {
    json_t *root;                                       /* owns the strings */
    const char *name, *version, *license, *description; /* the last two may be "" */
    const char **authors;
    size_t n_authors;
    struct xi_manifest_source *sources;
    size_t n_sources;
    const char **capabilities; /* "camera", … */
    size_t n_capabilities;
    uint64_t memory_required;
    const char *input;
    const char *outputs[XI_MANIFEST_OUTPUTS_MAX];
    size_t n_outputs;
    struct xi_manifest_model *models;
    size_t n_models;
    const char *flow; /* "flow.json", "flow.lua" or NULL */
    struct xi_manifest_split *splits;
    size_t n_splits;
    struct xi_manifest_escalate *escalate; /* NULL: never */
    struct xi_manifest_golden *goldens;
    size_t n_goldens;
};

enum xi_rc xi_manifest_parse(const char *json, size_t bytes, struct xi_manifest **ret,
                             struct xi_err *err) XI_MUST_CHECK;
void xi_manifest_free(struct xi_manifest *manifest);
/* Borrowed, or NULL. */
const struct xi_manifest_model *xi_manifest_model(const struct xi_manifest *manifest,
                                                  const char *name);

/* Calls back with each entry path that the manifest names (a path may come more than once) and a
 * word for what it is; stops at the first error. bytes: what it must hold, UINT64_MAX: anything. */
typedef enum xi_rc (*xi_manifest_path_fn)(void *ctx, const char *path, const char *what,
                                          uint64_t bytes, struct xi_err *err);
enum xi_rc xi_manifest_each_path(const struct xi_manifest *manifest, xi_manifest_path_fn fn,
                                 void *ctx, struct xi_err *err) XI_MUST_CHECK;

#endif
