#include "daemon/core/service.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/platform/self.h"
#include "daemon/core/sequences.h"
#include "daemon/core/service_private.h"

/* ---- opening ---- */

static void on_trim(uv_timer_t *timer)
{
    struct xi_service_inner *in = timer->data;

    xi_shm_trim(in->s.shm);
}

static void on_expire(uv_timer_t *timer)
{
    struct xi_service_inner *in = timer->data;
    struct xi_session *s = NULL;
    uint64_t now = xi_now_ms();

    while (in->s.sessions != NULL && (s = xi_sessions_each(in->s.sessions, s)) != NULL)
        xi_sequences_expire(s, now);
}

/* Counters are looked at here, once a second, and nowhere near a request. */
static void on_second(void *ctx)
{
    struct xi_service *s = ctx;

    if (s->sessions != NULL)
        xi_rates_sample(s->sessions, s->tenants, xi_now_ms());
}

/* Sessions leave an accelerator that is too hot. A processor slows itself down, and there is
 * nowhere else to go. */
static void on_heat(void *ctx, const struct xi_monitored *m, int hot)
{
    struct xi_service *s = ctx;
    char why[96];

    if (s->sessions == NULL || m->kind == XI_DEV_CPU)
        return;
    (void)snprintf(why, sizeof(why), hot ? "too hot: %.0f of %.0f degrees" : "it has cooled down",
                   m->celsius, m->hot_celsius);
    for (uint32_t e = 0; e < s->n_engines; e++)
        for (uint32_t i = 0; i < s->engines[e].probe.n_devices; i++) {
            const struct xi_engine_device *d = &s->engines[e].probe.devices[i];
            if (d->kind == m->kind && xi_device_index(d->id) == xi_device_index(m->id))
                xi_sessions_device_state(s->sessions, NULL, d->id, !hot, why);
        }
}

static enum xi_rc make_parts(struct xi_service_inner *in, struct xi_err *err)
{
    struct xi_service *s = &in->s;
    const struct xi_service_config *c = &s->config;
    struct xi_pool_config pool = {.cores = c->cores,
                                  .own_cores = c->cores == xi_self_cores(),
                                  .queue_limit = c->queue_limit,
                                  .watchdog_min_ms = c->watchdog_min_ms};
    struct xi_sessions_config sessions = {.host_program = c->host_program,
                                          .engine_dir = c->engine_dir,
                                          .openvino_dir = c->openvino_dir,
                                          .host_data_limit_bytes = c->host_data_limit_bytes,
                                          .cores = c->cores,
                                          .crash_window_ms = c->crash_window_ms,
                                          .crash_limit = c->crash_limit,
                                          .host_uid = c->host_uid,
                                          .drain_ms = c->drain_ms,
                                          .sandbox = c->sandbox};

