// Buffers by their handles: this process gets the commands, and another one stores and fills their buffers.
//
// handles SET FILE
// handles worker SET FILE

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "agent.h"

// One job a line on standard input, "w HANDLE SIZE" or "r HANDLE SIZE"; the answer is the number of bytes.
static int worker(char **argv) {
    ClientVirtualDeviceSet set;
    int status = set.OpenInSecondary(argv[2]);
    if (status != 0) {
        fprintf(stderr, "worker: OpenInSecondary: %#x\n", static_cast<unsigned>(status));
        return 1;
    }
    FILE *file = nullptr;
    char verb;
    unsigned handle;
    size_t size;
    while (scanf(" %c %u %zu", &verb, &handle, &size) == 3) {
        if (!file)
            file = fopen(argv[3], verb == 'w' ? "wb" : "rb");
        uint8_t *buffer = nullptr;
        size_t bytes = 0;
        status = set.MapBufferHandle(static_cast<int>(handle), &buffer);
        if (status == 0 && file)
            bytes = verb == 'w' ? fwrite(buffer, 1, size, file) : fread(buffer, 1, size, file);
        else
            fprintf(stderr, "worker: MapBufferHandle: %#x\n", static_cast<unsigned>(status));
        printf("%zu\n", bytes);
        fflush(stdout);
    }
    if (file)
        fclose(file);
    // The last handle died with its command.
    uint8_t *stale = nullptr;
    fprintf(stderr, "worker: a stale handle: %#x\n", static_cast<unsigned>(set.MapBufferHandle(static_cast<int>(handle), &stale)));
    status = set.Close();
    fprintf(stderr, "worker: Close: %#x\n", static_cast<unsigned>(status));
    return status == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc == 4 && std::string(argv[1]) == "worker")
        return worker(argv);
    if (argc != 3)
        return 2;
    ClientVirtualDeviceSet set;
    VDConfig config = {};
    config.deviceCount = 1;
    if (!said("Create", set.Create(argv[1], &config)))
        return 1;
    printf("ready\n");
    fflush(stdout);
    ClientVirtualDevice *device = nullptr;
    if (!said("GetConfiguration", set.GetConfiguration(15000, &config)) || !said("OpenDevice", set.OpenDevice(argv[1], &device)))
        return 1;

    int jobs[2], answers[2];
    if (pipe(jobs) != 0 || pipe(answers) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        dup2(jobs[0], 0);
        dup2(answers[1], 1);
        for (int fd : {jobs[0], jobs[1], answers[0], answers[1]})
            close(fd);
        execl("/proc/self/exe", argv[0], "worker", argv[1], argv[2], static_cast<char *>(nullptr));
        _exit(127);
    }
    close(jobs[0]);
    close(answers[1]);
    FILE *to = fdopen(jobs[1], "w"), *from = fdopen(answers[0], "r");

    VDC_Command *command = nullptr;
    int status;
    unsigned passed = 0;
    while ((status = device->GetCommand(VD_INFINITE, &command)) == 0) {
        unsigned long bytes = 0;
        int code = ERROR_SUCCESS;
        bool write = command->commandCode == VDC_Write;
        if (write || command->commandCode == VDC_Read) {
            unsigned handle = 0;
            status = set.GetBufferHandle(command->buffer, &handle);
            if (status != 0)
                break;
            fprintf(to, "%c %u %d\n", write ? 'w' : 'r', handle, command->size);
            fflush(to);
            if (fscanf(from, "%lu", &bytes) != 1)
                break;
            passed++;
            if (bytes != static_cast<unsigned long>(command->size))
                code = write ? ERROR_DISK_FULL : ERROR_HANDLE_EOF;
        } else if (command->commandCode != VDC_Flush && command->commandCode != VDC_ClearError) {
            code = ERROR_NOT_SUPPORTED;
        }
        if ((status = device->CompleteCommand(command, code, bytes, 0)) != 0)
            break;
    }
    said("the end", status);
    bool closed = said("Close", status == VD_E_CLOSE ? 0 : set.SignalAbort());
    fclose(to);
    int result = 0;
    waitpid(child, &result, 0);
    closed = said("Close", set.Close()) && closed;
    printf("%u buffers passed\n", passed);
    return status == VD_E_CLOSE && closed && result == 0 ? 0 : 1;
}
