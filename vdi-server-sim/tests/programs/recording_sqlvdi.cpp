// A libsqlvdi.so that plays a script and records what it is called with, for tests of programs that load such a library.
//
// A set's name is the path of a folder. `script` in it has a line for each thing that is to happen:
//
//     config N1 ... N11     what GetConfiguration gives
//     wait OpenDevice       OpenDevice waits until the set is aborted
//     answer CALL N         the next call of CALL (Create, OpenDevice, CompleteCommand, ...) does nothing and returns N
// and, in the order in which GetCommand gives them:
//     write SIZE BYTE       a Write of SIZE bytes, each of them BYTE
//     read SIZE             a Read
//     command CODE SIZE POS any other command, without a buffer
//     quiet MS              nothing for so long
//     code N                GetCommand returns N
//     block ADDRESS         GetCommand gives a command at this address
//     buffer ADDRESS SIZE   a Write of a buffer at this address
//     again SIZE            a Write of the buffer that the last command has
//     throw                 GetCommand throws
// After the last line comes VD_E_CLOSE. Numbers are as strtoll takes them.
//
// `calls` gets a line for each call. Handles: 7000 is another buffer, 7001 gives no address.
#include "vdi.h"

#include <sys/mman.h>

#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Area {
    uint8_t *start;
    size_t bytes;
};

struct State {
    std::mutex lock;
    std::condition_variable changed;
    std::string folder;
    VDConfig config = {};
    std::multimap<std::string, int> answers;
    std::deque<std::vector<std::string>> script;
    Clock::time_point quiet_since;
    std::set<VDC_Command *> outstanding;
    std::vector<VDC_Command *> blocks;
    std::vector<Area> areas;
    std::vector<ClientVirtualDevice *> devices;
    uint8_t *last_buffer = nullptr;
    bool quiet = false;
    bool open_waits = false;
    bool aborted = false;
    bool there = false;

    void record(const char *format, ...) __attribute__((format(printf, 2, 3)));
    bool scripted(const char *call, int *answer);
    void load(const char *name);
    uint8_t *buffer(size_t bytes);
    VDC_Command *give(int code, int size, int64_t position, uint8_t *buffer);
};

void State::record(const char *format, ...) {
    std::string path = folder + "/calls";
    FILE *file = fopen(path.c_str(), "a");
    if (file == nullptr) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fclose(file);
}

bool State::scripted(const char *call, int *answer) {
    auto found = answers.find(call);
    if (found == answers.end()) return false;
    *answer = found->second;
    answers.erase(found);
    return true;
}

int number(const std::string &text) { return static_cast<int>(strtoll(text.c_str(), nullptr, 0)); }

void State::load(const char *name) {
    folder = name;
    std::ifstream file(folder + "/script");
    for (std::string line; std::getline(file, line);) {
        std::istringstream words(line);
        std::vector<std::string> step;
        for (std::string word; words >> word;) step.push_back(word);
        if (step.empty()) continue;
        if (step[0] == "config") {
            auto *fields = reinterpret_cast<uint32_t *>(&config);
            for (size_t i = 0; i < 11; i++) fields[i] = static_cast<uint32_t>(number(step.at(i + 1)));
        } else if (step[0] == "answer") {
            answers.emplace(step.at(1), number(step.at(2)));
        } else if (step[0] == "wait") {
            open_waits = true;
        } else {
            script.push_back(step);
        }
    }
}

// A page of its own at each end, and gone after Close: whoever uses it then, or beyond it, crashes. The prefix zone is 0xee.
uint8_t *State::buffer(size_t bytes) {
    size_t prefix = config.prefixZoneSize, all = (prefix + bytes + 4095) / 4096 * 4096 + 8192;
    void *memory = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    auto *start = static_cast<uint8_t *>(memory);
    if (mprotect(start + 4096, all - 8192, PROT_READ | PROT_WRITE) != 0) abort();
    areas.push_back({start, all});
    uint8_t *data = start + all - 4096 - bytes;
    memset(data - prefix, 0xee, prefix);
    return data;
}

VDC_Command *State::give(int code, int size, int64_t position, uint8_t *data) {
    auto *block = new VDC_Command;
    block->commandCode = code;
    block->size = size;
    block->position = position;
    block->buffer = data;
    blocks.push_back(block);
    outstanding.insert(block);
    if (data != nullptr) last_buffer = data;
    return block;
}

