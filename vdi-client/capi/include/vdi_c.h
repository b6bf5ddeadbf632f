/*
 * vdi_c.h: the client's side of SQL Server's Virtual Device Interface, for C and for every language that can call C.
 *
 * Made by cbindgen from vdi-client/capi/src; do not edit. VDI_UPDATE_HEADER=1 cargo test -p vdi-capi makes it anew.
 *
 * RESULTS. Every function that returns int32_t returns 0 for success, or a negative VD_E_* status. vdi_last_error_text()
 * then gives the reason to the same thread.
 *
 * OBJECTS. vdi_set, vdi_device and vdi_mapped are opaque. Their pointers are numbers, not addresses: they must not be
 * followed. A number is never given out twice, so that a pointer that is NULL, was freed, is of another kind or was made
 * up is VD_E_INVALID and nothing else happens. The program frees each object that it gets, once, in any order and from any
 * thread. A process that ends frees what it has, but for the socket of a set: that goes when the set's name is next used.
 *
 * MEMORY. All other pointers must be NULL (VD_E_INVALID, unless the function says what NULL means) or point at memory
 * that may be read or written as the function does; they are used during the call only. They need no alignment.
 * How long a pointer that a function gives out is valid is said at that function.
 *
 * STRINGS. UTF-8, ended by a zero byte within 1024 bytes; others are VD_E_INVALID.
 *
 * TIME-OUTS. Milliseconds as int64_t. 0 returns at once. Negative numbers and 4294967295 (INFINITE) never pass.
 *
 * THREADS. Every function may be called from any thread at any time, with any object. A function that waits waits in the
 * calling thread; vdi_set_signal_abort and vdi_set_close from another thread end its wait.
 *
 * ENVIRONMENT. VDI_LIBRARY=PATH names SQL Server's libsqlvdi.so: sets are made with that library, and the server is SQL
 * Server on the same machine. Without it sets are in this project's own shared memory. VDI_GETCOMMAND_TIMEOUT_UNIT=s is for
 * a library that takes seconds in GetCommand. With SQL Server's library there are no instances and no leases, a buffer is
 * mapped by vdi_set_map_buffer_handle_sized, and a wait that another thread ends returns within 100 ms (1 s where the library
 * takes seconds). In this project's own shared memory VDI_RUNTIME_DIR names the directory where client and server meet, and
 * VDI_ALLOW_UID and VDI_ALLOW_GID name other users and groups that are trusted: numbers, separated by commas; the server has to
 * allow this program's user, too. All but VDI_RUNTIME_DIR are read once, when the first set is made.
 *
 * LOG. With VDI_LOG set in the environment, to anything but 0, when a call first fails, each call that fails writes its
 * error's text to standard error: VD_E_TIMEOUT and VD_E_CLOSE, too. It raises no SIGPIPE.
 *
 * PROCESSES. An object belongs to the process that got it. In a fork the objects of its parent are VD_E_INVALID, and nothing
 * that the fork does, its end included, changes anything for the parent. It calls exec, or creates or joins sets itself.
 * A fork that lives on without exec keeps its parent's connections open: if the parent is killed, the other processes notice
 * only when the fork ends, too.
 */

#ifndef VDI_C_H
#define VDI_C_H

#include <stdint.h>

/**
 * Media can be changed: the server may send Load.
 */
#define VDF_REMOVABLE 1

/**
 * Rewind is supported.
 */
#define VDF_REWIND 2

/**
 * GetPosition and SetPosition are supported; positions mean what the device says.
 */
#define VDF_POSITION 16

/**
 * SkipBlocks is supported.
 */
#define VDF_SKIP_BLOCKS 32

/**
 * Skips may go backwards.
 */
#define VDF_REVERSE_POSITION 64

/**
 * Discard is supported.
 */
#define VDF_DISCARD 128

/**
 * WriteMark and SkipMarks are supported; reading through a mark reports it.
 */
#define VDF_FILE_MARKS 256

/**
 * Read and Write carry a byte position.
 */
#define VDF_RANDOM_ACCESS 512

/**
 * The client wants PrepareToFreeze before a snapshot.
 */
#define VDF_SNAPSHOT_PREPARE 1024

/**
 * The client wants FileInfoBegin and FileInfoEnd.
 */
#define VDF_ENUM_FROZEN_FILES 2048

/**
 * Used by the VSS writer.
 */
#define VDF_VSS_WRITER 4096

