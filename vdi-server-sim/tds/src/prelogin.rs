//! PRELOGIN: the first message of a client, and its answer (\[MS-TDS\] 2.2.6.5).

use crate::error::Error;
use crate::read::Reader;
use crate::version::ProductVersion;

/// Tokens of the options.
mod token {
    pub(super) const VERSION: u8 = 0;
    pub(super) const ENCRYPTION: u8 = 1;
    pub(super) const INSTANCE: u8 = 2;
    pub(super) const THREAD_ID: u8 = 3;
    pub(super) const MARS: u8 = 4;
    pub(super) const TRACE_ID: u8 = 5;
    pub(super) const FEDERATED: u8 = 6;
    pub(super) const NONCE: u8 = 7;
    pub(super) const END: u8 = 0xFF;
}

/// What one side says about encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encryption {
    /// Available and off: only the login is encrypted.
    Off = 0,
    /// Available and on.
    On = 1,
    /// Not available.
    NotSupported = 2,
    /// Required.
    Required = 3,
}

impl Encryption {
    fn from_u8(number: u8) -> Option<Self> {
        [Self::Off, Self::On, Self::NotSupported, Self::Required].into_iter().find(|&value| value as u8 == number)
    }
}

/// What the server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptionPolicy {
    /// The server has no certificate.
    Unavailable,
    /// The client decides.
    Optional,
    /// Every connection is encrypted.
    Required,
}

/// What is encrypted after PRELOGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypted {
    /// Nothing.
    Nothing,
    /// The login message alone. After it both sides send plain packets.
    Login,
    /// All that follows.
    Everything,
}

/// The outcome of the negotiation of encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// What the answer says.
    pub answer: Encryption,
    /// What is encrypted. `None`: the sides have no common ground; the connection ends after the answer.
    pub encrypted: Option<Encrypted>,
}

/// Decides about encryption (the table in \[MS-TDS\] 2.2.6.5).
///
/// ```
/// use vdi_tds::prelogin::{Encrypted, Encryption, EncryptionPolicy, negotiate};
///
/// let negotiated = negotiate(Encryption::Off, EncryptionPolicy::Optional);
/// assert_eq!((negotiated.answer, negotiated.encrypted), (Encryption::Off, Some(Encrypted::Login)));
/// ```
#[must_use]
pub const fn negotiate(client: Encryption, server: EncryptionPolicy) -> Negotiated {
    use Encrypted::{Everything, Login, Nothing};
    use Encryption::{NotSupported, Off, On, Required};
    let (answer, encrypted) = match (server, client) {
        (EncryptionPolicy::Unavailable, Off | NotSupported) => (NotSupported, Some(Nothing)),
        (EncryptionPolicy::Unavailable, On | Required) => (NotSupported, None),
        (EncryptionPolicy::Optional, Off) => (Off, Some(Login)),
        (EncryptionPolicy::Optional, NotSupported) => (NotSupported, Some(Nothing)),
        (EncryptionPolicy::Optional | EncryptionPolicy::Required, On | Required) => (On, Some(Everything)),
        (EncryptionPolicy::Required, Off) => (Required, Some(Everything)),
        (EncryptionPolicy::Required, NotSupported) => (Required, None),
    };
    Negotiated { answer, encrypted }
}

/// What a client's trace shows about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId {
    /// The connection.
    pub connection: [u8; 16],
    /// The client's activity.
    pub activity: [u8; 16],
    /// The number of the step of the activity.
    pub sequence: u32,
}

/// A PRELOGIN message. Options that are unknown are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreLogin {
    /// The version of the sender.
    pub version: ProductVersion,
    /// What the sender says about encryption.
    pub encryption: Option<Encryption>,
    /// The client's bit for a certificate of its own.
    pub client_certificate: bool,
    /// The instance that the client means, without the zero at its end; from a server one byte, 0 (it is this instance) or 1.
    pub instance: Option<Vec<u8>>,
    /// The client's thread. A server sends an empty option, which is `Some(None)`.
    pub thread_id: Option<Option<u32>>,
    /// Whether the sender wants several active results on the connection.
    pub mars: Option<bool>,
    /// The client's trace.
    pub trace_id: Option<TraceId>,
    /// Whether the sender supports (client) or requires (server) authentication by a directory service.
    pub federated: Option<bool>,
    /// The sender's nonce for such an authentication.
    pub nonce: Option<[u8; 32]>,
}

impl PreLogin {
    /// Reads the contents of a PRELOGIN message.
    ///
    /// # Errors
    /// The first option is not VERSION, the list of options has no end, an option lies outside of the message, or has another length or
    /// another value than it can have.
    pub fn decode(contents: &[u8]) -> Result<Self, Error> {
        let mut list = Reader::new(contents);
        let (mut message, mut seen) = (Self::default(), 0u8);
        loop {
            let at = list.offset();
            let token = list.u8("option of PRELOGIN")?;
            if at == 0 && token != token::VERSION {
                let (expected, found) = (u64::from(token::VERSION), u64::from(token));
                return Err(Error::Field { offset: at, field: "first option of PRELOGIN", expected, found });
            }
            if token == token::END {
                return Ok(message);
            }
            let offset = list.u16_be("offset of an option of PRELOGIN")?;
            let len = list.u16_be("length of an option of PRELOGIN")?;
            let mut data = Reader::new(contents);
            data.take(usize::from(offset), "option of PRELOGIN")?;
            if token <= token::NONCE {
                if seen & 1 << token != 0 {
                    let field = "option of PRELOGIN that comes twice";
                    return Err(Error::Unknown { offset: at, field, found: u64::from(token) });
                }
                seen |= 1 << token;
            }
            message.option(token, data, len)?;
        }
    }

