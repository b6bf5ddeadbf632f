//! The commands that a server sends to a device, and the records that carry them.
//!
//! Source: VDI specification, "Commands".

use core::fmt;
use core::str::FromStr;

use crate::completion::CompletionCode;
use crate::features::{DeviceKind, Features};
use crate::index::{Generation, SlotIndex};
use crate::parse::{ParseError, decimal};

/// The code of a command. Unknown numbers are kept: a client completes such a command with ERROR_NOT_SUPPORTED.
///
/// ```
/// use vdi_proto::command::{Buffer, CommandCode};
/// use vdi_proto::features::Features;
///
/// assert_eq!(CommandCode::WRITE.rules().unwrap().buffer, Buffer::FromServer);
/// assert!(CommandCode::COMPLETE.is_allowed(Features::REQUEST_COMPLETE | Features::COMPLETE_ENABLED));
/// assert!(!CommandCode::REWIND.is_allowed(Features::NONE));
/// assert_eq!(CommandCode::new(77).to_string(), "command 77");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandCode(u32);

/// What a command's buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// The command has none.
    None,
    /// The server filled it; the client stores it (Write).
    FromServer,
    /// The client fills it (Read).
    FromClient,
}

/// What a command's `size` field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SizeField {
    /// Nothing.
    Unused,
    /// Bytes to transfer.
    Bytes,
    /// How many marks or blocks to skip; negative goes backwards.
    Count,
    /// The number of the medium to load.
    Medium,
    /// Disk-like: what the position counts from (0 beginning, 1 current, 2 end).
    Whence,
}

/// What a command's `position` field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PositionField {
    /// Nothing.
    Unused,
    /// A byte position, on disk-like devices only.
    DiskOnly,
    /// The target position.
    Target,
}

/// The condition under which a server may send a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// Every device takes it.
    Any,
    /// The device is tape-like.
    Tape,
    /// The device is tape-like or disk-like.
    TapeOrDisk,
    /// The device has this feature.
    Feature(Features),
}