struct Device {
    State *state;
    std::string name;
};

// What the constructor of a device leaves in it, until OpenDevice gives it its own.
char own_constructor;

// Some sets fail before they have a name: their calls are nowhere recorded.
State *of(void *reserved) { return static_cast<State *>(reserved); }

}  // namespace

ClientVirtualDeviceSet::ClientVirtualDeviceSet() : reserved(new State) {}

ClientVirtualDeviceSet::~ClientVirtualDeviceSet() {
    State *state = of(reserved);
    if (!state->folder.empty()) state->record("destroyed");
    delete state;
}

int ClientVirtualDeviceSet::Create(char *name, VDConfig *config) {
    State *state = of(reserved);
    state->load(name);
    auto *fields = reinterpret_cast<uint32_t *>(config);
    std::ostringstream text;
    for (size_t i = 0; i < 11; i++) text << ' ' << fields[i];
    state->record("Create%s", text.str().c_str());
    int answer = 0;
    if (state->scripted("Create", &answer)) return answer;
    state->there = true;
    return 0;
}

int ClientVirtualDeviceSet::OpenInSecondary(char *name) {
    State *state = of(reserved);
    state->load(name);
    state->record("OpenInSecondary");
    int answer = 0;
    if (state->scripted("OpenInSecondary", &answer)) return answer;
    state->there = true;
    return 0;
}

int ClientVirtualDeviceSet::GetConfiguration(time_t timeout, VDConfig *config) {
    State *state = of(reserved);
    std::unique_lock<std::mutex> lock(state->lock);
    int answer = 0;
    if (state->scripted("GetConfiguration", &answer)) {
        if (answer == VD_E_TIMEOUT) {
            state->changed.wait_for(lock, std::chrono::milliseconds(timeout), [&] { return state->aborted; });
        }
        state->record("GetConfiguration -> %#x", static_cast<unsigned>(answer));
        return answer;
    }
    state->record("GetConfiguration");
    if (state->aborted) return VD_E_ABORT;
    *config = state->config;
    return 0;
}

int ClientVirtualDeviceSet::OpenDevice(char *name, ClientVirtualDevice **device) {
    State *state = of(reserved);
    std::unique_lock<std::mutex> lock(state->lock);
    state->record("OpenDevice %s", strcmp(name, state->folder.c_str()) == 0 ? "(the set's name)" : name);
    int answer = 0;
    if (state->scripted("OpenDevice", &answer)) return answer;
    if (state->open_waits) {
        state->changed.wait(lock, [&] { return state->aborted; });
        return VD_E_ABORT;
    }
    *device = new ClientVirtualDevice;
    auto *reserved_of_device = reinterpret_cast<void **>(*device);
    // Another library's constructor was called, by the names that both have.
    if (*reserved_of_device != &own_constructor) abort();
    *reserved_of_device = new Device{state, name};
    state->devices.push_back(*device);
    return 0;
}

int ClientVirtualDeviceSet::Close() {
    State *state = of(reserved);
    std::unique_lock<std::mutex> lock(state->lock);
    state->record("Close, %zu outstanding", state->outstanding.size());
    int answer = 0;
    if (state->scripted("Close", &answer)) return answer;
    for (Area area : state->areas) munmap(area.start, area.bytes);
    for (VDC_Command *block : state->blocks) delete block;
    for (ClientVirtualDevice *device : state->devices) delete device;
    state->areas.clear();
    state->blocks.clear();
    state->devices.clear();
    return 0;
}

int ClientVirtualDeviceSet::SignalAbort() {
    State *state = of(reserved);
    std::unique_lock<std::mutex> lock(state->lock);
    state->record("SignalAbort");
    int answer = 0;
    if (state->scripted("SignalAbort", &answer)) return answer;
    state->aborted = true;
    state->changed.notify_all();
    return 0;
}

int ClientVirtualDeviceSet::GetBufferHandle(uint8_t *buffer, unsigned int *handle) {
    State *state = of(reserved);
    std::unique_lock<std::mutex> lock(state->lock);
    state->record("GetBufferHandle of %s", buffer == state->last_buffer ? "the last buffer" : "something else");
    int answer = 0;
    if (state->scripted("GetBufferHandle", &answer)) return answer;
    *handle = 4711;
    return 0;
}

