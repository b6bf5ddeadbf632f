//! Feature bits and the device kinds that they describe.
//!
//! Source: VDI specification, "Features" of the configuration, and KB3188454 for the completion bits.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

use crate::parse::{ParseError, hexadecimal};
use crate::status::VdError;

macro_rules! features {
    ($($(#[doc = $doc:literal])* $name:ident = $bit:literal, $vdf:literal;)*) => {
        bitflags::bitflags! {
            /// The `features` field of the configuration: a set of `VDF_*` bits. Unknown bits are kept.
            ///
            /// A flags type of the crate `bitflags`, whose version 2 is a part of this crate's interface.
            ///
            /// ```
            /// use vdi_proto::features::{DeviceKind, Features};
            ///
            /// let features = Features::REQUEST_COMPLETE | Features::REMOVABLE;
            /// assert_eq!(features.device_kind(), Ok(DeviceKind::PipeLike));
            /// assert!((Features::FILE_MARKS | Features::RANDOM_ACCESS).device_kind().is_err());
            /// assert_eq!(Features::from_bits_retain(0x9).to_string(), "VDF_Removable|0x8");
            /// ```
            #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
            pub struct Features: u32 {
                $($(#[doc = $doc])* #[doc(alias = $vdf)] const $name = $bit;)*
                // Other bits are kept.
                const _ = !0;
            }
        }

        impl Features {
            /// Every published bit with its name.
            pub const NAMED: &'static [(Features, &'static str)] = &[$((Features::$name, $vdf)),*];
        }
    };
}

features! {
    /// Media can be changed: the server may send Load.
    REMOVABLE = 0x1, "VDF_Removable";
    /// Rewind is supported.
    REWIND = 0x2, "VDF_Rewind";
    /// GetPosition and SetPosition are supported; positions mean what the device says.
    POSITION = 0x10, "VDF_Position";
    /// SkipBlocks is supported.
    SKIP_BLOCKS = 0x20, "VDF_SkipBlocks";
    /// Skips may go backwards.
    REVERSE_POSITION = 0x40, "VDF_ReversePosition";
    /// Discard is supported.
    DISCARD = 0x80, "VDF_Discard";
    /// WriteMark and SkipMarks are supported; reading through a mark reports it.
    FILE_MARKS = 0x100, "VDF_FileMarks";
    /// Read and Write carry a byte position.
    RANDOM_ACCESS = 0x200, "VDF_RandomAccess";
    /// The client requests PrepareToFreeze before a snapshot.
    SNAPSHOT_PREPARE = 0x400, "VDF_SnapshotPrepare";
    /// The client requests FileInfoBegin and FileInfoEnd.
    ENUM_FROZEN_FILES = 0x800, "VDF_EnumFrozenFiles";
    /// Used by the VSS writer.
    VSS_WRITER = 0x1000, "VDF_VSSWriter";
    /// The client requests the Complete command.
    REQUEST_COMPLETE = 0x2000, "VDF_RequestComplete";
    /// Set by the server: the devices will be written, this is a backup.
    WRITE_MEDIA = 0x1_0000, "VDF_WriteMedia";
    /// Set by the server: the devices will be read, this is a restore.
    READ_MEDIA = 0x2_0000, "VDF_ReadMedia";
    /// Set by the server: Complete will be sent.
    COMPLETE_ENABLED = 0x4_0000, "VDF_CompleteEnabled";
    /// Latch statistics.
    LATCH_STATS = 0x8000_0000, "VDF_LatchStats";
}

impl Features {
    /// No feature: a pipe-like device.
    pub const NONE: Features = Features::empty();

    /// The bits that only the server sets.
    pub const SERVER: Features = Self::WRITE_MEDIA.union(Self::READ_MEDIA).union(Self::COMPLETE_ENABLED);

    /// Bits that a device of any kind may have.
    pub const OPTIONAL: Features =
        Self::DISCARD.union(Self::SNAPSHOT_PREPARE).union(Self::ENUM_FROZEN_FILES).union(Self::REQUEST_COMPLETE);

    /// The bits of a tape-like device; it has all of them.
    pub const TAPE: Features = Self::FILE_MARKS
        .union(Self::REMOVABLE)
        .union(Self::REVERSE_POSITION)
        .union(Self::REWIND)
        .union(Self::POSITION)
        .union(Self::SKIP_BLOCKS);

    /// The device kind of these bits. Bits of the server and optional bits do not matter.
    ///
    /// # Errors
    /// [`UnsupportedFeatures`] (VD_E_NOTSUPPORTED) for a combination that is no supported kind
    /// (VDI specification, features: pipe-like, tape-like and disk-like devices).
    pub const fn device_kind(self) -> Result<DeviceKind, UnsupportedFeatures> {
        const DISK: u32 = Features::RANDOM_ACCESS.bits();
        const REMOVABLE_DISK: u32 = DISK | Features::REMOVABLE.bits();
        const REMOVABLE_PIPE: u32 = Features::REMOVABLE.bits();
        const TAPE: u32 = Features::TAPE.bits();
        match self.difference(Self::SERVER.union(Self::OPTIONAL)).bits() {
            0 | REMOVABLE_PIPE => Ok(DeviceKind::PipeLike),
            DISK | REMOVABLE_DISK => Ok(DeviceKind::DiskLike),
            TAPE => Ok(DeviceKind::TapeLike),
            _ => Err(UnsupportedFeatures { features: self }),
        }
    }
}

impl fmt::Display for Features {
    /// The published names and, in hexadecimal, the bits without a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut separator = "";
        for (bit, name) in Features::NAMED {
            if self.contains(*bit) {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest.remove(*bit);
            }
        }
        if !rest.is_empty() || self.is_empty() {
            write!(f, "{separator}{:#x}", rest.bits())?;
        }
        Ok(())
    }
}

impl FromStr for Features {
    type Err = ParseError;

    /// Published names and hexadecimal numbers, with `|` between them: `VDF_Removable|0x8`. `0x0` is no feature.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.split('|').try_fold(Features::NONE, |features, part| {
            let named = Features::NAMED.iter().find(|(_, name)| *name == part).map(|(bit, _)| *bit);
            let bits = named.or_else(|| hexadecimal(part).map(Features::from_bits_retain));
            let expected = "VDF_Removable or 0x8 for example, with | between several";
            bits.map(|bits| features | bits).ok_or_else(|| ParseError::new("feature", expected, part))
        })
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({self})")
    }
}

