//! Operating system errors as SQL Server prints them.

use std::fmt;
use std::io;

use rustix::io::Errno;
use vdi_proto::completion::CompletionCode;
use vdi_proto::status::VdError;

/// An error of the operating system, or a status of the virtual device interface: a Win32 code or an HRESULT.
///
/// It is displayed as in SQL Server's messages: the code, and its text in brackets. Win32 codes are decimal. Codes with the
/// top bit set are HRESULTs, the `VD_E_` codes among them, and are hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OsError(pub(crate) u32);

/// The upper half of an HRESULT of the facility Win32. The lower half is the Win32 code.
const WIN32: u32 = 0x8007_0000;

impl OsError {
    /// The set does not exist.
    pub(crate) const NO_SUCH_SET: OsError = OsError(WIN32 | 2);
    /// The set denies access.
    pub(crate) const ACCESS_DENIED: OsError = OsError(WIN32 | 5);
    /// Memory for the buffers of the set cannot be allocated.
    pub(crate) const OUT_OF_MEMORY: OsError = OsError(WIN32 | 14);
    /// The stream ends too early.
    pub(crate) const END_OF_FILE: OsError = OsError(38);
    /// An abort ended the operation.
    pub(crate) const ABORTED: OsError = OsError(995);

    /// The text of the code. An unknown code has a text that says so.
    #[must_use]
    pub(crate) fn text(self) -> &'static str {
        let code = if self.0 & 0xFFFF_0000 == WIN32 { self.0 & 0xFFFF } else { self.0 };
        match code {
            0 => "The operation completed successfully.",
            2 => "The system cannot find the file specified.",
            3 => "The system cannot find the path specified.",
            4 => "The system cannot open the file.",
            5 => "Access is denied.",
            6 => "The handle is invalid.",
            7 => "The storage control blocks were destroyed.",
            8 => "Not enough memory resources are available to process this command.",
            14 => "Not enough storage is available to complete this operation.",
            19 => "The media is write protected.",
            21 => "The device is not ready.",
            31 => "A device attached to the system is not functioning.",
            32 => "The process cannot access the file because it is being used by another process.",
            38 => "Reached the end of the file.",
            39 => "The disk is full.",
            50 => "The request is not supported.",
            87 => "The parameter is incorrect.",
            112 => "There is not enough space on the disk.",
            121 => "The semaphore timeout period has expired.",
            183 => "Cannot create a file when that file already exists.",
            995 => "The I/O operation has been aborted because of either a thread exit or an application request.",
            1100 => "The physical end of the tape has been reached.",
            1101 => "A tape access reached a filemark.",
            1102 => "The beginning of the tape or a partition was encountered.",
            1103 => "A tape access reached the end of a set of files.",
            1104 => "No more data is on the tape.",
            1117 => "The request could not be performed because of an I/O device error.",
            1129 => "The physical end of the tape has been reached.",
            1450 => "Insufficient system resources exist to complete the requested service.",
            0x8077_0002 => "The virtual device set is not open.",
            0x8077_0003 => "The virtual device operation timed out.",
            0x8077_0004 => "The virtual device set was aborted.",
            0x8077_0005 => "Access to the virtual device set is denied.",
            0x8077_0006 => "A parameter of the virtual device call is invalid.",
            0x8077_0007 => "The instance name is not recognised.",
            0x8077_0009 => "The configuration of the virtual device is not supported.",
            0x8077_000A => "Not enough memory for the virtual device set.",
            0x8077_000B => "Unexpected internal error of the virtual device interface.",
            0x8077_000C => "The virtual device call does not fit the present state.",
            0x8077_000D => "The virtual device set is still open.",
            0x8077_000E => "The virtual device is closed.",
            0x8077_000F => "The virtual device resource is busy.",
            _ => "No text is known for this code.",
        }
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(code) = *self;
        if code & 0x8000_0000 == 0 {
            write!(f, "{code}({})", self.text())
        } else {
            write!(f, "0x{code:08X}({})", self.text())
        }
    }
}

impl From<CompletionCode> for OsError {
    fn from(code: CompletionCode) -> Self {
        Self(code.number())
    }
}

impl From<VdError> for OsError {
    fn from(code: VdError) -> Self {
        Self(code.hresult())
    }
}

impl From<&io::Error> for OsError {
    /// The Win32 code for an error of this system. An error without a counterpart is ERROR_GEN_FAILURE (31).
    fn from(error: &io::Error) -> Self {
        let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
        Self(match error.kind() {
            io::ErrorKind::NotFound => 2,
            io::ErrorKind::NotADirectory => 3,
            io::ErrorKind::PermissionDenied => 5,
            io::ErrorKind::OutOfMemory => 8,
            io::ErrorKind::ReadOnlyFilesystem => 19,
            io::ErrorKind::ResourceBusy => 32,
            io::ErrorKind::UnexpectedEof => 38,
            io::ErrorKind::Unsupported => 50,
            io::ErrorKind::InvalidInput => 87,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => 112,
            io::ErrorKind::TimedOut => 121,
            io::ErrorKind::AlreadyExists => 183,
            _ if is(Errno::MFILE) || is(Errno::NFILE) => 4,
            _ if is(Errno::IO) => 1117,
            _ if is(Errno::AGAIN) => 1450,
            _ => 31,
        })
    }
}
