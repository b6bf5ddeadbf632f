//! The messages between the processes of a set: joining, buffer classes, configuration, aborts.
//!
//! The primary listens; the server and the secondaries connect and send the first message. One message is one packet of
//! at most [`MAX_MESSAGE`] bytes. Descriptors travel with it.
//!
//! ```text
//! joiner  -> Hello                         its role and the set's name
//! primary -> Welcome + control segment     or Refused, or Aborted
//! primary -> Class + area                  for each class that exists
//! ```
//!
//! Later the server sends `Class` (with the area) and `Configured`. The primary passes each class on to the secondaries,
//! and answers the server once all have answered. `Aborted` goes to every process; the abort word in the control segment
//! is faster, but a stray write can clear it. A process sends `Leave` before it disconnects on purpose; a disconnect
//! without it is a death.
//!
//! # Encoding
//!
//! A u32 magic, a u16 version, a u16 kind, then the fields. Integers are little-endian, strings a u16 length and UTF-8.
//! [`Message::decode`] is total: every packet is a message or a [`JoinError`]. A message decodes from exactly the bytes
//! to which it encodes.

use thiserror::Error;

use super::class::ClassSpec;
use super::layout::VERSION;
use crate::abort::{AbortReason, MAX_REASON_BYTES, reason_text};
use crate::config::VdConfig;
use crate::index::{ClassIndex, MAX_CLASSES, MemberIndex};
use crate::name::{MAX_NAME_BYTES, NameError, check_instance, check_name};
use crate::status::VdError;

/// The most bytes of a message.
pub const MAX_MESSAGE: usize = 1024;

/// The first bytes of a message.
pub const MAGIC: u32 = u32::from_le_bytes(*b"vdiJ");

/// The role in which a process joins a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JoinRole {
    /// The server; a set has one.
    Server,
    /// A client that works on devices or buffers of another client's set.
    Secondary,
}

/// Why a process refuses what another one asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The status of the call that is refused.
    pub status: VdError,
    /// What the refusing process knows about it, at most [`MAX_REASON_BYTES`]; empty where the status says it all.
    pub text: &'a str,
}

