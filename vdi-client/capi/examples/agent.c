/*
 * A complete backup agent in C: agent SET FILE, then send the statement that names SET.
 *
 * A backup goes to FILE.partial and takes FILE's place before the server reports success, and never before it is proven to
 * be complete. A restore reads FILE. An agent that is killed leaves FILE.partial, which the next one overwrites. FILE.partial is
 * locked, so that two agents with one FILE do not destroy each other's backup.
 *
 * Named pipes and devices are written and read straight away, and never replaced. As FILE, - is standard output or input.
 * Messages go to standard error.
 *
 *     cargo build --release -p vdi-capi && ln -sf libvdi_c.so target/release/libvdi_c.so.0
 *     gcc -std=c99 -o agent vdi-client/capi/examples/agent.c -Ivdi-client/capi/include \
 *         -Ltarget/release -lvdi_c -Wl,-rpath,"$PWD/target/release"
 *
 * With VDI_LIBRARY=/opt/mssql/lib/libsqlvdi.so in the environment the server is SQL Server.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vdi_c.h"

/* How long the other end of a named pipe is waited for, in twentieths of a second. */
#define PIPE_TWENTIETHS 600

struct medium {
    const char *name;       /* FILE as it was given */
    char path[PATH_MAX];    /* the same without symbolic links */
    char partial[PATH_MAX]; /* what a backup is written to that takes FILE's place */
    int file;
    int backup;
    int replaces;  /* the backup is in FILE.partial: neither a pipe nor a device */
    int waits;     /* a named pipe that had no writer so far */
    int announced; /* VDC_COMPLETE will come: without it nothing is complete */
    int flushed;   /* a VDC_FLUSH came, and no VDC_WRITE after it */
    int committed; /* the backup is in its place */
    int failed;    /* for good: nothing after it is reported as a success */
};

/* Why FILE is no use: the server is told, too. */
static uint32_t reason_code = VDI_ERROR_IO_DEVICE;
static char reason[512];

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

    snprintf(reason, sizeof reason, "%s: cannot %s: %s", medium->name, what, strerror(error));
    reason_code = error == ENOSPC ? VDI_ERROR_DISK_FULL : VDI_ERROR_IO_DEVICE;
    fprintf(stderr, "agent: %s\n", reason);
    medium->failed = 1;
    return reason_code;
}

/* Prints why a file is no use. */
static int refuse(const char *path, const char *why)
{
    snprintf(reason, sizeof reason, "%s %s", path, why);
    fprintf(stderr, "agent: %s\n", reason);
    return -1;
}

static void pause_shortly(void)
{
    struct timespec twentieth = {0, 50000000};

    nanosleep(&twentieth, NULL);
}

/* Reads and writes wait from here on. */
static void wait_again(int file)
{
    fcntl(file, F_SETFL, fcntl(file, F_GETFL) & ~O_NONBLOCK);
}

/* Before a named pipe's first writer comes, a read finds an end that is none. */
static ssize_t read_next(struct medium *medium, unsigned char *data, size_t size)
{
    int left;

    for (left = PIPE_TWENTIETHS; medium->waits; left--) {
        ssize_t found = read(medium->file, data, size);
        if (found < 0 && errno == EINTR)
            continue;
        if (found == 0 && left > 0) {
            pause_shortly();
            continue;
        }
        if (found == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        medium->waits = 0;
        wait_again(medium->file);
        if (found > 0 || errno != EAGAIN)
            return found;
    }
    return read(medium->file, data, size);
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
        ssize_t found = read_next(medium, command->data + done, size - done);
        if (found < 0 && errno == EINTR)
            continue;
        if (found < 0)
            return failed(medium, medium->waits ? "read the named pipe: start its writer first" : "read");
        if (found == 0)
            break;
        done += (uint64_t)found;
    }
    *bytes = done;
    return done == size ? VDI_ERROR_SUCCESS : VDI_ERROR_HANDLE_EOF;
}

