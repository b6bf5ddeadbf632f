//! The order of a connection: PRELOGIN, LOGIN7, requests.

use crate::error::Error;
use crate::login::{Login, MAX_LOGIN};
use crate::packet::{Assembler, DEFAULT_PACKET_SIZE, Message, PacketType, PacketWriter};
use crate::prelogin::PreLogin;
use crate::response::Response;
use crate::version::TdsVersion;

/// The longest PRELOGIN, in bytes.
const MAX_PRE_LOGIN: usize = DEFAULT_PACKET_SIZE as usize;

/// The most that a client may send.
///
/// A message is kept whole, and its texts and values once more when it is decoded. So memory is bounded by a small multiple of `request`, plus
/// some hundred bytes for each parameter. Before the login a message has at most 128 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request. Default: 64 MiB.
    pub request: usize,
    /// Parameters of a call. Default: 2,100, as in SQL Server.
    pub parameters: usize,
    /// Calls in a message. Default: 1,000.
    pub calls: usize,
    /// Parameters of all calls in a message. Default: 50,000.
    pub parameters_of_message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: 64 << 20, parameters: 2100, calls: 1000, parameters_of_message: 50_000 }
    }
}

/// What a client sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first message. Answer with [`Connection::answer`].
    PreLogin(PreLogin),
    /// The login. Answer with a [`Connection::response`], then call [`Connection::log_in`].
    Login(Box<Login>),
    /// A request, to be decoded with [`Request::decode`](crate::request::Request::decode).
    Request(Message),
    /// The statement that runs is to stop. The answer is a DONE with the attention bit, also when none runs.
    Attention,
    /// The client took a request back while it sent it. The answer is a DONE with the error bit.
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    PreLogin,
    Login,
    /// The server decides about the login.
    Deciding,
    Requests,
}

/// The server's end of a connection.
///
/// It gets the bytes as they are after decryption. TLS is the program's own, see [`crate::tls`]: [`next`](Self::next) takes nothing behind
/// the end of a message, so that the program can take over there.
///
/// ```
/// use vdi_tds::connection::{Connection, Event, Limits};
/// use vdi_tds::prelogin::{EncryptionPolicy, negotiate};
/// use vdi_tds::version::ProductVersion;
///
/// let server = ProductVersion { major: 16, minor: 0, build: 1000, sub_build: 0 };
/// let mut connection = Connection::new(Limits::default());
/// // PRELOGIN with VERSION and ENCRYPTION (not supported).
/// let mut input: &[u8] = b"\x12\x01\x00\x1A\x00\x00\x01\x00\
///     \x00\x00\x0B\x00\x06\x01\x00\x11\x00\x01\xFF\x09\x00\x00\x00\x00\x00\x02";
/// let Some(Event::PreLogin(client)) = connection.next(&mut input)? else { panic!("PRELOGIN expected") };
/// let negotiated = negotiate(client.encryption.expect("an option"), EncryptionPolicy::Unavailable);
/// let to_send = connection.answer(&client.answer(server, negotiated.answer, true));
/// # assert_eq!(to_send[0], 4);
/// # Ok::<(), vdi_tds::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Connection {
    assembler: Assembler,
    limits: Limits,
    stage: Stage,
    version: TdsVersion,
    /// Of what the server sends.
    packet_size: u16,
    /// What the client asked for.
    requested_size: u16,
    spid: u16,
}

impl Connection {
    /// Expects PRELOGIN.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut assembler = Assembler::new();
        assembler.set_limit(MAX_PRE_LOGIN);
        Self {
            assembler,
            limits,
            stage: Stage::PreLogin,
            version: TdsVersion::V7_4,
            packet_size: DEFAULT_PACKET_SIZE,
            requested_size: DEFAULT_PACKET_SIZE,
            spid: 0,
        }
    }

    /// The session's number, which stands in all packets from now on.
    pub fn set_spid(&mut self, spid: u16) {
        self.spid = spid;
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The negotiated version; 7.4 before the login.
    #[must_use]
    pub fn version(&self) -> TdsVersion {
        self.version
    }

    /// The size of packets that the server sends.
    #[must_use]
    pub fn packet_size(&self) -> u16 {
        self.packet_size
    }

    /// Whether a message has begun and is not complete. A server can limit how long this lasts.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.assembler.is_inside()
    }

    /// Takes bytes from the front of `input`, up to the end of a message. `None`: all of `input` is taken, and more is needed.
    ///
    /// # Errors
    /// Those of [`Assembler::next`], of [`PreLogin::decode`] and [`Login::decode`], and [`Error::UnexpectedMessage`]. The connection has
    /// to be closed.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Error> {
        let Some(message) = self.assembler.next(input)? else { return Ok(None) };
        let unexpected = |expected| Error::UnexpectedMessage { expected, found: message.kind };
        match (self.stage, message.kind) {
            (Stage::PreLogin, PacketType::PreLogin) => {
                let pre_login = PreLogin::decode(&message.contents)?;
                self.stage = Stage::Login;
                self.assembler.set_limit(MAX_LOGIN);
                Ok(Some(Event::PreLogin(pre_login)))
            }
            (Stage::Login, PacketType::Login) => {
                let login = Login::decode(&message.contents)?;
                self.stage = Stage::Deciding;
                self.version = login.version;
                self.requested_size = login.packet_size;
                Ok(Some(Event::Login(Box::new(login))))
            }
            (Stage::Requests, PacketType::Attention) => Ok(Some(Event::Attention)),
            (
                Stage::Requests,
                PacketType::SqlBatch | PacketType::Rpc | PacketType::TransactionManager | PacketType::BulkLoad,
            ) => Ok(Some(if message.ignored { Event::Ignored } else { Event::Request(message) })),
            (Stage::PreLogin, _) => Err(unexpected("pre-login")),
            (Stage::Login, _) => Err(unexpected("login")),
            (Stage::Deciding, _) => Err(unexpected("nothing before the login's answer")),
            (Stage::Requests, _) => Err(unexpected("a request")),
        }
    }

    /// The packets of an answer to PRELOGIN.
    #[must_use]
    pub fn answer(&self, answer: &PreLogin) -> Vec<u8> {
        let mut packets = Vec::new();
        let mut writer = PacketWriter::new(PacketType::Response, self.packet_size, self.spid);
        writer.write(&answer.encode(), &mut packets);
        writer.finish(&mut packets);
        packets
    }

    /// Begins a response to the client.
    #[must_use]
    pub fn response(&self) -> Response {
        Response::new(self.version, self.packet_size, self.spid)
    }

    /// The size of packets that the client asked for, brought into the range: what the login's answer has to say.
    #[must_use]
    pub fn requested_packet_size(&self) -> u16 {
        self.requested_size
    }

    /// Accepts the login. Call it when its answer is complete: from then on packets have the negotiated size, and requests may come.
    pub fn log_in(&mut self) {
        if self.stage == Stage::Deciding {
            self.stage = Stage::Requests;
            self.packet_size = self.requested_size;
            self.assembler.set_limit(self.limits.request);
        }
    }
}
