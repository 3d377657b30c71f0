#include "base/name.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

static int is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

int xi_name_valid(const char *name)
{
    size_t n = 0;

    if (!is_alnum(name[0]))
        return 0;
    for (; name[n]; n++)
        if (n >= XI_NAME_MAX || (!is_alnum(name[n]) && strchr("._-", name[n]) == NULL))
            return 0;
    return n <= XI_NAME_MAX;
}

enum xi_rc xi_name_check(const char *name, const char *what, struct xi_err *err)
{
    if (xi_name_valid(name))
        return XI_OK;
    return xi_fail(err, XI_EINVAL,
                   "%s \"%.40s\" is not allowed: letters, digits, '.', '_' and '-', at most 128, "
                   "starting with a letter or digit",
                   what, name);
}

/* One dot-separated run of identifiers; numbers must not have leading zeros when strict. */
static const char *skip_identifiers(const char *p, int strict)
{
    for (;;) {
        const char *start = p;
        int digits_only = 1;
        for (; is_alnum(*p) || *p == '-'; p++)
            digits_only = digits_only && isdigit((unsigned char)*p);
        if (p == start || (strict && digits_only && *start == '0' && p - start > 1))
            return NULL;
        if (*p != '.')
            return p;
        p++;
    }
}

static const char *skip_number(const char *p)
{
    const char *start = p;

    while (isdigit((unsigned char)*p))
        p++;
    if (p == start || p - start > 9 || (*start == '0' && p - start > 1))
        return NULL;
    return p;
}

int xi_semver_valid(const char *text)
{
    const char *p = text;

    if (strlen(text) > 64)
        return 0;
    for (int i = 0; i < 3; i++) {
        p = skip_number(p);
        if (p == NULL || (i < 2 && *p++ != '.'))
            return 0;
    }
    if (*p == '-' && (p = skip_identifiers(p + 1, 1)) == NULL)
        return 0;
    if (*p == '+' && (p = skip_identifiers(p + 1, 0)) == NULL)
        return 0;
    return *p == '\0';
}

static int compare_identifier(const char *a, size_t an, const char *b, size_t bn)
{
    int a_number = strspn(a, "0123456789") >= an, b_number = strspn(b, "0123456789") >= bn;

    if (a_number != b_number)
        return a_number ? -1 : 1;
    if (a_number && an != bn)
        return an < bn ? -1 : 1;
    int c = strncmp(a, b, an < bn ? an : bn);
    return c != 0 ? c : (an > bn) - (an < bn);
}

static int compare_prerelease(const char *a, const char *b)
{
    if (*a != '-' || *b != '-')
        return (*a != '-') - (*b != '-');
    for (;;) {
        a++;
        b++;
        size_t an = strcspn(a, ".+"), bn = strcspn(b, ".+");
        int c = compare_identifier(a, an, b, bn);
        if (c != 0)
            return c;
        a += an;
        b += bn;
        if (*a != '.' || *b != '.')
            return (*a == '.') - (*b == '.');
    }
}

int xi_semver_compare(const char *a, const char *b)
{
    for (int i = 0; i < 3; i++) {
        char *a_end, *b_end;
        long x = strtol(a, &a_end, 10), y = strtol(b, &b_end, 10);
        if (x != y)
            return x < y ? -1 : 1;
        a = a_end + (i < 2);
        b = b_end + (i < 2);
    }
    return compare_prerelease(a, b);
}
