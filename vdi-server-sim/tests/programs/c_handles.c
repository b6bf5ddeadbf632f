/*
 * Buffer handles through the C interface: c_handles SET, then back a database up to SET.
 *
 * The process that gets the commands passes handles to another one, which has joined the set; it maps each buffer and sums
 * its bytes. Prints both sums. With VDI_LIBRARY in the environment, sets are made with SQL Server's library: there every
 * mapping needs a size, and a mapping is no lease.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vdi_c.h"

static uint64_t sum(const uint8_t *data, uint64_t size)
{
    uint64_t total = 0;
    while (size-- > 0)
        total += *data++;
    return total;
}

/* Ends the process with what the library says, unless the call returned what it should. */
static void expect(const char *what, int32_t wanted, int32_t status)
{
    if (status == wanted)
        return;
    fprintf(stderr, "%s: %s, not %s: %s\n", what, vdi_error_name(status), vdi_error_name(wanted), vdi_last_error_text());
    exit(1);
}

#define EXPECT(wanted, call) expect(#call, (wanted), (call))

static int by_library(void)
{
    return getenv("VDI_LIBRARY") != NULL;
}

/* Maps a buffer of `size` bytes in every way that there is, and leaves one mapping. */
static vdi_mapped *map(vdi_set *set, uint32_t handle, uint64_t size)
{
    vdi_mapped *mapped, *again;
    uint64_t bytes;
    void *data;

    if (by_library()) {
        EXPECT(VD_E_NOTSUPPORTED, vdi_set_map_buffer_handle(set, handle, &mapped));
    } else {
        EXPECT(0, vdi_set_map_buffer_handle(set, handle, &mapped));
        EXPECT(VD_E_BUSY, vdi_set_map_buffer_handle(set, handle, &again));
        EXPECT(0, vdi_mapped_data(mapped, &data, &bytes));
        if (bytes < size)
            exit(1);
        EXPECT(0, vdi_mapped_release(mapped));
    }
    /* More than any buffer has. */
    EXPECT(VD_E_INVALID, vdi_set_map_buffer_handle_sized(set, handle, UINT64_MAX, &mapped));
    EXPECT(0, vdi_set_map_buffer_handle_sized(set, handle, size, &mapped));
    EXPECT(VD_E_BUSY, vdi_set_map_buffer_handle_sized(set, handle, size, &again));
    EXPECT(VD_E_INVALID, vdi_mapped_data(mapped, NULL, &bytes));
    EXPECT(0, vdi_mapped_data(mapped, &data, NULL));
    EXPECT(0, vdi_mapped_data(mapped, &data, &bytes));
    if (bytes != size)
        exit(1);
    return mapped;
}

/* Maps the buffer of each handle that comes, and answers with the sum; a second line for each ends the mapping. */
static int worker(const char *name)
{
    vdi_set *set;
    vdi_mapped *mapped;
    unsigned int handle;
    unsigned long long size;
    void *data;

    EXPECT(0, vdi_set_open_in_secondary(NULL, name, &set));
    EXPECT(VD_E_INVALID, vdi_set_map_buffer_handle_sized(set, 0x12345678, 512, &mapped));
    while (scanf("%u %llu", &handle, &size) == 2) {
        mapped = map(set, handle, size);
        EXPECT(0, vdi_mapped_data(mapped, &data, NULL));
        printf("%llu\n", (unsigned long long)sum(data, size));
        fflush(stdout);
        if (scanf("%u", &handle) != 1)
            return 1;
        EXPECT(0, vdi_mapped_release(mapped));
        EXPECT(VD_E_INVALID, vdi_mapped_release(mapped));
        puts("released");
        fflush(stdout);
    }
    EXPECT(0, vdi_set_close(set));
    EXPECT(0, vdi_set_free(set));
    return 0;
}

/* Starts a worker with a pipe each way. */
static pid_t start(char *program, char *name, FILE **requests, FILE **answers)
{
    int to[2], from[2];
    pid_t pid;

    if (pipe(to) != 0 || pipe(from) != 0 || (pid = fork()) < 0)
        exit(1);
    if (pid == 0) {
        char worker_argument[] = "worker";
        char *arguments[] = {program, worker_argument, name, NULL};
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[1]);
        close(from[0]);
        execv(program, arguments);
        _exit(1);
    }
    close(to[0]);
    close(from[1]);
    *requests = fdopen(to[1], "w");
    *answers = fdopen(from[0], "r");
    return pid;
}

static int primary(char *program, char *name)
{
    vdi_config config = {0};
    vdi_set *set;
    vdi_device *device;
    vdi_command command;
    FILE *requests, *answers;
    uint64_t here = 0, there = 0;
    unsigned long long answer;
    char line[64];
    uint32_t handle;
    int status;
    pid_t pid;

    config.device_count = 1;
    config.prefix_zone_size = 32;
    EXPECT(0, vdi_set_create(NULL, name, &config, &set));
    puts("ready");
    fflush(stdout);
    EXPECT(0, vdi_set_get_configuration(set, -1, &config));
    pid = start(program, name, &requests, &answers);
    EXPECT(0, vdi_set_open_device(set, name, &device));
    while ((status = vdi_device_get_command(device, -1, &command)) == 0) {
        uint64_t size = command.code == VDC_WRITE ? (uint32_t)command.size : 0;
        if (size > 0) {
            if (command.prefix_size != 32 || command.prefix + 32 != command.data)
                return 1;
            memset(command.prefix, 7, command.prefix_size);
            here += sum(command.data, size);
            EXPECT(0, vdi_set_get_buffer_handle(set, command.data, &handle));
            fprintf(requests, "%u %llu\n", handle, (unsigned long long)size);
            fflush(requests);
            if (fscanf(answers, "%llu", &answer) != 1)
                return 1;
            there += answer;
            if (!by_library())
                EXPECT(VD_E_BUSY, vdi_device_complete_command(device, command.id, 0, size, 0));
            fprintf(requests, "0\n");
            fflush(requests);
            if (fscanf(answers, "%63s", line) != 1)
                return 1;
        }
        EXPECT(0, vdi_device_complete_command(device, command.id, 0, size, 0));
    }
    expect("the last vdi_device_get_command", VD_E_CLOSE, status);
    EXPECT(0, vdi_device_free(device));
    fclose(requests);
    fclose(answers);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        return 1;
    EXPECT(0, vdi_set_close(set));
    EXPECT(0, vdi_set_free(set));
    printf("here %llu there %llu\n", (unsigned long long)here, (unsigned long long)there);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "worker") == 0)
        return worker(argv[2]);
    return argc == 2 ? primary(argv[0], argv[1]) : 2;
}
