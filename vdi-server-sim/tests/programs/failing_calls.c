/* Runs a program some of whose system calls fail: a disk that is full or broken, a system that has no memory or descriptors.
 *
 *   failing_calls REPORT [RULE ...] -- PROGRAM [ARGUMENT ...]
 *
 *   calls=NAME,...   the calls that count. mmap counts where it shares memory only, futex and clock_nanosleep where they wait by
 *                    the wall clock only
 *   under=PREFIX     only those on a file whose path begins so; calls that have no file count always
 *   at=N             the N-th of them fails (from 1 on; by default none)
 *   on               and all that come after it
 *   error=NUMBER     with this errno
 *   refuse=NAME:NUMBER  this call fails always, with this errno
 *
 * Each call that counts is a line of the file REPORT: its number, "failed" or "passed", its name, its path.
 *
 * A filter (seccomp) in the program and all its threads and children has the system ask a supervisor, which is a process of its own and
 * ends with the program. The program keeps this process's number, so whoever started it may wait for it and kill it. Ends with 77 where
 * the system has no such filters. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define ARCHITECTURE 0
#endif

/* Where the arguments of a call say which file it is on. */
enum on { NOTHING, DESCRIPTOR, PATH, AT, LINK };

struct call {
    const char *name;
    int number;
    enum on on;
};

static const struct call CALLS[] = {
#define CALL(name, on) {#name, SYS_##name, on}
    CALL(read, DESCRIPTOR), CALL(pread64, DESCRIPTOR), CALL(preadv2, DESCRIPTOR), CALL(write, DESCRIPTOR),
    CALL(pwrite64, DESCRIPTOR), CALL(writev, DESCRIPTOR), CALL(pwritev2, DESCRIPTOR), CALL(copy_file_range, DESCRIPTOR),
    CALL(fsync, DESCRIPTOR), CALL(fdatasync, DESCRIPTOR), CALL(syncfs, DESCRIPTOR), CALL(sync_file_range, DESCRIPTOR),
    CALL(ftruncate, DESCRIPTOR), CALL(fallocate, DESCRIPTOR), CALL(fchmod, DESCRIPTOR), CALL(fchown, DESCRIPTOR),
    CALL(close, DESCRIPTOR), CALL(flock, DESCRIPTOR), CALL(lseek, DESCRIPTOR), CALL(getdents64, DESCRIPTOR),
    CALL(fcntl, DESCRIPTOR), CALL(fstat, DESCRIPTOR), CALL(openat, AT), CALL(mkdirat, AT), CALL(unlinkat, AT), CALL(renameat2, AT),
    CALL(linkat, LINK), CALL(statx, AT), CALL(readlinkat, AT), CALL(faccessat, AT),
#ifdef SYS_open
    CALL(open, PATH), CALL(mkdir, PATH), CALL(unlink, PATH), CALL(rmdir, PATH), CALL(rename, PATH), CALL(readlink, PATH),
#endif
#ifdef SYS_renameat
    CALL(renameat, AT),
#endif
#ifdef SYS_newfstatat
    CALL(newfstatat, AT),
#endif
#ifdef SYS_poll
    CALL(poll, NOTHING),
#endif
    CALL(ppoll, NOTHING), CALL(memfd_create, NOTHING), CALL(eventfd2, NOTHING), CALL(mmap, NOTHING), CALL(socket, NOTHING),
    CALL(bind, NOTHING), CALL(listen, NOTHING), CALL(connect, NOTHING), CALL(accept4, NOTHING), CALL(sendmsg, NOTHING),
    CALL(recvmsg, NOTHING), CALL(getsockopt, NOTHING), CALL(clone3, NOTHING), CALL(futex, NOTHING),
    CALL(clock_nanosleep, NOTHING), CALL(clock_gettime, NOTHING), CALL(timerfd_create, NOTHING), CALL(getrandom, NOTHING),
};
enum { KNOWN = sizeof CALLS / sizeof *CALLS };

