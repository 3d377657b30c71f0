#include "package/path.h"

#include <stdlib.h>
#include <string.h>

static int is_path_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("._+-", c) != NULL);
}

static int fold(char c)
{
    if (c == '/')
        return 1; /* lowest, so that a folder's files follow right behind its own name */
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : (unsigned char)c;
}

static int equal_folded(const char *text, size_t n, const char *lower)
{
    size_t i = 0;

    for (; i < n && lower[i]; i++)
        if (fold(text[i]) != lower[i])
            return 0;
    return i == n && lower[i] == '\0';
}

/* "con", "nul.txt" and friends open a device on some desktops. */
static int is_reserved(const char *segment, size_t n)
{
    static const char *const names[] = {"con", "prn", "aux", "nul", NULL};
    size_t stem = 0;

    while (stem < n && segment[stem] != '.')
        stem++;
    for (size_t i = 0; names[i] != NULL; i++)
        if (equal_folded(segment, stem, names[i]))
            return 1;
    return stem == 4 && segment[3] >= '0' && segment[3] <= '9' &&
           (equal_folded(segment, 3, "com") || equal_folded(segment, 3, "lpt"));
}

static const char *broken_segment_rule(const char *segment, size_t n)
{
    if (n == 0)
        return "has an empty part (absolute path or double slash)";
    if (segment[0] == '.')
        return n == 2 && segment[1] == '.' ? "has a \"..\" that leads out of the package"
                                           : "has a part that starts with '.'";
    if (segment[n - 1] == '.')
        return "has a part that ends with '.'";
    if (is_reserved(segment, n))
        return "has a part that is a device name on some systems";
    return NULL;
}

static const char *broken_char_rule(char c)
{
    if (c == '\\')
        return "has a backslash";
    if (c == ':')
        return "has a colon (drive letter)";
    if ((unsigned char)c < 0x20 || c == 0x7f)
        return "has a control character";
    return "has a character outside A-Z a-z 0-9 . _ + - /";
}

static const char *broken_rule(const char *path, size_t bytes)
{
    size_t start = 0;

    if (bytes == 0)
        return "is empty";
    if (bytes > XI_PACKAGE_PATH_MAX)
        return "is longer than 255 bytes";
    for (size_t i = 0; i < bytes; i++)
        if (path[i] != '/' && !is_path_char(path[i]))
            return broken_char_rule(path[i]);
    for (size_t i = 0; i <= bytes; i++) {
        if (i < bytes && path[i] != '/')
            continue;
        const char *rule = broken_segment_rule(path + start, i - start);
        if (rule != NULL)
            return rule;
        start = i + 1;
    }
    return NULL;
}

enum xi_rc xi_package_path_check(const char *path, size_t bytes, struct xi_err *err)
{
    const char *rule = broken_rule(path, bytes);

    if (rule == NULL)
        return XI_OK;
    return xi_fail(err, XI_EPACKAGE, "entry \"%.*s\": its path %s", (int)(bytes < 80 ? bytes : 80),
                   path, rule);
}

enum xi_rc xi_package_place_check(const char *path, struct xi_err *err)
{
    static const char *const files[] = {"manifest.json", "signature.json", "flow.json", "flow.lua"};

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(path, files[i]) == 0)
            return XI_OK;
    if (strncmp(path, "variants/", 9) == 0 || strncmp(path, "assets/", 7) == 0)
        return XI_OK;
    return xi_fail(err, XI_EPACKAGE,
                   "entry \"%.80s\": belongs nowhere (manifest.json, flow.json, flow.lua, "
                   "signature.json, variants/, assets/)",
                   path);
}

static int compare_folded(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;

    while (*x && fold(*x) == fold(*y)) {
        x++;
        y++;
    }
    return fold(*x) - fold(*y);
}

/* a sorts right before b: do they clash? */
static enum xi_rc check_neighbours(const char *a, const char *b, struct xi_err *err)
{
    size_t same = 0, folder = 0;

    for (; a[same] && fold(a[same]) == fold(b[same]); same++)
        if (a[same] == '/')
            folder = same;
    if (a[same] == '\0' && b[same] == '\0')
        return xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": %s \"%.70s\"", b,
                       strcmp(a, b) == 0 ? "appears twice, as"
                                         : "differs only in the case of letters from",
                       a);
    if (a[same] == '\0' && b[same] == '/')
        return xi_fail(err, XI_EPACKAGE,
                       "entry \"%.70s\": needs a folder where \"%.70s\" is a file", b, a);
    if (memcmp(a, b, folder) != 0)
        return xi_fail(err, XI_EPACKAGE,
                       "entry \"%.70s\": its folder differs only in the case of letters from that "
                       "of \"%.70s\"",
                       b, a);
    return XI_OK;
}

enum xi_rc xi_package_paths_check(const char **paths, size_t n, struct xi_err *err)
{
    qsort(paths, n, sizeof *paths, compare_folded);
    for (size_t i = 1; i < n; i++) {
        enum xi_rc rc = check_neighbours(paths[i - 1], paths[i], err);
        if (rc != XI_OK)
            return rc;
    }
    return XI_OK;
}

static int order_class(const char *path)
{
    if (strcmp(path, "manifest.json") == 0)
        return 0;
    return strcmp(path, "signature.json") == 0 ? 2 : 1;
}

int xi_package_path_order(const char *a, const char *b)
{
    int ca = order_class(a), cb = order_class(b);

    return ca != cb ? ca - cb : strcmp(a, b);
}

const char *xi_package_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

int xi_package_has_extension(const char *path, const char *ext)
{
    size_t n = strlen(path), m = strlen(ext);

    return n > m && equal_folded(path + n - m, m, ext);
}
