//! Packets: the unit that is sent, and messages made of them (\[MS-TDS\] 2.2.3).

use std::fmt;

use crate::error::Error;

/// The length of a packet's header.
pub const HEADER_LEN: usize = 8;
/// The smallest size of packets that can be negotiated.
pub const MIN_PACKET_SIZE: u16 = 512;
/// The largest size of packets that can be negotiated.
pub const MAX_PACKET_SIZE: u16 = 32_767;
/// The size of packets until another is negotiated.
pub const DEFAULT_PACKET_SIZE: u16 = 4096;

/// Status bits of a packet.
mod status {
    pub(super) const END_OF_MESSAGE: u8 = 0x01;
    pub(super) const IGNORE: u8 = 0x02;
    pub(super) const RESET: u8 = 0x08;
    pub(super) const RESET_KEEP_TRANSACTION: u8 = 0x10;
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Statements of Transact-SQL.
    SqlBatch = 1,
    /// A login of versions before 7.
    OldLogin = 2,
    /// Calls of procedures.
    Rpc = 3,
    /// What the server sends.
    Response = 4,
    /// The client asks the server to stop the statement that runs.
    Attention = 6,
    /// Rows for a table.
    BulkLoad = 7,
    /// A token of a directory service.
    FederatedToken = 8,
    /// Begins and ends transactions.
    TransactionManager = 14,
    /// A login.
    Login = 16,
    /// A step of Windows authentication.
    Sspi = 17,
    /// The first message of a connection, and TLS until it is established.
    PreLogin = 18,
}

impl PacketType {
    /// The type with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::SqlBatch,
            2 => Self::OldLogin,
            3 => Self::Rpc,
            4 => Self::Response,
            6 => Self::Attention,
            7 => Self::BulkLoad,
            8 => Self::FederatedToken,
            14 => Self::TransactionManager,
            16 => Self::Login,
            17 => Self::Sspi,
            18 => Self::PreLogin,
            _ => return None,
        })
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::SqlBatch => "SQL batch",
            Self::OldLogin => "login (before TDS 7)",
            Self::Rpc => "RPC",
            Self::Response => "response",
            Self::Attention => "attention",
            Self::BulkLoad => "bulk load",
            Self::FederatedToken => "federated authentication token",
            Self::TransactionManager => "transaction manager request",
            Self::Login => "login",
            Self::Sspi => "SSPI",
            Self::PreLogin => "pre-login",
        })
    }
}

/// Whether the session's settings go back to their defaults before a request runs. Connection pools ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// The settings stay.
    #[default]
    No,
    /// All settings, and a transaction is rolled back.
    Session,
    /// All settings; a transaction stays.
    KeepTransaction,
}

/// A message, without the headers of its packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: PacketType,
    /// From the first packet.
    pub reset: Reset,
    /// The client took the message back while it sent it. The contents are empty; the answer is a DONE with the error bit.
    pub ignored: bool,
    /// The contents.
    pub contents: Vec<u8>,
}

/// Puts packets together to messages.
///
/// It keeps the bytes of one message. Memory grows with the bytes that came, never with a length that a header claims.
///
/// ```
/// use vdi_tds::packet::{Assembler, PacketType};
///
/// let mut assembler = Assembler::new();
/// // An attention: type 6, status end of message, length 8, no data. In two pieces.
/// let mut first: &[u8] = &[6, 1, 0];
/// assert_eq!(assembler.next(&mut first)?, None);
/// let mut second: &[u8] = &[8, 0, 0, 1, 0];
/// assert_eq!(assembler.next(&mut second)?.expect("a message").kind, PacketType::Attention);
/// # Ok::<(), vdi_tds::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Assembler {
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// Bytes of the packet's data that did not come yet.
    data_left: usize,
    message: Option<Message>,
    most: usize,
    /// Where in the connection the packet begins.
    offset: u64,
    failed: Option<Error>,
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}

impl Assembler {
    /// Takes messages up to [`crate::connection::Limits`]' default for requests.
    #[must_use]
    pub fn new() -> Self {
        Self {
            header: [0; HEADER_LEN],
            header_len: 0,
            data_left: 0,
            message: None,
            most: crate::connection::Limits::default().request,
            offset: 0,
            failed: None,
        }
    }

    /// Sets the longest message, in bytes. It holds from the next byte on.
    pub fn set_limit(&mut self, most: usize) {
        self.most = most;
    }

