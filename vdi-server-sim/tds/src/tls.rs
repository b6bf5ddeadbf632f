//! TLS within TDS 7: until TLS is established, its records travel as the data of PRELOGIN packets (\[MS-TDS\] 2.2.6.5).
//!
//! ```text
//! PRELOGIN, answer    plain packets
//! handshake           TLS records in packets: Unwrapper, wrap
//! from then on        TLS records as they are; packets are inside of them. If the login alone is encrypted: plain packets after it
//! ```
//!
//! Inside of packets TLS has to be 1.2, as with SQL Server: clients end the handshake of 1.3 outside of packets (observed with FreeTDS and
//! tiberius).
//!
//! With TDS 8 TLS comes first and is never wrapped: the first byte of the connection is [`HANDSHAKE_RECORD`], see [`begins_with_tls`].
//!
//! The program runs TLS itself, with the library of its choice. It sends what the library wants to send through [`wrap`], and gives the
//! library what [`Unwrapper`] returns, until the library's handshake is complete.

use crate::error::Error;
use crate::packet::{HEADER_LEN, MAX_PACKET_SIZE, PacketType};

/// The first byte of a TLS record with a handshake.
pub const HANDSHAKE_RECORD: u8 = 0x16;

/// The most data in one packet of a handshake: what fits a packet of the default size.
const MOST: usize = crate::packet::DEFAULT_PACKET_SIZE as usize - HEADER_LEN;

/// Whether a connection that begins with `first` begins with TLS, as TDS 8 does. A server that speaks both versions decides by it.
#[must_use]
pub const fn begins_with_tls(first: u8) -> bool {
    first == HANDSHAKE_RECORD
}

/// Checks the first byte of a connection of a server that speaks TDS 8 alone.
///
/// # Errors
/// [`Error::NotTls`]: the client begins with TDS.
pub const fn expect_tls(first: u8) -> Result<(), Error> {
    if begins_with_tls(first) { Ok(()) } else { Err(Error::NotTls { found: first }) }
}

/// Appends TLS records to `out`, in PRELOGIN packets.
pub fn wrap(records: &[u8], out: &mut Vec<u8>) {
    let mut rest = records;
    while !rest.is_empty() {
        let (data, left) = rest.split_at(rest.len().min(MOST));
        let is_last = left.is_empty();
        out.extend([PacketType::PreLogin as u8, u8::from(is_last)]);
        out.extend(((data.len() + HEADER_LEN) as u16).to_be_bytes());
        out.extend([0; 4]);
        out.extend(data);
        rest = left;
    }
}

/// Takes TLS records out of PRELOGIN packets. It keeps no more than a header.
///
/// ```
/// use vdi_tds::tls::{Unwrapper, wrap};
///
/// let (mut packets, mut records) = (Vec::new(), Vec::new());
/// wrap(b"\x16\x03\x03\x00\x01\x00", &mut packets);
/// let (mut unwrapper, mut input) = (Unwrapper::new(), &packets[..]);
/// while let Some(data) = unwrapper.next(&mut input)? {
///     records.extend_from_slice(data);
/// }
/// assert_eq!(records, b"\x16\x03\x03\x00\x01\x00");
/// # Ok::<(), vdi_tds::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Unwrapper {
    header: [u8; HEADER_LEN],
    header_len: usize,
    data_left: usize,
    offset: u64,
}

impl Unwrapper {
    /// Expects a header.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the input stands between two packets. TLS is complete only here: what follows is not wrapped.
    #[must_use]
    pub fn is_between_packets(&self) -> bool {
        self.header_len == 0
    }

    /// The next data of TLS, from the front of `input`. It ends with a packet, so that the handshake's last bytes can be told from what
    /// follows. `None`: all of `input` is taken.
    ///
    /// # Errors
    /// [`Error::UnexpectedMessage`], [`Error::PacketType`], [`Error::PacketLength`]; the offset is from the start of the handshake.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Error> {
        while !input.is_empty() {
            if self.header_len < HEADER_LEN {
                let len = input.len().min(HEADER_LEN - self.header_len);
                self.header[self.header_len..self.header_len + len].copy_from_slice(&input[..len]);
                self.header_len += len;
                *input = &input[len..];
                self.check_header()?;
                if self.data_left == 0 && self.header_len == HEADER_LEN {
                    self.header_len = 0;
                }
                continue;
            }
            let (data, rest) = input.split_at(input.len().min(self.data_left));
            *input = rest;
            self.data_left -= data.len();
            if self.data_left == 0 {
                self.header_len = 0;
            }
            return Ok(Some(data));
        }
        Ok(None)
    }

    fn check_header(&mut self) -> Result<(), Error> {
        let offset = self.offset;
        match PacketType::from_u8(self.header[0]) {
            Some(PacketType::PreLogin) => {}
            Some(found) => return Err(Error::UnexpectedMessage { expected: "TLS in a pre-login message", found }),
            None => return Err(Error::PacketType { offset, found: self.header[0] }),
        }
        if self.header_len == HEADER_LEN {
            let (least, most) = (HEADER_LEN as u16, MAX_PACKET_SIZE);
            let found = u16::from_be_bytes([self.header[2], self.header[3]]);
            if !(least..=most).contains(&found) {
                return Err(Error::PacketLength { offset, least, most, found });
            }
            self.data_left = usize::from(found) - HEADER_LEN;
            self.offset += u64::from(found);
        }
        Ok(())
    }
}
