// What real programs do, and few tests: they fork, run out of memory, use one device from several threads, abort late, and are
// started with a standard error that nobody reads.
//
// corners fork|threads|closed|memory|deaf SQL     where SQL is a command that takes a statement as its last argument

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "agent.h"

static std::string sql;
static int surprises = 0;

static void expect(const char *what, int status, int expected) {
    printf("  %s: %#x%s\n", what, static_cast<unsigned>(status), status == expected ? "" : " SURPRISE");
    surprises += status != expected;
    fflush(stdout);
}

// The library asks the program's own operator new.
static std::atomic<bool> no_memory(false);

void *operator new(size_t size) {
    void *memory = no_memory ? nullptr : malloc(size);
    if (!memory)
        throw std::bad_alloc();
    return memory;
}
void operator delete(void *memory) noexcept { free(memory); }
void operator delete(void *memory, size_t) noexcept { free(memory); }

// Its destructor runs whenever a process ends by exit.
static ClientVirtualDeviceSet set;

static FILE *begin(const char *name, unsigned count) {
    VDConfig config = {};
    config.deviceCount = count;
    expect("Create", set.Create(text(name), &config), 0);
    std::string statement = std::string("BACKUP DATABASE db TO VIRTUAL_DEVICE='") + name + "'";
    for (unsigned i = 1; i < count; i++)
        statement += std::string(", VIRTUAL_DEVICE='") + name + std::to_string(i) + "'";
    return popen((sql + " \"" + statement + "\" 2>&1").c_str(), "r");
}

static void end(FILE *statement, bool success) {
    char line[1024];
    while (fgets(line, sizeof line, statement))
        printf("    %s", line);
    expect("the statement's success", pclose(statement) == 0, success);
}

static int serve_rest(ClientVirtualDevice *device) {
    VDC_Command *command = nullptr;
    int status;
    while ((status = device->GetCommand(VD_INFINITE, &command)) == 0)
        if ((status = device->CompleteCommand(command, 0, static_cast<unsigned long>(command->size), 0)) != 0)
            break;
    return status;
}

// Starts a fork, which ends by exit, with all destructors.
template <typename Work> static pid_t start_fork(Work work) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        surprises = 0;
        work();
        exit(surprises);
    }
    return child;
}

static void wait_for_fork(const char *what, pid_t child) {
    int status = -1;
    waitpid(child, &status, 0);
    expect(what, status, 0);
}

template <typename Work> static void in_a_fork(const char *what, Work work) { wait_for_fork(what, start_fork(work)); }

static void forks() {
    FILE *statement = begin("fork", 2);
    VDConfig config = {};
    ClientVirtualDevice *device = nullptr;
    in_a_fork("a fork that does nothing", [] {});
    in_a_fork("a fork that closes the set", [] { expect("Close in the fork", set.Close(), VD_E_PROTOCOL); });
    expect("GetConfiguration", set.GetConfiguration(VD_INFINITE, &config), 0);
    expect("OpenDevice", set.OpenDevice(text("fork"), &device), 0);
    in_a_fork("a fork that uses a device", [device] {
        VDC_Command *command = nullptr;
        expect("GetCommand in the fork", device->GetCommand(VD_INFINITE, &command), VD_E_PROTOCOL);
        delete device;
    });
    // The other device is served by a fork, which uses the object that it has.
    pid_t child = start_fork([&config] {
        ClientVirtualDevice *second = nullptr;
        expect("OpenInSecondary", set.OpenInSecondary(text("fork")), 0);
        expect("GetConfiguration in the fork", set.GetConfiguration(VD_INFINITE, &config), 0);
        expect("OpenDevice in the fork", set.OpenDevice(text("fork1"), &second), 0);
        expect("the second device's end", serve_rest(second), VD_E_CLOSE);
        expect("Close in the fork", set.Close(), 0);
    });
    expect("the first device's end", serve_rest(device), VD_E_CLOSE);
    wait_for_fork("a fork that serves a device", child);
    expect("Close", set.Close(), 0);
    end(statement, true);
}

