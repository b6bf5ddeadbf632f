/*
 * Uses the C interface wrongly in every way that it promises to refuse, and prints what each call returned.
 *
 *     c_misuse storm          without any set: every function with NULL, foreign and impossible arguments
 *     c_misuse session SET    with a set that a BACKUP statement uses: wrong order, twice, from other threads, freed
 *     c_misuse threads        sets that several threads wait with, close and free at the same time
 */
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vdi_c.h"

/* Prints a call and the name of what it returned; a call that fails must leave a text that names its function. */
#define SHOW(call) show(#call, (call))

static void show(const char *call, int32_t status)
{
    const char *text = vdi_last_error_text();
    const char *function = call + strspn(call, "(");
    size_t length = strcspn(function, "(");

    printf("%s: %s\n", call, vdi_error_name(status));
    if (status != 0 && (vdi_last_error_code() != status || strncmp(text, function, length) != 0
                        || strstr(text, vdi_error_name(status)) == NULL))
        printf("but the last error is %d: %s\n", vdi_last_error_code(), text);
    fflush(stdout);
}

/* A string behind which no memory can be read. */
static const char *at_the_edge(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE) != 0)
        exit(1);
    return strcpy(pages + page - sizeof "edge", "edge");
}

/* Every function with these as its objects. */
static void every_function(vdi_set *set, vdi_device *device, vdi_mapped *mapped)
{
    vdi_config config;
    vdi_command command;
    vdi_device *opened;
    vdi_mapped *lease;
    const char *name;
    void *data;
    uint64_t size;
    uint32_t handle;

    SHOW(vdi_set_get_configuration(set, 0, &config));
    SHOW(vdi_set_open_device(set, "name", &opened));
    SHOW(vdi_set_get_buffer_handle(set, &handle, &handle));
    SHOW(vdi_set_map_buffer_handle(set, 1, &lease));
    SHOW(vdi_set_map_buffer_handle_sized(set, 1, 1, &lease));
    SHOW(vdi_set_signal_abort(set));
    SHOW(vdi_set_close(set));
    SHOW(vdi_set_free(set));
    SHOW(vdi_device_name(device, &name));
    SHOW(vdi_device_get_command(device, 0, &command));
    SHOW(vdi_device_complete_command(device, 1, 0, 0, 0));
    SHOW(vdi_device_free(device));
    SHOW(vdi_mapped_data(mapped, &data, &size));
    SHOW(vdi_mapped_release(mapped));
}

static void storm(void)
{
    static char endless[1024];
    long memory[8] = {0};
    vdi_config config = {0};
    vdi_set *set = (vdi_set *)memory;

    printf("%s: %s, %d, '%s'\n", vdi_version(), vdi_error_name(12345), vdi_last_error_code(), vdi_last_error_text());
    memset(endless, 'x', sizeof endless);
    config.device_count = 1;

    SHOW(vdi_set_create(NULL, NULL, NULL, NULL));
    SHOW(vdi_set_create(NULL, NULL, &config, &set));
    printf("set is %s\n", set == NULL ? "NULL" : "something");
    SHOW(vdi_set_create(NULL, "name", NULL, &set));
    SHOW(vdi_set_create(NULL, "name", &config, NULL));
    SHOW(vdi_set_create(NULL, "", &config, &set));
    SHOW(vdi_set_create(NULL, "a\\b", &config, &set));
    SHOW(vdi_set_create(NULL, "\xff\xfe", &config, &set));
    SHOW(vdi_set_create(NULL, endless, &config, &set));
    SHOW(vdi_set_create("no instance!", "name", &config, &set));
    SHOW(vdi_set_create(endless, "name", &config, &set));
    config.device_count = 0;
    SHOW(vdi_set_create(NULL, "name", &config, &set));
    config.device_count = 1;
    config.features = 0xffffffff;
    SHOW(vdi_set_create(NULL, "name", &config, &set));
    SHOW(vdi_set_open_in_secondary(NULL, NULL, NULL));
    SHOW(vdi_set_open_in_secondary(NULL, NULL, &set));
    SHOW(vdi_set_open_in_secondary(NULL, "nobody's", &set));
    SHOW(vdi_set_open_in_secondary(NULL, at_the_edge(), &set));
    SHOW(vdi_set_open_in_secondary(NULL, "name", NULL));
    SHOW(vdi_set_open_in_secondary(NULL, endless, &set));

    puts("NULL objects");
    every_function(NULL, NULL, NULL);
    puts("foreign objects");
    every_function((vdi_set *)memory, (vdi_device *)(memory + 1), (vdi_mapped *)"text");
    puts("impossible objects");
    every_function((vdi_set *)1, (vdi_device *)-1, (vdi_mapped *)0x8000000000000000);

    puts("NULL results");
    SHOW(vdi_set_get_configuration(NULL, 0, NULL));
    SHOW(vdi_set_open_device(NULL, NULL, NULL));
    SHOW(vdi_set_get_buffer_handle(NULL, NULL, NULL));
    SHOW(vdi_set_map_buffer_handle(NULL, 0, NULL));
    SHOW(vdi_set_map_buffer_handle_sized(NULL, 0, 0, NULL));
    SHOW(vdi_device_name(NULL, NULL));
    SHOW(vdi_device_get_command(NULL, 0, NULL));
    SHOW(vdi_mapped_data(NULL, NULL, NULL));
}

