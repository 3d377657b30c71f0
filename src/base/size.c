#include "base/size.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

int xi_size_parse(const char *text, uint64_t whole, uint64_t *ret)
{
    static const struct {
        const char *unit;
        uint64_t factor;
    } units[] = {{"", 1}, {"KiB", XI_KIB}, {"MiB", XI_MIB}, {"GiB", XI_GIB}};
    char *unit;

    if (text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    uint64_t n = strtoull(text, &unit, 10);
    if (errno != 0)
        return -1;
    unit += strspn(unit, " ");
    if (strcmp(unit, "%") == 0 && whole != 0 && n <= 100) {
        *ret = whole / 100 * n + whole % 100 * n / 100;
        return 0;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(unit, units[i].unit) == 0 && n <= UINT64_MAX / units[i].factor) {
            *ret = n * units[i].factor;
            return 0;
        }
    return -1;
}
