//! The status codes of the interface's functions.
//!
//! Source: VDI specification, the error codes of `vdierror.h` (HRESULTs of facility `0x77`).

use core::str::FromStr;

use thiserror::Error;

use crate::parse::{ParseError, hexadecimal, in_brackets};

/// A status other than `NOERROR`: the `VD_E_*` codes.
///
/// ```
/// use vdi_proto::status::VdError;
///
/// assert_eq!(VdError::Timeout.hresult(), 0x8077_0003);
/// assert_eq!(VdError::from_hresult(0x8077_000e), Some(VdError::Close));
/// assert_eq!(VdError::Abort.to_string(), "VD_E_ABORT (0x80770004): the set was aborted");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
#[error("{} ({:#010x}): {}", self.name(), self.hresult(), self.meaning())]
#[non_exhaustive]
pub enum VdError {
    #[doc(alias = "VD_E_NOTOPEN")]
    /// `VD_E_NOTOPEN`: the device is not open.
    NotOpen,
    #[doc(alias = "VD_E_TIMEOUT")]
    /// `VD_E_TIMEOUT`: the wait timed out.
    Timeout,
    #[doc(alias = "VD_E_ABORT")]
    /// `VD_E_ABORT`: the set was aborted, by either side.
    Abort,
    #[doc(alias = "VD_E_SECURITY")]
    /// `VD_E_SECURITY`: the process may not use this set.
    Security,
    #[doc(alias = "VD_E_INVALID")]
    /// `VD_E_INVALID`: an argument names nothing that exists (a device, a command, a buffer, a handle).
    Invalid,
    #[doc(alias = "VD_E_INSTANCE_NAME")]
    /// `VD_E_INSTANCE_NAME`: not the name of a server instance.
    InstanceName,
    #[doc(alias = "VD_E_NOTSUPPORTED")]
    /// `VD_E_NOTSUPPORTED`: a configuration field or feature that is not supported.
    NotSupported,
    #[doc(alias = "VD_E_MEMORY")]
    /// `VD_E_MEMORY`: no more buffer space, or the set has as many buffers or processes as it can.
    Memory,
    #[doc(alias = "VD_E_UNEXPECTED")]
    /// `VD_E_UNEXPECTED`: a failure of the system, not of the protocol.
    Unexpected,
    #[doc(alias = "VD_E_PROTOCOL")]
    /// `VD_E_PROTOCOL`: the call is not allowed in this state.
    Protocol,
    #[doc(alias = "VD_E_OPEN")]
    /// `VD_E_OPEN`: all devices are open, or devices were still open.
    Open,
    #[doc(alias = "VD_E_CLOSE")]
    /// `VD_E_CLOSE`: the server closed the device; the normal end of the work.
    Close,
    #[doc(alias = "VD_E_BUSY")]
    /// `VD_E_BUSY`: another process has the buffer mapped.
    Busy,
    #[doc(alias = "VD_E_QUEUE_FULL")]
    /// `VD_E_QUEUE_FULL`: the device has as many outstanding commands as it can (server side only).
    QueueFull,
    #[doc(alias = "VD_E_IO_ERROR")]
    /// `VD_E_IO_ERROR`: the device is in IO-ERROR and takes only ClearError (server side only).
    IoError,
}

impl VdError {
    /// Every status, in the order of its number.
    pub const ALL: [VdError; 15] = [
        VdError::NotOpen,
        VdError::Timeout,
        VdError::Abort,
        VdError::Security,
        VdError::Invalid,
        VdError::InstanceName,
        VdError::NotSupported,
        VdError::Memory,
        VdError::Unexpected,
        VdError::Protocol,
        VdError::Open,
        VdError::Close,
        VdError::Busy,
        VdError::QueueFull,
        VdError::IoError,
    ];

    /// The HRESULT.
    ///
    /// **Decision**: `VD_E_QUEUE_FULL` and `VD_E_IO_ERROR` are `0x8077f001` and `0x8077f002`. The published headers give
    /// them no value.
    #[must_use]
    pub const fn hresult(self) -> u32 {
        0x8077_0000
            | match self {
                VdError::NotOpen => 0x2,
                VdError::Timeout => 0x3,
                VdError::Abort => 0x4,
                VdError::Security => 0x5,
                VdError::Invalid => 0x6,
                VdError::InstanceName => 0x7,
                VdError::NotSupported => 0x9,
                VdError::Memory => 0xa,
                VdError::Unexpected => 0xb,
                VdError::Protocol => 0xc,
                VdError::Open => 0xd,
                VdError::Close => 0xe,
                VdError::Busy => 0xf,
                VdError::QueueFull => 0xf001,
                VdError::IoError => 0xf002,
            }
    }

