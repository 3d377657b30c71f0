#include "daemon/core/loop_lag.h"

#include "base/clock.h"

#define TICK_NS        1000000ull
#define IDLE_TICKS_MAX 1000u /* of one turn: an idle night must not drown the busy minute */
#define BUSY_TICKS_MAX 60000u

void xi_loop_lag_turn(struct xi_hist *hist, uint64_t *inout_next_tick_ns, uint64_t busy_since_ns,
                      uint64_t now_ns)
{
    uint64_t tick = *inout_next_tick_ns;
    unsigned busy = 0;

    if (busy_since_ns > tick) {
        uint64_t idle = (busy_since_ns - tick + TICK_NS - 1) / TICK_NS;

        tick += idle * TICK_NS;
        xi_hist_add_n(hist, 0, idle < IDLE_TICKS_MAX ? idle : IDLE_TICKS_MAX);
    }
    for (; tick <= now_ns; tick += TICK_NS) {
        if (busy++ < BUSY_TICKS_MAX)
            xi_hist_add(hist, (now_ns - tick) / 1000);
    }
    *inout_next_tick_ns = tick;
}

static void on_check(uv_check_t *handle)
{
    struct xi_loop_lag *lag = handle->data;

    lag->busy_since_ns = uv_now(handle->loop) * TICK_NS;
}

static void on_prepare(uv_prepare_t *handle)
{
    struct xi_loop_lag *lag = handle->data;

    xi_loop_lag_turn(lag->hist, &lag->next_tick_ns, lag->busy_since_ns, xi_now_ns());
}

void xi_loop_lag_start(struct xi_loop_lag *lag, uv_loop_t *loop, struct xi_hist *hist)
{
    lag->hist = hist;
    lag->busy_since_ns = xi_now_ns();
    lag->next_tick_ns = lag->busy_since_ns;
    (void)uv_prepare_init(loop, &lag->prepare);
    (void)uv_check_init(loop, &lag->check);
    lag->prepare.data = lag;
    lag->check.data = lag;
    (void)uv_prepare_start(&lag->prepare, on_prepare);
    (void)uv_check_start(&lag->check, on_check);
    uv_unref((uv_handle_t *)&lag->prepare);
    uv_unref((uv_handle_t *)&lag->check);
}

void xi_loop_lag_stop(struct xi_loop_lag *lag, uv_close_cb closed, void *ctx)
{
    lag->prepare.data = ctx;
    lag->check.data = ctx;
    uv_close((uv_handle_t *)&lag->prepare, closed);
    uv_close((uv_handle_t *)&lag->check, closed);
}