/**
 * The client asks for the Complete command.
 */
#define VDF_REQUEST_COMPLETE 8192

/**
 * Set by the server: the devices will be written, this is a backup.
 */
#define VDF_WRITE_MEDIA 65536

/**
 * Set by the server: the devices will be read, this is a restore.
 */
#define VDF_READ_MEDIA 131072

/**
 * Set by the server: Complete will be sent.
 */
#define VDF_COMPLETE_ENABLED 262144

/**
 * Latch statistics.
 */
#define VDF_LATCH_STATS 2147483648

/**
 * Fill the buffer with the next bytes (disk-like: with those at the position).
 */
#define VDC_READ 1

/**
 * Store the buffer's bytes next (disk-like: at the position).
 */
#define VDC_WRITE 2

/**
 * Leave IO-ERROR: the only command sent to a device in that state.
 */
#define VDC_CLEAR_ERROR 3

/**
 * Go to the beginning of the medium.
 */
#define VDC_REWIND 4

/**
 * Write a filemark.
 */
#define VDC_WRITE_MARK 5

/**
 * Skip filemarks.
 */
#define VDC_SKIP_MARKS 6

/**
 * Skip blocks.
 */
#define VDC_SKIP_BLOCKS 7

/**
 * Put another medium into the device.
 */
#define VDC_LOAD 8

/**
 * Report the position: a block address (tape-like) or a byte offset (disk-like).
 */
#define VDC_GET_POSITION 9

/**
 * Go to a position.
 */
#define VDC_SET_POSITION 10

/**
 * Throw away what was written.
 */
#define VDC_DISCARD 11

/**
 * Make everything written so far durable; disk-like: also sets the end of the file.
 */
#define VDC_FLUSH 12

/**
 * Database writes are frozen: take the snapshot, then complete.
 */
#define VDC_SNAPSHOT 13

/**
 * Mount the snapshot that is being restored.
 */
#define VDC_MOUNT_SNAPSHOT 14

/**
 * A snapshot will follow; more metadata may be written before it.
 */
#define VDC_PREPARE_TO_FREEZE 15

/**
 * The list of frozen files begins.
 */
#define VDC_FILE_INFO_BEGIN 16

/**
 * The list of frozen files ends.
 */
#define VDC_FILE_INFO_END 17

/**
 * Report the device's error.
 */
#define VDC_GET_ERROR 18

/**
 * No more data will come: finish the backup, then answer.
 */
#define VDC_COMPLETE 19

/**
 * The command was carried out in full.
 */
#define VDI_ERROR_SUCCESS 0

/**
 * The server's callback for a command sent to a device that is not active.
 */
#define VDI_ERROR_INVALID_HANDLE 6

/**
 * The client found its storage control blocks destroyed.
 */
#define VDI_ERROR_ARENA_TRASHED 7

/**
 * Read: the end of the data; the bytes reported, if any, come before it.
 */
#define VDI_ERROR_HANDLE_EOF 38

/**
 * As VDI_ERROR_DISK_FULL.
 */
#define VDI_ERROR_HANDLE_DISK_FULL 39

/**
 * The client does not support the command.
 */
#define VDI_ERROR_NOT_SUPPORTED 50

/**
 * Write: no more room; the server aborts the backup.
 */
#define VDI_ERROR_DISK_FULL 112

/**
 * The set was aborted while the command was outstanding.
 */
#define VDI_ERROR_OPERATION_ABORTED 995

/**
 * Write: the end-of-media warning zone was reached.
 */
#define VDI_ERROR_END_OF_MEDIA 1100

/**
 * Read or skip: a filemark was met.
 */
#define VDI_ERROR_FILEMARK_DETECTED 1101

/**
 * A backward skip met the beginning of the medium.
 */
#define VDI_ERROR_BEGINNING_OF_MEDIA 1102

/**
 * A setmark was met.
 */
#define VDI_ERROR_SETMARK_DETECTED 1103

/**
 * Read: the end of the data; treated like VDI_ERROR_HANDLE_EOF.
 */
#define VDI_ERROR_NO_DATA_DETECTED 1104

/**
 * The device failed; also what commands queued behind a failed one complete with.
 */
#define VDI_ERROR_IO_DEVICE 1117

/**
 * Write: beyond the end of the medium; the server aborts the backup.
 */
#define VDI_ERROR_EOM_OVERFLOW 1129

/**
 * The server's callback for a command that did not fit the queue.
 */
