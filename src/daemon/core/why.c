#include "daemon/core/why.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct xi_why {
    uint64_t noted; /* entry i of all lies at i % XI_WHY_MAX */
    struct xi_why_entry ring[XI_WHY_MAX];
};

const char *xi_why_kind_name(enum xi_why_kind k)
{
    static const char *const names[] = {"refused",  "evicted",     "restarted",
                                        "recycled", "quarantined", "moved",
                                        "swap",     "slow",        "incident"};

    return (unsigned)k < sizeof(names) / sizeof(names[0]) ? names[k] : "unknown";
}

struct xi_why *xi_why_new(void)
{
    return calloc(1, sizeof(struct xi_why));
}

void xi_why_free(struct xi_why *w)
{
    free(w);
}

void xi_why_note(struct xi_why *w, const struct xi_why_entry *entry)
{
    struct xi_why_entry *to;
    struct timespec now;

    if (w == NULL)
        return;
    to = &w->ring[w->noted++ % XI_WHY_MAX];
    *to = *entry;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    to->at_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static int is_about(const struct xi_why_entry *e, const char *tenant, const char *about)
{
    char number[24];

    if (tenant != NULL && strcmp(e->tenant, tenant) != 0)
        return 0;
    if (strcmp(e->session, about) == 0 || strcmp(e->name, about) == 0)
        return 1;
    if (e->request == 0)
        return 0;
    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)e->request);
    return strcmp(number, about) == 0;
}

const struct xi_why_entry *xi_why_find(const struct xi_why *w, const char *tenant,
                                       const char *about, const struct xi_why_entry *before)
{
    uint64_t noted = w != NULL ? w->noted : 0;
    uint64_t n = noted < XI_WHY_MAX ? noted : XI_WHY_MAX, age;
    int started = before == NULL;

    for (age = 1; age <= n; age++) {
        const struct xi_why_entry *e = &w->ring[(w->noted - age) % XI_WHY_MAX];

        if (started && is_about(e, tenant, about))
            return e;
        started = started || e == before;
    }
    return NULL;
}
