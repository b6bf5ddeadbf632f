// Everything that a program must not do, and what it gets for it. Prints what each call returned; the exit status is 0 only if
// all of it was as expected.
//
// misuse SQL      where SQL is a command that takes a statement as its last argument

#include <dirent.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <set>
#include <thread>
#include <vector>

#include "agent.h"

typedef ClientVirtualDeviceSet Set;
typedef ClientVirtualDevice Device;

static std::atomic<int> surprises(0);
static std::string sql;

static void expect(const char *what, int status, int expected) {
    printf("  %s: %#x%s\n", what, static_cast<unsigned>(status), status == expected ? "" : " SURPRISE");
    if (status != expected) {
        printf("  expected %#x\n", static_cast<unsigned>(expected));
        surprises++;
    }
    fflush(stdout);
}

// Where two things happen at a moment, either may come first.
static void expect_either(const char *what, int status, int expected, int or_else) {
    expect(what, status, status == or_else ? or_else : expected);
}

static void check(const char *what, bool holds) { expect(what, holds ? 1 : 0, 1); }

static void scene(const char *name) {
    printf("%s\n", name);
    fflush(stdout);
}

static VDConfig devices(unsigned count) {
    VDConfig config = {};
    config.deviceCount = count;
    return config;
}

// A statement that runs beside this program.
class Statement {
public:
    explicit Statement(const std::string &text) : pipe_(popen((sql + " \"" + text + "\" 2>&1").c_str(), "r")) {}
    // 0 where it succeeded.
    int end() {
        char line[1024];
        while (fgets(line, sizeof line, pipe_))
            printf("    %s", line);
        return pclose(pipe_);
    }

private:
    FILE *pipe_;
};

// A set that a server works with, and its one device.
struct Session {
    Set *set = new Set();
    Device *device = nullptr;
    Statement *statement = nullptr;

    explicit Session(const char *name) {
        VDConfig config = devices(1);
        expect("Create", set->Create(text(name), &config), 0);
        statement = new Statement(std::string("BACKUP DATABASE db TO VIRTUAL_DEVICE='") + name + "'");
        expect("GetConfiguration", set->GetConfiguration(VD_INFINITE, &config), 0);
        expect("OpenDevice", set->OpenDevice(text(name), &device), 0);
    }

    // Takes everything that comes.
    int serve_rest() {
        VDC_Command *command = nullptr;
        int status;
        while ((status = device->GetCommand(VD_INFINITE, &command)) == 0)
            if ((status = device->CompleteCommand(command, 0, static_cast<unsigned long>(command->size), 0)) != 0)
                break;
        return status;
    }

    void end(int wanted_close, bool success) {
        expect("Close", set->Close(), wanted_close);
        check("the statement's end", (statement->end() == 0) == success);
        delete statement;
    }
};

// Waits until a thread sleeps: it is in its blocking call.
static void wait_until_asleep(const std::atomic<int> &thread) {
    for (;;) {
        int number = thread;
        char line[512] = "";
        FILE *file = number ? fopen(("/proc/self/task/" + std::to_string(number) + "/stat").c_str(), "r") : nullptr;
        if (file) {
            bool read = fgets(line, sizeof line, file) != nullptr;
            fclose(file);
            const char *state = read ? strrchr(line, ')') : nullptr;
            if (state && state[2] == 'S')
                return;
        }
        sched_yield();
    }
}

static int thread_number() { return static_cast<int>(syscall(SYS_gettid)); }

