#include "daemon/loop/workers.h"

#include <stdlib.h>

#include "base/platform/self.h"
#include "daemon/loop/wakeup.h"

enum { THREADS = 2 };

struct list {
    struct xi_work *head, *tail;
};

struct workers {
    uv_loop_t *loop;
    struct xi_wakeup wakeup;
    uv_thread_t threads[THREADS];
    uv_mutex_t lock; /* a leaf: for the lists and `closing` */
    uv_cond_t work_is_here;
    struct list waiting, finished;
    int closing;
    unsigned out; /* loop thread: queued and not yet done */
};

static void push(struct list *l, struct xi_work *w)
{
    w->next = NULL;
    if (l->tail != NULL)
        l->tail->next = w;
    else
        l->head = w;
    l->tail = w;
}

static struct xi_work *pop(struct list *l)
{
    struct xi_work *w = l->head;

    if (w != NULL && (l->head = w->next) == NULL)
        l->tail = NULL;
    return w;
}

static struct xi_work *wait_for_work(struct workers *p)
{
    uv_mutex_lock(&p->lock);
    while (p->waiting.head == NULL && !p->closing)
        uv_cond_wait(&p->work_is_here, &p->lock);
    struct xi_work *w = pop(&p->waiting);
    uv_mutex_unlock(&p->lock);
    return w;
}

static void thread_main(void *arg)
{
    struct workers *p = arg;
    struct xi_work *w;

    xi_self_step_back(XI_NICE_NORMAL);
    while ((w = wait_for_work(p)) != NULL) {
        w->work(w);
        uv_mutex_lock(&p->lock);
        push(&p->finished, w);
        uv_mutex_unlock(&p->lock);
        xi_wakeup_signal(&p->wakeup);
    }
}

static void deliver(struct workers *p)
{
    struct xi_work *next;

    uv_mutex_lock(&p->lock);
    struct xi_work *w = p->finished.head;
    p->finished = (struct list){0};
    uv_mutex_unlock(&p->lock);
    for (; w != NULL; w = next) {
        next = w->next; /* done may free it */
        if (--p->out == 0)
            uv_unref((uv_handle_t *)&p->wakeup.poll);
        w->done(w);
    }
}

static void on_woken(struct xi_wakeup *wakeup)
{
    deliver((struct workers *)wakeup->poll.loop->data);
}

enum xi_rc xi_workers_open(uv_loop_t *loop, struct xi_err *err)
{
    struct workers *p = calloc(1, sizeof *p);

    if (p == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory for workers");
    enum xi_rc rc = xi_wakeup_open(&p->wakeup, loop, on_woken, err);
    if (rc != XI_OK) {
        free(p);
        return rc;
    }
    uv_unref((uv_handle_t *)&p->wakeup.poll);
    p->loop = loop;
    loop->data = p;
    XI_ASSERT(uv_mutex_init(&p->lock) == 0 && uv_cond_init(&p->work_is_here) == 0);
    for (int i = 0; i < THREADS; i++)
        XI_ASSERT(uv_thread_create(&p->threads[i], thread_main, p) == 0);
    return XI_OK;
}

static void on_closed(struct xi_wakeup *wakeup)
{
    struct workers *p = (struct workers *)((char *)wakeup - offsetof(struct workers, wakeup));

    uv_cond_destroy(&p->work_is_here);
    uv_mutex_destroy(&p->lock);
    free(p);
}

void xi_workers_close(uv_loop_t *loop)
{
    struct workers *p = loop->data;

    if (p == NULL)
        return;
    uv_mutex_lock(&p->lock);
    p->closing = 1;
    uv_cond_broadcast(&p->work_is_here);
    uv_mutex_unlock(&p->lock);
    for (int i = 0; i < THREADS; i++)
        (void)uv_thread_join(&p->threads[i]);
    deliver(p);
    while (p->waiting.head != NULL) { /* what a `done` has queued meanwhile is done here */
        struct xi_work *w = pop(&p->waiting);
        w->work(w);
        push(&p->finished, w);
        deliver(p);
    }
    loop->data = NULL;
    xi_wakeup_close(&p->wakeup, on_closed);
}

void xi_work_queue(uv_loop_t *loop, struct xi_work *w, void (*work)(struct xi_work *w),
                   void (*done)(struct xi_work *w))
{
    struct workers *p = loop->data;

    XI_ASSERT(p != NULL);
    w->work = work;
    w->done = done;
    if (p->out++ == 0)
        uv_ref((uv_handle_t *)&p->wakeup.poll);
    uv_mutex_lock(&p->lock);
    push(&p->waiting, w);
    uv_cond_signal(&p->work_is_here);
    uv_mutex_unlock(&p->lock);
}
