#include "daemon/core/core_fixture.h"
#include "daemon/loop/workers.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

static void engine(struct xi_engine_record *r, const char *name, const char *format)
{
    *r = (struct xi_engine_record){.present = 1};
    (void)snprintf(r->name, sizeof(r->name), "%s", name);
    (void)snprintf(r->probe.version, sizeof(r->probe.version), "1.2");
    r->probe.n_formats = 1;
    (void)snprintf(r->probe.formats[0], sizeof(r->probe.formats[0]), "%s", format);
    r->probe.n_devices = 1;
    (void)snprintf(r->probe.devices[0].id, sizeof(r->probe.devices[0].id), "CPU");
    r->probe.devices[0].context_bytes = 10 * XI_MIB;
}

struct fixture *fixture_new(const struct xi_pool_config *pool,
                            const struct xi_sessions_config *sessions)
{
    struct fixture *f = calloc(1, sizeof(*f));

    XI_ASSERT(f != NULL && uv_loop_init(&f->loop) == 0);
    XI_ASSERT(xi_workers_open(&f->loop, NULL) == XI_OK);
    xi_log_set_level(XI_ERROR + 1);
    f->pool = xi_pool_new(&f->loop, pool);
    f->sessions = xi_sessions_new(&f->loop, sessions, NULL, NULL, f->pool);
    XI_ASSERT(f->sessions != NULL);
    engine(&f->engines[0], "reference", "a");
    engine(&f->engines[1], "other", "b");
    xi_sessions_set_engines(f->sessions, f->engines, 2);
    return f;
}

void fixture_turn(struct fixture *f)
{
    (void)uv_run(&f->loop, UV_RUN_NOWAIT);
}

void fixture_run_ms(struct fixture *f, unsigned ms)
{
    uint64_t until = xi_now_ms() + ms;

    while (xi_now_ms() < until) {
        fixture_turn(f);
        uv_sleep(1);
    }
}

static void end_hosts(void)
{
    unsigned i;

    for (i = 0; i < fake.n_hosts; i++) {
        if (fake.hosts[i]->stopped && !fake.hosts[i]->ended)
            fake_exit(fake.hosts[i], "");
    }
}

void fixture_free(struct fixture *f)
{
    xi_sessions_close(f->sessions);
    while (xi_sessions_alive(f->sessions) > 0) {
        end_hosts();
        fixture_turn(f);
    }
    XI_ASSERT(xi_sessions_count(f->sessions) == 0 && xi_pool_in_flight(f->pool) == 0);
    xi_sessions_free(f->sessions);
    xi_pool_free(f->pool);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    xi_workers_close(&f->loop);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    XI_ASSERT(uv_loop_close(&f->loop) == 0);
    free(f);
    fake_reset();
}

struct xi_package_record *fixture_record(const char *name, const char *variants)
{
    struct xi_package_record *r = calloc(1, sizeof(*r));
    struct xi_err err;
    size_t i, n = strlen(variants);

    XI_ASSERT(r != NULL);
    (void)snprintf(r->name, sizeof(r->name), "%s", name);
    (void)snprintf(r->version, sizeof(r->version), "1.0.0");
    r->n_models = 1;
    r->n_variants = (uint32_t)n;
    r->n_files = 1;
    r->n_blobs = 1;
    XI_ASSERT(xi_record_alloc(r, &err) == XI_OK);
    (void)snprintf(r->models[0].name, sizeof(r->models[0].name), "main");
    r->models[0].n_variants = (uint32_t)n;
    for (i = 0; i < n; i++) {
        struct xi_record_variant *v = &r->variants[i];

        (void)snprintf(v->id, sizeof(v->id), "v%zu", i);
        (void)snprintf(v->engine, sizeof(v->engine), "%s",
                       variants[i] == 'a'   ? "reference"
                       : variants[i] == 'b' ? "other"
                                            : "rknn");
        (void)snprintf(v->format, sizeof(v->format), "%c", variants[i]);
        (void)snprintf(v->precision, sizeof(v->precision), "f32");
    }
    return r;
}

struct xi_load_options fixture_options(const char *name, uint32_t lanes)
{
    struct xi_load_options o = {.instances = lanes, .priority = XI_PRIORITY_NORMAL, .golden = 1};

    (void)snprintf(o.tenant, sizeof(o.tenant), "default");
    (void)snprintf(o.name, sizeof(o.name), "%s", name);
    return o;
}

void fixture_told(void *ctx, const struct xi_session *view, const struct xi_err *err)
{
    struct told *t = ctx;

    t->times++;
    t->rc = err == NULL ? XI_OK : err->rc;
    if (err != NULL)
        t->err = *err;
    if (view != NULL) {
        t->state = view->state;
        memcpy(t->id, view->id, sizeof(t->id));
    }
}

struct xi_session *fixture_session(struct fixture *f, const char *name, uint32_t lanes)
{
    struct xi_load_options o = fixture_options(name, lanes);

    return fixture_load(f, &o);
}

struct xi_session *fixture_load(struct fixture *f, const struct xi_load_options *o)
{
    struct xi_session *s = NULL;
    struct xi_err err;
    char id[XI_UUID_TEXT + 1];

    xi_uuid_new(id);
    XI_ASSERT(xi_sessions_load(f->sessions, id, DIGEST_A, fixture_record(o->name, "a"), o, NULL,
                               NULL, &s, &err) == XI_OK);
    fake_loaded(fake_last(), 1000000);
    XI_ASSERT(s->state == XI_SESSION_READY);
    return s;
}

static uint64_t answers_so_far;

static void on_answer(struct xi_request *req, enum xi_rc rc, struct xi_reply *reply,
                      const struct xi_err *err)
{
    struct asked *a = req->owner;

    a->answers++;
    a->rc = rc;
    a->order = ++answers_so_far;
    if (err != NULL)
        a->err = *err;
    XI_ASSERT((rc == XI_OK) == (reply != NULL));
    XI_ASSERT((rc == XI_OK) == (err == NULL));
    XI_ASSERT(err == NULL || (err->rc == rc && err->msg[0] != '\0'));
    if (reply != NULL)
        xi_reply_release(reply);
}

void fixture_ask(struct fixture *f, struct asked *a, struct xi_session *s, uint64_t bytes,
                 uint8_t fill)
{
    static uint64_t next_id = 1;

    (void)f;
    memset(a, 0, sizeof(*a));
    a->fill = fill;
    a->r.id = next_id++;
    a->r.priority = XI_PRIORITY_NORMAL;
    a->r.session = s;
    a->r.timing.born = xi_now_ns();
    a->r.done = on_answer;
    a->r.owner = a;
    a->r.slot = fake_slot(bytes, fill);
    a->r.n_parts = 1;
    a->r.parts[0] = (struct xi_part){.kind = XI_PART_TENSOR,
                                     .dtype = XI_DT_UINT8,
                                     .rank = 1,
                                     .dims = {(int64_t)bytes},
                                     .mem = {.segment = 1, .bytes = bytes}};
    xi_session_get(s);
}

void fixture_submit(struct fixture *f, struct asked *a)
{
    xi_pool_submit(f->pool, &a->r);
}