impl<'a> Refusal<'a> {
    /// A refusal. A text that is too long is cut.
    #[must_use]
    pub fn new(status: VdError, text: &'a str) -> Refusal<'a> {
        Refusal { status, text: reason_text(text) }
    }
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A joiner's first message.
    Hello {
        /// Its role.
        role: JoinRole,
        /// The instance, empty for the default.
        instance: &'a str,
        /// The set's name.
        set: &'a str,
    },
    /// The primary admits the joiner. The control segment's descriptor comes with it.
    Welcome {
        /// The joiner's index in the set.
        member: MemberIndex,
        /// The set's secret: the key of its handles and checksums.
        secret: u64,
        /// What the client requested at Create.
        requested: VdConfig,
        /// What was negotiated, once the server has configured the set.
        negotiated: Option<VdConfig>,
        /// How many `Class` messages follow.
        classes: u32,
    },
    /// The primary refuses the joiner, and disconnects.
    Refused(Refusal<'a>),
    /// A buffer class. The area's descriptor comes with it.
    Class {
        /// Its index; classes are numbered in the order of their messages.
        index: ClassIndex,
        /// Its definition.
        spec: ClassSpec,
    },
    /// The sender and, from the primary, every secondary have mapped the class's area, or one of them could not.
    ClassAnswer {
        /// The class.
        index: ClassIndex,
        /// `Ok`, or why not.
        answer: Result<(), Refusal<'a>>,
    },
    /// The server has configured the set.
    Configured(VdConfig),
    /// The primary accepts the configuration, or does not.
    ConfiguredAnswer(Result<(), Refusal<'a>>),
    /// The sender leaves the set on purpose, and disconnects.
    Leave,
    /// The set is aborted. The primary may also answer a joiner with it, and then disconnects.
    Aborted {
        /// Why.
        reason: AbortReason,
        /// The system's error or the status behind it; 0 where there is none.
        code: u32,
        /// What the process that aborted it knows, at most [`MAX_REASON_BYTES`]; empty where the reason says it all.
        text: &'a str,
    },
}

/// A packet that is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
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
    /// The status for the joiner: VD_E_NOTSUPPORTED for another version, VD_E_INVALID or VD_E_INSTANCE_NAME for a bad
    /// name, VD_E_UNEXPECTED for everything else.
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
const CLASS: u16 = 4;
const CLASS_ANSWER: u16 = 5;
const CONFIGURED: u16 = 6;
const CONFIGURED_ANSWER: u16 = 7;
const LEAVE: u16 = 8;
const ABORTED: u16 = 9;

/// Writes a message into a fixed array. Every message fits; a test checks Hello, the longest.
struct Writer {
    bytes: [u8; MAX_MESSAGE],
    len: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        // A valid name fits. A longer one is cut, and the result does not decode.
        let take = bytes.len().min(MAX_MESSAGE - self.len);
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

    fn spec(&mut self, spec: &ClassSpec) {
        self.u32(spec.buffer_len);
        self.u32(spec.alignment);
        self.u32(spec.count);
    }

    fn refusal(&mut self, refusal: &Refusal<'_>) {
        self.u32(refusal.status.hresult());
        self.text(reason_text(refusal.text));
    }

    fn answer(&mut self, answer: &Result<(), Refusal<'_>>) {
        match answer {
            Ok(()) => self.u32(0),
            Err(refusal) => self.refusal(refusal),
        }
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

    fn text(&mut self, most: usize) -> Result<&'a str, JoinError> {
        let len = usize::from(self.u16()?);
        if len > most {
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

    fn spec(&mut self) -> Result<ClassSpec, JoinError> {
        Ok(ClassSpec { buffer_len: self.u32()?, alignment: self.u32()?, count: self.u32()? })
    }

    /// A bounded number.
    fn index<T>(&mut self, field: &'static str, new: impl FnOnce(u32) -> Option<T>) -> Result<T, JoinError> {
        let found = self.u32()?;
        new(found).ok_or(JoinError::Field { field, found: u64::from(found) })
    }

    fn status(&mut self) -> Result<VdError, JoinError> {
        let found = self.u32()?;
        VdError::from_hresult(found).ok_or(JoinError::Field { field: "status", found: u64::from(found) })
    }

    fn reason(&mut self) -> Result<AbortReason, JoinError> {
        let found = self.u32()?;
        // Other words are reasons as well, but are never sent.
        AbortReason::from_word(found)
            .filter(|reason| reason.to_word() == found)
            .ok_or(JoinError::Field { field: "abort reason", found: u64::from(found) })
    }

    fn refusal(&mut self) -> Result<Refusal<'a>, JoinError> {
        Ok(Refusal { status: self.status()?, text: self.text(MAX_REASON_BYTES)? })
    }

    fn answer(&mut self) -> Result<Result<(), Refusal<'a>>, JoinError> {
        match self.u32()? {
            0 => Ok(Ok(())),
            _ => {
                self.at -= 4;
                self.refusal().map(Err)
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
    /// use vdi_proto::wire::join::{JoinRole, Message};
    ///
    /// let hello = Message::Hello { role: JoinRole::Server, instance: "", set: "nightly" };
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
                    JoinRole::Server => 1,
                    JoinRole::Secondary => 2,
                });
                w.text(instance);
                w.text(set);
            }
            Message::Welcome { member, secret, requested, negotiated, classes } => {
                w.u16(WELCOME);
                w.u32(member.get());
                w.u64(*secret);
                w.config(requested);
                w.u32(*classes);
                w.u16(u16::from(negotiated.is_some()));
                if let Some(negotiated) = negotiated {
                    w.config(negotiated);
                }
            }
            Message::Refused(refusal) => {
                w.u16(REFUSED);
                w.refusal(refusal);
            }
            Message::Class { index, spec } => {
                w.u16(CLASS);
                w.u32(index.get());
                w.spec(spec);
            }
            Message::ClassAnswer { index, answer } => {
                w.u16(CLASS_ANSWER);
                w.u32(index.get());
                w.answer(answer);
            }
            Message::Configured(config) => {
                w.u16(CONFIGURED);
                w.config(config);
            }
            Message::ConfiguredAnswer(answer) => {
                w.u16(CONFIGURED_ANSWER);
                w.answer(answer);
            }
            Message::Leave => w.u16(LEAVE),
            Message::Aborted { reason, code, text } => {
                w.u16(ABORTED);
                w.u32(reason.to_word());
                w.u32(*code);
                w.text(reason_text(text));
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
                    1 => JoinRole::Server,
                    2 => JoinRole::Secondary,
                    found => return Err(JoinError::Field { field: "role", found: u64::from(found) }),
                };
                let instance = r.text(MAX_NAME_BYTES)?;
                check_instance(instance).map_err(JoinError::Name)?;
                let set = r.text(MAX_NAME_BYTES)?;
                check_name(set).map_err(JoinError::Name)?;
                Message::Hello { role, instance, set }
            }
            WELCOME => {
                let member = r.index("member", MemberIndex::new)?;
                let secret = r.u64()?;
                let requested = r.config()?;
                let classes = r.index("classes", |classes| (classes <= MAX_CLASSES).then_some(classes))?;
                let negotiated = match r.u16()? {
                    0 => None,
                    1 => Some(r.config()?),
                    found => return Err(JoinError::Field { field: "configured", found: u64::from(found) }),
                };
                Message::Welcome { member, secret, requested, negotiated, classes }
            }
            REFUSED => Message::Refused(r.refusal()?),
            CLASS => Message::Class { index: r.index("class", ClassIndex::new)?, spec: r.spec()? },
            CLASS_ANSWER => Message::ClassAnswer { index: r.index("class", ClassIndex::new)?, answer: r.answer()? },
            CONFIGURED => Message::Configured(r.config()?),
            CONFIGURED_ANSWER => Message::ConfiguredAnswer(r.answer()?),
            LEAVE => Message::Leave,
            ABORTED => Message::Aborted { reason: r.reason()?, code: r.u32()?, text: r.text(MAX_REASON_BYTES)? },
            found => return Err(JoinError::Kind { found }),
        };
        if r.at != bytes.len() {
            return Err(JoinError::Oversized { found: bytes.len(), expected: r.at });
        }
        Ok(message)
    }
}
