// A medium that fails on purpose: one device to a file, whose Writes are answered with an error from some point on.
//
// errors SET FILE CODE FROM TIMES     CODE is full or io; Write number FROM and the ones behind it fail, TIMES times in all

#include <cstdlib>

#include "agent.h"

int main(int argc, char **argv) {
    if (argc != 6)
        return 2;
    int code = strcmp(argv[3], "full") == 0 ? ERROR_DISK_FULL : ERROR_IO_DEVICE;
    int first = atoi(argv[4]), times = atoi(argv[5]);
    ClientVirtualDeviceSet set;
    VDConfig config = {};
    config.deviceCount = 1;
    if (!said("Create", set.Create(argv[1], &config)))
        return 1;
    printf("ready\n");
    fflush(stdout);
    ClientVirtualDevice *device = nullptr;
    if (!said("GetConfiguration", set.GetConfiguration(15000, &config)) ||
        !said("OpenDevice", set.OpenDevice(argv[1], &device)))
        return 1;
    FILE *file = fopen(argv[2], "wb");
    if (!file)
        return 1;

    VDC_Command *command = nullptr;
    int status, writes = 0, failed = 0, cleared = 0;
    while ((status = device->GetCommand(VD_INFINITE, &command)) == 0) {
        if (command->commandCode == VDC_Write && ++writes >= first && failed < times) {
            failed++;
            // Nothing of it was stored.
            status = device->CompleteCommand(command, code, 0, 0);
        } else {
            cleared += command->commandCode == VDC_ClearError;
            status = serve(device, command, file);
        }
        if (status != 0)
            break;
    }
    fclose(file);
    printf("%d failed, %d cleared\n", failed, cleared);
    said("the end", status);
    set.Close();
    return 0;
}