static char counts[KNOWN];
static int refusals[KNOWN];
static const char *under = "";
static long at;
static int persists;
static int error = EIO;

static void say_and_exit(int status, const char *what) {
    fprintf(stderr, "failing_calls: %s: %s\n", what, strerror(errno));
    _exit(status);
}

static size_t find(const char *name, size_t length) {
    for (size_t i = 0; i < KNOWN; i++)
        if (strlen(CALLS[i].name) == length && memcmp(CALLS[i].name, name, length) == 0)
            return i;
    errno = EINVAL;
    say_and_exit(2, name);
    return 0;
}

static void take_rule(const char *rule) {
    if (strncmp(rule, "calls=", 6) == 0) {
        for (const char *name = rule + 6; *name;) {
            size_t length = strcspn(name, ",");
            counts[find(name, length)] = 1;
            name += length + (name[length] == ',');
        }
    } else if (strncmp(rule, "under=", 6) == 0) {
        under = rule + 6;
    } else if (strncmp(rule, "at=", 3) == 0) {
        at = atol(rule + 3);
    } else if (strcmp(rule, "on") == 0) {
        persists = 1;
    } else if (strncmp(rule, "error=", 6) == 0) {
        error = atoi(rule + 6);
    } else if (strncmp(rule, "refuse=", 7) == 0) {
        size_t length = strcspn(rule + 7, ":");
        refusals[find(rule + 7, length)] = atoi(rule + 7 + length + 1);
    } else {
        errno = EINVAL;
        say_and_exit(2, rule);
    }
}

/* The filter; its listener where some calls count, else 0. */
static int filter_calls(void) {
    struct sock_filter program[4 + 2 * KNOWN + 1];
    unsigned short length = 0;
    int listens = 0;
    program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < KNOWN; i++) {
        if (!refusals[i] && !counts[i])
            continue;
        uint32_t action = refusals[i] ? SECCOMP_RET_ERRNO | (refusals[i] & SECCOMP_RET_DATA) : SECCOMP_RET_USER_NOTIF;
        listens |= !refusals[i];
        program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALLS[i].number, 0, 1);
        program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
    }
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {length, program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, listens ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0, &filter);
}

/* Text at an address of another process, page by page: the next page may not be there. */
static void read_text(pid_t thread, uint64_t address, char *text, size_t room) {
    size_t done = 0;
    while (done < room - 1) {
        size_t piece = 4096 - (address + done) % 4096;
        piece = piece < room - 1 - done ? piece : room - 1 - done;
        struct iovec here = {text + done, piece}, there = {(void *)(uintptr_t)(address + done), piece};
        ssize_t got = process_vm_readv(thread, &here, 1, &there, 1, 0);
        if (got <= 0)
            break;
        if (memchr(text + done, 0, (size_t)got))
            return;
        done += (size_t)got;
    }
    text[done] = 0;
}