static void null_pointers() {
    scene("null pointers");
    // Where the compiler does not see it.
    Set *volatile no_set = nullptr;
    Device *volatile no_device = nullptr;
    VDConfig config = devices(1);
    Device *device = nullptr;
    VDC_Command *command = nullptr;
    unsigned handle = 0;
    uint8_t *buffer = nullptr;
    uint8_t byte = 0;
    expect("Create", no_set->Create(text("a"), &config), VD_E_INVALID);
    expect("GetConfiguration", no_set->GetConfiguration(0, &config), VD_E_INVALID);
    expect("OpenDevice", no_set->OpenDevice(text("a"), &device), VD_E_INVALID);
    expect("Close", no_set->Close(), VD_E_INVALID);
    expect("SignalAbort", no_set->SignalAbort(), VD_E_INVALID);
    expect("OpenInSecondary", no_set->OpenInSecondary(text("a")), VD_E_INVALID);
    expect("GetBufferHandle", no_set->GetBufferHandle(&byte, &handle), VD_E_INVALID);
    expect("MapBufferHandle", no_set->MapBufferHandle(1, &buffer), VD_E_INVALID);
    no_set->RegisterDeviceClosed();
    expect("GetCommand", no_device->GetCommand(0, &command), VD_E_INVALID);
    expect("CompleteCommand", no_device->CompleteCommand(command, 0, 0, 0), VD_E_INVALID);

    Set set;
    set.RegisterDeviceClosed();
    expect("Create without a name", set.Create(nullptr, &config), VD_E_INVALID);
    expect("Create without a configuration", set.Create(text("a"), nullptr), VD_E_INVALID);
    expect("GetConfiguration", set.GetConfiguration(0, nullptr), VD_E_INVALID);
    expect("OpenDevice without a name", set.OpenDevice(nullptr, &device), VD_E_INVALID);
    expect("OpenDevice without a place", set.OpenDevice(text("a"), nullptr), VD_E_INVALID);
    expect("OpenInSecondary", set.OpenInSecondary(nullptr), VD_E_INVALID);
    expect("GetBufferHandle without a buffer", set.GetBufferHandle(nullptr, &handle), VD_E_INVALID);
    expect("GetBufferHandle without a place", set.GetBufferHandle(&byte, nullptr), VD_E_INVALID);
    expect("MapBufferHandle", set.MapBufferHandle(1, nullptr), VD_E_INVALID);

    Device lonely;
    expect("GetCommand of a device of no set", lonely.GetCommand(0, &command), VD_E_INVALID);
    expect("CompleteCommand of a device of no set", lonely.CompleteCommand(command, 0, 0, 0), VD_E_INVALID);

    alignas(Set) unsigned char garbage[sizeof(Set)];
    memset(garbage, 0x48, sizeof garbage);
    Set *volatile never = reinterpret_cast<Set *>(garbage);
    expect("Close of what was never constructed", never->Close(), VD_E_INVALID);
}

static void names() {
    scene("names");
    Set set;
    VDConfig config = devices(1);
    // 1 KB of a name right before memory that must not be read.
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    char *pages = static_cast<char *>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(pages + page, page, PROT_NONE);
    memset(pages, 'a', page);
    char *endless = pages + page - 1024;
    Device *device = nullptr;
    expect("Create, no end within 1 KB", set.Create(endless, &config), VD_E_INVALID);
    expect("OpenDevice, no end within 1 KB", set.OpenDevice(endless, &device), VD_E_INVALID);
    expect("OpenInSecondary, no end within 1 KB", set.OpenInSecondary(endless), VD_E_INVALID);
    pages[page - 1] = 0;
    expect("Create, 1023 characters", set.Create(endless, &config), VD_E_INVALID);
    munmap(pages, 2 * page);
    expect("Create, empty", set.Create(text(""), &config), VD_E_INVALID);
    expect("Create, backslash", set.Create(text("a\\b"), &config), VD_E_INVALID);
    expect("Create, no UTF-8", set.Create(text("a\xff"), &config), VD_E_INVALID);
}

