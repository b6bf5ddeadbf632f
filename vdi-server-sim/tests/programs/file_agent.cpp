// One device to or from a file, as the usual agent on Linux: it creates the set, runs the statement by a shell, and serves.
//
// file_agent b|r SET FILE COMMAND
//
// GetCommand gets a time-out of 90, of which the agent thinks in seconds.

#include <sys/stat.h>

#include <cstdlib>

#include "agent.h"

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    bool backup = argv[1][0] == 'b';
    umask(0);

    // Never deleted, as is usual.
    ClientVirtualDeviceSet *set = new ClientVirtualDeviceSet();
    VDConfig config;
    memset(&config, 0, sizeof config);
    config.deviceCount = 1;
    if (!said("Create", set->Create(argv[2], &config)))
        return 1;
    FILE *sql = popen((std::string(argv[4]) + " 2>&1").c_str(), "r");
    if (!sql)
        return 1;

    unsigned counts[20] = {};
    ClientVirtualDevice *device = nullptr;
    int status = 1;
    if (said("GetConfiguration", set->GetConfiguration(10000, &config)) &&
        said("OpenDevice", set->OpenDevice(argv[2], &device))) {
        printf("direction %d %d\n", (config.features & VDF_WriteMedia) != 0, (config.features & VDF_ReadMedia) != 0);
        FILE *file = fopen(argv[3], backup ? "wb" : "rb");
        if (!file)
            return 1;
        status = serve_all(device, file, 90, counts);
        said("the last GetCommand", status);
        fclose(file);
    }
    bool closed = said("Close", set->Close());

    char line[1024];
    while (fgets(line, sizeof line, sql))
        printf("%s", line);
    int result = pclose(sql);
    printf("%u reads, %u writes, %u flushes; the statement ended with %d\n", counts[VDC_Read], counts[VDC_Write],
           counts[VDC_Flush], result);
    return status == VD_E_CLOSE && closed && result == 0 ? 0 : 1;
}
