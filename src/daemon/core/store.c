#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/platform/file.h"
#include "base/platform/self.h"
#include "daemon/core/store_impl.h"

/* ---- queues; under the lock ---- */

static void push(struct xi_store_queue *q, struct xi_store_job *job)
{
    job->next = NULL;
    if (q->tail != NULL)
        q->tail->next = job;
    else
        q->head = job;
    q->tail = job;
    q->length++;
}

static struct xi_store_job *pop(struct xi_store_queue *q)
{
    struct xi_store_job *job = q->head;

    if (job == NULL)
        return NULL;
    q->head = job->next;
    if (q->head == NULL)
        q->tail = NULL;
    q->length--;
    return job;
}

static struct xi_store_job *pop_locked(struct xi_store *store, struct xi_store_queue *q)
{
    uv_mutex_lock(&store->lock);
    struct xi_store_job *job = pop(q);
    uv_mutex_unlock(&store->lock);
    return job;
}

void xi_store_submit(struct xi_store *store, struct xi_store_job *job)
{
    uv_mutex_lock(&store->lock);
    job->err = (struct xi_err){0};
    if (store->stopping)
        (void)xi_fail(&job->err, XI_EDRAIN, "shutting down");
    else if (store->waiting.length >= XI_STORE_JOBS_MAX)
        (void)xi_fail(&job->err, XI_EAGAIN, "%d calls wait for the store's disk already",
                      XI_STORE_JOBS_MAX);
    int refused = job->err.rc != XI_OK;
    push(refused ? &store->finished : &store->waiting, job);
    uv_cond_signal(&store->wake);
    uv_mutex_unlock(&store->lock);
    if (refused && !store->closed)
        xi_wakeup_signal(&store->finished_wakeup);
}

/* ---- the store's thread ---- */

static struct xi_store_job *wait_for_job(struct xi_store *store)
{
    uv_mutex_lock(&store->lock);
    while (store->waiting.head == NULL && !store->stopping)
        uv_cond_wait(&store->wake, &store->lock);
    struct xi_store_job *job = pop(&store->waiting);
    uv_mutex_unlock(&store->lock);
    return job;
}

static void thread_main(void *arg)
{
    struct xi_store *store = arg;
    struct xi_store_job *job;

    xi_self_step_back(XI_NICE_NORMAL); /* hashing a package must not hold up the loop */
    while ((job = wait_for_job(store)) != NULL) {
        job->work(store, job);
        uv_mutex_lock(&store->lock);
        push(&store->finished, job);
        uv_mutex_unlock(&store->lock);
        xi_wakeup_signal(&store->finished_wakeup);
    }
}

static void deliver(struct xi_store *store)
{
    struct xi_store_job *job;

    while ((job = pop_locked(store, &store->finished)) != NULL)
        job->done(store, job);
}

static struct xi_store *store_of(struct xi_wakeup *wakeup)
{
    return (struct xi_store *)((char *)wakeup - offsetof(struct xi_store, finished_wakeup));
}

/* A callback may close the store: then the rest was delivered in there, and the lock is gone. */
static void on_finished(struct xi_wakeup *wakeup)
{
    struct xi_store *store = store_of(wakeup);
    struct xi_store_job *job;

    while (!store->closed && (job = pop_locked(store, &store->finished)) != NULL)
        job->done(store, job);
}

void xi_store_recount(struct xi_store *store)
{
    uint64_t packages = 0, bytes = 0, unreferenced = 0;

    if (xi_catalogue_totals(store->catalogue, &packages, &bytes, NULL) == XI_OK) {
        atomic_store(&store->packages, packages);
        atomic_store(&store->blob_bytes, bytes);
    }
    if (xi_store_disk_collect(&store->disk, store->catalogue, 0, &unreferenced, NULL) == XI_OK)
        atomic_store(&store->unreferenced, unreferenced);
    atomic_store(&store->free_bytes, xi_store_disk_free_bytes(&store->disk));
}

/* ---- life ---- */

static enum xi_rc start_thread(struct xi_store *store, struct xi_err *err)
{
    if (uv_mutex_init(&store->lock) != 0)
        return xi_fail(err, XI_ENOMEM, "store: no mutex");
    if (uv_cond_init(&store->wake) != 0) {
        uv_mutex_destroy(&store->lock);
        return xi_fail(err, XI_ENOMEM, "store: no condition");
    }
    enum xi_rc rc = xi_wakeup_open(&store->finished_wakeup, store->loop, on_finished, err);
    if (rc != XI_OK) {
        uv_cond_destroy(&store->wake);
        uv_mutex_destroy(&store->lock);
        return rc;
    }
    XI_ASSERT(uv_thread_create(&store->thread, thread_main, store) == 0);
    return XI_OK;
}

enum xi_rc xi_store_open(uv_loop_t *loop, const char *dir, struct xi_store **ret,
                         struct xi_err *err)
{
    struct xi_store *store = calloc(1, sizeof *store);

    if (store == NULL)
        return xi_fail(err, XI_ENOMEM, "store: out of memory");
    store->loop = loop;
    enum xi_rc rc = xi_store_disk_open(&store->disk, dir, err);
    if (rc == XI_OK)
        rc = xi_catalogue_open(store->disk.path, &store->catalogue, err);
    if (rc == XI_OK)
        rc = xi_store_disk_sweep(&store->disk, store->catalogue, err);
    if (rc == XI_OK)
        rc = xi_store_state_read(store, err);
    if (rc == XI_OK) {
        xi_store_recount(store);
        rc = start_thread(store, err);
    }
    if (rc == XI_OK) {
        *ret = store;
        return XI_OK;
    }
    xi_store_state_free(store);
    xi_catalogue_close(store->catalogue);
    xi_store_disk_close(&store->disk);
    free(store);
    return rc;
}

static void on_closed(struct xi_wakeup *wakeup)
{
    xi_store_state_free(store_of(wakeup));
    free(store_of(wakeup));
}

void xi_store_close(struct xi_store *store)
{
    if (store == NULL || store->closed)
        return;
    uv_mutex_lock(&store->lock);
    store->stopping = 1;
    uv_cond_signal(&store->wake);
    uv_mutex_unlock(&store->lock);
    (void)uv_thread_join(&store->thread);
    store->closed = 1;
    deliver(store);
    xi_install_close_all(store);
    deliver(store);
    xi_catalogue_close(store->catalogue);
    xi_store_disk_close(&store->disk);
    uv_cond_destroy(&store->wake);
    uv_mutex_destroy(&store->lock);
    xi_wakeup_close(&store->finished_wakeup, on_closed);
}

void xi_store_stats(struct xi_store *store, struct xi_store_stats *ret)
{
    uv_mutex_lock(&store->lock);
    uint64_t queued = store->waiting.length;
    uv_mutex_unlock(&store->lock);
    *ret = (struct xi_store_stats){.packages = atomic_load(&store->packages),
                                   .blob_bytes = atomic_load(&store->blob_bytes),
                                   .queue = queued,
                                   .fsyncs = atomic_load(&store->disk.fsyncs),
                                   .free_bytes = atomic_load(&store->free_bytes),
                                   .unreferenced_blobs = atomic_load(&store->unreferenced)};
}
