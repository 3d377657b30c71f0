#define _GNU_SOURCE
#include "daemon/core/variants.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/utsname.h>

#include "base/json.h"
#include "core/version_range.h"

struct search {
    const struct xi_package_record *record;
    const struct xi_load_options *options;
    const struct xi_engine_record *engines;
    uint32_t n_engines;
    char arch[65];
};

const char *xi_device_kind_name(uint32_t kind)
{
    static const char *const names[] = {"cpu", "gpu", "npu", "fpga"};

    return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "device";
}

static int has_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    const char *at = words;

    while ((at = strstr(at, word)) != NULL) {
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0'))
            return 1;
        at += n;
    }
    return 0;
}

static int device_is(const struct xi_engine_device *device, const char *wanted)
{
    return wanted[0] == '\0' || strcasecmp(wanted, "auto") == 0 ||
           strcasecmp(wanted, xi_device_kind_name(device->kind)) == 0 ||
           strcasecmp(wanted, device->id) == 0 || strcasestr(device->name, wanted) != NULL;
}

static int reads(const struct xi_engine_probe *probe, const char *format)
{
    uint32_t i;

    for (i = 0; i < probe->n_formats && i < XI_ENGINE_MAX_FORMATS; i++) {
        if (strcmp(probe->formats[i], format) == 0)
            return 1;
    }
    return 0;
}

static const struct xi_engine_record *find_engine(const struct search *s, const char *name,
                                                  uint32_t *ret)
{
    uint32_t i;

    for (i = 0; i < s->n_engines; i++) {
        if (strcmp(s->engines[i].name, name) == 0) {
            *ret = i;
            return &s->engines[i];
        }
    }
    return NULL;
}

/* "" when the engine would do, else why not. */
static void judge_engine(const struct xi_record_variant *v, const struct xi_engine_record *engine,
                         char *why, size_t bytes)
{
    why[0] = '\0';
    if (engine == NULL)
        (void)snprintf(why, bytes, "engine %s is not installed", v->engine);
    else if (!engine->present)
        (void)snprintf(why, bytes, "engine %s is not present: %s", v->engine, engine->why.msg);
    else if (!xi_version_range_match(v->engine_version, engine->probe.version))
        (void)snprintf(why, bytes, "wants %s %s, here is %s", v->engine, v->engine_version,
                       engine->probe.version);
    else if (!reads(&engine->probe, v->format))
        (void)snprintf(why, bytes, "%s does not read %s", v->engine, v->format);
}

static int find_device(const struct xi_engine_probe *probe, const char *of_package,
                       const char *of_options, uint32_t *ret)
{
    uint32_t i;

    for (i = 0; i < probe->n_devices && i < XI_ENGINE_MAX_DEVICES; i++) {
        if (device_is(&probe->devices[i], of_package) &&
            device_is(&probe->devices[i], of_options)) {
            *ret = i;
            return 1;
        }
    }
    return 0;
}

static int judge(const struct search *s, uint32_t index, struct xi_variant_choice *ret, char *why,
                 size_t bytes)
{
    const struct xi_record_variant *v = &s->record->variants[index];
    const struct xi_engine_record *engine;

    ret->variant = index;
    engine = find_engine(s, v->engine, &ret->engine);
    if (s->options->precision[0] != '\0' && strcmp(s->options->precision, v->precision) != 0) {
        (void)snprintf(why, bytes, "is %s, %s was asked for", v->precision, s->options->precision);
        return 0;
    }
    if (v->arch[0] != '\0' && !has_word(v->arch, s->arch)) {
        (void)snprintf(why, bytes, "is for %s, this is %s", v->arch, s->arch);
        return 0;
    }
    judge_engine(v, engine, why, bytes);
    if (why[0] != '\0')
        return 0;
    if (!find_device(&engine->probe, v->device, s->options->device, &ret->device)) {
        (void)snprintf(why, bytes, "%s has no device \"%s\"%s%s here", v->engine,
                       v->device[0] != '\0' ? v->device : s->options->device,
                       v->device[0] != '\0' ? " that is also " : "",
                       v->device[0] != '\0' ? s->options->device : "");
        return 0;
    }
    if (engine->probe.devices[ret->device].exclusive &&
        (s->options->isolation == XI_ISOLATE_SESSION ||
         s->options->isolation == XI_ISOLATE_TENANT)) {
        (void)snprintf(why, bytes,
                       "%s %s is exclusive, its sessions share one host; isolation %s "
                       "was asked for",
                       v->engine, engine->probe.devices[ret->device].id,
                       xi_isolation_name(s->options->isolation));
        return 0;
    }
    return 1;
}

static enum xi_rc unknown_variant(const struct xi_package_record *record,
                                  const struct xi_record_model *model, const char *id,
                                  struct xi_err *err)
{
    const char *known[XI_RECORD_VARIANTS_MAX + 1];
    const char *nearest;
    uint32_t i;

    for (i = 0; i < model->n_variants; i++)
        known[i] = record->variants[model->first_variant + i].id;
    known[i] = NULL;
    nearest = xi_nearest(id, known);
    (void)xi_fail(err, XI_ENOENT, "%s has no variant \"%s\"", record->name, id);
    return xi_hint(err, "%s%s", nearest != NULL ? "did you mean " : "its first is ",
                   nearest != NULL ? nearest : known[0]);
}

static void note(char *all, size_t bytes, const char *id, const char *why)
{
    size_t used = strlen(all);

    (void)snprintf(all + used, bytes - used, "%s%s: %s", used > 0 ? "; " : "", id, why);
}

enum xi_rc xi_variants_choose(const struct xi_package_record *record,
                              const struct xi_load_options *options,
                              const struct xi_engine_record *engines, uint32_t n_engines,
                              struct xi_variant_choice *ret, uint32_t *ret_n, struct xi_err *err)
{
    struct search s = {record, options, engines, n_engines, ""};
    const struct xi_record_model *model;
    struct utsname machine;
    char why[192], all[512] = "";
    uint32_t i, n = 0, named = 0;
    int at = xi_record_find_model(record, "main");

    if (at < 0 || record->models[at].n_variants == 0)
        return xi_fail(err, XI_EPACKAGE, "%s has no model \"main\" with a variant", record->name);
    model = &record->models[at];
    if (uname(&machine) == 0)
        (void)snprintf(s.arch, sizeof(s.arch), "%s", machine.machine);
    for (i = model->first_variant; i < model->first_variant + model->n_variants; i++) {
        const char *id = record->variants[i].id;

        if (options->variant[0] != '\0' && strcmp(options->variant, id) != 0)
            continue;
        named++;
        if (judge(&s, i, &ret[n], why, sizeof(why)))
            n++;
        else
            note(all, sizeof(all), id, why);
    }
    if (named == 0)
        return unknown_variant(record, model, options->variant, err);
    *ret_n = n;
    if (n > 0)
        return XI_OK;
    (void)xi_fail(err, XI_ENOENGINE, "no variant of %s runs here. %s", record->name, all);
    return xi_hint(err, "xinfer doctor shows which engines and devices are here");
}
