/* The choice of an isolation group, by its table in the documentation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/isolation.h"

static const struct row {
    struct xi_isolation_facts f;
    enum xi_isolation want;
    const char *words;
} rows[] = {
    /* a processor: a host of its own, at the bound and over it */
    {{.context_bytes = 10 * XI_MIB, .other_hosts = 900}, XI_ISOLATE_SESSION, "~10 MiB"},
    {{.context_bytes = 64 * XI_MIB}, XI_ISOLATE_SESSION, "at most 64 MiB"},
    {{.context_bytes = 64 * XI_MIB + 1, .device_bytes = 16 * XI_GIB},
     XI_ISOLATE_TENANT,
     "1 context "},
    /* a large accelerator: tenants apart until their contexts are a tenth of it */
    {{.context_bytes = 526 * XI_MIB, .device_bytes = 80 * XI_GIB}, XI_ISOLATE_TENANT, "~526 MiB"},
    {{.context_bytes = 526 * XI_MIB, .device_bytes = 80 * XI_GIB, .other_hosts = 14},
     XI_ISOLATE_TENANT,
     "15 contexts"},
    {{.context_bytes = 526 * XI_MIB, .device_bytes = 80 * XI_GIB, .other_hosts = 15},
     XI_ISOLATE_DEVICE,
     "16 contexts"},
    /* a small one: two hosts would be too many, so one from the beginning */
    {{.context_bytes = 526 * XI_MIB, .device_bytes = 8 * XI_GIB}, XI_ISOLATE_DEVICE, "8192 MiB"},
    {{.context_bytes = 400 * XI_MIB, .device_bytes = 8 * XI_GIB}, XI_ISOLATE_TENANT, "1 context "},
    /* nobody knows how large it is */
    {{.context_bytes = 526 * XI_MIB, .other_hosts = 3}, XI_ISOLATE_TENANT, "unknown"},
    /* exclusive, whatever it costs and whatever was asked */
    {{.exclusive = 1, .context_bytes = XI_MIB}, XI_ISOLATE_DEVICE, "exclusive"},
    {{.exclusive = 1, .asked = XI_ISOLATE_DEVICE}, XI_ISOLATE_DEVICE, "exclusive"},
    /* asked for */
    {{.asked = XI_ISOLATE_SESSION, .context_bytes = 526 * XI_MIB, .device_bytes = XI_GIB},
     XI_ISOLATE_SESSION,
     "asked for"},
    {{.asked = XI_ISOLATE_TENANT, .context_bytes = XI_MIB}, XI_ISOLATE_TENANT, "asked for"},
    {{.asked = XI_ISOLATE_DEVICE, .context_bytes = XI_MIB}, XI_ISOLATE_DEVICE, "asked for"},
};

static void the_table(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct xi_isolation_facts f = rows[i].f;
        char reason[160] = "";

        f.engine = "simulated";
        f.device = "GPU.0";
        if (xi_isolation_choose(&f, reason) != rows[i].want ||
            strstr(reason, rows[i].words) == NULL || strstr(reason, "simulated GPU.0") == NULL)
            fail_msg("row %zu: %s", i, reason);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_table)};

    return cmocka_run_group_tests_name("isolation", tests, NULL, NULL);
}
