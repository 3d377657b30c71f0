/* limits.h: every cap of the house in one place. Each refusal names the cap it met. */
#ifndef XI_BASE_LIMITS_H
#define XI_BASE_LIMITS_H

#define XI_KIB (1024ull)
#define XI_MIB (1024ull * XI_KIB)
#define XI_GIB (1024ull * XI_MIB)

/* How many freed things of a kind are kept for the next one: none where a sanitizer looks out for a
 * use after free, which keeping them would hide. */
#ifdef __SANITIZE_ADDRESS__
#define XI_KEPT(n) 0
#else
#define XI_KEPT(n) (n)
#endif

/* Names: [A-Za-z0-9][A-Za-z0-9._-]{0,127} */
#define XI_NAME_MAX   128
#define XI_DIGEST_HEX 64
#define XI_UUID_TEXT  36

/* HTTP */
#define XI_HTTP_HEAD_MAX    (32 * XI_KIB) /* request line and headers together */
#define XI_HTTP_HEADERS_MAX 100
#define XI_HTTP_URL_MAX     (8 * XI_KIB)
#define XI_BODY_MAX         XI_GIB        /* an inference request */
#define XI_BODY_JSON_MAX    (16 * XI_MIB) /* JSON of the control routes and of tensors */
#define XI_PACKAGE_MAX      (16 * XI_GIB)
#define XI_CONNECTIONS_MAX  16384
#define XI_STREAMS_MAX      64            /* open event and telemetry streams */
#define XI_SLOW_HEAD_MS     10000         /* to send the whole head */
#define XI_SLOW_BYTES_PER_S (64 * XI_KIB) /* averaged over XI_SLOW_WINDOW_MS */
#define XI_SLOW_WINDOW_MS   10000
/* A compressed body: what it may be whatever its ratio; then the ratio; how many at once. */
#define XI_INFLATE_GRACE (32 * XI_MIB)
#define XI_INFLATE_RATIO 128
#define XI_INFLATING_MAX 1024

/* HTTP/2 */
#define XI_HTTP2_STREAMS_MAX 128            /* of one connection at once */
#define XI_HTTP2_WINDOW      (256 * XI_KIB) /* of a stream whose body has no place yet */
#define XI_HTTP2_CONNECTION  (8 * XI_MIB)   /* bytes of its streams that nobody has taken yet */
#define XI_HTTP2_AHEAD_MAX   (256 * XI_MIB) /* of all connections */
#define XI_HTTP2_FRAME_TAKEN XI_MIB         /* of a frame of a body */

/* JSON */
#define XI_JSON_DEPTH_MAX 64

/* Tensors */
#define XI_TENSORS_MAX     64 /* inputs or outputs of one request */
#define XI_TENSOR_NAME_MAX 256

/* Package */
#define XI_MANIFEST_MAX          (4 * XI_MIB)
#define XI_FLOW_MAX              (1 * XI_MIB)
#define XI_FLOW_STEPS_MAX        256
#define XI_FLOW_VALUES_MAX       1024           /* named tensors of a flow */
#define XI_FLOW_VALUE_MAX        (512 * XI_MIB) /* bytes of one of them */
#define XI_FLOW_LABELS_MAX       16             /* label files */
#define XI_FLOW_LABELS_BYTES_MAX XI_MIB         /* of one file */
#define XI_FLOW_LABEL_LINES_MAX  65536
#define XI_FLOW_BOXES_MAX        (256 * 1024) /* anchors of a detector */
#define XI_FLOW_CANDIDATES_MAX   8192         /* boxes that meet in NMS */
#define XI_FLOW_RESIZE_SIDE_MAX  4096
#define XI_PACKAGE_ENTRIES_MAX   4096
#define XI_PACKAGE_PATH_MAX      255

/* Pictures */
#define XI_IMAGE_SIDE_MAX   16384
#define XI_IMAGE_PIXELS_MAX (100ull * 1000 * 1000)

/* Shared memory */
#define XI_SEGMENT_BYTES     (32 * XI_MIB) /* holds small slots */
#define XI_SLOT_SHARED_MAX   (16 * XI_MIB) /* larger ones are a segment of their own */
#define XI_SLOT_MIN          4096
#define XI_LANES_MAX         64  /* of one session: that run, and as many for stages */
#define XI_HOST_LANES_MAX    256 /* of one host: of all its sessions together */
#define XI_HOST_SESSIONS_MAX 64
#define XI_BATCH_MAX         256

/* Regions: shared memory that clients own */
#define XI_REGIONS_MAX        2048 /* of all tenants */
#define XI_REGIONS_TENANT_MAX 1024
#define XI_REGION_BYTES_MAX   (64 * XI_GIB) /* of one */
#define XI_REGIONS_BYTES_MAX  (64 * XI_GIB) /* of one tenant */

/* Sessions */
#define XI_SESSIONS_MAX 1024
#define XI_QUEUE_MAX    1024

/* Answers that are kept */
#define XI_CACHE_ANSWER_MAX XI_MIB /* one of them */
#define XI_CACHE_MAX        (16 * XI_GIB)

/* Sequences */
#define XI_SEQUENCE_ID_MAX    64
#define XI_SEQUENCES_MAX      1024          /* open ones of a session */
#define XI_SEQUENCE_STATE_MAX (64 * XI_MIB) /* state of all sequences of a tenant */

/* Store */
#define XI_STORE_JOBS_MAX 1024 /* waiting for its thread */
#define XI_UPLOADS_MAX    8    /* packages on their way in */
#define XI_PEAKS_MAX      4096 /* measured peaks that are remembered */
#define XI_SETTINGS_MAX   256
#define XI_SETTING_MAX    (64 * XI_KIB) /* of one setting's text */

#endif
