/*
 * A complete backup agent in C: agent SET FILE, then send the statement that names SET.
 *
 * A backup goes to FILE.partial and takes FILE's place before the server reports success, and never before it is proven to
 * be complete. A restore reads FILE. An agent that is killed leaves FILE.partial, which the next one overwrites.
 *
 *     cargo build --release -p vdi-capi && ln -sf libvdi_c.so target/release/libvdi_c.so.0
 *     gcc -std=c99 -o agent vdi-client/capi/examples/agent.c -Ivdi-client/capi/include \
 *         -Ltarget/release -lvdi_c -Wl,-rpath,"$PWD/target/release"
 *
 * With VDI_LIBRARY=/opt/mssql/lib/libsqlvdi.so in the environment the server is SQL Server.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vdi_c.h"

struct medium {
    const char *path;       /* FILE */
    char partial[PATH_MAX]; /* what a backup is written to */
    int file;
    int backup;
    int announced; /* VDC_COMPLETE will come: without it nothing is complete */
    int flushed;   /* a VDC_FLUSH came, and no VDC_WRITE after it */
    int committed; /* the backup is in its place */
    int failed;    /* for good: nothing after it is reported as a success */
};

/* Prints the library's error. */
static int vdi_failed(void)
{
    fprintf(stderr, "agent: %s\n", vdi_last_error_text());
    return -1;
}

/* Prints an error of the system; the code to report to the server. */
static uint32_t failed(struct medium *medium, const char *what)
{
    int error = errno;

    fprintf(stderr, "agent: cannot %s: %s\n", what, strerror(error));
    medium->failed = 1;
    return error == ENOSPC ? VDI_ERROR_DISK_FULL : VDI_ERROR_IO_DEVICE;
}

static uint32_t write_all(struct medium *medium, const vdi_command *command, uint64_t *bytes)
{
    uint64_t size = (uint32_t)command->size, done = 0;

    medium->flushed = 0;
    while (done < size) {
        ssize_t written = write(medium->file, command->data + done, size - done);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return failed(medium, "write");
        done += (uint64_t)written;
    }
    *bytes = done;
    return VDI_ERROR_SUCCESS;
}

static uint32_t read_all(struct medium *medium, const vdi_command *command, uint64_t *bytes)
{
    uint64_t size = (uint32_t)command->size, done = 0;

    while (done < size) {
        ssize_t found = read(medium->file, command->data + done, size - done);
        if (found < 0 && errno == EINTR)
            continue;
        if (found < 0)
            return failed(medium, "read");
        if (found == 0)
            break;
        done += (uint64_t)found;
    }
    *bytes = done;
    return done == size ? VDI_ERROR_SUCCESS : VDI_ERROR_HANDLE_EOF;
}

/* Only what is on the disk is written. */
static uint32_t flush(struct medium *medium)
{
    if (medium->backup && fsync(medium->file) != 0)
        return failed(medium, "store what was written");
    medium->flushed = 1;
    return VDI_ERROR_SUCCESS;
}

/* Gives a backup that is complete its name, durably. */
static uint32_t commit(struct medium *medium)
{
    char folder[PATH_MAX];
    int directory, result;
    uint32_t code = flush(medium);

    if (code != VDI_ERROR_SUCCESS || !medium->backup || medium->committed)
        return code;
    if (rename(medium->partial, medium->path) != 0)
        return failed(medium, "rename the backup");
    medium->committed = 1;
    snprintf(folder, sizeof folder, "%s", medium->path);
    directory = open(dirname(folder), O_RDONLY | O_DIRECTORY);
    if (directory < 0)
        return failed(medium, "open the backup's directory");
    result = fsync(directory);
    code = result == 0 ? VDI_ERROR_SUCCESS : failed(medium, "store the backup's name");
    close(directory);
    return code;
}

