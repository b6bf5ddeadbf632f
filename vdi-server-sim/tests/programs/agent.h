// What the test programs share: the command switch of the usual backup agent, with a file as the medium.
#ifndef AGENT_H
#define AGENT_H

#include <cstdio>
#include <cstring>
#include <string>

#include "vdi.h"

// Text for the parameters of the interface, which are not const.
inline char *text(const std::string &string) { return const_cast<char *>(string.c_str()); }

// Prints what a call returned; true where it succeeded. One line, in one piece.
inline bool said(const char *what, int status) {
    printf("%s: %#x\n", what, static_cast<unsigned>(status));
    fflush(stdout);
    return status == 0;
}

// Carries out one command the way most agents do, and completes it.
inline int serve(ClientVirtualDevice *device, VDC_Command *command, FILE *file) {
    int code = ERROR_NOT_SUPPORTED;
    unsigned long bytes = 0;
    switch (command->commandCode) {
    case VDC_Read:
        bytes = fread(command->buffer, 1, static_cast<size_t>(command->size), file);
        code = bytes == static_cast<unsigned long>(command->size) ? ERROR_SUCCESS : ERROR_HANDLE_EOF;
        break;
    case VDC_Write:
        bytes = fwrite(command->buffer, 1, static_cast<size_t>(command->size), file);
        code = bytes == static_cast<unsigned long>(command->size) ? ERROR_SUCCESS : ERROR_DISK_FULL;
        break;
    case VDC_Flush:
        code = fflush(file) == 0 ? ERROR_SUCCESS : ERROR_DISK_FULL;
        break;
    case VDC_ClearError:
        code = ERROR_SUCCESS;
        break;
    default:
        break;
    }
    return device->CompleteCommand(command, code, bytes, 0);
}

// Serves a device until it ends; returns the status that ended it. Counts the commands by their codes.
inline int serve_all(ClientVirtualDevice *device, FILE *file, time_t time_out, unsigned counts[20]) {
    VDC_Command *command = nullptr;
    int status;
    while ((status = device->GetCommand(time_out, &command)) == 0) {
        VDC_Command before = *command;
        status = serve(device, command, file);
        // Agents look at a command that they have completed.
        if (memcmp(&before, command, sizeof before) != 0) {
            printf("the command changed\n");
            return -1;
        }
        if (command->commandCode > 0 && command->commandCode < 20)
            counts[command->commandCode]++;
        if (status != 0)
            break;
    }
    return status;
}

#endif
