/* store_impl.h: what store.c, store_calls.c and install.c share. For these files only. */
#ifndef XI_DAEMON_CORE_STORE_IMPL_H
#define XI_DAEMON_CORE_STORE_IMPL_H

#include <stdatomic.h>
#include <uv.h>

#include "daemon/core/store.h"
#include "daemon/core/store_catalogue.h"
#include "daemon/core/store_disk.h"
#include "daemon/loop/wakeup.h"

/* One piece of work. First member of a larger struct; made on the loop, worked on by the store's
 * thread, handed back to the loop, where `done` calls back and frees it. */
struct xi_store_job {
    struct xi_store_job *next;
    void (*work)(struct xi_store *store, struct xi_store_job *job); /* store thread; fills err */
    void (*done)(struct xi_store *store, struct xi_store_job *job); /* loop */
    struct xi_err err;                                              /* rc XI_OK: success */
};

struct xi_store_queue {
    struct xi_store_job *head, *tail;
    uint32_t length;
};

struct xi_store {
    uv_loop_t *loop;
    struct xi_wakeup finished_wakeup;
    uv_thread_t thread;

    uv_mutex_t lock; /* a leaf: holds for the queues only */
    uv_cond_t wake;
    struct xi_store_queue waiting, finished;
    int stopping;

    /* store thread, once it runs */
    struct xi_store_disk disk;
    struct xi_catalogue *catalogue;

    /* loop thread */
    int closed;
    struct xi_install_config install;
    char host_program[512], plugin_dir[512];
    struct xi_upload *uploads;
    uint32_t n_uploads;
    struct xi_peak *peaks; /* grown, at most XI_PEAKS_MAX; owned */
    uint32_t n_peaks, peaks_room;
    struct xi_setting *settings; /* owned */
    uint32_t n_settings;

    _Atomic uint64_t packages, blob_bytes, free_bytes, unreferenced;
};

/* Takes the job, also when it can't be done: then `done` runs from the loop with EAGAIN (too many
 * wait) or EDRAIN (closing) in err. */
void xi_store_submit(struct xi_store *store, struct xi_store_job *job);
/* Store thread: counts packages, bytes and free space anew. */
void xi_store_recount(struct xi_store *store);

/* store_state.c: what is known in memory of the catalogue's peaks and settings. */
struct xi_setting {
    char key[XI_NAME_MAX + 1];
    char *value; /* owned */
    struct xi_setting *next;
};
enum xi_rc xi_store_state_read(struct xi_store *store, struct xi_err *err) XI_MUST_CHECK;
void xi_store_state_free(struct xi_store *store);

/* install.c: the store closes: ends hosts, answers installs under way. */
void xi_install_close_all(struct xi_store *store);

#endif
