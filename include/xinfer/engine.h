/* engine.h: the engine plugin ABI.
 *
 * A plugin is a shared object libxinfer_engine_<name>.so that exports exactly one symbol,
 * xi_engine_entry. It may include this header and its vendor's headers, nothing else of xInfer.
 * Only xinfer-host loads plugins, so a plugin that crashes, hangs or leaks costs one host process.
 *
 * Versions: the host passes the version it speaks; the plugin answers NULL when the major differs.
 * A larger minor only appends members; `size` says which of them exist (XI_ENGINE_HAS).
 * Changes: 1.0 first; 1.1 stateful and reset, for models that keep state by themselves.
 *
 * Errors: every call that can fail returns enum xi_engine_rc and writes one sentence without a
 * newline into err (err_bytes > 0, always terminated). Nothing is thrown across this boundary.
 * Threads: open/close/load/unload/request_new/request_free are called from one thread at a time.
 * run may be called at once from several threads on different requests, never on the same one.
 */
#ifndef XINFER_ENGINE_H
#define XINFER_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "xinfer/types.h"

#define XI_ENGINE_MAJOR 1
#define XI_ENGINE_MINOR 1

enum xi_engine_rc {
    XI_ENGINE_OK = 0,
    XI_ENGINE_NOT_PRESENT = -1, /* vendor library or device is not on this machine */
    XI_ENGINE_UNSUPPORTED = -2, /* never: this model, option or call is not possible here */
    XI_ENGINE_BAD_INPUT = -3,   /* the tensors do not fit the model */
    XI_ENGINE_NO_MEMORY = -4,
    XI_ENGINE_BUSY = -5,        /* not now */
    XI_ENGINE_DEVICE_LOST = -6, /* the session must be loaded again */
    XI_ENGINE_TIMEOUT = -7,     /* the host restarts */
    XI_ENGINE_INTERNAL = -8     /* the host restarts */
};

enum xi_port_direction { XI_INPUT = 0, XI_OUTPUT = 1 };
enum xi_device_kind { XI_DEV_CPU = 0, XI_DEV_GPU = 1, XI_DEV_NPU = 2, XI_DEV_FPGA = 3 };
enum xi_engine_log_level { XI_ENGINE_DEBUG = 0, XI_ENGINE_INFO = 1, XI_ENGINE_WARN = 2 };

#define XI_ENGINE_MAX_DEVICES 16
#define XI_ENGINE_MAX_FORMATS 16

struct xi_engine_device {
    uint32_t kind;      /* enum xi_device_kind */
    uint32_t exclusive; /* 1: all sessions of this device must share one host */
    char id[32];        /* what load's device option takes: "CPU", "GPU.0" */
    char name[96];      /* for people */
    uint64_t memory_total_bytes, memory_free_bytes; /* 0: unknown */
    uint64_t context_bytes;                         /* what one host costs on it before any model */
};

/* What probe found. The caller zeroes it and sets size. */
struct xi_engine_probe {
    uint32_t size;
    uint32_t n_devices, n_formats;
    uint32_t max_rank;
    char version[64];  /* of the vendor's library */
    char missing[256]; /* NOT_PRESENT: what was searched, in words, and how to get it */
    char formats[XI_ENGINE_MAX_FORMATS][24]; /* as manifests name them: "onnx", "tflite", … */
    struct xi_engine_device devices[XI_ENGINE_MAX_DEVICES];
};

/* Called from any thread until close returns. */
typedef void (*xi_engine_log_fn)(void *ctx, int level, const char *line);

struct xi_engine_config {
    uint32_t size;
    uint32_t reserved;
    const char *library_dir; /* where the vendor's libraries lie; NULL: the system's search */
    xi_engine_log_fn log;    /* may be NULL */
    void *log_ctx;
};

/* What to load: exactly one of path, data, fd is set (path != NULL, data != NULL, else fd). */
struct xi_engine_source {
    uint32_t size;
    int32_t fd;
    const char *path; /* borrowed until load returns; its extension tells the format */
    const void *data;
    uint64_t bytes;
    const char *format; /* as in the manifest */
};

struct xi_engine_key {
    const char *key, *value;
};

/* Zero or NULL: the engine's default. */
struct xi_engine_options {
    uint32_t size;
    uint32_t threads; /* intra-op threads of one request; the host passes 1 by default */
    uint32_t streams; /* requests that will run at once */
    uint32_t n_keys;
    const char *device;                 /* id of a probed device */
    const char *precision;              /* "f32", "f16", "bf16", "i8"; always set by the host */
    const char *cache_dir;              /* writable during load only */
    const struct xi_tensor *max_shapes; /* one per input (data NULL) or NULL */
    uint32_t n_max_shapes;
    uint32_t reserved;
    const struct xi_engine_key *keys; /* engine-specific options of the package */
};