static void wrong_order() {
    scene("wrong order");
    Set *set = new Set();
    VDConfig config = devices(1);
    Device *device = reinterpret_cast<Device *>(&config);
    unsigned handle = 0;
    uint8_t byte = 0, *buffer = &byte;
    expect("GetConfiguration", set->GetConfiguration(0, &config), VD_E_PROTOCOL);
    expect("OpenDevice", set->OpenDevice(text("order"), &device), VD_E_PROTOCOL);
    check("no device", device == nullptr);
    expect("Close", set->Close(), VD_E_PROTOCOL);
    expect("SignalAbort", set->SignalAbort(), VD_E_PROTOCOL);
    expect("GetBufferHandle", set->GetBufferHandle(&byte, &handle), VD_E_PROTOCOL);
    expect("MapBufferHandle", set->MapBufferHandle(1, &buffer), VD_E_PROTOCOL);
    check("no buffer", buffer == nullptr);
    expect("OpenInSecondary of no set", set->OpenInSecondary(text("order")), VD_E_PROTOCOL);
    config = devices(0);
    expect("Create, no devices", set->Create(text("order"), &config), VD_E_NOTSUPPORTED);
    config = devices(1000);
    expect("Create, 1000 devices", set->Create(text("order"), &config), VD_E_NOTSUPPORTED);
    config = devices(1);
    config.features = 0xffffffff;
    expect("Create, all features", set->Create(text("order"), &config), VD_E_NOTSUPPORTED);
    config = devices(1);
    expect("Create", set->Create(text("order"), &config), 0);
    expect("Create again", set->Create(text("order"), &config), VD_E_PROTOCOL);
    Set other;
    expect("Create of the same name", other.Create(text("order"), &config), VD_E_PROTOCOL);
    expect("OpenInSecondary before the configuration", other.OpenInSecondary(text("order")), VD_E_PROTOCOL);
    expect("OpenDevice before GetConfiguration", set->OpenDevice(text("order"), &device), VD_E_PROTOCOL);
    expect("GetBufferHandle", set->GetBufferHandle(&byte, &handle), VD_E_PROTOCOL);
    expect("GetConfiguration(0)", set->GetConfiguration(0, &config), VD_E_TIMEOUT);
    expect("GetConfiguration(20)", set->GetConfiguration(20, &config), VD_E_TIMEOUT);
    expect("Close", set->Close(), 0);
    expect("Close again", set->Close(), VD_E_PROTOCOL);
    expect("SignalAbort after Close", set->SignalAbort(), VD_E_PROTOCOL);
    expect("Create after Close", set->Create(text("order"), &config), 0);
    expect("SignalAbort", set->SignalAbort(), 0);
    expect("GetConfiguration after SignalAbort", set->GetConfiguration(VD_INFINITE, &config), VD_E_ABORT);
    // Which closes what is left.
    delete set;
    expect("Create of the same name", other.Create(text("order"), &config), 0);
    expect("Close", other.Close(), 0);

    alignas(Set) unsigned char memory[sizeof(Set)];
    Set *twice = new (memory) Set();
    twice->~Set();
    twice->~Set();
    expect("Create of a set that was destroyed", twice->Create(text("order"), &config), VD_E_INVALID);

    // Sets that nobody destroys or closes hold nothing that others need.
    for (int i = 0; i < 100; i++)
        new Set();
}

