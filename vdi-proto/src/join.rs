//! The messages by which processes join a set and tell each other what does not go through the control segment.
//!
//! The primary listens; the server and secondaries connect and speak first. One message is one packet of at most
//! [`MAX_MESSAGE`] bytes; descriptors travel beside it. Who joins:
//!
//! ```text
//! joiner  -> Hello                         who I am, which set I want
//! primary -> Welcome + control segment     or Refused, or Aborted
//! primary -> Area + segment                for each buffer area that exists
//! ```
//!
//! Later the server sends `Area` (with the segment) and `Configured`, each answered; the primary passes areas on to the
//! secondaries. Whoever learns first that the set is aborted says `Aborted`, and the primary passes that on as well: the
//! word in the control segment is faster, but anybody can clear it. `Leave` before hanging up makes the difference between
//! leaving and dying.
//!
//! Encoding: little-endian integers, strings as a u16 length and UTF-8; first a u32 magic, a u16 version, a u16 kind.
//! [`Message::decode`] is total: every packet is a message or a [`JoinError`], and a message decodes from exactly the
//! bytes that it encodes to.

use thiserror::Error;

use crate::abort::AbortReason;
use crate::config::VdConfig;
use crate::handle::{MAX_SLOT_BITS, MIN_SLOT_BITS};
use crate::layout::{MAX_MEMBERS, VERSION};
use crate::name::{MAX_NAME_BYTES, NameError, check_instance, check_name};
use crate::status::VdError;

/// The most bytes that a message has.
pub const MAX_MESSAGE: usize = 1024;

/// Tells a join message.
pub const MAGIC: u32 = u32::from_le_bytes(*b"vdiJ");

/// As what a process joins a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The server; a set has one.
    Server,
    /// A client that works on devices or buffers of a set that another created.
    Secondary,
}

/// What the server and the client agreed on, as all processes must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// All eleven fields.
    pub config: VdConfig,
    /// The width of a handle's slot field, [`MIN_SLOT_BITS`] to [`MAX_SLOT_BITS`].
    pub slot_bits: u32,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A joiner's first message.
    Hello {
        /// As what it joins.
        role: Role,
        /// The instance, empty for the default.
        instance: &'a str,
        /// The set's name.
        set: &'a str,
    },
    /// The primary's answer to a joiner that may; the control segment's descriptor comes with it.
    Welcome {
        /// The joiner's place in the set.
        member: u32,
        /// The secret of the set's handles.
        secret: u64,
        /// What the client asked for at Create.
        asked: VdConfig,
        /// What was agreed, once the server has configured the set.
        agreement: Option<Agreement>,
        /// How many areas follow, each with a descriptor.
        areas: u32,
    },
    /// The primary's answer to a joiner that may not; it hangs up after it.
    Refused {
        /// Why.
        status: VdError,
    },
    /// A buffer area; its descriptor comes with it.
    Area {
        /// Its number: areas count from 0 in the order in which they are added.
        index: u32,
        /// Its length in bytes.
        len: u64,
    },
    /// The primary has mapped the area and passed it on, or could not.
    AreaAnswer {
        /// The area's number.
        index: u32,
        /// `Ok`, or why not.
        answer: Result<(), VdError>,
    },
    /// The server has configured the set.
    Configured(Agreement),
    /// The primary takes the configuration, or does not.
    ConfiguredAnswer(Result<(), VdError>),
    /// The sender leaves the set in order; the hang-up that follows is no death.
    Leave,
    /// The set is aborted. As the primary's answer to a joiner it stands for a refusal, and the primary hangs up after it.
    Aborted {
        /// Why.
        reason: AbortReason,
    },
}

/// A packet that is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JoinError {
    /// It ends too early.
    #[error("a join message ends after {found} bytes, where at least {expected} were needed")]
    Truncated {
        /// Its length.
        found: usize,
        /// The length needed to read on.
        expected: usize,
    },
    /// It goes on after its end, or is longer than any message.
    #[error("a join message of {found} bytes ends at byte {expected}")]
    Oversized {
        /// Its length.
        found: usize,
        /// Where it should have ended.
        expected: usize,
    },
    /// It does not begin as a join message.
    #[error("a packet begins with {found:#010x}, not with a join message's magic {MAGIC:#010x}")]
    Magic {
        /// What it begins with.
        found: u32,
    },
    /// It is of another version.
    #[error("the peer speaks version {found} of the join protocol, this side {VERSION}; use the same version on both")]
    Version {
        /// The peer's version.
        found: u16,
    },
    /// It is of no known kind.
    #[error("join messages have no kind {found}")]
    Kind {
        /// The kind.
        found: u16,
    },
    /// A field has a value that it must not have.
    #[error("the field {field} of a join message must not be {found}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// A name is none.
    #[error("a join message has a bad name: {0}")]
    Name(NameError),
    /// A string is not UTF-8.
    #[error("a string of a join message is not UTF-8")]
    Text,
}