/* A server that does not send VDC_COMPLETE has closed the device of a backup that is complete, once all is flushed. */
static int closed(struct medium *medium)
{
    if (medium->backup && !medium->committed && (medium->announced || !medium->flushed)) {
        fprintf(stderr, "agent: the server closed the device of a backup that is not complete: %s\n",
                medium->announced ? "VDC_COMPLETE did not come" : "no VDC_FLUSH came after the last VDC_WRITE");
        return -1;
    }
    return commit(medium) == VDI_ERROR_SUCCESS ? 0 : -1;
}

/* Carries a command out: the code to complete it with, and how many bytes were really transferred. */
static uint32_t carry_out(struct medium *medium, const vdi_command *command, uint64_t *bytes)
{
    *bytes = 0;
    if (command->code == VDC_CLEAR_ERROR)
        return VDI_ERROR_SUCCESS;
    if (medium->failed)
        return VDI_ERROR_IO_DEVICE;
    switch (command->code) {
    case VDC_WRITE:
        return write_all(medium, command, bytes);
    case VDC_READ:
        return read_all(medium, command, bytes);
    case VDC_FLUSH:
        return flush(medium);
    case VDC_COMPLETE:
        return commit(medium);
    default:
        return VDI_ERROR_NOT_SUPPORTED;
    }
}

/* Serves a device until the server closes it. */
static int serve(vdi_device *device, struct medium *medium)
{
    vdi_command command;
    uint64_t bytes, total = 0;
    int32_t status;

    while ((status = vdi_device_get_command(device, -1, &command)) == 0) {
        uint32_t code = carry_out(medium, &command, &bytes);
        if (vdi_device_complete_command(device, command.id, code, bytes, 0) != 0)
            return vdi_failed();
        total += bytes;
    }
    if (status != VD_E_CLOSE)
        return vdi_failed();
    printf("%llu bytes %s\n", (unsigned long long)total, medium->backup ? "written" : "read");
    return medium->failed ? -1 : 0;
}

/* Opens the device, and serves it. */
static int transfer(vdi_set *set, const char *name, struct medium *medium)
{
    vdi_device *device;
    int result;

    if (vdi_set_open_device(set, name, &device) != 0)
        return vdi_failed();
    result = serve(device, medium);
    /* Where it was not served to its end this aborts the set, and the statement fails. */
    vdi_device_free(device);
    return result;
}

/* One backup or restore with a set that was created. */
static int session(vdi_set *set, const char *name, struct medium *medium)
{
    vdi_config agreed;
    int result;

    if (vdi_set_get_configuration(set, 600000, &agreed) != 0)
        return vdi_failed();
    medium->backup = (agreed.features & VDF_WRITE_MEDIA) != 0;
    medium->announced = (agreed.features & VDF_COMPLETE_ENABLED) != 0;
    medium->file = medium->backup ? open(medium->partial, O_WRONLY | O_CREAT | O_TRUNC, 0666)
                                  : open(medium->path, O_RDONLY);
    if (medium->file < 0) {
        failed(medium, "open the file");
        return -1;
    }
    result = transfer(set, name, medium);
    if (result == 0)
        result = closed(medium);
    close(medium->file);
    if (medium->backup && !medium->committed)
        unlink(medium->partial);
    if (result == 0 && vdi_set_close(set) != 0)
        result = vdi_failed();
    return result;
}

int main(int argc, char **argv)
{
    struct medium medium = {0};
    vdi_config config = {0};
    vdi_set *set;
    int result;

    if (argc != 3 || strlen(argv[2]) + sizeof ".partial" > sizeof medium.partial) {
        fprintf(stderr, "usage: agent SET FILE\n");
        return 2;
    }
    medium.path = argv[2];
    snprintf(medium.partial, sizeof medium.partial, "%s.partial", argv[2]);
    config.device_count = 1;
    config.features = VDF_REQUEST_COMPLETE;
    if (vdi_set_create(NULL, argv[1], &config, &set) != 0) {
        vdi_failed();
        return 1;
    }
    printf("ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, VIRTUAL_DEVICE='%s'\n", argv[1]);
    fflush(stdout);
    result = session(set, argv[1], &medium);
    vdi_set_free(set);
    return result == 0 ? 0 : 1;
}
