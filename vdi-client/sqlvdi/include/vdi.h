/*
 * The C++ interface of SQL Server's Virtual Device Interface on Linux, as libsqlvdi.so offers it. C++11 or later, 64 bits.
 *
 * A backup program is the device that SQL Server backs up to and restores from:
 *
 *     ClientVirtualDeviceSet set;              // stays where it is until the work is over
 *     VDConfig config = {};
 *     config.deviceCount = 1;
 *     set.Create(name, &config);               // now run BACKUP DATABASE ... TO VIRTUAL_DEVICE='name'
 *     set.GetConfiguration(60000, &config);    // waits for the server
 *     ClientVirtualDevice *device;
 *     set.OpenDevice(name, &device);
 *     VDC_Command *command;
 *     while (device->GetCommand(VD_INFINITE, &command) == 0) {
 *         ...                                  // carry it out
 *         device->CompleteCommand(command, ERROR_SUCCESS, bytes, 0);
 *     }                                        // VD_E_CLOSE: the server closed the device, the work is done
 *     set.Close();
 *
 * Every function that returns an int returns 0 or a VDError. Null pointers, calls in the wrong order and objects that are over
 * are answered by an error. With VDI_LOG=1 in the environment each refused call says why on standard error.
 *
 * Time-outs are in milliseconds; 0 returns at once; negative numbers and VD_INFINITE never pass. Programs that pass seconds to
 * GetCommand, as some do, are run with VDI_GETCOMMAND_TIMEOUT_UNIT=s in the environment.
 *
 * Licence: MIT or Apache-2.0, at your choice.
 */
#ifndef VDI_H
#define VDI_H

#if !defined(__linux__) || !defined(__LP64__)
#error "libsqlvdi.so exists for 64-bit Linux only"
#endif

#include <cstddef>
#include <cstdint>
#include <ctime>

/* Bits of VDConfig::features. */
enum VDFeatures : uint32_t {
    /* Client: what its devices can do. */
    VDF_Removable = 0x1,         /* media can be changed: VDC_Load */
    VDF_Rewind = 0x2,            /* VDC_Rewind */
    VDF_Position = 0x10,         /* VDC_GetPosition and VDC_SetPosition */
    VDF_SkipBlocks = 0x20,       /* VDC_SkipBlocks */
    VDF_ReversePosition = 0x40,  /* skips may go backwards */
    VDF_Discard = 0x80,          /* VDC_Discard */
    VDF_FileMarks = 0x100,       /* VDC_WriteMark and VDC_SkipMarks */
    VDF_RandomAccess = 0x200,    /* VDC_Read and VDC_Write carry a position */
    VDF_SnapshotPrepare = 0x400, /* wants VDC_PrepareToFreeze before a snapshot */
    VDF_EnumFrozenFiles = 0x800, /* wants VDC_FileInfoBegin and VDC_FileInfoEnd */
    VDF_VSSWriter = 0x1000,
    VDF_RequestComplete = 0x2000, /* asks for VDC_Complete at the end of a backup */
    /* Server, as GetConfiguration returns them. */
    VDF_WriteMedia = 0x10000,     /* the devices will be written: a backup */
    VDF_ReadMedia = 0x20000,      /* the devices will be read: a restore */
    VDF_CompleteEnabled = 0x40000, /* VDC_Complete will come */
    VDF_LatchStats = 0x80000000,
    /* The usual kinds of devices. */
    VDF_LikePipe = 0,
    VDF_LikeDisk = VDF_RandomAccess,
    VDF_LikeTape = VDF_Removable | VDF_Rewind | VDF_Position | VDF_SkipBlocks | VDF_ReversePosition | VDF_FileMarks
};

/* VDC_Command::commandCode. Answer what you do not support with ERROR_NOT_SUPPORTED. */
enum VDCommands : int32_t {
    VDC_Read = 1,             /* fill `buffer` with the next `size` bytes; at the end of the data with fewer, and ERROR_HANDLE_EOF */
    VDC_Write = 2,            /* store the `size` bytes of `buffer` */
    VDC_ClearError = 3,       /* the server saw the device's error, and goes on */
    VDC_Rewind = 4,           /* go to the beginning of the medium */
    VDC_WriteMark = 5,        /* write a filemark */
    VDC_SkipMarks = 6,        /* skip `size` filemarks, backwards where negative */
    VDC_SkipBlocks = 7,       /* skip `size` blocks, backwards where negative */
    VDC_Load = 8,             /* put medium number `size` in */
    VDC_GetPosition = 9,      /* complete it with the position */
    VDC_SetPosition = 10,     /* go to `position`; disk-like: counted from the beginning, here or the end, by `size` 0, 1, 2 */
    VDC_Discard = 11,         /* throw away what was written */
    VDC_Flush = 12,           /* make everything written so far durable */
    VDC_Snapshot = 13,        /* the database is frozen: take the snapshot, then complete */
    VDC_MountSnapshot = 14,   /* put the snapshot's files into their place */
    VDC_PrepareToFreeze = 15, /* a snapshot will follow */
    VDC_FileInfoBegin = 16,   /* the list of frozen files begins */
    VDC_FileInfoEnd = 17,     /* the list of frozen files ends */
    VDC_GetError = 18,
    VDC_Complete = 19         /* no more data will come: finish the backup, then complete */
};

