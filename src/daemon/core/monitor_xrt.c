/* Xilinx cards and boards, from the nodes that XRT's own tools read: no library of the vendor's
 * runs in the daemon for it.
 *
 *   /sys/bus/pci/drivers/xocl/0000:65:00.1/xmc.m.N/{xmc_fpga_temp,xmc_power}   °C, µW
 *   /sys/bus/pci/drivers/xocl/0000:65:00.1/rom.m.N/VBNV                        the card's name
 *   /sys/class/fpga_manager/fpga0/{name,state}                                 Zynq, Kria */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "daemon/core/monitor_source.h"

#define XOCL "/sys/bus/pci/drivers/xocl"

static unsigned cards(const struct xi_sense *in, char names[XI_SENSE_DIRS][64])
{
    unsigned n = xi_sense_dir(in, XOCL, ":", names), kept = 0;

    for (unsigned i = 0; i < n; i++)
        if (strchr(names[i], '.') != NULL)
            memmove(names[kept++], names[i], sizeof names[i]);
    return kept;
}

/* A file of one of the card's parts ("xmc.m.4194304"). */
static const char *part(struct xi_sense *in, const char *card, const char *which, const char *file)
{
    char base[128], path[288], names[XI_SENSE_DIRS][64];

    (void)snprintf(base, sizeof base, XOCL "/%s", card);
    unsigned n = xi_sense_dir(in, base, which, names);
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(path, sizeof path, "%s/%s/%s", base, names[i], file);
        const char *text =
            strncmp(names[i], which, strlen(which)) == 0 ? xi_sense_text(in, path) : NULL;
        if (text != NULL)
            return text;
    }
    return NULL;
}

static void copy_name(struct xi_monitored *d, const char *name, const char *otherwise)
{
    (void)snprintf(d->name, sizeof d->name, "%s", name != NULL ? name : otherwise);
    for (char *p = d->name; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            *p = '?';
}

static int read_board(struct xi_sense *in)
{
    const char *name = xi_sense_text(in, "/sys/class/fpga_manager/fpga0/name");
    struct xi_monitored *d;

    if (name == NULL || strncmp(name, "Xilinx", 6) != 0)
        return 0;
    d = xi_sense_add(in, XI_DEV_FPGA, "xrt");
    if (d != NULL)
        copy_name(d, name, "");
    return 1;
}

static int read_xrt(struct xi_sense *in, void *state)
{
    char names[XI_SENSE_DIRS][64];
    unsigned n = cards(in, names);

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        struct xi_monitored *d = xi_sense_add(in, XI_DEV_FPGA, "xrt");
        if (d == NULL)
            break;
        copy_name(d, part(in, names[i], "rom", "VBNV"), names[i]);
        d->celsius = xi_number_or_unknown(part(in, names[i], "xmc", "xmc_fpga_temp"), 1, 1, 150);
        d->power_w = xi_number_or_unknown(part(in, names[i], "xmc", "xmc_power"), 1e-6, 0, 2000);
    }
    return read_board(in) + (n > 0) > 0;
}

static int probe_xrt(struct xi_sense *in, void *state)
{
    char names[XI_SENSE_DIRS][64];
    const char *name = xi_sense_text(in, "/sys/class/fpga_manager/fpga0/name");

    (void)state;
    return (name != NULL && strncmp(name, "Xilinx", 6) == 0) || cards(in, names) > 0;
}

const struct xi_source xi_source_xrt = {.name = "xrt",
                                        .needs = "a Xilinx card (driver xocl) or FPGA manager",
                                        .state_bytes = 1,
                                        .probe = probe_xrt,
                                        .read = read_xrt};
