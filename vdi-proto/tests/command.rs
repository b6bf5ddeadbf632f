//! The 19 commands against a table written from the documents.

#![allow(clippy::unwrap_used)]

use vdi_proto::command::{Buffer, CommandCode, PositionField, SizeField};
use vdi_proto::features::Features;

const PIPE: u32 = 0;
const REMOVABLE_PIPE: u32 = 0x1;
const TAPE: u32 = 0x173;
const DISK: u32 = 0x200;
const REMOVABLE_DISK: u32 = 0x201;
const KINDS: [u32; 5] = [PIPE, REMOVABLE_PIPE, TAPE, DISK, REMOVABLE_DISK];

const DISCARD: u32 = 0x80;
const PREPARE: u32 = 0x400;
const ENUM_FILES: u32 = 0x800;
const COMPLETE_ENABLED: u32 = 0x4_0000;

/// The devices that a command may be sent to: the letters of the device kinds P, R (removable pipe), T, D, E (removable
/// disk), or a feature that any kind may have.
enum To {
    Kinds(&'static str),
    Feature(u32),
}

use Buffer::{FromClient, FromServer, None as NoBuffer};
use PositionField::{DiskOnly, Target, Unused as NoPosition};
use SizeField::{Bytes, Count, Medium, Unused as NoSize, Whence};
use To::{Feature, Kinds};

type Row = (u32, &'static str, SizeField, PositionField, Buffer, bool, To);

#[rustfmt::skip]
const TABLE: [Row; 19] = [
    // code  name                  size     position    buffer      returns position   to whom
    (1,  "VDC_Read",            Bytes,  DiskOnly,   FromClient, false, Kinds("PRTDE")),
    (2,  "VDC_Write",           Bytes,  DiskOnly,   FromServer, false, Kinds("PRTDE")),
    (3,  "VDC_ClearError",      NoSize, NoPosition, NoBuffer,   false, Kinds("PRTDE")),
    (4,  "VDC_Rewind",          NoSize, NoPosition, NoBuffer,   false, Kinds("T")),
    (5,  "VDC_WriteMark",       NoSize, NoPosition, NoBuffer,   false, Kinds("T")),
    (6,  "VDC_SkipMarks",       Count,  NoPosition, NoBuffer,   false, Kinds("T")),
    (7,  "VDC_SkipBlocks",      Count,  NoPosition, NoBuffer,   false, Kinds("T")),
    (8,  "VDC_Load",            Medium, NoPosition, NoBuffer,   false, Kinds("RTE")),
    (9,  "VDC_GetPosition",     NoSize, NoPosition, NoBuffer,   true,  Kinds("TDE")),
    (10, "VDC_SetPosition",     Whence, Target,     NoBuffer,   true,  Kinds("TDE")),
    (11, "VDC_Discard",         NoSize, NoPosition, NoBuffer,   false, Feature(DISCARD)),
    (12, "VDC_Flush",           NoSize, NoPosition, NoBuffer,   false, Kinds("PRTDE")),
    (13, "VDC_Snapshot",        NoSize, NoPosition, NoBuffer,   false, Kinds("PRTDE")),
    (14, "VDC_MountSnapshot",   NoSize, NoPosition, NoBuffer,   false, Kinds("PRTDE")),
    (15, "VDC_PrepareToFreeze", NoSize, NoPosition, NoBuffer,   false, Feature(PREPARE)),
    (16, "VDC_FileInfoBegin",   NoSize, NoPosition, NoBuffer,   false, Feature(ENUM_FILES)),
    (17, "VDC_FileInfoEnd",     NoSize, NoPosition, NoBuffer,   false, Feature(ENUM_FILES)),
    (18, "VDC_GetError",        NoSize, NoPosition, NoBuffer,   false, Kinds("PRTDE")),
    (19, "VDC_Complete",        NoSize, NoPosition, NoBuffer,   false, Feature(COMPLETE_ENABLED)),
];

#[test]
fn every_row_of_the_table() {
    for (row, code) in TABLE.iter().zip(CommandCode::ALL) {
        let (number, name, size, position, buffer, returns_position, _) = *row;
        assert_eq!(code.number(), number);
        let rules = code.rules().unwrap();
        assert_eq!(
            (rules.name, rules.size, rules.position, rules.buffer, rules.returns_position),
            (name, size, position, buffer, returns_position)
        );
        assert_eq!((code.buffer(), code.is_transfer()), (buffer, number <= 2), "{name}");
        assert_eq!((CommandCode::new(number), code.to_string().as_str()), (code, name));
    }
}

#[test]
fn codes_without_a_row_are_kept_and_allowed_nowhere() {
    for number in [0, 20, 77, u32::MAX] {
        let code = CommandCode::new(number);
        assert_eq!((code.number(), code.rules(), code.buffer()), (number, None, Buffer::None));
        assert!(!code.is_transfer());
        assert!(KINDS.iter().all(|kind| !code.is_allowed(Features::from_bits_retain(*kind))));
        assert_eq!(code.to_string(), format!("command {number}"));
    }
}

/// Every command to every kind of device, with every set of optional features and every direction.
#[test]
fn commands_go_to_the_devices_that_support_them() {
    let mut cases = 0;
    for (number, name, .., to) in &TABLE {
        for (kind, letter) in KINDS.iter().zip(["P", "R", "T", "D", "E"]) {
            for optional in 0u32..32 {
                let extras = [DISCARD, PREPARE, ENUM_FILES, 0x2000, COMPLETE_ENABLED];
                let extra: u32 = (0..5).filter(|bit| optional >> bit & 1 == 1).map(|bit| extras[bit]).sum();
                for direction in [0x1_0000, 0x2_0000] {
                    let features = Features::from_bits_retain(kind | extra | direction);
                    let expected = match to {
                        To::Kinds(letters) => letters.contains(letter),
                        To::Feature(bit) => extra & bit != 0,
                    };
                    assert_eq!(CommandCode::new(*number).is_allowed(features), expected, "{name} to {features}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 19 * 5 * 32 * 2);
}

#[test]
fn device_without_a_kind_gets_no_command() {
    for bits in [0x2, 0x100, 0x373, 0x1000, 0x8000_0000] {
        for code in CommandCode::ALL {
            assert!(!code.is_allowed(Features::from_bits_retain(bits)), "{code} to {bits:#x}");
        }
    }
}