int ClientVirtualDeviceSet::MapBufferHandle(int handle, uint8_t **buffer) {
    State *state = of(reserved);
    std::unique_lock<std::mutex> lock(state->lock);
    state->record("MapBufferHandle %d", handle);
    int answer = 0;
    if (state->scripted("MapBufferHandle", &answer)) return answer;
    switch (handle) {
        case 4711: *buffer = state->last_buffer; return 0;
        case 7000:
            *buffer = state->buffer(state->config.maxTransferSize);
            memset(*buffer, 0x5a, state->config.maxTransferSize);
            return 0;
        case 7001: *buffer = nullptr; return 0;
        default: return VD_E_INVALID;
    }
}

void ClientVirtualDeviceSet::RegisterDeviceClosed() {}

ClientVirtualDevice::ClientVirtualDevice() : reserved(&own_constructor) {}

ClientVirtualDevice::~ClientVirtualDevice() { delete static_cast<Device *>(reserved); }

int ClientVirtualDevice::GetCommand(time_t timeout, VDC_Command **command) {
    State *state = static_cast<Device *>(reserved)->state;
    std::unique_lock<std::mutex> lock(state->lock);
    auto deadline = Clock::now() + std::chrono::milliseconds(timeout);
    for (;;) {
        if (state->aborted) return VD_E_ABORT;
        if (state->script.empty()) return VD_E_CLOSE;
        std::vector<std::string> step = state->script.front();
        if (step[0] == "quiet") {
            if (!state->quiet) {
                state->quiet = true;
                state->quiet_since = Clock::now();
            }
            auto end = state->quiet_since + std::chrono::milliseconds(number(step.at(1)));
            auto until = std::min(deadline, end);
            state->changed.wait_until(lock, until, [&] { return state->aborted; });
            if (state->aborted) return VD_E_ABORT;
            if (Clock::now() >= end) {
                state->quiet = false;
                state->script.pop_front();
                continue;
            }
            state->record("GetCommand(%lld) -> VD_E_TIMEOUT", static_cast<long long>(timeout));
            return VD_E_TIMEOUT;
        }
        state->script.pop_front();
        std::ostringstream line;
        for (const std::string &word : step) line << ' ' << word;
        state->record("GetCommand ->%s", line.str().c_str());
        auto size = [&](size_t at) { return number(step.at(at)); };
        auto address = [&] { return reinterpret_cast<void *>(strtoull(step.at(1).c_str(), nullptr, 0)); };
        if (step[0] == "write") {
            uint8_t *data = state->buffer(static_cast<size_t>(size(1)));
            memset(data, size(2), static_cast<size_t>(size(1)));
            *command = state->give(VDC_Write, size(1), 0, data);
        } else if (step[0] == "read") {
            *command = state->give(VDC_Read, size(1), 0, state->buffer(static_cast<size_t>(size(1))));
        } else if (step[0] == "command") {
            *command = state->give(size(1), size(2), size(3), nullptr);
        } else if (step[0] == "code") {
            return size(1);
        } else if (step[0] == "block") {
            *command = static_cast<VDC_Command *>(address());
        } else if (step[0] == "buffer") {
            *command = state->give(VDC_Write, size(2), 0, static_cast<uint8_t *>(address()));
        } else if (step[0] == "again") {
            *command = state->give(VDC_Write, size(1), 0, state->last_buffer);
        } else {
            throw std::runtime_error("as the script wants it");
        }
        return 0;
    }
}

int ClientVirtualDevice::CompleteCommand(VDC_Command *command, int code, unsigned long bytes, int64_t position) {
    State *state = static_cast<Device *>(reserved)->state;
    std::unique_lock<std::mutex> lock(state->lock);
    bool known = state->outstanding.count(command) == 1;
    unsigned sum = 0, prefix = 0;
    if (known && command->commandCode == VDC_Read) {
        for (unsigned long i = 0; i < bytes; i++) sum += command->buffer[i];
        for (uint32_t i = 1; i <= state->config.prefixZoneSize; i++) prefix += command->buffer[-static_cast<int64_t>(i)];
    }
    state->record("CompleteCommand of %d: code %d, %lu bytes, position %lld, sum %u, prefix %u",
                  known ? command->commandCode : -1, code, bytes, static_cast<long long>(position), sum, prefix);
    int answer = 0;
    if (state->scripted("CompleteCommand", &answer)) return answer;
    if (state->aborted) return VD_E_ABORT;
    if (!known) return VD_E_INVALID;
    state->outstanding.erase(command);
    return 0;
}