/* Whether FILE.partial is still the file that was opened, and not what another program has put there. */
static int has_partial(const struct medium *medium)
{
    struct stat opened, named;

    return fstat(medium->file, &opened) == 0 && lstat(medium->partial, &named) == 0 &&
           named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

/* Only what is on the disk is written. */
static uint32_t flush(struct medium *medium)
{
    /* Pipes and some devices have nothing to be stored. */
    if (medium->backup && fsync(medium->file) != 0 && (medium->replaces || errno != EINVAL))
        return failed(medium, "store what was written");
    medium->flushed = 1;
    return VDI_ERROR_SUCCESS;
}

/* Gives a backup that is complete its name, durably. */
static uint32_t commit(struct medium *medium)
{
    char folder[PATH_MAX];
    struct stat found;
    int directory, result;
    uint32_t code = flush(medium);

    if (code != VDI_ERROR_SUCCESS || !medium->backup || medium->committed)
        return code;
    if (!medium->replaces) {
        medium->committed = 1;
        return code;
    }
    /* It may have changed since it was opened. */
    if (lstat(medium->path, &found) == 0 && !S_ISREG(found.st_mode)) {
        errno = EEXIST;
        return failed(medium, "replace what is no regular file");
    }
    if (!has_partial(medium)) {
        errno = EEXIST;
        return failed(medium, "rename the backup: FILE.partial has been replaced or removed");
    }
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
    fprintf(stderr, "%llu bytes %s\n", (unsigned long long)total, medium->backup ? "written" : "read");
    return medium->failed ? -1 : 0;
}

/* Whether a stream of this program leads to a file. What is printed to a device such as /dev/null harms nothing. */
static int is_same(const struct stat *found, int stream)
{
    struct stat other;

    return !S_ISCHR(found->st_mode) && !S_ISBLK(found->st_mode) && fstat(stream, &other) == 0 &&
           found->st_dev == other.st_dev && found->st_ino == other.st_ino;
}

/* Standard output for a backup, or input for a restore. Nothing else of this process gets into it from here on. */
static int open_standard(struct medium *medium)
{
    int stream = medium->backup ? STDOUT_FILENO : STDIN_FILENO;
    int other = medium->backup ? STDERR_FILENO : open("/dev/null", O_RDONLY);
    const char *name = medium->backup ? "standard output" : "standard input";
    struct stat found;

    if (isatty(stream))
        return refuse(name, "is a terminal: redirect it to a file or a pipe");
    if (fstat(stream, &found) != 0) {
        failed(medium, "use standard input or output");
        return -1;
    }
    if (medium->backup && is_same(&found, STDERR_FILENO))
        return refuse(name, "is the same file as standard error: redirect that, with 2>agent.log for example");
    if (medium->backup && S_ISREG(found.st_mode) && flock(stream, LOCK_EX | LOCK_NB) != 0)
        return refuse(name, "is being written by another agent: give every device a file of its own");
    medium->file = dup(stream);
    if (medium->file < 0 || dup2(other, stream) < 0) {
        failed(medium, "use standard input or output");
        return -1;
    }
    return 0;
}

/* Opens FILE.partial, which no other agent uses. */
static int open_partial(struct medium *medium)
{
    struct stat opened;

    snprintf(medium->partial, sizeof medium->partial, "%.*s.partial", (int)(sizeof medium->partial - sizeof ".partial"),
             medium->path);
    for (;;) {
        medium->file = open(medium->partial, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (medium->file < 0 || fstat(medium->file, &opened) != 0) {
            failed(medium, "create FILE.partial");
            return -1;
        }
        if (!S_ISREG(opened.st_mode))
            return refuse(medium->partial, "is no regular file: remove it, or choose another name");
        if (flock(medium->file, LOCK_EX | LOCK_NB) != 0)
            return refuse(medium->path, "is being written by another agent: give every device a file of its own");
        /* The agent that had it may have renamed or removed it meanwhile. */
        if (has_partial(medium))
            break;
        close(medium->file);
    }
    medium->replaces = 1;
    if (ftruncate(medium->file, 0) != 0) {
        failed(medium, "empty FILE.partial");
        return -1;
    }
    return 0;
}

/* Opens a named pipe or a device for a backup. */
static int open_special(struct medium *medium, const struct stat *found)
{
    /* A block device is opened for one program only, and not while it is mounted. */
    int flags = O_WRONLY | O_NOCTTY | O_CLOEXEC | (S_ISBLK(found->st_mode) ? O_EXCL : 0);
    int left = PIPE_TWENTIETHS;

    if (S_ISFIFO(found->st_mode))
        flags |= O_NONBLOCK;
    while ((medium->file = open(medium->path, flags)) < 0 && errno == ENXIO && S_ISFIFO(found->st_mode) && left-- > 0)
        pause_shortly();
    if (medium->file < 0 && errno == ENXIO && S_ISFIFO(found->st_mode))
        return refuse(medium->path, "is a named pipe that no process reads: start its reader first");
    if (medium->file < 0) {
        failed(medium, "open FILE");
        return -1;
    }
    if (isatty(medium->file))
        return refuse(medium->path, "is a terminal: name a file");
    if (S_ISFIFO(found->st_mode) && flock(medium->file, LOCK_EX | LOCK_NB) != 0)
        return refuse(medium->path, "is being written by another agent: give every device a pipe of its own");
    wait_again(medium->file);
    return 0;
}

/* Opens what a backup is written to. */
static int open_target(struct medium *medium)
{
    struct stat found;

    if (stat(medium->name, &found) != 0) {
        if (lstat(medium->name, &found) == 0)
            return refuse(medium->name, "is a symbolic link to a file that cannot be found");
        snprintf(medium->path, sizeof medium->path, "%s", medium->name);
        return open_partial(medium);
    }
    if (is_same(&found, STDOUT_FILENO) || is_same(&found, STDERR_FILENO))
        return refuse(medium->name, "is where this program's standard output or error goes: name another file, or - for "
                                    "standard output");
    if (S_ISREG(found.st_mode)) {
        if (realpath(medium->name, medium->path) != NULL)
            return open_partial(medium);
        failed(medium, "find FILE");
        return -1;
    }
    snprintf(medium->path, sizeof medium->path, "%s", medium->name);
    return open_special(medium, &found);
}

/* Opens what a restore reads. */
static int open_source(struct medium *medium)
{
    struct stat found;

    medium->file = open(medium->name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (medium->file < 0 || fstat(medium->file, &found) != 0) {
        failed(medium, "open FILE");
        return -1;
    }
    if (isatty(medium->file))
        return refuse(medium->name, "is a terminal: name a file");
    medium->waits = S_ISFIFO(found.st_mode);
    if (!medium->waits)
        wait_again(medium->file);
    return 0;
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
    if (strcmp(medium->name, "-") == 0)
        result = open_standard(medium);
    else
        result = medium->backup ? open_target(medium) : open_source(medium);
    if (result != 0) {
        vdi_set_signal_abort_because(set, reason_code, reason);
        return -1;
    }
    result = transfer(set, name, medium);
    if (result == 0)
        result = closed(medium);
    /* While it is still locked. */
    if (medium->replaces && !medium->committed && has_partial(medium))
        unlink(medium->partial);
    close(medium->file);
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

    /* A reader that is gone is an error of the write, and no sudden end. */
    signal(SIGPIPE, SIG_IGN);
    if (argc != 3 || argv[2][0] == '\0' || strlen(argv[2]) + sizeof ".partial" > sizeof medium.partial) {
        fprintf(stderr, "usage: agent SET FILE\n");
        return 2;
    }
    medium.name = argv[2];
    config.device_count = 1;
    config.features = VDF_REQUEST_COMPLETE;
    if (vdi_set_create(NULL, argv[1], &config, &set) != 0) {
        vdi_failed();
        return 1;
    }
    fprintf(stderr, "ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, VIRTUAL_DEVICE='%s'\n", argv[1]);
    result = session(set, argv[1], &medium);
    vdi_set_free(set);
    return result == 0 ? 0 : 1;
}
