//! The error of this crate.

use crate::packet::PacketType;

/// Why bytes of a client are refused, or why a value cannot be sent.
///
/// Offsets of packets are bytes from the start of the connection. Offsets of fields are bytes from the start of the message, without the
/// headers of its packets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first byte of a packet is no type of packet. TLS that begins on a plain connection (0x16) is seen here too.
    #[error(
        "the packet at {offset:#x} has the unknown type {found:#04x}{}",
        if *found == 0x16 { ": this is TLS; the server expects TDS first" } else { "" }
    )]
    PacketType {
        /// Where the packet begins.
        offset: u64,
        /// Its type.
        found: u8,
    },
    /// The length in a packet's header is out of range.
    #[error("the packet at {offset:#x} is {found} bytes long, allowed are {least} to {most}")]
    PacketLength {
        /// Where the packet begins.
        offset: u64,
        /// The shortest allowed length, with the header.
        least: u16,
        /// The longest allowed length, with the header.
        most: u16,
        /// The length in the header.
        found: u16,
    },
    /// A packet of another type stands inside of a message.
    #[error("the packet at {offset:#x} is of a {found} message, inside of a {expected} message")]
    MixedPackets {
        /// Where the packet begins.
        offset: u64,
        /// The type of the message.
        expected: PacketType,
        /// The type of the packet.
        found: PacketType,
    },
    /// A message is longer than the limit for its kind.
    #[error("the {message} message is longer than {most} bytes, the limit")]
    MessageLength {
        /// The kind of the message.
        message: PacketType,
        /// The limit.
        most: u64,
    },
    /// A message came where another is expected.
    #[error("a {found} message came, expected {expected}")]
    UnexpectedMessage {
        /// What may come.
        expected: &'static str,
        /// What came.
        found: PacketType,
    },
    /// The client connects with TDS where TLS comes first.
    #[error(
        "the connection begins with {found:#04x}, expected TLS (0x16): this server speaks TDS 8, encrypt with the option strict"
    )]
    NotTls {
        /// The first byte.
        found: u8,
    },
    /// A message ends inside of a field.
    #[error("{field} at {offset:#x} needs {expected} bytes, the message has {found} more")]
    Truncated {
        /// Where the field begins.
        offset: u64,
        /// The field.
        field: &'static str,
        /// The length of the field.
        expected: u64,
        /// The bytes that are left.
        found: u64,
    },
    /// Bytes follow behind the end of a message's contents.
    #[error("{found} bytes follow at {offset:#x}, expected the end of the message")]
    Trailing {
        /// Where they begin.
        offset: u64,
        /// How many.
        found: u64,
    },
    /// A field has another value than it has to have.
    #[error("{field} at {offset:#x} is {found:#x}, expected {expected:#x}")]
    Field {
        /// Where the field begins.
        offset: u64,
        /// The field.
        field: &'static str,
        /// The value that it has to have.
        expected: u64,
        /// The value that it has.
        found: u64,
    },
    /// A field has a value outside its range.
    #[error("{field} at {offset:#x} is {found}, allowed are {least} to {most}")]
    Range {
        /// Where the field begins.
        offset: u64,
        /// The field.
        field: &'static str,
        /// The smallest allowed value.
        least: u64,
        /// The largest allowed value.
        most: u64,
        /// The value that it has. A value that does not fit is the largest number.
        found: u64,
    },
    /// A text is no valid UTF-16 (or UTF-8, where its collation says so), or has half a character.
    #[error("{field} at {offset:#x} is no valid Unicode text")]
    Unicode {
        /// Where the text begins.
        offset: u64,
        /// The field.
        field: &'static str,
    },
    /// A text of a code page that this crate does not know has characters beyond ASCII.
    #[error(
        "the text at {offset:#x} is in a code page that is not supported (locale {lcid:#06x}): send it as nvarchar"
    )]
    CodePage {
        /// Where the text begins.
        offset: u64,
        /// The locale of its collation.
        lcid: u32,
    },
    /// A type of the protocol that is recognised, and refused.
    #[error("{what} at {offset:#x} is not supported")]
    Unsupported {
        /// Where it begins.
        offset: u64,
        /// What it is.
        what: &'static str,
    },
    /// A number that has no meaning in this place.
    #[error("{field} at {offset:#x} is unknown: {found:#04x}")]
    Unknown {
        /// Where it is.
        offset: u64,
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// The client speaks a version of TDS that is too old.
    #[error("the client asks for TDS version {found:#010x}, supported are 7.2 (0x72090002) to 7.4 and 8.0")]
    Version {
        /// The version in its login.
        found: u32,
    },
    /// A value that is to be sent does not belong to its column's type.
    #[error("a value of kind {found} cannot be sent as {expected}")]
    ValueKind {
        /// The type of the column.
        expected: &'static str,
        /// The kind of the value.
        found: &'static str,
    },
    /// A value that is to be sent does not fit its column's type.
    #[error("a value is too large for its type {data_type}: {found}, the most is {most}")]
    ValueSize {
        /// The type of the column.
        data_type: &'static str,
        /// The largest size or number.
        most: u64,
        /// The value's.
        found: u64,
    },
    /// A row that is to be sent has another number of values than the result has columns.
    #[error("a row has {found} values, the result has {expected} columns")]
    RowLength {
        /// The columns.
        expected: usize,
        /// The values.
        found: usize,
    },
}