impl JoinError {
    /// The status for whoever joins: VD_E_NOTSUPPORTED for another version, VD_E_INVALID or VD_E_INSTANCE_NAME for a bad
    /// name, else VD_E_UNEXPECTED.
    #[must_use]
    pub const fn code(&self) -> VdError {
        match self {
            JoinError::Version { .. } => VdError::NotSupported,
            JoinError::Name(error) => error.code(),
            _ => VdError::Unexpected,
        }
    }
}

const HELLO: u16 = 1;
const WELCOME: u16 = 2;
const REFUSED: u16 = 3;
const AREA: u16 = 4;
const AREA_ANSWER: u16 = 5;
const CONFIGURED: u16 = 6;
const CONFIGURED_ANSWER: u16 = 7;
const LEAVE: u16 = 8;
const ABORTED: u16 = 9;

/// Writes a message into a fixed array. All messages fit: the longest, Hello, is checked by a test.
struct Writer {
    bytes: [u8; MAX_MESSAGE],
    len: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        // Names were checked or came from a decoded message, so this never cuts; a longer one would only fail to decode.
        let room = MAX_MESSAGE - self.len;
        let take = bytes.len().min(room);
        self.bytes[self.len..self.len + take].copy_from_slice(&bytes[..take]);
        self.len += take;
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u16(text.len() as u16);
        self.put(text.as_bytes());
    }

    fn config(&mut self, config: &VdConfig) {
        for word in config.to_words() {
            self.u32(word);
        }
    }

    fn agreement(&mut self, agreement: &Agreement) {
        self.config(&agreement.config);
        self.u32(agreement.slot_bits);
    }

    fn answer(&mut self, answer: Result<(), VdError>) {
        self.u32(match answer {
            Ok(()) => 0,
            Err(status) => status.hresult(),
        });
    }
}

/// Reads a message; each read checks that the bytes are there.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], JoinError> {
        let expected = self.at + len;
        let taken =
            self.bytes.get(self.at..expected).ok_or(JoinError::Truncated { found: self.bytes.len(), expected })?;
        self.at = expected;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JoinError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, JoinError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, JoinError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, JoinError> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a str, JoinError> {
        let len = usize::from(self.u16()?);
        if len > MAX_NAME_BYTES {
            return Err(JoinError::Field { field: "string length", found: len as u64 });
        }
        core::str::from_utf8(self.take(len)?).map_err(|_| JoinError::Text)
    }

    fn config(&mut self) -> Result<VdConfig, JoinError> {
        let mut words = [0; 11];
        for word in &mut words {
            *word = self.u32()?;
        }
        Ok(VdConfig::from_words(words))
    }

    fn agreement(&mut self) -> Result<Agreement, JoinError> {
        let config = self.config()?;
        let slot_bits = self.u32()?;
        if !(MIN_SLOT_BITS..=MAX_SLOT_BITS).contains(&slot_bits) {
            return Err(JoinError::Field { field: "slot bits", found: u64::from(slot_bits) });
        }
        Ok(Agreement { config, slot_bits })
    }

    fn status(&mut self) -> Result<VdError, JoinError> {
        let found = self.u32()?;
        VdError::from_hresult(found).ok_or(JoinError::Field { field: "status", found: u64::from(found) })
    }

    fn reason(&mut self) -> Result<AbortReason, JoinError> {
        let found = self.u32()?;
        // Other words stand for reasons as well, but nobody sends them.
        AbortReason::from_word(found)
            .filter(|reason| reason.to_word() == found)
            .ok_or(JoinError::Field { field: "abort reason", found: u64::from(found) })
    }

    fn answer(&mut self) -> Result<Result<(), VdError>, JoinError> {
        match self.u32()? {
            0 => Ok(Ok(())),
            _ => {
                self.at -= 4;
                self.status().map(Err)
            }
        }
    }
}

/// A message's bytes.
#[derive(Debug, Clone)]
pub struct Encoded {
    bytes: [u8; MAX_MESSAGE],
    len: usize,
}