/// The kind of device that a set of features describes; all devices of a set are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Sequential bytes, no positions; optionally removable.
    PipeLike,
    /// Filemarks, blocks, positions, media.
    TapeLike,
    /// Byte positions; optionally removable.
    DiskLike,
}

/// A combination of features that describes no supported device kind: VD_E_NOTSUPPORTED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "features {features} make up none of the supported device kinds; use none (pipe-like), VDF_RandomAccess \
     (disk-like) or all of {tape} (tape-like)", tape = Features::TAPE
)]
pub struct UnsupportedFeatures {
    /// The combination that was requested.
    pub features: Features,
}

impl UnsupportedFeatures {
    /// The status that the call returns.
    #[must_use]
    pub const fn code(self) -> VdError {
        VdError::NotSupported
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_published_bits_hold() {
        let bits: std::vec::Vec<u32> = Features::NAMED.iter().map(|(f, _)| f.bits()).collect();
        assert_eq!(
            bits,
            [
                0x1,
                0x2,
                0x10,
                0x20,
                0x40,
                0x80,
                0x100,
                0x200,
                0x400,
                0x800,
                0x1000,
                0x2000,
                0x1_0000,
                0x2_0000,
                0x4_0000,
                0x8000_0000
            ]
        );
    }

    /// All 2^8 combinations of the bits that decide on the kind: exactly five are supported.
    #[test]
    fn exactly_five_combinations_are_kinds() {
        let deciding = [0x1, 0x2, 0x10, 0x20, 0x40, 0x100, 0x200, 0x1000];
        let mut supported = 0;
        for mask in 0u32..1 << deciding.len() {
            let bits = (0..deciding.len()).filter(|i| mask >> i & 1 == 1).map(|i| deciding[i]).sum();
            for optional in [0, Features::OPTIONAL.bits()] {
                if let Ok(kind) = Features::from_bits_retain(bits | optional).device_kind() {
                    let expected = match bits {
                        0 | 1 => DeviceKind::PipeLike,
                        0x200 | 0x201 => DeviceKind::DiskLike,
                        0x173 => DeviceKind::TapeLike,
                        other => panic!("{other:#x} must not be supported"),
                    };
                    assert_eq!(kind, expected);
                    supported += 1;
                }
            }
        }
        assert_eq!(supported, 10);
    }

    #[test]
    fn names_and_left_over_bits_are_shown() {
        assert_eq!(Features::NONE.to_string(), "0x0");
        assert_eq!((Features::REMOVABLE | Features::from_bits_retain(0x8)).to_string(), "VDF_Removable|0x8");
    }
}