    s->tenants = xi_tenants_new();
    s->why = xi_why_new();
    if (s->tenants == NULL || s->why == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to start");
    pool.why = s->why;
    sessions.tenants = s->tenants;
    sessions.why = s->why;
    sessions.memory_bytes = c->memory_bytes;
    sessions.keep_idle = !c->evict;
    sessions.cgroups = &s->cgroups;
    s->shm = xi_shm_new(c->input_memory_bytes);
    if (s->shm != NULL)
        xi_shm_close_on(s->shm, s->loop);
    s->regions = s->shm != NULL ? xi_regions_new(s->shm) : NULL;
    s->pool = xi_pool_new(s->loop, &pool);
    s->monitor = xi_monitor_new(s->loop, c->sensors_root ? c->sensors_root : "", XI_MONITOR_MS);
    sessions.monitor = s->monitor;
    if (s->monitor != NULL)
        xi_monitor_on_tick(s->monitor, on_second, on_heat, s);
    if (s->regions != NULL && s->pool != NULL)
        s->sessions = xi_sessions_new(s->loop, &sessions, s->shm, s->store, s->pool);
    if (s->sessions == NULL || s->monitor == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to start");
    return XI_OK;
}

static void fill_in(struct xi_service_inner *in, uv_loop_t *loop,
                    const struct xi_service_config *config)
{
    struct xi_service *s = &in->s;

    s->loop = loop;
    s->config = *config;
    s->started_ms = xi_now_ms();
    s->next_request_id = 1;
    xi_cgroups_open(&s->cgroups);
    if (s->config.cores == 0) {
        struct xi_resources machine = {0};

        xi_resources_read("", &machine);
        s->config.cores = machine.cores == 0 ? 1 : machine.cores;
    }
    if (gethostname(s->node, sizeof(s->node) - 1) != 0)
        (void)snprintf(s->node, sizeof(s->node), "localhost");
}

static void configure_install(struct xi_service *s)
{
    struct xi_install_config install = {.shm = s->shm,
                                        .host_program = s->config.host_program,
                                        .plugin_dir = s->config.engine_dir,
                                        .host_uid = s->config.host_uid,
                                        .sandbox = s->config.sandbox};

    xi_store_configure_install(s->store, &install);
}

static void start_timers(struct xi_service_inner *in)
{
    (void)uv_timer_init(in->s.loop, &in->drain);
    (void)uv_timer_init(in->s.loop, &in->trim);
    in->drain.data = in;
    (void)uv_timer_init(in->s.loop, &in->expire);
    in->trim.data = in;
    in->expire.data = in;
    in->open_handles = 3;
    (void)uv_timer_start(&in->trim, on_trim, XI_SHM_TRIM_MS, XI_SHM_TRIM_MS);
    uv_unref((uv_handle_t *)&in->trim);
    (void)uv_timer_start(&in->expire, on_expire, XI_EXPIRE_MS, XI_EXPIRE_MS);
    uv_unref((uv_handle_t *)&in->expire);
    xi_loop_lag_start(&in->lag, in->s.loop, &in->s.loop_lag);
}

enum xi_rc xi_service_open(uv_loop_t *loop, const struct xi_service_config *config,
                           struct xi_service **ret, struct xi_err *err)
{
    struct xi_service_inner *in = calloc(1, sizeof(*in));
    enum xi_rc rc;

    if (in == NULL)
        return xi_fail(err, XI_ENOMEM, "no memory to start");
    fill_in(in, loop, config);
    rc = xi_store_open(loop, config->state_dir, &in->s.store, err);
    if (rc != XI_OK) {
        free(in);
        return rc;
    }
    start_timers(in);
    rc = make_parts(in, err);
    if (rc != XI_OK) {
        xi_service_close(&in->s);
        return rc;
    }
    configure_install(&in->s);
    rc = xi_service_settings_open(in, err);
    if (rc != XI_OK) {
        xi_service_close(&in->s);
        return rc;
    }
    xi_service_probe(in);
    *ret = &in->s;
    return XI_OK;
}

/* ---- readiness ---- */

int xi_service_ready(struct xi_service *s, struct xi_err *why)
{
    struct xi_service_inner *in = xi_service_inner_of(s);

    if (s->draining) {
        (void)xi_fail(why, XI_EDRAIN, "the daemon is shutting down");
        return 0;
    }
    if (!s->restored) {
        (void)xi_fail(why, XI_EAGAIN, "%u engines are being probed", in->probes_left);
        return 0;
    }
    if (in->restore_failures > 0) {
        (void)xi_fail(why, in->restore_err.rc, "%u sessions could not be brought back: %s",
                      in->restore_failures, in->restore_err.msg);
        return 0;
    }
    return xi_sessions_ready(s->sessions, why);
}

/* ---- requests ---- */

void xi_request_init(struct xi_service *s, struct xi_request *req, struct xi_session *session)
{
    /* The parts are 6 KiB that n_parts makes unread. */
    size_t parts_end = offsetof(struct xi_request, parts) + sizeof(req->parts);

    memset(req, 0, offsetof(struct xi_request, parts));
    memset((char *)req + parts_end, 0, sizeof(*req) - parts_end);
    req->id = s->next_request_id++;
    req->state = XI_REQ_NEW;
    req->priority = session->options.priority;
    req->session = session;
    memcpy(req->tenant, session->tenant, sizeof(req->tenant));
    req->timing.born = xi_now_ns();
    xi_session_get(session);
}

/* ---- draining and closing ---- */

static void on_drain_tick(uv_timer_t *timer)
{
    struct xi_service_inner *in = timer->data;
    uint32_t left = xi_pool_in_flight(in->s.pool);

    if (left > 0 && xi_now_ms() < in->drain_until_ms)
        return;
    (void)uv_timer_stop(timer);
    xi_log(left > 0 ? XI_WARN : XI_INFO, "daemon.drained", "left=%u", left);
    in->drained(in->drained_ctx);
}

void xi_service_drain(struct xi_service *s, unsigned drain_ms, void (*cb)(void *ctx), void *ctx)
{
    struct xi_service_inner *in = xi_service_inner_of(s);

    s->draining = 1;
    in->drained = cb;
    in->drained_ctx = ctx;
    in->drain_until_ms = xi_now_ms() + drain_ms;
    xi_pool_drain(s->pool);
    (void)uv_timer_start(&in->drain, on_drain_tick, 0, 5);
}

static int still_busy(const struct xi_service_inner *in)
{
    return in->probes_left > 0 || (in->s.sessions != NULL && xi_sessions_alive(in->s.sessions) > 0);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct xi_service_inner *in = handle->data;

    if (--in->open_handles > 0)
        return;
    xi_regions_free(in->s.regions);
    xi_shm_free(in->s.shm);
    xi_cgroups_close(&in->s.cgroups);
    xi_tenants_free(in->s.tenants);
    xi_why_free(in->s.why);
    xi_service_settings_fini(in);
    free(in->rows);
    free(in);
}

static void close_handles(struct xi_service_inner *in)
{
    uint32_t i;

    xi_loop_lag_stop(&in->lag, on_handle_closed, in);
    in->open_handles += 2 + in->s.n_engines;
    for (i = 0; i < in->s.n_engines; i++) {
        in->probes[i].limit.data = in;
        uv_close((uv_handle_t *)&in->probes[i].limit, on_handle_closed);
    }
    uv_close((uv_handle_t *)&in->drain, on_handle_closed);
    uv_close((uv_handle_t *)&in->trim, on_handle_closed);
    uv_close((uv_handle_t *)&in->expire, on_handle_closed);
}

static void on_drain_wake(uv_timer_t *timer)
{
    (void)timer;
}

void xi_service_close(struct xi_service *s)
{
    struct xi_service_inner *in = xi_service_inner_of(s);
    uint64_t until = xi_now_ms() + XI_CLOSE_MS;

    in->closing = 1;
    s->draining = 1;
    xi_service_probe_stop(in);
    if (s->sessions != NULL)
        xi_sessions_close(s->sessions);
    /* The drain timer wakes the loop, so that the limit holds. */
    (void)uv_timer_start(&in->drain, on_drain_wake, 20, 20);
    while (still_busy(in) && xi_now_ms() < until)
        (void)uv_run(s->loop, UV_RUN_ONCE);
    if (s->monitor != NULL)
        xi_monitor_free(s->monitor);
    xi_store_close(s->store);
    if (still_busy(in)) {
        xi_log(XI_ERROR, "daemon.close", "hosts did not end within %u ms", XI_CLOSE_MS);
        (void)uv_timer_stop(&in->drain); /* it would keep the loop alive when they have */
        return; /* the process ends anyway; nothing that is still used may be freed */
    }
    xi_sessions_free(s->sessions);
    xi_pool_free(s->pool);
    close_handles(in);
}