impl Encoded {
    /// The bytes to send as one packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<'a> Message<'a> {
    /// Encodes the message.
    ///
    /// ```
    /// use vdi_proto::join::{Message, Role};
    ///
    /// let hello = Message::Hello { role: Role::Server, instance: "", set: "nightly" };
    /// let encoded = hello.encode();
    /// assert_eq!(Message::decode(encoded.bytes()), Ok(hello));
    /// ```
    #[must_use]
    pub fn encode(&self) -> Encoded {
        let mut w = Writer { bytes: [0; MAX_MESSAGE], len: 0 };
        w.u32(MAGIC);
        w.u16(VERSION as u16);
        match self {
            Message::Hello { role, instance, set } => {
                w.u16(HELLO);
                w.u16(match role {
                    Role::Server => 1,
                    Role::Secondary => 2,
                });
                w.text(instance);
                w.text(set);
            }
            Message::Welcome { member, secret, asked, agreement, areas } => {
                w.u16(WELCOME);
                w.u32(*member);
                w.u64(*secret);
                w.config(asked);
                w.u32(*areas);
                w.u16(u16::from(agreement.is_some()));
                if let Some(agreement) = agreement {
                    w.agreement(agreement);
                }
            }
            Message::Refused { status } => {
                w.u16(REFUSED);
                w.u32(status.hresult());
            }
            Message::Area { index, len } => {
                w.u16(AREA);
                w.u32(*index);
                w.u64(*len);
            }
            Message::AreaAnswer { index, answer } => {
                w.u16(AREA_ANSWER);
                w.u32(*index);
                w.answer(*answer);
            }
            Message::Configured(agreement) => {
                w.u16(CONFIGURED);
                w.agreement(agreement);
            }
            Message::ConfiguredAnswer(answer) => {
                w.u16(CONFIGURED_ANSWER);
                w.answer(*answer);
            }
            Message::Leave => w.u16(LEAVE),
            Message::Aborted { reason } => {
                w.u16(ABORTED);
                w.u32(reason.to_word());
            }
        }
        Encoded { bytes: w.bytes, len: w.len }
    }

    /// Decodes a packet.
    ///
    /// # Errors
    /// [`JoinError`] for every packet that is not exactly a message.
    pub fn decode(bytes: &'a [u8]) -> Result<Message<'a>, JoinError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(JoinError::Oversized { found: bytes.len(), expected: MAX_MESSAGE });
        }
        let mut r = Reader { bytes, at: 0 };
        let magic = r.u32()?;
        if magic != MAGIC {
            return Err(JoinError::Magic { found: magic });
        }
        let version = r.u16()?;
        if u32::from(version) != VERSION {
            return Err(JoinError::Version { found: version });
        }
        let message = match r.u16()? {
            HELLO => {
                let role = match r.u16()? {
                    1 => Role::Server,
                    2 => Role::Secondary,
                    found => return Err(JoinError::Field { field: "role", found: u64::from(found) }),
                };
                let instance = r.text()?;
                check_instance(instance).map_err(JoinError::Name)?;
                let set = r.text()?;
                check_name(set).map_err(JoinError::Name)?;
                Message::Hello { role, instance, set }
            }
            WELCOME => {
                let member = r.u32()?;
                if member >= MAX_MEMBERS {
                    return Err(JoinError::Field { field: "member", found: u64::from(member) });
                }
                let secret = r.u64()?;
                let asked = r.config()?;
                let areas = r.u32()?;
                let agreement = match r.u16()? {
                    0 => None,
                    1 => Some(r.agreement()?),
                    found => return Err(JoinError::Field { field: "configured", found: u64::from(found) }),
                };
                Message::Welcome { member, secret, asked, agreement, areas }
            }
            REFUSED => Message::Refused { status: r.status()? },
            AREA => Message::Area { index: r.u32()?, len: r.u64()? },
            AREA_ANSWER => Message::AreaAnswer { index: r.u32()?, answer: r.answer()? },
            CONFIGURED => Message::Configured(r.agreement()?),
            CONFIGURED_ANSWER => Message::ConfiguredAnswer(r.answer()?),
            LEAVE => Message::Leave,
            ABORTED => Message::Aborted { reason: r.reason()? },
            found => return Err(JoinError::Kind { found }),
        };
        if r.at != bytes.len() {
            return Err(JoinError::Oversized { found: bytes.len(), expected: r.at });
        }
        Ok(message)
    }
}
