/* replay_main.c: runs a fuzz target over its corpus without a fuzzer: each seed as it is, cut short
 * at 64 places, and with 512 bytes changed one after the other (the same ones each time).
 *   fuzz_NAME FILE|DIRECTORY...
 * With clang: -DCMAKE_C_COMPILER=clang-14 -DXI_FUZZER=ON links libFuzzer's main instead. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SEED_MAX = 4 << 20, CUTS = 64, CHANGES = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An exact copy, so that a sanitizer sees a read behind it. */
static void run(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);

    if (copy == NULL)
        abort();
    memcpy(copy, data, n);
    (void)LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

static void run_variants(uint8_t *data, size_t n)
{
    uint32_t random = 12345;

    run(data, n);
    for (size_t i = 0; i < CUTS && n > 0; i++)
        run(data, n * i / CUTS);
    for (size_t i = 0; i < CHANGES && n > 0; i++) {
        random = random * 1664525 + 1013904223; /* Knuth's linear congruence */
        size_t at = (size_t)(random >> 8) % n;
        uint8_t kept = data[at];
        data[at] = (uint8_t)(i % 4 == 0 ? 0xff : i % 4 == 1 ? 0 : kept ^ (1u << (random >> 5 & 7)));
        run(data, n);
        data[at] = kept;
    }
}

static int run_file(const char *path)
{
    static uint8_t data[SEED_MAX];
    FILE *f = fopen(path, "rb");

    if (f == NULL)
        return 0;
    size_t n = fread(data, 1, sizeof data, f);
    (void)fclose(f);
    run_variants(data, n);
    return 1;
}

static int run_directory(const char *path)
{
    DIR *dir = opendir(path);
    int ran = 0;

    if (dir == NULL)
        return run_file(path);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char *file = NULL;
        if (e->d_name[0] == '.' || asprintf(&file, "%s/%s", path, e->d_name) < 0)
            continue;
        ran += run_file(file);
        free(file);
    }
    (void)closedir(dir);
    return ran;
}

int main(int argc, char **argv)
{
    int ran = 0;

    for (int i = 1; i < argc; i++)
        ran += run_directory(argv[i]);
    (void)printf("%d seeds\n", ran);
    return ran > 0 ? 0 : 1; /* a corpus that is missing must not look like success */
}
