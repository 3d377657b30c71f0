#include "core/version_range.h"

#include <stdint.h>
#include <string.h>

enum { PARTS = 4, COMPARISONS = 4, PART_MAX = 999999999 };

/* Behind the numbers, or NULL when there is none. */
static const char *read_version(const char *p, uint32_t ret[PARTS])
{
    memset(ret, 0, PARTS * sizeof *ret);
    for (int i = 0; i < PARTS; i++) {
        const char *start = p;
        for (; *p >= '0' && *p <= '9'; p++) {
            ret[i] = ret[i] * 10 + (uint32_t)(*p - '0');
            if (ret[i] > PART_MAX || p - start > 8)
                return NULL;
        }
        if (p == start)
            return NULL;
        if (i == PARTS - 1 || *p != '.')
            break;
        p++;
    }
    return p;
}

static int compare(const uint32_t a[PARTS], const uint32_t b[PARTS])
{
    for (int i = 0; i < PARTS; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return 0;
}

/* Reads one comparison; *ret_holds says whether `version` (NULL: only parse) satisfies it. */
static const char *read_comparison(const char *p, const uint32_t *version, int *ret_holds)
{
    uint32_t bound[PARTS];
    int less = *p == '<', greater = *p == '>', equal = *p == '=';

    if (!less && !greater && !equal)
        return NULL;
    p++;
    if (!equal && *p == '=') {
        equal = 1;
        p++;
    }
    p = read_version(p, bound);
    if (p == NULL || version == NULL)
        return p;
    int c = compare(version, bound);
    *ret_holds = (c < 0 && less) || (c > 0 && greater) || (c == 0 && equal);
    return p;
}

static int walk(const char *range, const uint32_t *version)
{
    const char *p = range;

    if (*p == '\0')
        return 1;
    for (int i = 0; i < COMPARISONS; i++) {
        int holds = 1;
        p = read_comparison(p, version, &holds);
        if (p == NULL || !holds)
            return 0;
        if (*p == '\0')
            return 1;
        if (*p++ != ' ')
            return 0;
    }
    return 0;
}

int xi_version_range_valid(const char *range)
{
    return walk(range, NULL);
}

int xi_version_range_match(const char *range, const char *version)
{
    uint32_t v[PARTS];

    if (read_version(version, v) == NULL)
        return 0;
    return walk(range, v);
}