static void threads() {
    FILE *statement = begin("threads", 1);
    VDConfig config = {};
    ClientVirtualDevice *device = nullptr;
    VDC_Command *command = nullptr;
    expect("GetConfiguration", set.GetConfiguration(VD_INFINITE, &config), 0);
    expect("OpenDevice", set.OpenDevice(text("threads"), &device), 0);
    // Nothing more comes when the server has no buffer left.
    int status;
    do {
        status = device->GetCommand(1000, &command);
    } while (status == 0);
    expect("GetCommand, with all commands held", status, VD_E_TIMEOUT);
    std::thread waiter([device] {
        VDC_Command *none = nullptr;
        expect("GetCommand of the first thread", device->GetCommand(VD_INFINITE, &none), VD_E_PROTOCOL);
    });
    // Whether or not the other one waits by now; it does by the end.
    for (int i = 0; i < 20; i++)
        if ((status = device->GetCommand(10, &command)) != VD_E_TIMEOUT)
            break;
    expect("GetCommand(10) beside a thread that waits for ever", status, VD_E_TIMEOUT);
    expect("GetCommand(0)", device->GetCommand(0, &command), VD_E_TIMEOUT);
    expect("Close", set.Close(), VD_E_OPEN);
    waiter.join();
    end(statement, false);
}

static void closed() {
    FILE *statement = begin("closed", 2);
    VDConfig config = {};
    ClientVirtualDevice *one = nullptr, *other = nullptr;
    VDC_Command *command = nullptr;
    expect("GetConfiguration", set.GetConfiguration(VD_INFINITE, &config), 0);
    expect("OpenDevice", set.OpenDevice(text("closed"), &one), 0);
    expect("OpenDevice", set.OpenDevice(text("closed1"), &other), 0);
    // It does not ask for what comes behind its last command.
    std::thread thread([other] {
        VDC_Command *theirs = nullptr;
        do {
            if (other->GetCommand(VD_INFINITE, &theirs) != 0)
                return;
            other->CompleteCommand(theirs, 0, static_cast<unsigned long>(theirs->size), 0);
        } while (theirs->commandCode != VDC_Flush);
    });
    expect("the first device's end", serve_rest(one), VD_E_CLOSE);
    thread.join();
    expect("SignalAbort", set.SignalAbort(), 0);
    expect("GetCommand of the device that is open", other->GetCommand(VD_INFINITE, &command), VD_E_ABORT);
    expect("GetCommand of the device that was closed", one->GetCommand(VD_INFINITE, &command), VD_E_CLOSE);
    set.Close();
    // Whether it succeeded says which came first.
    pclose(statement);
}

static void memory() {
    FILE *statement = begin("memory", 1);
    VDConfig config = {};
    ClientVirtualDevice *device = nullptr;
    expect("GetConfiguration", set.GetConfiguration(VD_INFINITE, &config), 0);
    std::string name("memory");
    no_memory = true;
    int status = set.OpenDevice(text(name), &device);
    no_memory = false;
    expect("OpenDevice", status, VD_E_MEMORY);
    expect("no device", device == nullptr, 1);
    expect("Close", set.Close(), 0);
    end(statement, false);
}

static void deaf() {
    signal(SIGPIPE, SIG_DFL);
    int ends[2];
    if (pipe(ends) != 0)
        return;
    close(ends[0]);
    dup2(ends[1], 2);
    expect("Close", set.Close(), VD_E_PROTOCOL);
    sigset_t pending;
    sigpending(&pending);
    expect("no signal is left", sigismember(&pending, SIGPIPE), 0);
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    expect("none is blocked", sigismember(&mask, SIGPIPE), 0);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    std::string what = argv[1];
    sql = argv[2];
    if (what == "fork")
        forks();
    else if (what == "threads")
        threads();
    else if (what == "closed")
        closed();
    else if (what == "memory")
        memory();
    else
        deaf();
    printf("%d surprises\n", surprises);
    return surprises == 0 ? 0 : 1;
}