    /// The status with this HRESULT; `None` for other HRESULTs.
    #[must_use]
    pub fn from_hresult(hresult: u32) -> Option<VdError> {
        VdError::ALL.into_iter().find(|status| status.hresult() == hresult)
    }

    /// The name in the published headers, `VD_E_ABORT` for example.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            VdError::NotOpen => "VD_E_NOTOPEN",
            VdError::Timeout => "VD_E_TIMEOUT",
            VdError::Abort => "VD_E_ABORT",
            VdError::Security => "VD_E_SECURITY",
            VdError::Invalid => "VD_E_INVALID",
            VdError::InstanceName => "VD_E_INSTANCE_NAME",
            VdError::NotSupported => "VD_E_NOTSUPPORTED",
            VdError::Memory => "VD_E_MEMORY",
            VdError::Unexpected => "VD_E_UNEXPECTED",
            VdError::Protocol => "VD_E_PROTOCOL",
            VdError::Open => "VD_E_OPEN",
            VdError::Close => "VD_E_CLOSE",
            VdError::Busy => "VD_E_BUSY",
            VdError::QueueFull => "VD_E_QUEUE_FULL",
            VdError::IoError => "VD_E_IO_ERROR",
        }
    }

    /// The meaning in a few words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            VdError::NotOpen => "the device is not open",
            VdError::Timeout => "the wait timed out",
            VdError::Abort => "the set was aborted",
            VdError::Security => "access to the set was refused",
            VdError::Invalid => "an argument names nothing that exists",
            VdError::InstanceName => "not the name of a server instance",
            VdError::NotSupported => "not supported",
            VdError::Memory => "out of buffer space",
            VdError::Unexpected => "the system failed unexpectedly",
            VdError::Protocol => "the call does not belong into this state",
            VdError::Open => "devices are open",
            VdError::Close => "the server closed the device",
            VdError::Busy => "another process still uses the buffer",
            VdError::QueueFull => "the device's queue is full",
            VdError::IoError => "the device is in IO-ERROR",
        }
    }
}

impl FromStr for VdError {
    type Err = ParseError;

    /// `VD_E_ABORT`, `VD_E_ABORT (0x80770004)`, `VD_E_ABORT (0x80770004): the set was aborted`, or `0x80770004`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let is = |status: &VdError| match text.strip_prefix(status.name()) {
            Some("") => true,
            None => hexadecimal(text) == Some(status.hresult()),
            Some(rest) => in_brackets(rest).is_some_and(|(number, rest)| {
                let meant = rest.is_empty() || rest.strip_prefix(": ") == Some(status.meaning());
                hexadecimal(number) == Some(status.hresult()) && meant
            }),
        };
        let expected = "VD_E_ABORT for example, alone or as it is displayed, or 0x80770004";
        VdError::ALL.into_iter().find(is).ok_or_else(|| ParseError::new("status", expected, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    /// The published numbers, written out once more: `vdierror.h`.
    #[test]
    fn the_published_numbers_hold() {
        let published = [
            (VdError::NotOpen, 0x8077_0002u32),
            (VdError::Timeout, 0x8077_0003),
            (VdError::Abort, 0x8077_0004),
            (VdError::Security, 0x8077_0005),
            (VdError::Invalid, 0x8077_0006),
            (VdError::InstanceName, 0x8077_0007),
            (VdError::NotSupported, 0x8077_0009),
            (VdError::Memory, 0x8077_000a),
            (VdError::Unexpected, 0x8077_000b),
            (VdError::Protocol, 0x8077_000c),
            (VdError::Open, 0x8077_000d),
            (VdError::Close, 0x8077_000e),
            (VdError::Busy, 0x8077_000f),
        ];
        for (status, number) in published {
            assert_eq!(status.hresult(), number, "{status:?}");
        }
    }

    #[test]
    fn every_number_leads_back_to_its_status_and_no_other_does() {
        for status in VdError::ALL {
            assert_eq!(VdError::from_hresult(status.hresult()), Some(status));
            assert!(status.to_string().starts_with(status.name()));
        }
        assert_eq!(VdError::from_hresult(0), None);
        assert_eq!(VdError::from_hresult(0x8077_0008), None);
        assert_eq!(VdError::from_hresult(0x8007_0005), None);
    }
}