static void commands() {
    scene("commands");
    Session session("commands");
    Device *device = session.device;
    VDC_Command *first = nullptr, *second = nullptr, stranger = {};
    expect("GetCommand without a place", device->GetCommand(VD_INFINITE, nullptr), VD_E_INVALID);
    expect("GetCommand", device->GetCommand(VD_INFINITE, &first), 0);
    check("a Write", first->commandCode == VDC_Write && first->size > 0 && first->buffer);
    expect("CompleteCommand of null", device->CompleteCommand(nullptr, 0, 0, 0), VD_E_INVALID);
    stranger = *first;
    expect("CompleteCommand of a copy", device->CompleteCommand(&stranger, 0, 0, 0), VD_E_INVALID);
    unsigned long size = static_cast<unsigned long>(first->size);
    expect("CompleteCommand, a byte too many", device->CompleteCommand(first, 0, size + 1, 0), VD_E_INVALID);
    expect("CompleteCommand, far too many", device->CompleteCommand(first, 0, ~0ul, 0), VD_E_INVALID);

    unsigned handle = 0;
    uint8_t *mapped = nullptr;
    expect("GetBufferHandle of no buffer", session.set->GetBufferHandle(reinterpret_cast<uint8_t *>(&handle), &handle), VD_E_INVALID);
    expect("GetBufferHandle within a buffer", session.set->GetBufferHandle(first->buffer + 1, &handle), VD_E_INVALID);
    expect("GetBufferHandle", session.set->GetBufferHandle(first->buffer, &handle), 0);
    expect("MapBufferHandle", session.set->MapBufferHandle(static_cast<int>(handle), &mapped), 0);
    check("the same address", mapped == first->buffer);
    expect("MapBufferHandle of a forged handle", session.set->MapBufferHandle(static_cast<int>(handle ^ 0x55555), &mapped), VD_E_INVALID);

    stranger = *first;
    std::thread([&] { expect("CompleteCommand in another thread", device->CompleteCommand(first, 0, size, 0), 0); }).join();
    expect("CompleteCommand again", device->CompleteCommand(first, 0, size, 0), VD_E_INVALID);
    check("the command is as it was", memcmp(&stranger, first, sizeof stranger) == 0);
    expect("MapBufferHandle of a stale handle", session.set->MapBufferHandle(static_cast<int>(handle), &mapped), VD_E_INVALID);

    expect("GetCommand", device->GetCommand(VD_INFINITE, &second), 0);
    check("another block", first != second);
    // The program may write what it likes into a block.
    VDC_Command really = *second;
    memset(static_cast<void *>(second), 0xff, sizeof *second);
    expect("CompleteCommand", device->CompleteCommand(second, 0, static_cast<unsigned long>(really.size), 7), 0);
    Device *none = device;
    expect("OpenDevice of an open device", session.set->OpenDevice(text("commands"), &none), VD_E_OPEN);
    check("no device", none == nullptr);

    expect("the rest", session.serve_rest(), VD_E_CLOSE);
    expect("GetCommand after VD_E_CLOSE", device->GetCommand(VD_INFINITE, &first), VD_E_CLOSE);
    expect("CompleteCommand after VD_E_CLOSE", device->CompleteCommand(second, 0, 0, 0), VD_E_INVALID);
    expect("OpenDevice when all is over", session.set->OpenDevice(text("commands"), &none), VD_E_PROTOCOL);
    session.end(0, true);
    expect("GetCommand after Close", device->GetCommand(VD_INFINITE, &first), VD_E_CLOSE);
    expect("CompleteCommand after Close", device->CompleteCommand(second, 0, 0, 0), VD_E_PROTOCOL);
    delete session.set;
    expect("GetCommand after the set's end", device->GetCommand(VD_INFINITE, &first), VD_E_CLOSE);
    delete device;
}