/* One input or output of a model. Borrowed until unload. */
struct xi_port {
    uint32_t size;
    uint32_t dtype;            /* enum xi_dtype */
    int32_t rank;              /* -1: unknown */
    uint32_t alignment;        /* bytes wanted of bound memory, 0: none */
    int64_t dims[XI_MAX_RANK]; /* -1: dynamic */
    const char *name;          /* may be "" */
    const char *layout;        /* "NHWC" …, may be "" */
    float scale;               /* quantisation; 0: none */
    int32_t zero_point;
};

struct xi_engine;
struct xi_engine_model;
struct xi_engine_request;

/* Answers of bind. */
enum { XI_BIND_IN_PLACE = 0, XI_BIND_COPIES = 1 };

struct xi_engine_stats {
    uint32_t size;
    uint32_t reserved;
    uint64_t bytes_held; /* by this model, 0: unknown */
    uint64_t busy_ns;
    uint64_t copied_bytes; /* bytes the engine copied because a binding could not be used */
};

struct xi_engine_table {
    uint32_t size;         /* of this struct in the plugin */
    uint16_t major, minor; /* the plugin's */
    const char *name;      /* "openvino" */

    /* Looks, changes nothing, survives a missing library (NOT_PRESENT, `missing` filled in). */
    int (*probe)(const struct xi_engine_config *config, struct xi_engine_probe *out, char *err,
                 size_t err_bytes);
    /* Once per process. */
    int (*open)(const struct xi_engine_config *config, struct xi_engine **ret, char *err,
                size_t err_bytes);
    void (*close)(struct xi_engine *engine);
    /* Slow. Cancelled only by ending the process. */
    int (*load)(struct xi_engine *engine, const struct xi_engine_source *source,
                const struct xi_engine_options *options, struct xi_engine_model **ret, char *err,
                size_t err_bytes);
    void (*unload)(struct xi_engine_model *model); /* no request of it may exist any more */
    /* The index-th port, or NULL past the last. */
    const struct xi_port *(*port)(struct xi_engine_model *model, int direction, uint32_t index);
    int (*request_new)(struct xi_engine_model *model, struct xi_engine_request **ret, char *err,
                       size_t err_bytes);
    void (*request_free)(struct xi_engine_request *request);
    /* The memory stays the caller's until it is bound anew or the request is freed. Inputs may
     * lie in read-only pages. An output is bound only where its shape is static; NULL unbinds.
     * Answers XI_BIND_IN_PLACE, XI_BIND_COPIES or an error. */
    int (*bind)(struct xi_engine_request *request, int direction, uint32_t index,
                const struct xi_tensor *tensor, char *err, size_t err_bytes);
    /* Synchronous, on the caller's thread. deadline_ns: CLOCK_MONOTONIC, 0 for none; advisory. */
    int (*run)(struct xi_engine_request *request, uint64_t deadline_ns, char *err,
               size_t err_bytes);
    /* After run: real dtype, shape, data; borrowed until the next run or bind. */
    int (*output)(struct xi_engine_request *request, uint32_t index, struct xi_tensor *ret,
                  char *err, size_t err_bytes);
    /* Optional from here: may be NULL. */
    void (*cancel)(struct xi_engine_request *request); /* any thread, advisory */
    int (*stats)(struct xi_engine_model *model, struct xi_engine_stats *ret);
    /* 1.1: 1 when the model's requests keep state from run to run: then one request serves one
     * sequence at a time, and never a batch. */
    int (*stateful)(struct xi_engine_model *model);
    /* The request's state is the initial one again. Where stateful says 1 it is there. */
    int (*reset)(struct xi_engine_request *request, char *err, size_t err_bytes);
    /* ---- append below this line only ---- */
};

#define XI_ENGINE_HAS(table, member)                                                               \
    ((table)->size >= offsetof(struct xi_engine_table, member) + sizeof((table)->member) &&        \
     (table)->member != NULL)

_Static_assert(offsetof(struct xi_engine_table, probe) == 16, "engine ABI moved");
_Static_assert(offsetof(struct xi_engine_table, output) == 16 + 10 * sizeof(void *),
               "engine ABI moved");
_Static_assert(offsetof(struct xi_engine_table, stats) == 16 + 12 * sizeof(void *),
               "engine ABI moved");
_Static_assert(offsetof(struct xi_engine_table, reset) == 16 + 14 * sizeof(void *),
               "engine ABI moved");

typedef const struct xi_engine_table *(*xi_engine_entry_fn)(uint16_t host_major,
                                                            uint16_t host_minor);
#define XI_ENGINE_ENTRY "xi_engine_entry"

/* What a plugin defines; everything else in it stays hidden. */
#define XI_ENGINE_EXPORT __attribute__((visibility("default")))
XI_ENGINE_EXPORT const struct xi_engine_table *xi_engine_entry(uint16_t host_major,
                                                               uint16_t host_minor);

#endif