static vdi_device *shared_device;
static vdi_command shared_command;
static int32_t shared_status;

static void *completes(void *nothing)
{
    SHOW(vdi_device_complete_command(shared_device, shared_command.id, 0, (uint32_t)shared_command.size, 0));
    return nothing;
}

/* Takes commands, and completes none, until there are no more to come. */
static void *takes(void *nothing)
{
    vdi_command command;

    while ((shared_status = vdi_device_get_command(shared_device, -1, &command)) == 0)
        ;
    return nothing;
}

static void session(const char *name)
{
    vdi_config config = {0}, agreed;
    vdi_set *set, *other;
    vdi_device *device, *again;
    vdi_command command;
    pthread_t thread;
    const char *text;
    uint32_t handle;

    config.device_count = 1;
    SHOW(vdi_set_create(NULL, name, &config, &set));
    SHOW(vdi_set_create("", name, &config, &other));
    SHOW(vdi_set_open_in_secondary(NULL, name, &other));
    SHOW(vdi_set_get_configuration(set, 0, &agreed));
    SHOW(vdi_set_open_device(set, name, &device));
    SHOW(vdi_set_get_buffer_handle(set, &handle, &handle));
    puts("ready");
    fflush(stdout);

    SHOW(vdi_set_get_configuration(set, -1, NULL));
    SHOW(vdi_set_get_configuration(set, -1, &agreed));
    SHOW(vdi_set_open_device(set, "another", &device));
    SHOW(vdi_set_open_device(set, NULL, &device));
    SHOW(vdi_set_open_device(set, name, NULL));
    SHOW(vdi_set_open_device(set, name, &device));
    SHOW(vdi_set_open_device(set, name, &again));
    SHOW(vdi_device_name(device, &text));
    printf("%s\n", text);
    SHOW(vdi_device_name((vdi_device *)set, &text));
    SHOW(vdi_set_close((vdi_set *)device));

    SHOW(vdi_device_get_command(device, -1, NULL));
    SHOW(vdi_device_get_command(device, -1, &command));
    SHOW(vdi_set_get_buffer_handle(set, command.data, &handle));
    SHOW(vdi_set_get_buffer_handle(set, command.data + 1, &handle));
    SHOW(vdi_set_get_buffer_handle(set, NULL, &handle));
    SHOW(vdi_device_complete_command(device, command.id, 0, (uint64_t)command.size + 1, 0));
    SHOW(vdi_device_complete_command(device, command.id, 0, UINT64_MAX, 0));
    SHOW(vdi_device_complete_command(device, command.id, 0, 0, 0));
    SHOW(vdi_device_complete_command(device, command.id + 77777, 0, 0, 0));
    shared_device = device;
    shared_command = command;
    pthread_create(&thread, NULL, completes, NULL);
    pthread_join(thread, NULL);
    SHOW(vdi_device_complete_command(device, command.id, 0, (uint32_t)command.size, 0));
    SHOW(vdi_set_get_buffer_handle(set, command.data, &handle));

    SHOW(vdi_device_get_command(device, -1, &command));
    pthread_create(&thread, NULL, takes, NULL);
    do {
        vdi_command taken;
        vdi_device_get_command(device, 0, &taken);
    } while (vdi_last_error_code() != VD_E_TIMEOUT || strstr(vdi_last_error_text(), "another thread") == NULL);
    SHOW(vdi_device_free(device));
    SHOW(vdi_set_signal_abort_because(set, VDI_ERROR_DISK_FULL, NULL));
    SHOW(vdi_set_signal_abort_because(set, VDI_ERROR_DISK_FULL, "\xff"));
    SHOW(vdi_set_signal_abort_because(NULL, VDI_ERROR_DISK_FULL, "the disk is full"));
    SHOW(vdi_set_signal_abort_because(set, VDI_ERROR_DISK_FULL, "the disk is full"));
    pthread_join(thread, NULL);
    printf("the other thread's wait: %s\n", vdi_error_name(shared_status));
    SHOW(vdi_device_get_command(device, -1, &command));
    SHOW(vdi_device_complete_command(device, command.id, 0, (uint32_t)command.size, 0));
    SHOW(vdi_device_complete_command(device, command.id, 0, (uint32_t)command.size, 0));
    SHOW(vdi_set_get_configuration(set, -1, &agreed));
    SHOW(vdi_set_close(set));
    SHOW(vdi_set_close(set));
    SHOW(vdi_set_get_configuration(set, -1, &agreed));
    SHOW(vdi_set_signal_abort(set));
    SHOW(vdi_device_get_command(device, -1, &command));
    SHOW(vdi_set_free(set));
    SHOW(vdi_set_free(set));
    SHOW(vdi_device_get_command(device, -1, &command));
    SHOW(vdi_device_free(device));
    puts("freed objects");
    every_function(set, device, (vdi_mapped *)set);
}