#define VDI_ERROR_NO_SYSTEM_RESOURCES 1450

/**
 * 0x80770002: the device is not open.
 */
#define VD_E_NOTOPEN -2139684862

/**
 * 0x80770003: the time-out passed first.
 */
#define VD_E_TIMEOUT -2139684861

/**
 * 0x80770004: the set was aborted, by the server or a client.
 */
#define VD_E_ABORT -2139684860

/**
 * 0x80770005: the process may not use this set.
 */
#define VD_E_SECURITY -2139684859

/**
 * 0x80770006: an argument names nothing that exists (a device, a command, a buffer, a handle).
 */
#define VD_E_INVALID -2139684858

/**
 * 0x80770007: not the name of a server instance.
 */
#define VD_E_INSTANCE_NAME -2139684857

/**
 * 0x80770009: a configuration field or feature that cannot be served.
 */
#define VD_E_NOTSUPPORTED -2139684855

/**
 * 0x8077000a: no more buffer space, or no more places for processes or buffers.
 */
#define VD_E_MEMORY -2139684854

/**
 * 0x8077000b: a failure of the machine, not of the protocol.
 */
#define VD_E_UNEXPECTED -2139684853

/**
 * 0x8077000c: the call does not belong into the present state.
 */
#define VD_E_PROTOCOL -2139684852

/**
 * 0x8077000d: all devices are open, or devices were still open.
 */
#define VD_E_OPEN -2139684851

/**
 * 0x8077000e: the server closed the device; the normal end of the work.
 */
#define VD_E_CLOSE -2139684850

/**
 * 0x8077000f: another process still uses the buffer.
 */
#define VD_E_BUSY -2139684849

/**
 * 0x8077f001: the device holds as many commands as it can (server side only).
 */
#define VD_E_QUEUE_FULL -2139623423

/**
 * 0x8077f002: the device is in IO-ERROR and takes only ClearError (server side only).
 */
#define VD_E_IO_ERROR -2139623422

/**
 * An open device of a set.
 */
typedef struct vdi_device vdi_device;

/**
 * The buffer of another process's command, mapped by its handle: a lease on it.
 */
typedef struct vdi_mapped vdi_mapped;

/**
 * A virtual device set that this process created or joined.
 */
typedef struct vdi_set vdi_set;

/**
 * The configuration of a set: VDConfig. The client requests what is marked "by the client" and leaves the other fields
 * 0; vdi_set_get_configuration gives all, as negotiated.
 *
 * Source: VDI specification, "Configuration".
 */
typedef struct vdi_config {
    /**
     * By the client: devices in the set, 1 to 64.
     */
    uint32_t device_count;
    /**
     * By the client, then by the server: VDF_* bits.
     */
    uint32_t features;
    /**
     * By the client: bytes right before each buffer's data for the client's own use, 0 to 65536.
     */
    uint32_t prefix_zone_size;
    /**
     * By the client, raised by the server: least alignment of each buffer's data in bytes; 0 or a power of two up to
     * 65536.
     */
    uint32_t alignment;
    /**
     * By the client, only with VDF_FILE_MARKS: 0 for hard filemarks, else the size of a soft one in bytes, a power of
     * two from 512 to 65536.
     */
    uint32_t soft_file_mark_block_size;
    /**
     * By the client, only with VDF_REMOVABLE: bytes of the end-of-media warning zone; 0 for none.
     */
    uint32_t eom_warning_size;
    /**
     * By the client: the server's time-out in milliseconds; 0 for none.
     */
    uint32_t server_time_out;
    /**
     * By the server: every transfer is a multiple of this, in bytes.
     */
    uint32_t block_size;
    /**
     * By the server: how many commands a device may have outstanding; always 4, as in the specification.
     */
    uint32_t max_io_depth;
    /**
     * By the server: the largest transfer in bytes.
     */
    uint32_t max_transfer_size;
    /**
     * By the server: all buffer space in bytes.
     */
    uint32_t buffer_area_size;
} vdi_config;

/**
 * A command that the server sent to a device: VDC_Command.
 *
 * Source: VDI specification, "Commands".
 */
