//! This project's own layout and messages: how the processes of a set share memory and talk to each other.
//!
//! The modules outside `wire` are the interface's rules. They do not depend on `wire`, and can be used with another
//! transport.
//!
//! | module | what it defines |
//! |---|---|
//! | [`layout`] | the control segment: offsets, device words, slot words |
//! | [`class`] | buffer classes: where each buffer of an area lies |
//! | [`record`] | commands and completions as the words of a ring entry |
//! | [`checksum`] | keyed checksums over device words, names and ring records |
//! | [`join`] | the messages between the processes of a set |
//!
//! # Decisions
//!
//! | subject | decision |
//! |---|---|
//! | Stray writes to shared memory | Ring records, device words and names have checksums. A word with a wrong checksum is a violation, which aborts the set. |
//! | Members that forge on purpose | They can spoil their own set, nothing else. No mechanism defends further. |
//! | How processes learn of an abort | By a word in shared memory, which is fast, and by a message, which a stray write cannot clear. |
//! | A map that meets a slot being reclaimed | It waits for the outcome, but not after an abort or after the server has closed all devices: the holder may be dead then. |
//! | Death of a secondary after the server has closed all devices | Its devices count as closed, so that the primary ends normally, as the server has. The primary's Close handles pending hang-ups first. |

pub mod checksum;
pub mod class;
pub mod join;
pub mod layout;
pub mod record;
