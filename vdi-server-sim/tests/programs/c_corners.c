/*
 * What real programs do to the C interface, and few tests: they fork, have a standard error that no process reads, wait as
 * long as a number can say, and read data after they closed the set.
 *
 *     c_corners fork SET     backs up, while forks use what they inherited and end
 *     c_corners held SET     closes and frees a set whose data it still reads; the BACKUP fails
 *     c_corners waits        time-outs at the ends of their type
 *     c_corners deaf         with VDI_LOG and a standard error that no process reads
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vdi_c.h"

static int surprises;

static void expect(const char *what, int32_t wanted, int32_t status)
{
    if (status == wanted)
        return;
    printf("SURPRISE: %s: %s, not %s: %s\n", what, vdi_error_name(status), vdi_error_name(wanted), vdi_last_error_text());
    fflush(stdout);
    surprises++;
}

#define EXPECT(wanted, call) expect(#call, (wanted), (call))

static vdi_set *create(const char *name)
{
    vdi_config config = {0};
    vdi_set *set;

    config.device_count = 1;
    EXPECT(0, vdi_set_create(NULL, name, &config, &set));
    puts("ready");
    fflush(stdout);
    return set;
}

static uint64_t size_of(const vdi_command *command)
{
    return command->code == VDC_WRITE || command->code == VDC_READ ? (uint32_t)command->size : 0;
}

/* A fork does everything to what it inherited, and ends by exit. */
static void in_a_fork(vdi_set *set, vdi_device *device, const vdi_command *held)
{
    vdi_config config = {0};
    vdi_command command;
    vdi_device *opened;
    vdi_mapped *mapped;
    vdi_set *own;
    const char *name;
    uint32_t handle;
    int status = -1;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(60);
        surprises = 0;
        EXPECT(VD_E_INVALID, vdi_set_get_configuration(set, 0, &config));
        if (strstr(vdi_last_error_text(), "fork") == NULL) {
            printf("SURPRISE: nothing about a fork: %s\n", vdi_last_error_text());
            surprises++;
        }
        EXPECT(VD_E_INVALID, vdi_set_open_device(set, "fork", &opened));
        EXPECT(VD_E_INVALID, vdi_set_map_buffer_handle(set, 1, &mapped));
        EXPECT(VD_E_INVALID, vdi_set_map_buffer_handle_sized(set, 1, 1, &mapped));
        EXPECT(VD_E_INVALID, vdi_device_name(device, &name));
        EXPECT(VD_E_INVALID, vdi_device_get_command(device, 0, &command));
        if (held != NULL) {
            EXPECT(VD_E_INVALID, vdi_set_get_buffer_handle(set, held->data, &handle));
            EXPECT(VD_E_INVALID, vdi_device_complete_command(device, held->id, 0, size_of(held), 0));
        }
        EXPECT(VD_E_INVALID, vdi_device_free(device));
        EXPECT(VD_E_INVALID, vdi_set_signal_abort(set));
        EXPECT(VD_E_INVALID, vdi_set_close(set));
        EXPECT(VD_E_INVALID, vdi_set_free(set));
        /* What it makes itself is its own. */
        config.device_count = 1;
        EXPECT(0, vdi_set_create(NULL, "of the fork", &config, &own));
        EXPECT(VD_E_TIMEOUT, vdi_set_get_configuration(own, 0, &config));
        EXPECT(0, vdi_set_free(own));
        exit(surprises);
    }
    waitpid(child, &status, 0);
    expect("what the fork ended with", 0, status);
}

static void forks(const char *name)
{
    vdi_set *set = create(name);
    vdi_config config;
    vdi_device *device = NULL;
    vdi_command command;
    int32_t status;
    int forked = 0;

    in_a_fork(set, NULL, NULL);
    EXPECT(0, vdi_set_get_configuration(set, INT64_MAX, &config));
    EXPECT(0, vdi_set_open_device(set, name, &device));
    while ((status = vdi_device_get_command(device, INT64_MAX, &command)) == 0) {
        if (forked++ == 0)
            in_a_fork(set, device, &command);
        EXPECT(0, vdi_device_complete_command(device, command.id, 0, size_of(&command), 0));
    }
    expect("the device's end", VD_E_CLOSE, status);
    in_a_fork(set, device, NULL);
    EXPECT(0, vdi_device_free(device));
    EXPECT(0, vdi_set_close(set));
    EXPECT(0, vdi_set_free(set));
}

