// A process a device: the primary creates the set, and each device is served by a process that joins it.
//
// processes SET COUNT FOLDER
// processes secondary SET DEVICE FILE

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "agent.h"

static int secondary(char **argv) {
    ClientVirtualDeviceSet set;
    ClientVirtualDevice *device = nullptr;
    VDConfig config;
    unsigned counts[20] = {};
    if (!said("OpenInSecondary", set.OpenInSecondary(argv[2])) || !said("OpenDevice", set.OpenDevice(argv[3], &device)) ||
        !said("GetConfiguration", set.GetConfiguration(VD_INFINITE, &config)))
        return 1;
    FILE *file = fopen(argv[4], config.features & VDF_WriteMedia ? "wb" : "rb");
    int status = file ? serve_all(device, file, VD_INFINITE, counts) : -1;
    if (file)
        fclose(file);
    if (status != VD_E_CLOSE)
        set.SignalAbort();
    return said("Close", set.Close()) && status == VD_E_CLOSE ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc == 5 && std::string(argv[1]) == "secondary")
        return secondary(argv);
    if (argc != 4)
        return 2;
    unsigned count = static_cast<unsigned>(atoi(argv[2]));
    ClientVirtualDeviceSet set;
    VDConfig config = {};
    config.deviceCount = count;
    if (!said("Create", set.Create(argv[1], &config)))
        return 1;
    printf("ready\n");
    fflush(stdout);
    if (!said("GetConfiguration", set.GetConfiguration(15000, &config)))
        return 1;

    for (unsigned i = 0; i < count; i++) {
        std::string suffix = i ? std::to_string(i) : "";
        std::string device = argv[1] + suffix, file = std::string(argv[3]) + "/process" + suffix;
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", argv[0], "secondary", argv[1], device.c_str(), file.c_str(), static_cast<char *>(nullptr));
            _exit(127);
        }
    }
    bool good = true;
    for (unsigned i = 0; i < count; i++) {
        int status = 0;
        wait(&status);
        if (status != 0 && good) {
            set.SignalAbort();
            good = false;
        }
    }
    return said("Close", set.Close()) && good ? 0 : 1;
}
