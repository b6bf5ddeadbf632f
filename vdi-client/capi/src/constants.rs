//! The numbers of the interface, for the header.
//!
//! # Invariants
//!
//! 1. Every named number of `vdi-proto` is here, with the value that it has there. Compiling compares the values, the
//!    unit tests compare the counts. The values are spelt out because cbindgen makes the header from the text.
//!
//! Source: VDI specification, as in `vdi_proto`'s `features`, `command`, `completion` and `status`.

use core::ffi::CStr;

use vdi_client::{CommandCode, CompletionCode, Features, VdError};

/// Compares the constants with what they stand for, and lists them.
macro_rules! same {
    ($(#[$doc:meta])* $list:ident: $($name:ident = $value:expr;)*) => {
        $(const _: () = assert!($name == $value);)*

        $(#[$doc])*
        #[cfg(test)]
        const $list: &[&str] = &[$(stringify!($name)),*];
    };
}

/// Media can be changed: the server may send Load.
pub const VDF_REMOVABLE: u32 = 0x1;
/// Rewind is supported.
pub const VDF_REWIND: u32 = 0x2;
/// GetPosition and SetPosition are supported; positions mean what the device says.
pub const VDF_POSITION: u32 = 0x10;
/// SkipBlocks is supported.
pub const VDF_SKIP_BLOCKS: u32 = 0x20;
/// Skips may go backwards.
pub const VDF_REVERSE_POSITION: u32 = 0x40;
/// Discard is supported.
pub const VDF_DISCARD: u32 = 0x80;
/// WriteMark and SkipMarks are supported; reading through a mark reports it.
pub const VDF_FILE_MARKS: u32 = 0x100;
/// Read and Write carry a byte position.
pub const VDF_RANDOM_ACCESS: u32 = 0x200;
/// The client wants PrepareToFreeze before a snapshot.
pub const VDF_SNAPSHOT_PREPARE: u32 = 0x400;
/// The client wants FileInfoBegin and FileInfoEnd.
pub const VDF_ENUM_FROZEN_FILES: u32 = 0x800;
/// Used by the VSS writer.
pub const VDF_VSS_WRITER: u32 = 0x1000;
/// The client asks for the Complete command.
pub const VDF_REQUEST_COMPLETE: u32 = 0x2000;
/// Set by the server: the devices will be written, this is a backup.
pub const VDF_WRITE_MEDIA: u32 = 0x1_0000;
/// Set by the server: the devices will be read, this is a restore.
pub const VDF_READ_MEDIA: u32 = 0x2_0000;
/// Set by the server: Complete will be sent.
pub const VDF_COMPLETE_ENABLED: u32 = 0x4_0000;
/// Latch statistics.
pub const VDF_LATCH_STATS: u32 = 0x8000_0000;

same! {
    FEATURES:
    VDF_REMOVABLE = Features::REMOVABLE.bits();
    VDF_REWIND = Features::REWIND.bits();
    VDF_POSITION = Features::POSITION.bits();
    VDF_SKIP_BLOCKS = Features::SKIP_BLOCKS.bits();
    VDF_REVERSE_POSITION = Features::REVERSE_POSITION.bits();
    VDF_DISCARD = Features::DISCARD.bits();
    VDF_FILE_MARKS = Features::FILE_MARKS.bits();
    VDF_RANDOM_ACCESS = Features::RANDOM_ACCESS.bits();
    VDF_SNAPSHOT_PREPARE = Features::SNAPSHOT_PREPARE.bits();
    VDF_ENUM_FROZEN_FILES = Features::ENUM_FROZEN_FILES.bits();
    VDF_VSS_WRITER = Features::VSS_WRITER.bits();
    VDF_REQUEST_COMPLETE = Features::REQUEST_COMPLETE.bits();
    VDF_WRITE_MEDIA = Features::WRITE_MEDIA.bits();
    VDF_READ_MEDIA = Features::READ_MEDIA.bits();
    VDF_COMPLETE_ENABLED = Features::COMPLETE_ENABLED.bits();
    VDF_LATCH_STATS = Features::LATCH_STATS.bits();
}

/// Fill the buffer with the next bytes (disk-like: with those at the position).
pub const VDC_READ: u32 = 1;
/// Store the buffer's bytes next (disk-like: at the position).
pub const VDC_WRITE: u32 = 2;
/// Leave IO-ERROR: the only command sent to a device in that state.
pub const VDC_CLEAR_ERROR: u32 = 3;
/// Go to the beginning of the medium.
pub const VDC_REWIND: u32 = 4;
/// Write a filemark.
pub const VDC_WRITE_MARK: u32 = 5;
/// Skip filemarks.
pub const VDC_SKIP_MARKS: u32 = 6;
/// Skip blocks.
pub const VDC_SKIP_BLOCKS: u32 = 7;
/// Put another medium into the device.
pub const VDC_LOAD: u32 = 8;
/// Report the position: a block address (tape-like) or a byte offset (disk-like).
pub const VDC_GET_POSITION: u32 = 9;
/// Go to a position.
pub const VDC_SET_POSITION: u32 = 10;
/// Throw away what was written.
pub const VDC_DISCARD: u32 = 11;
/// Make everything written so far durable; disk-like: also sets the end of the file.
pub const VDC_FLUSH: u32 = 12;
/// Database writes are frozen: take the snapshot, then complete.
pub const VDC_SNAPSHOT: u32 = 13;
/// Mount the snapshot that is being restored.
pub const VDC_MOUNT_SNAPSHOT: u32 = 14;
/// A snapshot will follow; more metadata may be written before it.
pub const VDC_PREPARE_TO_FREEZE: u32 = 15;
/// The list of frozen files begins.
pub const VDC_FILE_INFO_BEGIN: u32 = 16;
/// The list of frozen files ends.
pub const VDC_FILE_INFO_END: u32 = 17;
/// Report the device's error.
pub const VDC_GET_ERROR: u32 = 18;
/// No more data will come: finish the backup, then answer.
pub const VDC_COMPLETE: u32 = 19;

same! {
    COMMANDS:
    VDC_READ = CommandCode::READ.number();
    VDC_WRITE = CommandCode::WRITE.number();
    VDC_CLEAR_ERROR = CommandCode::CLEAR_ERROR.number();
    VDC_REWIND = CommandCode::REWIND.number();
    VDC_WRITE_MARK = CommandCode::WRITE_MARK.number();
    VDC_SKIP_MARKS = CommandCode::SKIP_MARKS.number();
    VDC_SKIP_BLOCKS = CommandCode::SKIP_BLOCKS.number();
    VDC_LOAD = CommandCode::LOAD.number();
    VDC_GET_POSITION = CommandCode::GET_POSITION.number();
    VDC_SET_POSITION = CommandCode::SET_POSITION.number();
    VDC_DISCARD = CommandCode::DISCARD.number();
    VDC_FLUSH = CommandCode::FLUSH.number();
    VDC_SNAPSHOT = CommandCode::SNAPSHOT.number();
    VDC_MOUNT_SNAPSHOT = CommandCode::MOUNT_SNAPSHOT.number();
    VDC_PREPARE_TO_FREEZE = CommandCode::PREPARE_TO_FREEZE.number();
    VDC_FILE_INFO_BEGIN = CommandCode::FILE_INFO_BEGIN.number();
    VDC_FILE_INFO_END = CommandCode::FILE_INFO_END.number();
    VDC_GET_ERROR = CommandCode::GET_ERROR.number();
    VDC_COMPLETE = CommandCode::COMPLETE.number();
}

/// The command was carried out in full.
pub const VDI_ERROR_SUCCESS: u32 = 0;
/// The server's callback for a command sent to a device that is not active.
pub const VDI_ERROR_INVALID_HANDLE: u32 = 6;
/// The client found its storage control blocks destroyed.
pub const VDI_ERROR_ARENA_TRASHED: u32 = 7;
/// Read: the end of the data; the bytes reported, if any, come before it.
pub const VDI_ERROR_HANDLE_EOF: u32 = 38;
/// As VDI_ERROR_DISK_FULL.
pub const VDI_ERROR_HANDLE_DISK_FULL: u32 = 39;
/// The client does not support the command.
pub const VDI_ERROR_NOT_SUPPORTED: u32 = 50;
/// Write: no more room; the server aborts the backup.
pub const VDI_ERROR_DISK_FULL: u32 = 112;
/// The set was aborted while the command was outstanding.
pub const VDI_ERROR_OPERATION_ABORTED: u32 = 995;
/// Write: the end-of-media warning zone was reached.
pub const VDI_ERROR_END_OF_MEDIA: u32 = 1100;
/// Read or skip: a filemark was met.
pub const VDI_ERROR_FILEMARK_DETECTED: u32 = 1101;
/// A backward skip met the beginning of the medium.
pub const VDI_ERROR_BEGINNING_OF_MEDIA: u32 = 1102;
/// A setmark was met.
pub const VDI_ERROR_SETMARK_DETECTED: u32 = 1103;
/// Read: the end of the data; treated like VDI_ERROR_HANDLE_EOF.
pub const VDI_ERROR_NO_DATA_DETECTED: u32 = 1104;
/// The device failed; also what commands queued behind a failed one complete with.
pub const VDI_ERROR_IO_DEVICE: u32 = 1117;
/// Write: beyond the end of the medium; the server aborts the backup.
pub const VDI_ERROR_EOM_OVERFLOW: u32 = 1129;
/// The server's callback for a command that did not fit the queue.
pub const VDI_ERROR_NO_SYSTEM_RESOURCES: u32 = 1450;

same! {
    COMPLETIONS:
    VDI_ERROR_SUCCESS = CompletionCode::SUCCESS.number();
    VDI_ERROR_INVALID_HANDLE = CompletionCode::INVALID_HANDLE.number();
    VDI_ERROR_ARENA_TRASHED = CompletionCode::ARENA_TRASHED.number();
    VDI_ERROR_HANDLE_EOF = CompletionCode::HANDLE_EOF.number();
    VDI_ERROR_HANDLE_DISK_FULL = CompletionCode::HANDLE_DISK_FULL.number();
    VDI_ERROR_NOT_SUPPORTED = CompletionCode::NOT_SUPPORTED.number();
    VDI_ERROR_DISK_FULL = CompletionCode::DISK_FULL.number();
    VDI_ERROR_OPERATION_ABORTED = CompletionCode::OPERATION_ABORTED.number();
    VDI_ERROR_END_OF_MEDIA = CompletionCode::END_OF_MEDIA.number();
    VDI_ERROR_FILEMARK_DETECTED = CompletionCode::FILEMARK_DETECTED.number();
    VDI_ERROR_BEGINNING_OF_MEDIA = CompletionCode::BEGINNING_OF_MEDIA.number();
    VDI_ERROR_SETMARK_DETECTED = CompletionCode::SETMARK_DETECTED.number();
    VDI_ERROR_NO_DATA_DETECTED = CompletionCode::NO_DATA_DETECTED.number();
    VDI_ERROR_IO_DEVICE = CompletionCode::IO_DEVICE.number();
    VDI_ERROR_EOM_OVERFLOW = CompletionCode::EOM_OVERFLOW.number();
    VDI_ERROR_NO_SYSTEM_RESOURCES = CompletionCode::NO_SYSTEM_RESOURCES.number();
}

/// 0x80770002: the device is not open.
pub const VD_E_NOTOPEN: i32 = -2139684862;
/// 0x80770003: the time-out passed first.
pub const VD_E_TIMEOUT: i32 = -2139684861;
/// 0x80770004: the set was aborted, by the server or a client.
pub const VD_E_ABORT: i32 = -2139684860;
/// 0x80770005: the process may not use this set.
pub const VD_E_SECURITY: i32 = -2139684859;
/// 0x80770006: an argument names nothing that exists (a device, a command, a buffer, a handle).
pub const VD_E_INVALID: i32 = -2139684858;
/// 0x80770007: not the name of a server instance.
pub const VD_E_INSTANCE_NAME: i32 = -2139684857;
/// 0x80770009: a configuration field or feature that cannot be served.
pub const VD_E_NOTSUPPORTED: i32 = -2139684855;
/// 0x8077000a: no more buffer space, or no more places for processes or buffers.
pub const VD_E_MEMORY: i32 = -2139684854;
/// 0x8077000b: a failure of the machine, not of the protocol.
pub const VD_E_UNEXPECTED: i32 = -2139684853;
/// 0x8077000c: the call does not belong into the present state.
pub const VD_E_PROTOCOL: i32 = -2139684852;
/// 0x8077000d: all devices are open, or devices were still open.
pub const VD_E_OPEN: i32 = -2139684851;
/// 0x8077000e: the server closed the device; the normal end of the work.
pub const VD_E_CLOSE: i32 = -2139684850;
/// 0x8077000f: another process still uses the buffer.
pub const VD_E_BUSY: i32 = -2139684849;
/// 0x8077f001: the device holds as many commands as it can (server side only).
pub const VD_E_QUEUE_FULL: i32 = -2139623423;
/// 0x8077f002: the device is in IO-ERROR and takes only ClearError (server side only).
pub const VD_E_IO_ERROR: i32 = -2139623422;

/// Compares the statuses with what they stand for, and names them.
macro_rules! statuses {
    ($($name:ident = $status:ident;)*) => {
        $(const _: () = assert!($name == VdError::$status.hresult().cast_signed());)*

        /// The name of a status, for C: ended by a zero byte.
        pub(crate) fn status_name(status: i32) -> &'static CStr {
            let name = match status {
                0 => "NOERROR\0",
                $($name => concat!(stringify!($name), "\0"),)*
                _ => "unknown status\0",
            };
            CStr::from_bytes_until_nul(name.as_bytes()).unwrap_or_default()
        }
    };
}

statuses! {
    VD_E_NOTOPEN = NotOpen;
    VD_E_TIMEOUT = Timeout;
    VD_E_ABORT = Abort;
    VD_E_SECURITY = Security;
    VD_E_INVALID = Invalid;
    VD_E_INSTANCE_NAME = InstanceName;
    VD_E_NOTSUPPORTED = NotSupported;
    VD_E_MEMORY = Memory;
    VD_E_UNEXPECTED = Unexpected;
    VD_E_PROTOCOL = Protocol;
    VD_E_OPEN = Open;
    VD_E_CLOSE = Close;
    VD_E_BUSY = Busy;
    VD_E_QUEUE_FULL = QueueFull;
    VD_E_IO_ERROR = IoError;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_every_number_of_the_interface() {
        assert_eq!(FEATURES.len(), Features::NAMED.len());
        assert_eq!(COMMANDS.len(), CommandCode::ALL.len());
        assert_eq!(COMPLETIONS.len(), CompletionCode::NAMED.len());
    }

    #[test]
    fn every_status_has_its_published_name() {
        for status in VdError::ALL {
            assert_eq!(status_name(status.hresult() as i32).to_str(), Ok(status.name()));
        }
        assert_eq!(status_name(0), c"NOERROR");
        assert_eq!(status_name(1), c"unknown status");
        assert_eq!(status_name(i32::MIN), c"unknown status");
    }
}