/* What the functions return, besides 0. */
enum VDError : int32_t {
    VD_E_BASE = static_cast<int32_t>(0x80770000),
    VD_E_NOTOPEN = VD_E_BASE + 2,       /* the device is not open */
    VD_E_TIMEOUT = VD_E_BASE + 3,       /* the time-out passed first; try again */
    VD_E_ABORT = VD_E_BASE + 4,         /* the set was aborted, by the server or a client */
    VD_E_SECURITY = VD_E_BASE + 5,      /* this process may not use the set */
    VD_E_INVALID = VD_E_BASE + 6,       /* an argument names nothing that exists, or is null */
    VD_E_INSTANCE_NAME = VD_E_BASE + 7, /* not the name of a server instance */
    VD_E_NOTSUPPORTED = VD_E_BASE + 9,  /* a configuration that cannot be served */
    VD_E_MEMORY = VD_E_BASE + 10,       /* no more room */
    VD_E_UNEXPECTED = VD_E_BASE + 11,   /* the system failed */
    VD_E_PROTOCOL = VD_E_BASE + 12,     /* the call does not belong into the present state */
    VD_E_OPEN = VD_E_BASE + 13,         /* devices are open */
    VD_E_CLOSE = VD_E_BASE + 14,        /* the server closed the device: the normal end of its work */
    VD_E_BUSY = VD_E_BASE + 15          /* another process has the buffer mapped; complete the command later */
};

/* Codes for CompleteCommand: numbers of Win32 errors. Others may be used as well; anything but ERROR_SUCCESS is a failure, or a
 * condition of the medium. */
#ifndef ERROR_SUCCESS
#define ERROR_SUCCESS 0 /* carried out in full */
#endif
#ifndef ERROR_HANDLE_EOF
#define ERROR_HANDLE_EOF 38 /* VDC_Read: the data end after the bytes reported */
#endif
#ifndef ERROR_NOT_SUPPORTED
#define ERROR_NOT_SUPPORTED 50 /* this device does not know the command */
#endif
#ifndef ERROR_DISK_FULL
#define ERROR_DISK_FULL 112 /* VDC_Write: no more room */
#endif
#ifndef ERROR_OPERATION_ABORTED
#define ERROR_OPERATION_ABORTED 995 /* this program gives up */
#endif
#ifndef ERROR_END_OF_MEDIA
#define ERROR_END_OF_MEDIA 1100 /* VDC_Write: in the warning zone of VDConfig::EOMWarningSize */
#endif
#ifndef ERROR_FILEMARK_DETECTED
#define ERROR_FILEMARK_DETECTED 1101 /* VDC_Read, skips: a filemark was met */
#endif
#ifndef ERROR_BEGINNING_OF_MEDIA
#define ERROR_BEGINNING_OF_MEDIA 1102 /* a skip backwards met the beginning */
#endif
#ifndef ERROR_NO_DATA_DETECTED
#define ERROR_NO_DATA_DETECTED 1104 /* VDC_Read, skips: the data end here */
#endif
#ifndef ERROR_IO_DEVICE
#define ERROR_IO_DEVICE 1117 /* the device failed */
#endif

/* The time-out that never passes. */
static const time_t VD_INFINITE = -1;

/* The configuration of a set. The client fills in the first seven fields, with 0 for a default. */
struct VDConfig {
    uint32_t deviceCount;           /* devices of the set: 1 to 64 */
    uint32_t features;              /* VDFeatures; the server adds its own */
    uint32_t prefixZoneSize;        /* bytes in front of each buffer, for the client's own use */
    uint32_t alignment;             /* of each buffer's address: 0 or a power of two */
    uint32_t softFileMarkBlockSize; /* with VDF_FileMarks: 0, or the size of a filemark that the client stores as data */
    uint32_t EOMWarningSize;        /* with VDF_Removable: bytes between the warning and the end of a medium */
    uint32_t serverTimeOut;         /* milliseconds the server waits for the client; 0 for ever */
    uint32_t blockSize;             /* server: every transfer is a multiple of this */
    uint32_t maxIODepth;            /* server */
    uint32_t maxTransferSize;       /* server: bytes of the largest transfer */
    uint32_t bufferAreaSize;        /* server: bytes of all buffers */
};

