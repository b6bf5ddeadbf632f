//! LOGIN7: who connects, and what the client is (\[MS-TDS\] 2.2.6.4).

use std::fmt;

use crate::error::Error;
use crate::feature::Feature;
use crate::packet::{DEFAULT_PACKET_SIZE, MAX_PACKET_SIZE, MIN_PACKET_SIZE};
use crate::read::{Reader, utf16};
use crate::version::{ProductVersion, TdsVersion};

/// The longest LOGIN7, in bytes.
pub const MAX_LOGIN: usize = 128 * 1024 - 1;

/// The fixed fields of 7.2 and later.
const FIXED_LEN: usize = 94;

/// Bits of a login's options.
mod option {
    /// Of the first byte.
    pub(super) const BIG_ENDIAN: u8 = 0x01;
    pub(super) const EBCDIC: u8 = 0x02;
    pub(super) const FLOAT: u8 = 0x0C;
    pub(super) const TELL_USE: u8 = 0x20;
    pub(super) const DATABASE_IS_NEEDED: u8 = 0x40;
    /// Of the second byte.
    pub(super) const ODBC: u8 = 0x02;
    pub(super) const INTEGRATED: u8 = 0x80;
    /// Of the third byte.
    pub(super) const OLE_DB: u8 = 0x10;
    pub(super) const READ_ONLY: u8 = 0x20;
    /// Of the fourth byte.
    pub(super) const CHANGE_PASSWORD: u8 = 0x01;
    pub(super) const EXTENSION: u8 = 0x10;
}

/// A password. Its debug output hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password from its text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The password as LOGIN7 has it: each byte with its halves exchanged, then combined with 0xA5. This hides nothing.
    #[must_use]
    pub fn scramble(&self) -> Vec<u8> {
        self.0.encode_utf16().flat_map(u16::to_le_bytes).map(|byte| byte.rotate_left(4) ^ 0xA5).collect()
    }

    fn unscramble(bytes: &[u8]) -> Option<Self> {
        let bytes: Vec<u8> = bytes.iter().map(|byte| (byte ^ 0xA5).rotate_left(4)).collect();
        utf16(&bytes).map(Self)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Password(..)")
    }
}

/// A LOGIN7 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The version to speak: the highest that client and this crate know.
    pub version: TdsVersion,
    /// The size of packets to use from the answer's end on: the client's wish, brought into the range.
    pub packet_size: u16,
    /// The version of the client's library.
    pub client_version: ProductVersion,
    /// The client's process.
    pub client_process: u32,
    /// The client's machine.
    pub host: String,
    /// The login. Empty with Windows authentication.
    pub user: String,
    /// The password.
    pub password: Password,
    /// The program.
    pub application: String,
    /// The server, as the client calls it.
    pub server: String,
    /// The client's library.
    pub library: String,
    /// The language wanted. Empty: the login's own.
    pub language: String,
    /// The database wanted. Empty: the login's own.
    pub database: String,
    /// A database file to attach.
    pub attach_file: String,
    /// The client's network address, or what it gives for it.
    pub client_id: [u8; 6],
    /// The client's time zone; minutes, as the client says it.
    pub time_zone: i32,
    /// The client asks for Windows authentication, with this first token.
    pub sspi: Option<Vec<u8>>,
    /// A new password that replaces the other.
    pub new_password: Option<Password>,
    /// The login fails where the database cannot be opened.
    pub database_is_needed: bool,
    /// The client wants to be told of USE.
    pub tell_use: bool,
    /// ODBC or OLE DB: SQL Server sets ANSI_DEFAULTS on, and IMPLICIT_TRANSACTIONS and CURSOR_CLOSE_ON_COMMIT off.
    pub ansi_defaults: bool,
    /// The client only reads.
    pub read_only: bool,
    /// What the client can do besides. Unknown features are in it too.
    pub features: Vec<Feature>,
}