static void abort_and_close() {
    scene("SignalAbort wakes");
    {
        Session session("abort");
        VDC_Command *held = nullptr;
        std::atomic<int> number(0);
        std::thread waiter([&] {
            VDC_Command *command = nullptr;
            int status;
            // Completes nothing, so the server must stop sending sometime.
            number = thread_number();
            while ((status = session.device->GetCommand(VD_INFINITE, &command)) == 0)
                held = command;
            expect("GetCommand", status, VD_E_ABORT);
        });
        // Between two commands it may sleep as well; the abort ends the wait all the same.
        wait_until_asleep(number);
        expect("SignalAbort", session.set->SignalAbort(), 0);
        waiter.join();
        expect("GetCommand after SignalAbort", session.device->GetCommand(VD_INFINITE, &held), VD_E_ABORT);
        if (held)
            expect("CompleteCommand after SignalAbort", session.device->CompleteCommand(held, 0, 0, 0), VD_E_ABORT);
        Device *none = nullptr;
        expect("OpenDevice after SignalAbort", session.set->OpenDevice(text("abort"), &none), VD_E_ABORT);
        session.end(0, false);
        delete session.set;
    }
    scene("Close with a device open, while a buffer is in use");
    {
        Session session("early");
        VDC_Command *command = nullptr;
        expect("GetCommand", session.device->GetCommand(VD_INFINITE, &command), 0);
        session.end(VD_E_OPEN, false);
        // The buffer is still there.
        unsigned sum = 0;
        for (int i = 0; i < command->size; i++)
            sum += command->buffer[i];
        check("the buffer can be read", sum > 0);
        VDC_Command *none = nullptr;
        expect("GetCommand", session.device->GetCommand(VD_INFINITE, &none), VD_E_PROTOCOL);
        expect("CompleteCommand", session.device->CompleteCommand(command, 0, 0, 0), VD_E_PROTOCOL);
        expect("CompleteCommand again", session.device->CompleteCommand(command, 0, 0, 0), VD_E_PROTOCOL);
        check("the command can be read", command->commandCode == VDC_Write);
        // Deletes a device that is over; the set stays, as usual.
        delete session.device;
    }
    scene("a device deleted while a thread waits in it");
    {
        Session session("delete");
        std::atomic<int> number(0);
        std::thread waiter([&] {
            Device *device = session.device;
            VDC_Command *command = nullptr;
            int status = 0;
            for (int i = 0; status == 0 && i < 100; i++) {
                // Only a call that is under way may meet the end of its object.
                if ((status = device->GetCommand(0, &command)) == VD_E_TIMEOUT) {
                    number = thread_number();
                    status = device->GetCommand(VD_INFINITE, &command);
                    number = 0;
                }
            }
            expect_either("GetCommand", status, VD_E_ABORT, VD_E_INVALID);
        });
        // It may get a command at this moment, and then comes back to an object that is over.
        wait_until_asleep(number);
        session.device->~Device();
        waiter.join();
        ::operator delete(session.device);
        session.end(0, false);
    }
    scene("a set deleted while a thread waits in it");
    {
        Set *set = new Set();
        VDConfig config = devices(1);
        expect("Create", set->Create(text("gone"), &config), 0);
        std::atomic<int> number(0);
        std::thread waiter([&] {
            VDConfig agreed;
            number = thread_number();
            expect_either("GetConfiguration", set->GetConfiguration(VD_INFINITE, &agreed), VD_E_PROTOCOL, VD_E_ABORT);
        });
        wait_until_asleep(number);
        delete set;
        waiter.join();
    }
}

static size_t descriptors() {
    size_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void many() {
    scene("many sets, of which nothing is ever destroyed");
    std::set<Device *> objects;
    std::set<VDC_Command *> blocks;
    size_t before = descriptors(), commands = 0;
    int failures = 0;
    Set *set = new Set();
    for (int i = 0; i < 80; i++) {
        std::string name = "many" + std::to_string(i);
        VDConfig config = devices(1);
        Device *device = nullptr;
        failures += set->Create(text(name), &config) != 0;
        Statement statement("BACKUP DATABASE db TO VIRTUAL_DEVICE='" + name + "'");
        failures += set->GetConfiguration(VD_INFINITE, &config) != 0;
        failures += set->OpenDevice(text(name), &device) != 0;
        objects.insert(device);
        VDC_Command *command = nullptr;
        blocks.clear();
        // Every other set is left in the middle, with a command that nobody completes.
        for (int n = 0; device->GetCommand(VD_INFINITE, &command) == 0 && (i % 2 == 0 || n < 2); n++) {
            commands++;
            blocks.insert(command);
            failures += device->CompleteCommand(command, 0, static_cast<unsigned long>(command->size), 0) != 0;
        }
        failures += set->Close() != (i % 2 ? VD_E_OPEN : 0);
        if (i < 2)
            statement.end();
        else
            failures += (statement.end() == 0) != (i % 2 == 0);
        failures += blocks.size() > 10;
    }
    expect("failures", failures, 0);
    check("memory is used again", objects.size() < 80 && commands > 80 * 10);
    check("no descriptors are left", descriptors() <= before + 16 * 4);
    printf("  %zu objects, %zu commands, %zu descriptors before, %zu after\n", objects.size(), commands, before, descriptors());
}

static void left_behind() {
    scene("a process that ends in the middle of it all");
    Session *session = new Session("left");
    VDC_Command *command = nullptr;
    expect("GetCommand", session->device->GetCommand(VD_INFINITE, &command), 0);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    sql = argv[1];
    null_pointers();
    names();
    wrong_order();
    commands();
    abort_and_close();
    many();
    left_behind();
    printf("%d surprises\n", surprises.load());
    fflush(stdout);
    return surprises == 0 ? 0 : 1;
}