#define THREADS 4

static vdi_set *raced;
static int frees;

/* Waits with the set, closes it, and frees it, like all the others. */
static void *races(void *nothing)
{
    vdi_config config;
    int32_t status = vdi_set_get_configuration(raced, -1, &config);

    if (status != VD_E_PROTOCOL && status != VD_E_ABORT && status != VD_E_INVALID)
        printf("vdi_set_get_configuration: %s\n", vdi_last_error_text());
    vdi_set_signal_abort(raced);
    vdi_set_close(raced);
    if (vdi_set_free(raced) == 0)
        __atomic_fetch_add(&frees, 1, __ATOMIC_SEQ_CST);
    return nothing;
}

static void threads(void)
{
    vdi_config config = {0};
    pthread_t running[THREADS];
    int round, thread;

    config.device_count = 1;
    for (round = 0; round < 50; round++) {
        if (vdi_set_create(NULL, "raced", &config, &raced) != 0)
            printf("%s\n", vdi_last_error_text());
        frees = 0;
        for (thread = 0; thread < THREADS; thread++)
            pthread_create(&running[thread], NULL, races, NULL);
        if (round % 2 == 0)
            vdi_set_close(raced);
        else if (vdi_set_free(raced) == 0)
            __atomic_fetch_add(&frees, 1, __ATOMIC_SEQ_CST);
        for (thread = 0; thread < THREADS; thread++)
            pthread_join(running[thread], NULL);
        if (frees != 1)
            printf("freed %d times\n", frees);
    }
    puts("done");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "storm") == 0)
        storm();
    else if (argc == 2 && strcmp(argv[1], "threads") == 0)
        threads();
    else if (argc == 3 && strcmp(argv[1], "session") == 0)
        session(argv[2]);
    else
        return 2;
    return 0;
}
