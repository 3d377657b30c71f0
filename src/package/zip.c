#include "package/zip.h"

#include <string.h>

#define ZIP64_LIMIT 0xffffffffull
enum {
    SIG_LOCAL = 0x04034b50,
    SIG_CENTRAL = 0x02014b50,
    SIG_END = 0x06054b50,
    SIG_END64 = 0x06064b50,
    SIG_LOCATOR = 0x07064b50,
    VERSION = 20,
    VERSION_64 = 45,
    MADE_BY_UNIX = 3 << 8,
    DATE_1980 = 0x0021,
    EXTRA_ZIP64 = 0x0001,
    EXTRA_ALIGN = 0xd935, /* the alignment field of Android's zipalign */
    EXTRA_HEAD = 4
};
#define PLAIN_FILE (0100644u << 16)

static void put16(struct xi_str *out, unsigned v)
{
    uint8_t b[2] = {(uint8_t)v, (uint8_t)(v >> 8)};

    xi_str_add(out, b, sizeof b);
}

static void put32(struct xi_str *out, uint32_t v)
{
    put16(out, v & 0xffff);
    put16(out, v >> 16);
}

static void put64(struct xi_str *out, uint64_t v)
{
    put32(out, (uint32_t)v);
    put32(out, (uint32_t)(v >> 32));
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) | get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static int is_large(const struct xi_zip_entry *entry)
{
    return entry->bytes >= ZIP64_LIMIT;
}

static int is_far(const struct xi_zip_entry *entry)
{
    return entry->header_offset >= ZIP64_LIMIT;
}

static uint32_t clip(uint64_t v)
{
    return v >= ZIP64_LIMIT ? 0xffffffffu : (uint32_t)v;
}

uint64_t xi_zip_place(struct xi_zip_entry *entry, uint64_t offset)
{
    /* the padding field holds at least its two bytes of alignment */
    uint64_t least = offset + XI_ZIP_LOCAL_FIXED + strlen(entry->path) +
                     (is_large(entry) ? EXTRA_HEAD + 16 : 0) + EXTRA_HEAD + 2;

    entry->header_offset = offset;
    entry->data_offset = (least + XI_ZIP_ALIGN - 1) / XI_ZIP_ALIGN * XI_ZIP_ALIGN;
    return entry->data_offset + entry->bytes;
}

static void put_zeros(struct xi_str *out, size_t n)
{
    char *dst = xi_str_reserve(out, n);

    if (dst == NULL)
        return;
    memset(dst, 0, n);
    out->len += n;
    out->data[out->len] = '\0';
}

void xi_zip_local(const struct xi_zip_entry *entry, struct xi_str *out)
{
    size_t name = strlen(entry->path), before = XI_ZIP_LOCAL_FIXED + name;
    unsigned extra = (unsigned)(entry->data_offset - entry->header_offset - before);
    int large = is_large(entry);

    put32(out, SIG_LOCAL);
    put16(out, large ? VERSION_64 : VERSION);
    put16(out, 0); /* flags */
    put16(out, 0); /* method: stored */
    put16(out, 0); /* time */
    put16(out, DATE_1980);
    put32(out, entry->crc);
    put32(out, clip(entry->bytes));
    put32(out, clip(entry->bytes));
    put16(out, (unsigned)name);
    put16(out, extra);
    xi_str_add(out, entry->path, name);
    if (large) {
        put16(out, EXTRA_ZIP64);
        put16(out, 16);
        put64(out, entry->bytes);
        put64(out, entry->bytes);
        extra -= EXTRA_HEAD + 16;
    }
    put16(out, EXTRA_ALIGN);
    put16(out, extra - EXTRA_HEAD);
    put16(out, XI_ZIP_ALIGN);
    put_zeros(out, extra - EXTRA_HEAD - 2);
}

void xi_zip_central(const struct xi_zip_entry *entry, struct xi_str *out)
{
    int large = is_large(entry), far = is_far(entry);
    unsigned version = large || far ? VERSION_64 : VERSION;
    unsigned wide = (large ? 16u : 0u) + (far ? 8u : 0u);

    put32(out, SIG_CENTRAL);
    put16(out, MADE_BY_UNIX | version);
    put16(out, version);
    put16(out, 0);
    put16(out, 0);
    put16(out, 0);
    put16(out, DATE_1980);
    put32(out, entry->crc);
    put32(out, clip(entry->bytes));
    put32(out, clip(entry->bytes));
    put16(out, (unsigned)strlen(entry->path));
    put16(out, wide ? EXTRA_HEAD + wide : 0);
    put16(out, 0); /* comment */
    put16(out, 0); /* disk */
    put16(out, 0); /* internal attributes */
    put32(out, PLAIN_FILE);
    put32(out, clip(entry->header_offset));
    xi_str_puts(out, entry->path);
    if (wide) {
        put16(out, EXTRA_ZIP64);
        put16(out, wide);
    }
    if (large) {
        put64(out, entry->bytes);
        put64(out, entry->bytes);
    }
    if (far)
        put64(out, entry->header_offset);
}

static void put_end64(size_t entries, uint64_t offset, uint64_t bytes, struct xi_str *out)
{
    put32(out, SIG_END64);
    put64(out, XI_ZIP_END64_BYTES - 12);
    put16(out, MADE_BY_UNIX | VERSION_64);
    put16(out, VERSION_64);
    put32(out, 0);
    put32(out, 0);
    put64(out, entries);
    put64(out, entries);
    put64(out, bytes);
    put64(out, offset);
    put32(out, SIG_LOCATOR);
    put32(out, 0);
    put64(out, offset + bytes);
    put32(out, 1);
}