impl Login {
    /// Reads the contents of a LOGIN7 message.
    ///
    /// # Errors
    /// Fields that lie outside of the message, names beyond 128 characters, invalid UTF-16, a client with another byte order or floating
    /// point format, a version older than 7.2.
    pub fn decode(contents: &[u8]) -> Result<Self, Error> {
        if contents.len() > MAX_LOGIN {
            let (least, most, found) = (FIXED_LEN as u64, MAX_LOGIN as u64, contents.len() as u64);
            return Err(Error::Range { offset: 0, field: "length of LOGIN7", least, most, found });
        }
        let mut fixed = Reader::new(contents);
        let len = fixed.u32("length of LOGIN7")?;
        if len as usize != contents.len() {
            let (expected, found) = (contents.len() as u64, u64::from(len));
            return Err(Error::Field { offset: 0, field: "length of LOGIN7", expected, found });
        }
        let version = TdsVersion::negotiate(fixed.u32("TDS version")?)?;
        let packet_size = match fixed.u32("packet size")? {
            0 => DEFAULT_PACKET_SIZE,
            size => size.clamp(u32::from(MIN_PACKET_SIZE), u32::from(MAX_PACKET_SIZE)) as u16,
        };
        // A number in little-endian order, which the library fills with its version in the other.
        let client_version = fixed.array::<4>("version of the client's library")?;
        let client_version = ProductVersion {
            major: client_version[3],
            minor: client_version[2],
            build: u16::from_le_bytes([client_version[0], client_version[1]]),
            sub_build: 0,
        };
        let client_process = fixed.u32("client's process")?;
        fixed.u32("connection's id")?;
        let at = fixed.offset();
        let [first, second, third, fourth] = fixed.array("options")?;
        for (bit, what) in [
            (option::BIG_ENDIAN, "a client with big-endian numbers"),
            (option::EBCDIC, "a client with EBCDIC"),
            (option::FLOAT, "a client with floating point numbers other than IEEE 754"),
        ] {
            if first & bit != 0 {
                return Err(Error::Unsupported { offset: at, what });
            }
        }
        let time_zone = fixed.i32("time zone")?;
        fixed.u32("locale")?;

        let mut name = |field, most| text(contents, &mut fixed, field, most);
        let (host, user) = (name("host name", 128)?, name("user name", 128)?);
        let password = password(contents, &mut fixed, "password")?;
        let mut name = |field, most| text(contents, &mut fixed, field, most);
        let (application, server) = (name("application name", 128)?, name("server name", 128)?);
        let extension = slot(&mut fixed, "extension")?;
        let mut name = |field, most| text(contents, &mut fixed, field, most);
        let (library, language, database) =
            (name("library name", 128)?, name("language", 128)?, name("database", 128)?);
        let client_id = fixed.array("client's id")?;
        let sspi = slot(&mut fixed, "SSPI")?;
        let attach_file = text(contents, &mut fixed, "attached file", 260)?;
        let new_password = password_slot(contents, &mut fixed, "new password", fourth & option::CHANGE_PASSWORD != 0)?;
        let long_sspi = fixed.u32("length of SSPI")?;
        let sspi_len = if sspi.1 == u16::MAX && long_sspi > 0 { long_sspi } else { u32::from(sspi.1) };
        let sspi = if second & option::INTEGRATED != 0 {
            Some(variable(contents, sspi.0, sspi_len as usize, "SSPI")?.to_vec())
        } else {
            None
        };
        let features = if fourth & option::EXTENSION != 0 && extension.1 > 0 {
            let mut pointer = Reader::new(variable(contents, extension.0, usize::from(extension.1), "extension")?);
            match pointer.u32("offset of features")? {
                0 => Vec::new(),
                offset => Feature::decode_list(contents, offset)?,
            }
        } else {
            Vec::new()
        };
        Ok(Self {
            version,
            packet_size,
            client_version,
            client_process,
            host,
            user,
            password,
            application,
            server,
            library,
            language,
            database,
            attach_file,
            client_id,
            time_zone,
            sspi,
            new_password,
            database_is_needed: first & option::DATABASE_IS_NEEDED != 0,
            tell_use: first & option::TELL_USE != 0,
            ansi_defaults: second & option::ODBC != 0 || third & option::OLE_DB != 0,
            read_only: third & option::READ_ONLY != 0,
            features,
        })
    }
}

/// Offset and length of a variable field.
fn slot(fixed: &mut Reader<'_>, field: &'static str) -> Result<(u16, u16), Error> {
    Ok((fixed.u16(field)?, fixed.u16(field)?))
}

/// The bytes of a variable field. An empty one lies nowhere.
fn variable<'a>(contents: &'a [u8], offset: u16, len: usize, field: &'static str) -> Result<&'a [u8], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    if usize::from(offset) < FIXED_LEN {
        let (least, most, found) = (FIXED_LEN as u64, contents.len() as u64, u64::from(offset));
        return Err(Error::Range { offset: found, field, least, most, found });
    }
    let mut reader = Reader::new(contents);
    reader.take(usize::from(offset), field)?;
    reader.take(len, field)
}

fn units<'a>(contents: &'a [u8], slot: (u16, u16), field: &'static str, most: u16) -> Result<&'a [u8], Error> {
    let (offset, len) = slot;
    if len > most {
        let (found, most) = (u64::from(len), u64::from(most));
        return Err(Error::Range { offset: u64::from(offset), field, least: 0, most, found });
    }
    variable(contents, offset, usize::from(len) * 2, field)
}

fn text(contents: &[u8], fixed: &mut Reader<'_>, field: &'static str, most: u16) -> Result<String, Error> {
    let slot = slot(fixed, field)?;
    utf16(units(contents, slot, field, most)?).ok_or(Error::Unicode { offset: u64::from(slot.0), field })
}

fn password(contents: &[u8], fixed: &mut Reader<'_>, field: &'static str) -> Result<Password, Error> {
    Ok(password_slot(contents, fixed, field, true)?.unwrap_or_default())
}

fn password_slot(
    contents: &[u8],
    fixed: &mut Reader<'_>,
    field: &'static str,
    is_used: bool,
) -> Result<Option<Password>, Error> {
    let slot = slot(fixed, field)?;
    if !is_used {
        return Ok(None);
    }
    let password = Password::unscramble(units(contents, slot, field, 128)?);
    password.map(Some).ok_or(Error::Unicode { offset: u64::from(slot.0), field })
}
