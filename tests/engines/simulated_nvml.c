/* A stand-in for libnvidia-ml.so.1, simulated: two GPUs whose figures come from the environment
 * variable XI_SIMULATED_NVML: "plain", "lying", "lost" (the driver went away), "hung". Where the
 * file gpu0_memory ("TOTAL USED", bytes) lies beside it, that is the first one's memory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NVML_API __attribute__((visibility("default")))

struct utilization {
    unsigned gpu, memory;
};

struct memory {
    unsigned long long total, free, used;
};

NVML_API int nvmlInit_v2(void);
NVML_API int nvmlShutdown(void);
NVML_API int nvmlDeviceGetCount_v2(unsigned *n);
NVML_API int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device);
NVML_API int nvmlDeviceGetName(void *device, char *text, unsigned room);
NVML_API int nvmlDeviceGetUtilizationRates(void *device, struct utilization *u);
NVML_API int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius);
NVML_API int nvmlDeviceGetTemperatureThreshold(void *device, int which, unsigned *celsius);
NVML_API int nvmlDeviceGetPowerUsage(void *device, unsigned *mw);
NVML_API int nvmlDeviceGetClockInfo(void *device, int which, unsigned *mhz);
NVML_API int nvmlDeviceGetMemoryInfo(void *device, struct memory *m);
NVML_API int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons);

static int is(const char *mode)
{
    const char *now = getenv("XI_SIMULATED_NVML");

    return strcmp(now != NULL ? now : "plain", mode) == 0;
}

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    if (is("hung"))
        (void)usleep(1500000);
    *n = 2;
    return is("lost") ? 15 : 0;
}

static int number_of(const void *device)
{
    return *(const int *)device;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device)
{
    static int numbers[] = {0, 1};

    *device = &numbers[i % 2];
    return 0;
}

int nvmlDeviceGetName(void *device, char *text, unsigned room)
{
    (void)snprintf(text, room, "Simulated GPU %d", number_of(device));
    return 0;
}

int nvmlDeviceGetUtilizationRates(void *device, struct utilization *u)
{
    *u = (struct utilization){number_of(device) ? 0 : 64, 10};
    if (is("lying"))
        u->gpu = 429496;
    return 0;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius)
{
    *celsius = is("lying") ? 4294967295u : number_of(device) ? 38 : 71;
    return sensor == 0 ? 0 : 2;
}

int nvmlDeviceGetTemperatureThreshold(void *device, int which, unsigned *celsius)
{
    (void)device;
    *celsius = which == 1 ? 90 : 95;
    return 0;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *mw)
{
    *mw = 215500;
    return number_of(device) ? 3 : 0; /* not supported by the second */
}

int nvmlDeviceGetClockInfo(void *device, int which, unsigned *mhz)
{
    (void)device;
    *mhz = which == 1 ? 1755 : 1;
    return 0;
}

static void read_memory(struct memory *m)
{
    char path[4096];
    Dl_info self;
    FILE *f;

    if (dladdr((void *)(uintptr_t)nvmlInit_v2, &self) == 0)
        return;
    (void)snprintf(path, sizeof path, "%.*sgpu0_memory",
                   (int)(strrchr(self.dli_fname, '/') + 1 - self.dli_fname), self.dli_fname);
    f = fopen(path, "r");
    if (f == NULL)
        return;
    if (fscanf(f, "%llu %llu", &m->total, &m->used) == 2)
        m->free = m->total - m->used;
    (void)fclose(f);
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *m)
{
    *m = (struct memory){8ull << 30, 6ull << 30, 2ull << 30};
    read_memory(m);
    if (is("lying"))
        m->used = ~0ull;
    return number_of(device) ? 3 : 0;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons)
{
    *reasons = number_of(device) ? 1 : 0x24;
    return 0;
}
