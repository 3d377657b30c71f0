/* package_record.h: what the install host tells the daemon of a package.
 *
 * The daemon parses neither archive nor manifest: it reads this record, which has fixed fields
 * only, and believes none of it before it is checked. Encoded: a head, then the arrays of models,
 * variants, file references and blobs; little-endian, text padded with NULs to its field; the
 * whole is exactly as long as its counts say. Pure functions, any thread. */
#ifndef XI_CORE_PACKAGE_RECORD_H
#define XI_CORE_PACKAGE_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/status.h"
#include "base/str.h"

#define XI_RECORD_MODELS_MAX   64
#define XI_RECORD_VARIANTS_MAX 256 /* of all models together */
#define XI_RECORD_FILES_MAX    XI_PACKAGE_ENTRIES_MAX
#define XI_RECORD_OUTPUTS_MAX  4
#define XI_RECORD_BYTES_MAX    (2 * XI_MIB) /* no valid record is larger */
#define XI_RECORD_NONE         0xffffffffu

enum {
    XI_RECORD_SIGNED = 1,     /* has a signature.json; says nothing of its worth */
    XI_RECORD_FLOW = 2,       /* has a flow; flow_blob says which */
    XI_RECORD_FLOW_LUA = 4,   /* the flow is a script */
    XI_RECORD_FLOW_IMAGE = 8, /* the flow takes an encoded picture */
};

/* One file of the package. Blob i is the staged file named by i in decimal; 0 is manifest.json. */
struct xi_record_blob {
    struct xi_digest sha256;
    uint64_t bytes;
    char path[XI_PACKAGE_PATH_MAX + 1];
};

struct xi_record_variant {
    char id[64];
    char engine[32];         /* "openvino" */
    char engine_version[64]; /* a range of version_range.h, "" for any */
    char format[24];         /* "tflite" */
    char device[16];         /* "", a kind ("cpu", "gpu", "npu", "fpga") or a chip ("rk3588") */
    char arch[64];           /* "" for any, else names with a space between: "aarch64 x86_64" */
    char precision[8];       /* "f32" */
    uint64_t memory_bytes;   /* estimate, 0: unknown */
    uint64_t ops;            /* of one inference, 0: unknown */
    uint32_t first_file, n_files; /* in files; the first is the one to load */
};

struct xi_record_model {
    char name[XI_NAME_MAX + 1];
    uint32_t first_variant, n_variants;
    uint32_t max_batch; /* 0: the manifest says nothing */
    uint32_t stateful;  /* 1: it has state tensors */
};

struct xi_package_record {
    char name[XI_NAME_MAX + 1];
    char version[65];
    char license[64];
    char description[256];
    char input[32];                          /* "image" */
    char outputs[XI_RECORD_OUTPUTS_MAX][32]; /* "bounding_boxes"; unused ones are "" */
    struct xi_digest digest;                 /* of the archive without its signature */
    uint64_t archive_bytes;
    uint64_t memory_required; /* 0: the manifest asks for none */
    uint32_t flags;           /* XI_RECORD_… */
    uint32_t n_goldens;
    uint32_t flow_blob; /* XI_RECORD_NONE without a flow */
    uint32_t n_models, n_variants, n_files, n_blobs;
    struct xi_record_model *models;     /* "main" is one of them */
    struct xi_record_variant *variants; /* grouped by model, in the manifest's order */
    uint32_t *files;                    /* indices of blobs */
    struct xi_record_blob *blobs;
};

/* Makes the arrays for the counts that are set, zeroed. ETOOBIG over a maximum, ENOMEM. */
enum xi_rc xi_record_alloc(struct xi_package_record *record, struct xi_err *err) XI_MUST_CHECK;
/* Frees the arrays and zeroes the record; a zeroed one is fine. */
void xi_record_fini(struct xi_package_record *record);
/* Of a record that stands on the heap; NULL is fine. */
void xi_record_free(struct xi_package_record *record);

/* Every rule a decoded record satisfies. EPROTO names the field. */
enum xi_rc xi_record_check(const struct xi_package_record *record,
                           struct xi_err *err) XI_MUST_CHECK;
/* Appends the bytes; out's cap should be XI_RECORD_BYTES_MAX. Checks first. */
enum xi_rc xi_record_encode(const struct xi_package_record *record, struct xi_str *out,
                            struct xi_err *err) XI_MUST_CHECK;
/* From untrusted bytes (in memory nobody else changes). On success *ret owns its arrays.
 * EPROTO, ETOOBIG, ENOMEM; *ret is untouched then. */
enum xi_rc xi_record_decode(const void *data, size_t bytes, struct xi_package_record *ret,
                            struct xi_err *err) XI_MUST_CHECK;
/* The model's index, or -1. */
int xi_record_find_model(const struct xi_package_record *record, const char *name);

#endif