static uint64_t sum(const vdi_command *command)
{
    uint64_t total = 0, at;

    for (at = 0; at < size_of(command); at++)
        total += command->data[at];
    return total;
}

static void held(const char *name)
{
    vdi_set *set = create(name);
    vdi_config config;
    vdi_device *device = NULL;
    vdi_command command, other;
    const char *called = "";
    uint64_t before;

    EXPECT(0, vdi_set_get_configuration(set, INT64_MIN, &config));
    EXPECT(0, vdi_set_open_device(set, name, &device));
    EXPECT(0, vdi_device_get_command(device, INT64_MIN, &command));
    EXPECT(0, vdi_device_name(device, &called));
    before = sum(&command);
    EXPECT(VD_E_OPEN, vdi_set_close(set));
    expect("the data after the close", 1, sum(&command) == before);
    EXPECT(0, vdi_set_free(set));
    expect("the data after the set was freed", 1, sum(&command) == before);
    EXPECT(VD_E_PROTOCOL, vdi_device_get_command(device, INT64_MAX, &other));
    expect("the name", 0, strcmp(called, name));
    EXPECT(0, vdi_device_free(device));
    EXPECT(VD_E_INVALID, vdi_device_complete_command(device, command.id, 0, size_of(&command), 0));
}

static vdi_set *waited_for;

static void *waits_for_long(void *how_long)
{
    vdi_config config;
    int32_t status = vdi_set_get_configuration(waited_for, *(int64_t *)how_long, &config);

    /* Whichever a thread sees first: that the close aborted the set, or that it is closed. */
    expect("a wait for ever", status == VD_E_ABORT ? VD_E_ABORT : VD_E_PROTOCOL, status);
    return NULL;
}

static void waits(void)
{
    static int64_t lengths[] = {INT64_MAX, INT64_MAX - 1, INT64_MAX / 1000, -1, INT64_MIN};
    size_t count = sizeof lengths / sizeof *lengths, at;
    pthread_t threads[sizeof lengths / sizeof *lengths];
    vdi_config config;

    waited_for = create("waits");
    EXPECT(VD_E_TIMEOUT, vdi_set_get_configuration(waited_for, 0, &config));
    for (at = 0; at < count; at++)
        pthread_create(&threads[at], NULL, waits_for_long, &lengths[at]);
    EXPECT(VD_E_TIMEOUT, vdi_set_get_configuration(waited_for, 100, &config));
    EXPECT(0, vdi_set_close(waited_for));
    for (at = 0; at < count; at++)
        pthread_join(threads[at], NULL);
    EXPECT(0, vdi_set_free(waited_for));
}

static void deaf(void)
{
    sigset_t set;
    int ends[2];

    signal(SIGPIPE, SIG_DFL);
    if (pipe(ends) != 0)
        exit(1);
    close(ends[0]);
    dup2(ends[1], 2);
    EXPECT(VD_E_INVALID, vdi_set_close(NULL));
    sigpending(&set);
    expect("whether a signal is pending", 0, sigismember(&set, SIGPIPE));
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    expect("whether it is blocked", 0, sigismember(&set, SIGPIPE));
    /* What the program itself has pending stays so. */
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    raise(SIGPIPE);
    EXPECT(VD_E_INVALID, vdi_set_close(NULL));
    sigpending(&set);
    expect("whether the program's own signal is pending", 1, sigismember(&set, SIGPIPE));
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "fork") == 0)
        forks(argv[2]);
    else if (argc == 3 && strcmp(argv[1], "held") == 0)
        held(argv[2]);
    else if (argc == 2 && strcmp(argv[1], "waits") == 0)
        waits();
    else if (argc == 2 && strcmp(argv[1], "deaf") == 0)
        deaf();
    else
        return 2;
    printf("%d surprises\n", surprises);
    return surprises == 0 ? 0 : 1;
}