typedef struct vdi_command {
    /**
     * What it is completed by. Unique among the device's outstanding commands.
     */
    uint32_t id;
    /**
     * Which command: VDC_*. Numbers without a name may come and are completed with VDI_ERROR_NOT_SUPPORTED.
     */
    uint32_t code;
    /**
     * VDC_READ and VDC_WRITE: bytes to transfer. VDC_SKIP_MARKS and VDC_SKIP_BLOCKS: how many, negative for backwards.
     * VDC_LOAD: the number of the medium. VDC_SET_POSITION of a disk-like device: what position counts from (0
     * beginning, 1 current, 2 end). Else 0.
     */
    int32_t size;
    /**
     * The bytes at prefix: prefix_zone_size of the configuration; 0 for a command without data.
     */
    uint32_t prefix_size;
    /**
     * VDC_READ and VDC_WRITE of a disk-like device: the byte position on the medium. VDC_SET_POSITION: where to go.
     */
    uint64_t position;
    /**
     * VDC_WRITE: the bytes to store. VDC_READ: where to put them. NULL for all others. Shared memory, valid until the
     * command is completed or its device is freed; not to be touched after that.
     */
    uint8_t *data;
    /**
     * The bytes right before data, for the client's own use, valid as long as data; NULL where there are none.
     */
    uint8_t *prefix;
} vdi_command;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The library's version, "0.1.0" for example. Valid for ever.
 */
const char *vdi_version(void);

/**
 * The name of a status, "VD_E_TIMEOUT" for example; "NOERROR" for 0, "unknown status" for other numbers. Valid for
 * ever.
 */
const char *vdi_error_name(int32_t status);

/**
 * The status of this thread's last call that failed; 0 if none has. Calls that succeed leave it.
 */
int32_t vdi_last_error_code(void);

/**
 * The text of this thread's last call that failed: the function, the command, device and set, the VD_E_* name and
 * number, what is wrong, and what to do. Empty if none has failed, never NULL. UTF-8 without an end of line.
 *
 * Lifetime: until this thread's next call that fails, or its end. Copy it to keep it.
 */
const char *vdi_last_error_text(void);

/**
 * Creates a set, so that the server can find it when it gets BACKUP or RESTORE ... VIRTUAL_DEVICE='name'. This process
 * becomes the set's primary.
 *
 * instance: the server's instance; NULL or "" for the default one. name: 1 to 128 characters without backslashes and
 * control characters; the first device has this name, too. config: what the client requests. set: where the set goes;
 * NULL goes there on failure. Free it with vdi_set_free.
 *
 * Returns 0; VD_E_INVALID for a NULL or bad name; VD_E_INSTANCE_NAME for what no instance could be called, and for any
 * name with SQL Server's library; VD_E_NOTSUPPORTED for a configuration that no server serves; VD_E_PROTOCOL when a
 * live set has this name; VD_E_SECURITY when the runtime directory is not to be trusted; VD_E_MEMORY and
 * VD_E_UNEXPECTED when the system refuses. VD_E_INVALID, VD_E_NOTSUPPORTED and VD_E_UNEXPECTED when the library that
 * VDI_LIBRARY names cannot be used; VD_E_INVALID when VDI_ALLOW_UID or VDI_ALLOW_GID is no list of numbers.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::CreateEx.
 */
int32_t vdi_set_create(const char *instance,
                       const char *name,
                       const struct vdi_config *config,
                       struct vdi_set **set);

/**
 * Joins a set that another process created and configured, to open devices of it here or to work on buffers by their
 * handles. This process becomes a secondary.
 *
 * instance, name: as the primary passed them to vdi_set_create. set: where the set goes; NULL goes there on failure.
 * Free it with vdi_set_free.
 *
 * Returns 0; VD_E_INVALID and VD_E_INSTANCE_NAME for bad names; VD_E_PROTOCOL when there is no such set, when its
 * primary has not got the configuration yet, and when its work has ended; VD_E_ABORT when it was aborted;
 * VD_E_SECURITY when this process may not join, or does not trust the creator; VD_E_MEMORY when the set has as many
 * processes as it can; for VDI_LIBRARY, VDI_ALLOW_UID and VDI_ALLOW_GID as vdi_set_create.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::OpenInSecondaryEx.
 */
int32_t vdi_set_open_in_secondary(const char *instance, const char *name, struct vdi_set **set);

/**
 * Waits for the server to configure the set, and gives the negotiated configuration. Once it has succeeded it does so
 * again at once. A set's primary calls it before anything else.
 *
 * timeout_ms: see TIME-OUTS. config: where the configuration goes; untouched on failure.
 *
 * Returns 0; VD_E_TIMEOUT when no server came in time: check whether the statement failed; VD_E_ABORT; VD_E_PROTOCOL
 * when the set is closed; VD_E_INVALID for bad pointers.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::GetConfiguration.
 */