    fn option(&mut self, token: u8, mut data: Reader<'_>, len: u16) -> Result<(), Error> {
        let offset = data.offset();
        let check = |field, expected: u16| {
            let (expected, found) = (u64::from(expected), u64::from(len));
            if expected == found { Ok(()) } else { Err(Error::Field { offset, field, expected, found }) }
        };
        match token {
            token::VERSION => {
                check("length of VERSION", 6)?;
                self.version = ProductVersion {
                    major: data.u8("VERSION")?,
                    minor: data.u8("VERSION")?,
                    build: data.u16_be("VERSION")?,
                    sub_build: data.u16("VERSION")?,
                };
            }
            token::ENCRYPTION => {
                check("length of ENCRYPTION", 1)?;
                let byte = data.u8("ENCRYPTION")?;
                // 0x20 is reserved, and set by some clients; 0x80 is the client's certificate.
                self.client_certificate = byte & 0x80 != 0;
                let found = u64::from(byte);
                let value = Encryption::from_u8(byte & !0xA0);
                self.encryption = Some(value.ok_or(Error::Unknown { offset, field: "ENCRYPTION", found })?);
            }
            token::INSTANCE => {
                let name = data.take(usize::from(len), "INSTOPT")?;
                // A server's byte is 0 or 1; a client's name ends with a zero.
                self.instance =
                    Some(if name.len() > 1 { name.strip_suffix(&[0]).unwrap_or(name) } else { name }.to_vec());
            }
            token::THREAD_ID if len == 0 => self.thread_id = Some(None),
            token::THREAD_ID => {
                check("length of THREADID", 4)?;
                self.thread_id = Some(Some(data.u32("THREADID")?));
            }
            token::MARS => {
                check("length of MARS", 1)?;
                self.mars = Some(data.u8("MARS")? != 0);
            }
            token::TRACE_ID => {
                check("length of TRACEID", 36)?;
                self.trace_id = Some(TraceId {
                    connection: data.array("TRACEID")?,
                    activity: data.array("TRACEID")?,
                    sequence: data.u32("TRACEID")?,
                });
            }
            token::FEDERATED => {
                check("length of FEDAUTHREQUIRED", 1)?;
                self.federated = Some(data.u8("FEDAUTHREQUIRED")? != 0);
            }
            token::NONCE => {
                check("length of NONCEOPT", 32)?;
                self.nonce = Some(data.array("NONCEOPT")?);
            }
            _ => {
                data.take(usize::from(len), "option of PRELOGIN")?;
            }
        }
        Ok(())
    }

    /// Answers a client: the server's version, encryption, no MARS, no directory service.
    ///
    /// `is_this_instance`: whether the name that the client gave is this server's; a client ends the connection if it is not.
    #[must_use]
    pub fn answer(&self, version: ProductVersion, encryption: Encryption, is_this_instance: bool) -> Self {
        Self {
            version,
            encryption: Some(encryption),
            instance: Some(vec![u8::from(!is_this_instance)]),
            thread_id: Some(None),
            mars: Some(false),
            federated: self.federated.map(|_| false),
            ..Self::default()
        }
    }

    /// The contents of the message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
        let version = &self.version;
        let mut bytes = vec![version.major, version.minor];
        bytes.extend(version.build.to_be_bytes());
        bytes.extend(version.sub_build.to_le_bytes());
        options.push((token::VERSION, bytes));
        if let Some(encryption) = self.encryption {
            options.push((token::ENCRYPTION, vec![encryption as u8 | u8::from(self.client_certificate) << 7]));
        }
        if let Some(instance) = &self.instance {
            let mut bytes = instance.clone();
            if bytes.len() > 1 {
                bytes.push(0);
            }
            options.push((token::INSTANCE, bytes));
        }
        if let Some(thread_id) = self.thread_id {
            options.push((token::THREAD_ID, thread_id.map_or_else(Vec::new, |id| id.to_le_bytes().to_vec())));
        }
        options.extend(self.mars.map(|mars| (token::MARS, vec![u8::from(mars)])));
        options.extend(self.trace_id.map(|trace| {
            let sequence = trace.sequence.to_le_bytes();
            (token::TRACE_ID, [&trace.connection[..], &trace.activity, &sequence].concat())
        }));
        options.extend(self.federated.map(|federated| (token::FEDERATED, vec![u8::from(federated)])));
        options.extend(self.nonce.map(|nonce| (token::NONCE, nonce.to_vec())));

        let mut out = Vec::new();
        let mut offset = options.len() * 5 + 1;
        for (token, bytes) in &options {
            out.push(*token);
            out.extend((offset as u16).to_be_bytes());
            out.extend((bytes.len() as u16).to_be_bytes());
            offset += bytes.len();
        }
        out.push(token::END);
        out.extend(options.into_iter().flat_map(|(_, bytes)| bytes));
        out
    }
}