void xi_zip_end(size_t entries, uint64_t directory_offset, uint64_t directory_bytes,
                struct xi_str *out)
{
    if (directory_offset >= ZIP64_LIMIT)
        put_end64(entries, directory_offset, directory_bytes, out);
    put32(out, SIG_END);
    put16(out, 0);
    put16(out, 0);
    put16(out, (unsigned)entries);
    put16(out, (unsigned)entries);
    put32(out, (uint32_t)directory_bytes);
    put32(out, clip(directory_offset));
    put16(out, 0); /* comment */
}

size_t xi_zip_read_central(const uint8_t *data, size_t bytes, struct xi_zip_claim *ret)
{
    if (bytes < XI_ZIP_CENTRAL_FIXED || get32(data) != SIG_CENTRAL)
        return 0;
    size_t name = get16(data + 28), extra = get16(data + 30), comment = get16(data + 32);
    size_t total = XI_ZIP_CENTRAL_FIXED + name + extra + comment;
    if (total > bytes)
        return 0;
    *ret = (struct xi_zip_claim){.name = (const char *)data + XI_ZIP_CENTRAL_FIXED,
                                 .name_bytes = name,
                                 .crc = get32(data + 16),
                                 .bytes = get32(data + 24)};
    const uint8_t *wide = data + XI_ZIP_CENTRAL_FIXED + name;
    if (ret->bytes == ZIP64_LIMIT && extra >= EXTRA_HEAD + 16 && get16(wide) == EXTRA_ZIP64)
        ret->bytes = get64(wide + EXTRA_HEAD);
    return total;
}

enum xi_rc xi_zip_read_end(const uint8_t *tail, size_t bytes, struct xi_zip_directory *ret,
                           struct xi_err *err)
{
    enum { ALL = XI_ZIP_END64_BYTES + XI_ZIP_LOCATOR_BYTES + XI_ZIP_END_BYTES };
    const uint8_t *end = tail + bytes - XI_ZIP_END_BYTES;

    if (bytes < XI_ZIP_END_BYTES || get32(end) != SIG_END) {
        (void)xi_fail(err, XI_EPACKAGE,
                      "archive: does not close with a ZIP end record (cut short, bytes behind it, "
                      "or no package)");
        return xi_hint(err, "fetch the file again, or make it with \"xinfer pack\""), XI_EPACKAGE;
    }
    *ret = (struct xi_zip_directory){.entries = get16(end + 10),
                                     .bytes = get32(end + 12),
                                     .offset = get32(end + 16),
                                     .end_bytes = XI_ZIP_END_BYTES};
    if (ret->offset < ZIP64_LIMIT)
        return XI_OK;
    const uint8_t *end64 = tail + bytes - ALL;
    if (bytes < ALL || get32(end64) != SIG_END64)
        return xi_fail(err, XI_EPACKAGE, "archive: the zip64 end record is missing");
    ret->offset = get64(end64 + 48);
    ret->end_bytes = ALL;
    return XI_OK;
}

struct field {
    uint8_t offset, bytes;
    const char *name;
};

/* In the order in which they are told: what matters most to a reader first. */
static const struct field central_fields[] = {
    {0, 4, "signature"},
    {10, 2, "compression method (entries are stored)"},
    {8, 2, "flags"},
    {38, 4, "attributes (entries are plain files)"},
    {20, 4, "compressed size"},
    {24, 4, "size"},
    {42, 4, "offset of the local header"},
    {12, 4, "time stamp"},
    {28, 2, "length of the name"},
    {30, 2, "length of the extra field"},
    {32, 2, "length of the comment"},
    {34, 2, "disk number"},
    {36, 2, "internal attributes"},
    {6, 2, "version needed"},
    {4, 2, "version made by"},
    {16, 4, "CRC-32"},
};
static const struct field local_fields[] = {
    {0, 4, "signature"},
    {8, 2, "compression method (entries are stored)"},
    {6, 2, "flags"},
    {18, 4, "compressed size"},
    {22, 4, "size"},
    {14, 4, "CRC-32"},
    {10, 4, "time stamp"},
    {26, 2, "length of the name"},
    {28, 2, "length of the extra field"},
    {4, 2, "version needed"},
};

static uint32_t value_of(const struct field *f, const uint8_t *record)
{
    return f->bytes == 2 ? get16(record + f->offset) : get32(record + f->offset);
}

enum xi_rc xi_zip_refuse(enum xi_zip_part part, const char *path, const struct xi_str *want,
                         const uint8_t *got, struct xi_err *err)
{
    int local = part == XI_ZIP_LOCAL;
    const char *where = local ? "local header" : "directory";
    const struct field *fields = local ? local_fields : central_fields;
    size_t n =
        local ? sizeof local_fields / sizeof *fields : sizeof central_fields / sizeof *fields;
    const uint8_t *right = (const uint8_t *)want->data;
    size_t fixed = local ? XI_ZIP_LOCAL_FIXED : XI_ZIP_CENTRAL_FIXED, name = strlen(path);

    for (size_t i = 0; i < n; i++)
        if (memcmp(right + fields[i].offset, got + fields[i].offset, fields[i].bytes) != 0) {
            (void)xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": %s: %s is %u, must be %u", path,
                          where, fields[i].name, (unsigned)value_of(&fields[i], got),
                          (unsigned)value_of(&fields[i], right));
            goto out;
        }
    if (memcmp(right + fixed, got + fixed, name) != 0)
        (void)xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": %s: the name differs", path, where);
    else
        (void)xi_fail(err, XI_EPACKAGE, "entry \"%.70s\": %s: the extra field differs", path,
                      where);
out:
    (void)xi_hint(err, "a package is a canonical archive: make it with \"xinfer pack\"");
    return XI_EPACKAGE;
}
