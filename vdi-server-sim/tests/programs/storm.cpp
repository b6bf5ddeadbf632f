// Many threads that call everything at once, on the same objects, in no order: nothing may crash, hang, or stay behind.
//
// storm SQL SEED

#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "agent.h"

static std::atomic<VDC_Command *> commands[4];
static std::atomic<unsigned> handles[2];
static std::atomic<unsigned> calls(0);

static void storm(ClientVirtualDeviceSet *set, std::atomic<ClientVirtualDevice *> *shared, std::string name, unsigned seed) {
    std::minstd_rand random(seed);
    for (int i = 0; i < 400; i++) {
        ClientVirtualDevice *device = *shared, *another = nullptr;
        VDC_Command *command = commands[random() % 4];
        VDConfig config = {};
        config.deviceCount = 1;
        unsigned handle = 0;
        uint8_t *buffer = nullptr;
        unsigned what = random() % 1000;
        if (what < 350) {
            if (device->GetCommand(random() % 3, &command) == 0)
                commands[random() % 4] = command;
        } else if (what < 750) {
            device->CompleteCommand(command, what % 50 ? 0 : 1117, command ? static_cast<unsigned long>(command->size) : 0, 0);
        } else if (what < 820) {
            if (command && set->GetBufferHandle(command->buffer, &handle) == 0)
                handles[what % 2] = handle;
        } else if (what < 890) {
            set->MapBufferHandle(static_cast<int>(handles[what % 2].load()), &buffer);
        } else if (what < 930) {
            set->GetConfiguration(0, &config);
        } else if (what < 990) {
            if (set->OpenDevice(text(name), &another) == 0)
                *shared = another;
        } else if (what < 992) {
            set->SignalAbort();
        } else if (what < 994) {
            set->Close();
        } else if (what < 996) {
            set->Create(text(name), &config);
        } else if (what < 997) {
            set->OpenInSecondary(text(name));
        } else if (what < 998) {
            // Its memory stays: others may be about to call it.
            device->~ClientVirtualDevice();
        } else {
            set->RegisterDeviceClosed();
        }
        calls++;
    }
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    unsigned seed = static_cast<unsigned>(atoi(argv[2]));
    ClientVirtualDeviceSet *set = new ClientVirtualDeviceSet();
    // Where nothing is open yet.
    alignas(8) static unsigned char nothing[8];
    for (unsigned round = 0; round < 20; round++) {
        std::string name = "storm" + std::to_string(round);
        VDConfig config = {};
        config.deviceCount = 1;
        if (set->Create(text(name), &config) != 0)
            return 1;
        FILE *sql = popen((std::string(argv[1]) + " \"BACKUP DATABASE db TO VIRTUAL_DEVICE='" + name + "'\" 2>&1").c_str(), "r");
        if (set->GetConfiguration(10000, &config) != 0)
            return 1;
        std::atomic<ClientVirtualDevice *> device(reinterpret_cast<ClientVirtualDevice *>(nothing));
        ClientVirtualDevice *first = nullptr;
        if (set->OpenDevice(text(name), &first) == 0)
            device = first;
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < 4; i++)
            threads.emplace_back(storm, set, &device, name, seed + round * 4 + i + 1);
        for (std::thread &thread : threads)
            thread.join();
        set->Close();
        for (std::atomic<VDC_Command *> &command : commands)
            command = nullptr;
        char line[1024];
        while (fgets(line, sizeof line, sql)) {
        }
        pclose(sql);
    }
    // And then it works as ever.
    VDConfig config = {};
    config.deviceCount = 1;
    char name[] = "calm";
    ClientVirtualDevice *device = nullptr;
    VDC_Command *command = nullptr;
    if (!said("Create", set->Create(name, &config)))
        return 1;
    FILE *sql = popen((std::string(argv[1]) + " \"BACKUP DATABASE db TO VIRTUAL_DEVICE='calm'\" 2>&1").c_str(), "r");
    if (!said("GetConfiguration", set->GetConfiguration(10000, &config)) || !said("OpenDevice", set->OpenDevice(name, &device)))
        return 1;
    int status;
    while ((status = device->GetCommand(VD_INFINITE, &command)) == 0)
        device->CompleteCommand(command, 0, static_cast<unsigned long>(command->size), 0);
    said("the last GetCommand", status);
    bool good = said("Close", set->Close());
    char line[1024];
    while (fgets(line, sizeof line, sql))
        printf("%s", line);
    printf("%u calls\n", calls.load());
    return pclose(sql) == 0 && status == VD_E_CLOSE && good ? 0 : 1;
}
