#include "daemon/core/pool_room.h"

#include <stdio.h>

#include "base/clock.h"

struct room room_new(uint32_t cores, uint32_t queue_limit)
{
    struct room r = {.tenants = xi_tenants_new(), .why = xi_why_new()};
    struct xi_pool_config pool = {
        .cores = cores, .queue_limit = queue_limit, .watchdog_min_ms = 10000, .why = r.why};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = cores,
                                          .crash_window_ms = 60000,
                                          .crash_limit = 50,
                                          .drain_ms = 1000,
                                          .tenants = r.tenants,
                                          .why = r.why};

    r.f = fixture_new(&pool, &sessions);
    return r;
}

void room_free(struct room *r)
{
    fixture_free(r->f);
    xi_tenants_free(r->tenants);
    xi_why_free(r->why);
}

void room_on_accelerator(struct room *r)
{
    struct xi_engine_device *d = &r->f->engines[0].probe.devices[0];

    d->kind = XI_DEV_NPU;
    (void)snprintf(d->id, sizeof(d->id), "NPU");
    fake.staged = 1;
    fake.has_flow = 1;
}

struct xi_session *room_load(struct room *r, const char *name, const char *tenant, uint32_t lanes,
                             uint32_t batch)
{
    struct xi_load_options o = fixture_options(name, lanes);

    (void)snprintf(o.tenant, sizeof(o.tenant), "%s", tenant);
    o.max_batch = batch;
    fake.max_batch = batch;
    return fixture_load(r->f, &o);
}

void room_ask(struct room *r, struct asked *a, struct xi_session *s, uint32_t rows, uint8_t fill)
{
    fixture_ask(r->f, a, s, 8ull * rows, fill);
    if (fake.rank == 2) {
        a->r.parts[0].rank = 2;
        a->r.parts[0].dims[0] = rows;
        a->r.parts[0].dims[1] = 8;
    }
}

void room_ask_file(struct room *r, struct asked *a, struct xi_session *s, uint8_t fill)
{
    fixture_ask(r->f, a, s, 8, fill);
    a->r.parts[0] =
        (struct xi_part){.kind = XI_PART_BYTES, .mem = {.segment = 1, .offset = 0, .bytes = 8}};
}

void room_send(struct room *r, struct asked *a, struct xi_session *s, uint32_t rows, uint8_t fill)
{
    room_ask(r, a, s, rows, fill);
    fixture_submit(r->f, a);
}

void room_send_file(struct room *r, struct asked *a, struct xi_session *s, uint8_t fill)
{
    room_ask_file(r, a, s, fill);
    fixture_submit(r->f, a);
}

unsigned room_busy(const struct xi_host *host)
{
    unsigned n = 0;
    uint32_t i;

    for (i = 0; i < host->lanes; i++)
        n += host->running[i] != 0;
    return n;
}

int room_answer_one(struct xi_host *host)
{
    uint32_t i;

    for (i = 0; i < host->lanes && !host->ended; i++) {
        if (host->running[i] != 0) {
            fake_done(host, i, XI_OK);
            return 1;
        }
    }
    return 0;
}

void room_answer_all(struct xi_host *host)
{
    while (room_answer_one(host))
        ;
}

struct xi_entry *room_loading(const struct room *r, const struct xi_host *host)
{
    struct xi_entry *e;

    for (e = r->f->sessions->first; e != NULL; e = e->next) {
        if (e->s.state == XI_SESSION_LOADING && e->s.host == host &&
            fake_load_of(e->s.host, e->s.number) != NULL)
            return e;
    }
    return NULL;
}

void room_live(struct room *r, unsigned ms)
{
    uint64_t until = xi_now_ms() + ms;
    unsigned i;

    while (xi_pool_in_flight(r->f->pool) > 0 && xi_now_ms() < until) {
        for (i = 0; i < fake.n_hosts; i++) {
            struct xi_host *host = fake.hosts[i];
            struct xi_entry *e;

            while (!host->ended && (e = room_loading(r, host)) != NULL)
                fake_loaded_session(host, e->s.number, MS);
            if (!host->ended && fake_runs(host, POISON))
                fake_exit(host, "ended by SIGSEGV");
            else
                (void)room_answer_one(host);
        }
        fixture_turn(r->f);
    }
    fixture_run_ms(r->f, 5);
}

void room_answered(const struct asked *a, unsigned n, enum xi_rc rc)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        XI_ASSERT(a[i].answers == 1);
        XI_ASSERT(a[i].rc == rc);
    }
}
