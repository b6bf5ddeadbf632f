/*
 * Eight threads call everything at random, with whatever objects there are or were: c_storm SET SEED, then send BACKUP
 * statements that name SET. Nothing but codes may come of it, and never VD_E_UNEXPECTED.
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vdi_c.h"

#define THREADS 8
#define CALLS 4000
#define OBJECTS 4

/* Numbers, which the threads read and replace as they like, one at a time. */
static vdi_set *sets[OBJECTS];
static vdi_device *devices[OBJECTS];
static vdi_mapped *mapped[OBJECTS];
static vdi_command commands[OBJECTS];
/* All sets there ever were: a process that ends with one leaves its socket. */
static vdi_set *made[THREADS * CALLS + 1];
static int sets_made;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *name;
static unsigned first_seed;
static int surprises, carried_out;

static int32_t one_call(unsigned choice, unsigned which, int64_t wait)
{
    vdi_config config = {0};
    vdi_command command;
    vdi_set *set;
    vdi_device *device;
    vdi_mapped *lease;
    const char *called;
    uint64_t bytes;
    uint32_t handle;
    void *data;
    int32_t status = 0;

    pthread_mutex_lock(&lock);
    set = sets[which];
    device = devices[which];
    lease = mapped[which];
    command = commands[which];
    pthread_mutex_unlock(&lock);
    config.device_count = 1;
    if (choice < 20)
        status = vdi_set_create(NULL, name, &config, &set);
    else if (choice < 80)
        status = vdi_set_get_configuration(set, wait, &config);
    else if (choice < 160)
        status = vdi_set_open_device(set, name, &device);
    else if (choice < 500)
        status = vdi_device_get_command(device, wait, &command);
    else if (choice < 900) {
        bytes = command.code == VDC_WRITE ? (uint32_t)command.size : 0;
        status = vdi_device_complete_command(device, command.id, 0, bytes, 0);
        if (status == 0)
            __atomic_fetch_add(&carried_out, 1, __ATOMIC_SEQ_CST);
    } else if (choice < 930 && (status = vdi_set_get_buffer_handle(set, command.data, &handle)) == 0)
        status = choice % 2 ? vdi_set_map_buffer_handle(set, handle, &lease)
                            : vdi_set_map_buffer_handle_sized(set, handle, (uint32_t)command.size, &lease);
    else if (choice < 950)
        status = vdi_mapped_data(lease, &data, &bytes);
    else if (choice < 965)
        status = vdi_mapped_release(lease);
    else if (choice < 980)
        status = vdi_device_name(device, &called);
    else if (choice < 984)
        status = vdi_device_free(device);
    else if (choice < 988)
        status = vdi_set_close(set);
    else if (choice < 990)
        status = vdi_set_signal_abort(set);
    else if (choice < 994)
        status = vdi_set_free(set);
    pthread_mutex_lock(&lock);
    /* NULL, where it could not be made, would be of no use to the others. */
    if (status == 0) {
        if (choice < 20)
            made[sets_made++] = set;
        sets[which] = set;
        devices[which] = device;
        mapped[which] = lease;
        commands[which] = command;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static void *calls(void *number)
{
    unsigned seed = first_seed + *(unsigned *)number;
    int i;

    for (i = 0; i < CALLS; i++) {
        /* Nothing is ended on purpose before some work is done. */
        unsigned choice = (unsigned)rand_r(&seed) % (i < CALLS / 4 ? 980 : 1000), which = (unsigned)rand_r(&seed) % OBJECTS;
        int32_t status = one_call(choice, which, rand_r(&seed) % 4);

        if (status != 0 && (status == VD_E_UNEXPECTED || vdi_last_error_code() != status)) {
            printf("SURPRISE: %u: %s: %s\n", choice, vdi_error_name(status), vdi_last_error_text());
            __atomic_fetch_add(&surprises, 1, __ATOMIC_SEQ_CST);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    vdi_config config = {0};
    pthread_t threads[THREADS];
    unsigned numbers[THREADS], i;

    if (argc != 3)
        return 2;
    alarm(120);
    name = argv[1];
    first_seed = (unsigned)atoi(argv[2]);
    config.device_count = 1;
    if (vdi_set_create(NULL, name, &config, &sets[0]) != 0)
        return 1;
    made[sets_made++] = sets[0];
    puts("ready");
    fflush(stdout);
    /* The storm begins when a server is there. */
    vdi_set_get_configuration(sets[0], -1, &config);
    vdi_set_open_device(sets[0], name, &devices[0]);
    for (i = 0; i < THREADS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, calls, &numbers[i]);
    }
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    while (sets_made > 0)
        vdi_set_free(made[--sets_made]);
    printf("%d calls, %d commands carried out, %d surprises\n", THREADS * CALLS, carried_out, surprises);
    return surprises == 0 ? 0 : 1;
}
