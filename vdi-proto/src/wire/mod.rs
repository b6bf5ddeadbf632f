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

pub mod checksum;
pub mod class;
pub mod join;
pub mod layout;
pub mod record;
