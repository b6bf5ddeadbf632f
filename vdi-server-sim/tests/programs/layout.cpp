// The sizes, offsets and numbers of the binary interface, which no compiler may change.

#include <cstddef>
#include <type_traits>

#include "vdi.h"
#include "vdierror.h" // which agents include as well

#define AT(type, member, offset) static_assert(offsetof(type, member) == offset, #type "::" #member)

static_assert(sizeof(VDConfig) == 44 && alignof(VDConfig) == 4, "VDConfig");
AT(VDConfig, deviceCount, 0);
AT(VDConfig, features, 4);
AT(VDConfig, prefixZoneSize, 8);
AT(VDConfig, alignment, 12);
AT(VDConfig, softFileMarkBlockSize, 16);
AT(VDConfig, EOMWarningSize, 20);
AT(VDConfig, serverTimeOut, 24);
AT(VDConfig, blockSize, 28);
AT(VDConfig, maxIODepth, 32);
AT(VDConfig, maxTransferSize, 36);
AT(VDConfig, bufferAreaSize, 40);

static_assert(sizeof(VDC_Command) == 24 && alignof(VDC_Command) == 8, "VDC_Command");
AT(VDC_Command, commandCode, 0);
AT(VDC_Command, size, 4);
AT(VDC_Command, position, 8);
AT(VDC_Command, buffer, 16);

static_assert(sizeof(VDS_Command) == 56 && alignof(VDS_Command) == 8, "VDS_Command");
AT(VDS_Command, commandCode, 0);
AT(VDS_Command, size, 4);
AT(VDS_Command, inPosition, 8);
AT(VDS_Command, outPosition, 16);
AT(VDS_Command, buffer, 24);
AT(VDS_Command, completionRoutine, 32);
AT(VDS_Command, completionContext, 40);
AT(VDS_Command, completionCode, 48);
AT(VDS_Command, bytesTransferred, 52);

static_assert(sizeof(ClientVirtualDeviceSet) == 8 && alignof(ClientVirtualDeviceSet) == 8, "one pointer");
static_assert(sizeof(ClientVirtualDevice) == 8 && alignof(ClientVirtualDevice) == 8, "one pointer");
static_assert(!std::is_polymorphic<ClientVirtualDeviceSet>::value && !std::is_polymorphic<ClientVirtualDevice>::value,
              "no virtual functions");
static_assert(std::is_signed<decltype(VDC_Command::commandCode)>::value, "int");
static_assert(std::is_signed<decltype(VDC_Command::size)>::value, "int");

static_assert(sizeof(VDFeatures) == 4 && sizeof(VDCommands) == 4 && sizeof(VDError) == 4, "enums are 4 bytes");
static_assert(VDC_Read == 1 && VDC_Write == 2 && VDC_ClearError == 3 && VDC_Rewind == 4 && VDC_WriteMark == 5 &&
                  VDC_SkipMarks == 6 && VDC_SkipBlocks == 7 && VDC_Load == 8 && VDC_GetPosition == 9 &&
                  VDC_SetPosition == 10 && VDC_Discard == 11 && VDC_Flush == 12 && VDC_Snapshot == 13 &&
                  VDC_MountSnapshot == 14 && VDC_PrepareToFreeze == 15 && VDC_FileInfoBegin == 16 &&
                  VDC_FileInfoEnd == 17 && VDC_GetError == 18 && VDC_Complete == 19,
              "commands");
static_assert(VDF_RequestComplete == 0x2000 && VDF_CompleteEnabled == 0x40000 && VDF_WriteMedia == 0x10000 &&
                  VDF_ReadMedia == 0x20000 && VDF_LikeTape == 0x173 && VDF_LikeDisk == 0x200 && VDF_LikePipe == 0,
              "features");
static_assert(static_cast<uint32_t>(VD_E_NOTOPEN) == 0x80770002 && static_cast<uint32_t>(VD_E_TIMEOUT) == 0x80770003 &&
                  static_cast<uint32_t>(VD_E_ABORT) == 0x80770004 && static_cast<uint32_t>(VD_E_SECURITY) == 0x80770005 &&
                  static_cast<uint32_t>(VD_E_INVALID) == 0x80770006 &&
                  static_cast<uint32_t>(VD_E_INSTANCE_NAME) == 0x80770007 &&
                  static_cast<uint32_t>(VD_E_NOTSUPPORTED) == 0x80770009 &&
                  static_cast<uint32_t>(VD_E_MEMORY) == 0x8077000a && static_cast<uint32_t>(VD_E_UNEXPECTED) == 0x8077000b &&
                  static_cast<uint32_t>(VD_E_PROTOCOL) == 0x8077000c && static_cast<uint32_t>(VD_E_OPEN) == 0x8077000d &&
                  static_cast<uint32_t>(VD_E_CLOSE) == 0x8077000e && static_cast<uint32_t>(VD_E_BUSY) == 0x8077000f,
              "errors");
static_assert(sizeof(time_t) == 8 && std::is_same<time_t, long>::value && std::is_same<int64_t, long>::value,
              "mangled as l");

// Programs may derive; the base's constructor is another symbol.
class Derived : public ClientVirtualDeviceSet {
public:
    uint64_t canary = 0x123456789abcdef0;
};

class DerivedDevice : public ClientVirtualDevice {
public:
    uint64_t canary = 0x123456789abcdef0;
};

int main() {
    Derived *set = new Derived();
    DerivedDevice device;
    VDConfig config = {};
    config.deviceCount = 1;
    char name[] = "layout";
    VDC_Command *command = nullptr;
    bool good = set->Create(name, &config) == 0 && device.GetCommand(0, &command) == VD_E_INVALID && set->Close() == 0;
    good = good && set->canary == 0x123456789abcdef0 && device.canary == 0x123456789abcdef0;
    delete set;
    return good ? 0 : 1;
}