/* A command that the server sent to a device. It belongs to the library: read it, do not delete it. It stays as it is at least
 * until the next GetCommand of its device, also after CompleteCommand; `buffer` is the program's only until CompleteCommand. */
struct VDC_Command {
    int32_t commandCode; /* VDCommands */
    int32_t size;        /* bytes to transfer, or what the command says */
    int64_t position;    /* with VDF_RandomAccess: of the data on the medium, in bytes */
    uint8_t *buffer;     /* the data of VDC_Read and VDC_Write; null for others */
};

/* The server's view of a command. For programs that name the type: no function here uses it. */
struct VDS_Command {
    int32_t commandCode;
    int32_t size;
    int64_t inPosition;
    int64_t outPosition;
    uint8_t *buffer;
    void (*completionRoutine)(VDS_Command *);
    void *completionContext;
    int32_t completionCode;
    int32_t bytesTransferred;
};

/* A device of a set. OpenDevice makes it, and it belongs to the set: it need not be deleted, and may be. Deleting it before the
 * server has closed it aborts the set. A device is meant for one thread, but any thread may complete its commands. */
class ClientVirtualDevice {
public:
    ClientVirtualDevice();  /* a device without a set: of no use */
    ~ClientVirtualDevice();

    /* Waits for the next command. Several may be held at a time. On an error *command stays what it was.
     * VD_E_CLOSE: the server closed the device, and the work is done; again and again. VD_E_TIMEOUT, VD_E_ABORT. VD_E_PROTOCOL
     * after the set's Close. */
    int GetCommand(time_t timeOut, VDC_Command **command);

    /* Reports to the server how a command ended, and returns its buffer.
     * VD_E_INVALID: not an outstanding command of this device, or more bytes than it has; then it is still outstanding.
     * VD_E_BUSY: a process has the buffer mapped with a lease (programs written in Rust do so); complete it again later.
     * VD_E_ABORT, VD_E_PROTOCOL. */
    int CompleteCommand(VDC_Command *command, int completionCode, unsigned long bytesTransferred, int64_t position);

private:
    void *reserved;
};

/* A virtual device set. An object has one set at a time, and can be used for another one after Close. Any thread may call it.
 * Do not copy an object: the destructor of the first copy that ends closes the set of all of them. */
class ClientVirtualDeviceSet {
public:
    ClientVirtualDeviceSet();
    ~ClientVirtualDeviceSet(); /* closes the set */

    /* Creates a set, so that the server finds it by this name: 1 to 128 characters of UTF-8. This process is its primary.
     * VD_E_INVALID: a bad name. VD_E_PROTOCOL: this object has a set, or one of this name exists. VD_E_NOTSUPPORTED: the
     * configuration. VD_E_SECURITY: the folder of the sockets (VDI_RUNTIME_DIR) is not to be trusted. */
    int Create(char *name, VDConfig *config);

    /* Waits for the server to configure the set. Repeatable, from any thread and in secondaries. VD_E_TIMEOUT, VD_E_ABORT. */
    int GetConfiguration(time_t timeOut, VDConfig *config);

    /* Opens a device by its name in the statement; the first one has the set's. On an error *device is null.
     * VD_E_INVALID: the statement names no such device. VD_E_OPEN: all devices are open. VD_E_PROTOCOL: this one is, or
     * GetConfiguration has not succeeded yet. VD_E_ABORT. */
    int OpenDevice(char *name, ClientVirtualDevice **device);

    /* Ends the set in this process, and the waits of its threads. The devices are over; so are addresses from MapBufferHandle.
     * The object may be used for another set.
     * VD_E_OPEN: a device had not returned VD_E_CLOSE; the set was aborted, and is closed all the same. VD_E_PROTOCOL: no set. */
    int Close();

    /* Aborts the set: every call that waits, in every process, returns VD_E_ABORT, and the statement fails. */
    int SignalAbort();

    /* Joins a set that another process created and got the configuration of, to open devices of it here, or to use handles. */
    int OpenInSecondary(char *setName);

    /* The handle of the buffer of an outstanding command: a number that other processes of the set map it by. It is good until
     * the command is completed. VD_E_INVALID: no such buffer. VD_E_PROTOCOL: the set is not open. */
    int GetBufferHandle(uint8_t *buffer, unsigned int *handle);

    /* The address of a buffer in this process, by its handle. It needs no unmapping, and stays mapped until Close; its bytes
     * are the command's until that is completed, so its holder must wait for this process before it completes it.
     * VD_E_INVALID: no such handle (any more). VD_E_PROTOCOL: the set is not open. */
    int MapBufferHandle(int handle, uint8_t **buffer);

    /* For the library's own use; does nothing. */
    void RegisterDeviceClosed();

private:
    void *reserved;
};

#endif