int32_t vdi_set_get_configuration(struct vdi_set *set, int64_t timeout_ms, struct vdi_config *config);

/**
 * Opens a device by its name, for this process. Waits for the server to announce its devices, which it does right
 * after it has configured the set.
 *
 * name: as in the statement; case-sensitive; the first device has the set's name. device: where the device goes; NULL
 * goes there on failure. Free it with vdi_device_free.
 *
 * Returns 0; VD_E_OPEN when all devices are open; VD_E_PROTOCOL when this one is, before the configuration, and when
 * the set is closed; VD_E_INVALID when the set has no device of this name, and for bad pointers; VD_E_ABORT.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::OpenDevice.
 */
int32_t vdi_set_open_device(struct vdi_set *set, const char *name, struct vdi_device **device);

/**
 * Aborts the set: every wait in every process of it returns VD_E_ABORT, and the statement fails.
 *
 * Returns 0; VD_E_PROTOCOL when the set is closed or its work has ended; VD_E_INVALID for a bad pointer.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::SignalAbort.
 */
int32_t vdi_set_signal_abort(struct vdi_set *set);

/**
 * As vdi_set_signal_abort, and says why: the messages of the statement and the errors of the other processes have the
 * reason.
 *
 * code: the completion code that stands for it, such as VDI_ERROR_DISK_FULL. reason: a string; the others get its first 512
 * bytes. With VDI_LIBRARY the reason stays here: the interface has no place for it.
 *
 * Returns 0; VD_E_PROTOCOL when the set is closed or its work has ended; VD_E_INVALID for a bad pointer or string.
 */
int32_t vdi_set_signal_abort_because(struct vdi_set *set,
                                     uint32_t code,
                                     const char *reason);

/**
 * Closes the set in this process. The waits of other threads end with VD_E_PROTOCOL, or VD_E_ABORT where the close
 * aborted the set. A primary ends the set for all processes, a secondary leaves it. The set, its devices and its
 * mapped buffers still have to be freed; data of commands and mapped buffers stay readable until then.
 *
 * Returns 0, also when the set was aborted before; VD_E_OPEN when a device had not returned VD_E_CLOSE: the set was
 * aborted, and is closed all the same; VD_E_PROTOCOL when it is closed already; VD_E_INVALID for a bad pointer.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::Close.
 */
int32_t vdi_set_close(struct vdi_set *set);

/**
 * Frees a set, and closes it unless vdi_set_close has: with open devices that aborts it. Devices and mapped buffers
 * are freed apart from it, before or after.
 *
 * Returns 0; VD_E_INVALID for what is no set, or was freed already.
 */
int32_t vdi_set_free(struct vdi_set *set);

/**
 * The handle of a command's buffer, by which another process of the set maps it with vdi_set_map_buffer_handle. Pass
 * the number on by any way; the caller stays responsible for completing the command. The handle dies with the command.
 *
 * data: vdi_command.data of an outstanding command of this process. handle: where the handle goes; untouched on
 * failure.
 *
 * Returns 0; VD_E_INVALID unless data is that, and for bad pointers; VD_E_PROTOCOL unless the set is open; VD_E_ABORT.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::GetBufferHandle.
 */
int32_t vdi_set_get_buffer_handle(struct vdi_set *set,
                                  const void *data,
                                  uint32_t *handle);

/**
 * Maps the buffer that another process of this set got with a command. Until vdi_mapped_release that command cannot be
 * completed: VD_E_BUSY there. Not with SQL Server's library, which does not know how many bytes a buffer has:
 * vdi_set_map_buffer_handle_sized works everywhere.
 *
 * handle: from vdi_set_get_buffer_handle of the other process. mapped: where the lease goes; NULL goes there on
 * failure.
 *
 * Returns 0; VD_E_INVALID for a handle that is stale, forged or another set's, and for bad pointers; VD_E_BUSY when
 * this process has the buffer already; VD_E_NOTSUPPORTED with SQL Server's library; VD_E_PROTOCOL unless the set is
 * open; VD_E_ABORT.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::MapBufferHandle.
 */
int32_t vdi_set_map_buffer_handle(struct vdi_set *set,
                                  uint32_t handle,
                                  struct vdi_mapped **mapped);