/// The rules of one command: one row of the specification's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The published name, `VDC_Write` for example.
    pub name: &'static str,
    /// What the size field holds.
    pub size: SizeField,
    /// What the position field holds.
    pub position: PositionField,
    /// What the buffer is for.
    pub buffer: Buffer,
    /// Whether its completion returns a position.
    pub returns_position: bool,
    /// The condition under which a server may send it.
    pub requires: Requirement,
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $vdc:literal, $size:ident, $position:ident, $buffer:ident,
        $returns:literal, $requires:expr;)*) => {
        impl CommandCode {
            $($(#[$doc])* #[doc(alias = $vdc)] pub const $name: CommandCode = CommandCode($number);)*

            /// All commands, in the order of their codes.
            pub const ALL: [CommandCode; 19] = [$(CommandCode::$name),*];

            /// The rules of this command; `None` for a code without a name.
            #[must_use]
            #[inline]
            pub const fn rules(self) -> Option<Rules> {
                match self.0 {
                    $($number => Some(Rules {
                        name: $vdc,
                        size: SizeField::$size,
                        position: PositionField::$position,
                        buffer: Buffer::$buffer,
                        returns_position: $returns,
                        requires: $requires,
                    }),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Fill the buffer with the next bytes (disk-like: the bytes at the position).
    READ = 1, "VDC_Read", Bytes, DiskOnly, FromClient, false, Requirement::Any;
    /// Store the buffer's bytes next (disk-like: at the position).
    WRITE = 2, "VDC_Write", Bytes, DiskOnly, FromServer, false, Requirement::Any;
    /// Leave IO-ERROR: the only command sent to a device in that state.
    CLEAR_ERROR = 3, "VDC_ClearError", Unused, Unused, None, false, Requirement::Any;
    /// Go to the beginning of the medium.
    REWIND = 4, "VDC_Rewind", Unused, Unused, None, false, Requirement::Tape;
    /// Write a filemark.
    WRITE_MARK = 5, "VDC_WriteMark", Unused, Unused, None, false, Requirement::Tape;
    /// Skip filemarks.
    SKIP_MARKS = 6, "VDC_SkipMarks", Count, Unused, None, false, Requirement::Tape;
    /// Skip blocks.
    SKIP_BLOCKS = 7, "VDC_SkipBlocks", Count, Unused, None, false, Requirement::Tape;
    /// Put another medium into the device.
    LOAD = 8, "VDC_Load", Medium, Unused, None, false, Requirement::Feature(Features::REMOVABLE);
    /// Report the position: a block address (tape-like) or a byte offset (disk-like).
    GET_POSITION = 9, "VDC_GetPosition", Unused, Unused, None, true, Requirement::TapeOrDisk;
    /// Go to a position.
    SET_POSITION = 10, "VDC_SetPosition", Whence, Target, None, true, Requirement::TapeOrDisk;
    /// Discard everything written so far.
    DISCARD = 11, "VDC_Discard", Unused, Unused, None, false, Requirement::Feature(Features::DISCARD);
    /// Make everything written so far durable; disk-like: also sets the end of the file.
    FLUSH = 12, "VDC_Flush", Unused, Unused, None, false, Requirement::Any;
    /// Database writes are frozen: take the snapshot, then complete.
    SNAPSHOT = 13, "VDC_Snapshot", Unused, Unused, None, false, Requirement::Any;
    /// Mount the snapshot that is being restored.
    MOUNT_SNAPSHOT = 14, "VDC_MountSnapshot", Unused, Unused, None, false, Requirement::Any;
    /// A snapshot will follow; more metadata may be written before it.
    PREPARE_TO_FREEZE = 15, "VDC_PrepareToFreeze", Unused, Unused, None, false,
        Requirement::Feature(Features::SNAPSHOT_PREPARE);
    /// The list of frozen files begins.
    FILE_INFO_BEGIN = 16, "VDC_FileInfoBegin", Unused, Unused, None, false,
        Requirement::Feature(Features::ENUM_FROZEN_FILES);
    /// The list of frozen files ends.
    FILE_INFO_END = 17, "VDC_FileInfoEnd", Unused, Unused, None, false,
        Requirement::Feature(Features::ENUM_FROZEN_FILES);
    /// Report the device's error.
    GET_ERROR = 18, "VDC_GetError", Unused, Unused, None, false, Requirement::Any;
    /// No more data will come: finish the backup, then answer.
    COMPLETE = 19, "VDC_Complete", Unused, Unused, None, false, Requirement::Feature(Features::COMPLETE_ENABLED);
}

impl CommandCode {
    /// Any number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        CommandCode(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// What this command's buffer is for; unknown commands have none.
    #[must_use]
    pub const fn buffer(self) -> Buffer {
        match self.0 {
            1 => Buffer::FromClient,
            2 => Buffer::FromServer,
            _ => Buffer::None,
        }
    }

    /// Whether this is Read or Write, the commands that move data and whose completion counts bytes.
    #[must_use]
    #[inline]
    pub const fn is_transfer(self) -> bool {
        matches!(self.buffer(), Buffer::FromClient | Buffer::FromServer)
    }

    /// Whether a server may send this to a device with these (negotiated) features.
    ///
    /// Source: VDI specification, the column "needed by" of the command table.
    #[must_use]
    #[inline]
    pub const fn is_allowed(self, features: Features) -> bool {
        let Some(rules) = self.rules() else { return false };
        let kind = match features.device_kind() {
            Ok(kind) => kind,
            Err(_) => return false,
        };
        match rules.requires {
            Requirement::Any => true,
            Requirement::Tape => matches!(kind, DeviceKind::TapeLike),
            Requirement::TapeOrDisk => matches!(kind, DeviceKind::TapeLike | DeviceKind::DiskLike),
            Requirement::Feature(feature) => features.contains(feature),
        }
    }
}

impl fmt::Display for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rules() {
            Some(rules) => f.write_str(rules.name),
            None => write!(f, "command {}", self.0),
        }
    }
}

impl FromStr for CommandCode {
    type Err = ParseError;

    /// `VDC_Write`, or `command 77`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let named = CommandCode::ALL.into_iter().find(|code| code.rules().is_some_and(|rules| rules.name == text));
        let unnamed = || text.strip_prefix("command ").and_then(decimal).map(CommandCode);
        let expected = "VDC_Write for example, or \"command 77\"";
        named.or_else(unnamed).ok_or_else(|| ParseError::new("command", expected, text))
    }
}

/// A command's identity on its device. Outstanding commands have different ids, and an id returns only after the device's
/// next 2^26 - 1 commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommandId(pub u32);

/// One loan of a buffer: the slot, and the generation that counts the slot's loans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Loan {
    /// The buffer.
    pub slot: SlotIndex,
    /// Which loan of the buffer.
    pub generation: Generation,
}

/// A command from server to client. Its values are not yet validated: [`crate::device::ClientDevice`] does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "VDC_Command")]
pub struct CommandRecord {
    /// Which command.
    pub code: CommandCode,
    /// Its identity; the completion repeats it.
    pub id: CommandId,
    /// Overloaded: see [`SizeField`].
    pub size: i32,
    /// See [`PositionField`].
    pub position: u64,
    /// The buffer of a Read or Write; `None` for every other command.
    pub loan: Option<Loan>,
}

/// A completion from client to server. Its values are not yet validated: [`crate::device::ServerDevice`] does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompletionRecord {
    /// The command's identity.
    pub id: CommandId,
    /// How the command ended.
    pub code: CompletionCode,
    /// Bytes transferred; Read and Write only.
    pub bytes: u32,
    /// The position; GetPosition and SetPosition only.
    pub position: u64,
}