    /// Whether a message has begun and is not complete.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.header_len > 0 || self.message.is_some()
    }

    /// Takes bytes from the front of `input`, up to the end of a message. `None`: all of `input` is taken, and more is needed.
    ///
    /// # Errors
    /// [`Error::PacketType`], [`Error::PacketLength`], [`Error::MixedPackets`], [`Error::MessageLength`]. The bytes that follow an
    /// error have no meaning: the connection has to be closed. A further call returns the same error.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.assemble(input).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn assemble(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        while !input.is_empty() {
            if self.header_len < HEADER_LEN {
                let len = input.len().min(HEADER_LEN - self.header_len);
                self.header[self.header_len..self.header_len + len].copy_from_slice(&input[..len]);
                self.header_len += len;
                *input = &input[len..];
                self.check_header()?;
                if self.header_len < HEADER_LEN {
                    return Ok(None);
                }
            }
            let len = input.len().min(self.data_left);
            if let Some(message) = &mut self.message
                && !message.ignored
            {
                message.contents.extend_from_slice(&input[..len]);
            }
            *input = &input[len..];
            self.data_left -= len;
            if self.data_left > 0 {
                return Ok(None);
            }
            self.offset += u64::from(u16::from_be_bytes([self.header[2], self.header[3]]));
            self.header_len = 0;
            if self.header[1] & status::END_OF_MESSAGE != 0 {
                return Ok(self.message.take());
            }
        }
        Ok(None)
    }

    /// Validates what is there of a header, and begins the packet once it is complete.
    fn check_header(&mut self) -> Result<(), Error> {
        let offset = self.offset;
        let Some(kind) = PacketType::from_u8(self.header[0]) else {
            return Err(Error::PacketType { offset, found: self.header[0] });
        };
        if let Some(message) = &self.message
            && message.kind != kind
        {
            return Err(Error::MixedPackets { offset, expected: message.kind, found: kind });
        }
        if self.header_len < HEADER_LEN {
            return Ok(());
        }
        let (bits, len) = (self.header[1], u16::from_be_bytes([self.header[2], self.header[3]]));
        let is_last = bits & status::END_OF_MESSAGE != 0;
        let least = if is_last { HEADER_LEN as u16 } else { MIN_PACKET_SIZE };
        if !(least..=MAX_PACKET_SIZE).contains(&len) {
            return Err(Error::PacketLength { offset, least, most: MAX_PACKET_SIZE, found: len });
        }
        self.data_left = usize::from(len) - HEADER_LEN;
        let message = self.message.get_or_insert_with(|| Message {
            kind,
            reset: match (bits & status::RESET != 0, bits & status::RESET_KEEP_TRANSACTION != 0) {
                (true, _) => Reset::Session,
                (false, true) => Reset::KeepTransaction,
                (false, false) => Reset::No,
            },
            ignored: false,
            contents: Vec::new(),
        });
        if is_last && bits & status::IGNORE != 0 {
            message.ignored = true;
            message.contents = Vec::new();
        } else if message.contents.len() + self.data_left > self.most {
            return Err(Error::MessageLength { message: kind, most: self.most as u64 });
        }
        Ok(())
    }
}

/// Cuts a message into packets.
///
/// Complete packets are appended to a buffer of the caller. What does not fill a packet stays until [`flush`](Self::flush) or
/// [`finish`](Self::finish).
#[derive(Clone, Debug)]
pub struct PacketWriter {
    kind: PacketType,
    size: usize,
    spid: u16,
    number: u8,
    /// Data of the packet that is not complete.
    pending: Vec<u8>,
}

impl PacketWriter {
    /// Packets of `size` bytes with their headers, brought into the range that can be negotiated. `spid` is the session's number, which
    /// stands in every header; FreeTDS reads it there.
    #[must_use]
    pub fn new(kind: PacketType, size: u16, spid: u16) -> Self {
        let size = usize::from(size.clamp(MIN_PACKET_SIZE, MAX_PACKET_SIZE));
        Self { kind, size, spid, number: 1, pending: Vec::new() }
    }

    /// Adds data to the message. The last packet stays pending, so that it can become the last one of the message.
    pub fn write(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        let most = self.size - HEADER_LEN;
        while self.pending.len() + data.len() > most {
            let (head, rest) = data.split_at(most - self.pending.len());
            self.pending.extend_from_slice(head);
            data = rest;
            self.packet(0, out);
        }
        self.pending.extend_from_slice(data);
    }

    /// Sends what is pending before the message ends, so that the client sees it now. Such a packet may be shorter than the size.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.packet(0, out);
        }
    }

    /// Ends the message. The writer then begins the next one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.packet(status::END_OF_MESSAGE, out);
        self.number = 1;
    }

    fn packet(&mut self, status: u8, out: &mut Vec<u8>) {
        let len = (HEADER_LEN + self.pending.len()) as u16;
        out.extend([self.kind as u8, status]);
        out.extend(len.to_be_bytes());
        out.extend(self.spid.to_be_bytes());
        out.extend([self.number, 0]);
        out.append(&mut self.pending);
        self.number = self.number.wrapping_add(1);
    }
}