/**
 * As vdi_set_map_buffer_handle, with the number of bytes that the command has. Works with SQL Server's library, too.
 * That library has no leases: nothing there keeps the command from being completed, so the process that got the
 * command must wait until this one is done with the buffer.
 *
 * handle: from vdi_set_get_buffer_handle of the other process. size: vdi_command.size of the command, which the other
 * process passes on with the handle. mapped: where the lease goes; NULL goes there on failure.
 *
 * Returns 0; as vdi_set_map_buffer_handle; VD_E_INVALID when the buffer cannot have so many bytes.
 *
 * Source: VDI specification, IClientVirtualDeviceSet2::MapBufferHandle.
 */
int32_t vdi_set_map_buffer_handle_sized(struct vdi_set *set,
                                        uint32_t handle,
                                        uint64_t size,
                                        struct vdi_mapped **mapped);

/**
 * Where a mapped buffer is in this process, and how many bytes it has: those of vdi_set_map_buffer_handle_sized, else
 * all of the buffer. The command may have fewer; the process that got it knows its size.
 *
 * data: where the address goes. size: where the number of bytes goes; may be NULL. Both untouched on failure.
 *
 * Lifetime of *data: until vdi_mapped_release, also when the set is closed.
 *
 * Returns 0; VD_E_INVALID for bad pointers.
 */
int32_t vdi_mapped_data(struct vdi_mapped *mapped, void **data, uint64_t *size);

/**
 * Ends a lease and frees the pointer: the command may be completed. The data must not be touched any more.
 *
 * Returns 0; VD_E_INVALID for what is no mapped buffer, or was released already.
 */
int32_t vdi_mapped_release(struct vdi_mapped *mapped);

/**
 * The device's name.
 *
 * name: where the pointer to it goes; untouched on failure. Lifetime of *name: until vdi_device_free.
 *
 * Returns 0; VD_E_INVALID for bad pointers.
 */
int32_t vdi_device_name(struct vdi_device *device, const char **name);

/**
 * Waits for the server's next command. Several may be outstanding at a time; each is completed by its id, in any
 * order, from any thread. Threads that wait for the same device take turns.
 *
 * timeout_ms: see TIME-OUTS. command: where the command goes; untouched on failure.
 *
 * Returns 0; VD_E_CLOSE when the server closed the device: the normal end of its work; VD_E_TIMEOUT; VD_E_ABORT;
 * VD_E_PROTOCOL after the set was closed, and after all its devices have returned VD_E_CLOSE; VD_E_INVALID for bad
 * pointers.
 *
 * Source: VDI specification, IClientVirtualDevice::GetCommand.
 */
int32_t vdi_device_get_command(struct vdi_device *device, int64_t timeout_ms, struct vdi_command *command);

/**
 * Reports to the server how a command ended, and returns its buffer: its data must not be touched any more. What is
 * reported as written must be stored: before VDC_FLUSH is a success, durably.
 *
 * id: of the command. code: VDI_ERROR_SUCCESS, or why it was not carried out; anything but success puts the device
 * into the state of an error, which the server ends with VDC_CLEAR_ERROR or an abort. bytes: VDC_READ and VDC_WRITE:
 * how many were really transferred; fewer than the command's size are no success. All others: 0. position:
 * VDC_GET_POSITION and VDC_SET_POSITION: where the device is now. All others: 0.
 *
 * Returns 0; VD_E_INVALID for a command that is not active any more or another device's, for more bytes than it has,
 * for success with fewer, and for a bad pointer; VD_E_BUSY while another process has the buffer mapped: the command
 * stays active, complete it again; VD_E_ABORT and VD_E_PROTOCOL when the set was aborted or closed: the command has
 * ended.
 *
 * Source: VDI specification, IClientVirtualDevice::CompleteCommand.
 */
int32_t vdi_device_complete_command(struct vdi_device *device,
                                    uint32_t id,
                                    uint32_t code,
                                    uint64_t bytes,
                                    uint64_t position);

/**
 * Frees a device. If the server has not closed it, the set is aborted: nothing would answer its commands. The data of
 * its commands, and its name, must not be touched any more.
 *
 * Returns 0; VD_E_INVALID for what is no device, or was freed already; VD_E_BUSY while another thread waits for its
 * commands: end that wait with vdi_set_signal_abort or vdi_set_close, then free it.
 */
int32_t vdi_device_free(struct vdi_device *device);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VDI_C_H */
