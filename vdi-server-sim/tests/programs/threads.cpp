// 1 to 64 devices, a thread each, as agents do that write stripes. The devices are SET, SET1, SET2 and so on.
//
// threads b|r SET COUNT FOLDER

#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "agent.h"

static std::atomic<int> failures(0);

static void work(ClientVirtualDeviceSet *set, std::string name, std::string path) {
    ClientVirtualDevice *device = nullptr;
    VDConfig config;
    unsigned counts[20] = {};
    int status = set->OpenDevice(text(name), &device);
    // The configuration again, in a thread: it says which way the data go.
    if (status == 0)
        status = set->GetConfiguration(VD_INFINITE, &config);
    if (status == 0) {
        FILE *file = fopen(path.c_str(), config.features & VDF_WriteMedia ? "wb" : "rb");
        if (file) {
            status = serve_all(device, file, VD_INFINITE, counts);
            fclose(file);
        }
    }
    VDC_Command *none = nullptr;
    // However often one asks.
    if (status != VD_E_CLOSE || device->GetCommand(VD_INFINITE, &none) != VD_E_CLOSE) {
        said(name.c_str(), status);
        set->SignalAbort();
        failures++;
    }
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    unsigned count = static_cast<unsigned>(atoi(argv[3]));
    ClientVirtualDeviceSet set;
    VDConfig config = {};
    config.deviceCount = count;
    if (!said("Create", set.Create(argv[2], &config)))
        return 1;
    printf("ready\n");
    fflush(stdout);
    if (!said("GetConfiguration", set.GetConfiguration(15000, &config)))
        return 1;

    std::vector<std::thread> threads;
    for (unsigned i = 0; i < count; i++) {
        std::string suffix = i ? std::to_string(i) : "";
        threads.emplace_back(work, &set, argv[2] + suffix, std::string(argv[4]) + "/stripe" + suffix);
    }
    for (std::thread &thread : threads)
        thread.join();
    bool closed = said("Close", set.Close());
    return failures == 0 && closed ? 0 : 1;
}