/* The path of the file that a call is on. */
static void path_of(const struct call *call, const struct seccomp_notif *asked, char *path, size_t room) {
    const __u64 *arguments = asked->data.args;
    char name[PATH_MAX] = "", link[64] = "";
    path[0] = 0;
    if (call->on == NOTHING)
        return;
    if (call->on == PATH)
        read_text((pid_t)asked->pid, arguments[0], name, sizeof name);
    else if (call->on != DESCRIPTOR)
        read_text((pid_t)asked->pid, arguments[call->on == LINK ? 3 : 1], name, sizeof name);
    if (name[0] == '/') {
        snprintf(path, room, "%s", name);
        return;
    }
    int folder = (int)arguments[call->on == LINK ? 2 : 0];
    if (call->on == PATH || folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%d/cwd", (int)asked->pid);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)asked->pid, folder);
    ssize_t length = readlink(link, path, room - 1);
    path[length < 0 ? 0 : length] = 0;
    if (name[0]) {
        size_t used = strlen(path);
        snprintf(path + used, room - used, "/%s", name);
    }
}

/* Some calls count in one of their uses only. */
static int is_meant(const struct call *call, const struct seccomp_data *data) {
    switch (call->number) {
    case SYS_mmap:
        return (data->args[3] & MAP_SHARED) != 0;
    case SYS_futex:
        /* Waits without an end name this clock as well; they have no time to wait for. */
        return (data->args[1] & FUTEX_CLOCK_REALTIME) != 0 && data->args[3] != 0;
    case SYS_clock_nanosleep:
    case SYS_timerfd_create:
        return data->args[0] == CLOCK_REALTIME;
    default:
        return 1;
    }
}

static void supervise(int listener, int report) {
    long count = 0;
    int broken = 0;
    for (;;) {
        struct pollfd ready = {listener, POLLIN, 0};
        if (poll(&ready, 1, -1) < 0 && errno != EINTR)
            _exit(1);
        if (!(ready.revents & POLLIN)) {
            if (ready.revents)
                _exit(0);
            continue;
        }
        struct seccomp_notif asked = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0)
            continue;
        struct seccomp_notif_resp answer = {asked.id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        const struct call *call = CALLS;
        while (call->number != asked.data.nr)
            call++;
        char path[2 * PATH_MAX];
        path_of(call, &asked, path, sizeof path);
        int concerned = call->on == NOTHING || strncmp(path, under, strlen(under)) == 0;
        if (concerned && is_meant(call, &asked.data)) {
            count++;
            int fails = count == at || (persists && broken);
            broken |= fails;
            char line[3 * PATH_MAX];
            int length =
                snprintf(line, sizeof line, "%ld %s %s %s\n", count, fails ? "failed" : "passed", call->name, path);
            if (write(report, line, (size_t)length) != length)
                _exit(1);
            if (fails) {
                answer.flags = 0;
                answer.error = -error;
            }
        }
        /* Nobody waits for the answer any more where the process was killed meanwhile. */
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

/* What this process and its supervisor tell each other without a call that may count. */
struct meeting {
    _Atomic int listener;
    _Atomic int ready;
};

static pid_t fork_with_descriptors(void) {
    return (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
}

int main(int argc, char **argv) {
    int next = 2;
    while (next < argc && strcmp(argv[next], "--") != 0)
        take_rule(argv[next++]);
    if (next + 1 >= argc) {
        errno = EINVAL;
        say_and_exit(2, "arguments");
    }
    char **program = argv + next + 1;
    int report = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (report < 0)
        say_and_exit(2, argv[1]);
    struct meeting *meeting = mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (meeting == MAP_FAILED)
        say_and_exit(2, "mmap");
    meeting->listener = -1;
    /* A grandchild, so that the program has no child that it does not know. It has no filter, and sees the listener because it shares
     * the descriptors until it begins. */
    pid_t between = fork_with_descriptors();
    if (between == 0) {
        if (fork_with_descriptors() != 0)
            _exit(0);
        while (meeting->listener == -1)
            usleep(100);
        int listener = meeting->listener;
        if (listener <= 0)
            _exit(0);
        /* Whatever else is open is the program's: a pipe must not seem to have a writer for longer than that. */
        if (unshare(CLONE_FILES) != 0 || dup2(listener, 0) != 0 || dup2(report, 1) != 1)
            _exit(1);
        meeting->ready = 1;
        close_range(2, ~0U, 0);
        supervise(0, 1);
    }
    if (between < 0 || waitpid(between, NULL, 0) != between)
        say_and_exit(2, "fork");
    int listener = filter_calls();
    if (listener < 0) {
        int refused = errno;
        meeting->listener = 0;
        errno = refused;
        say_and_exit(77, "seccomp");
    }
    meeting->listener = listener;
    while (listener > 0 && !meeting->ready)
        sched_yield();
    execvp(program[0], program);
    _exit(127);
}
