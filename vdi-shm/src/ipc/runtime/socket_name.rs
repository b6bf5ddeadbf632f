//! The name of a socket, and of its file.
//!
//! A file is called `NAME@NAMESPACE-HASH.vdi`, or `NAME-HASH.vdi` in the namespace without a name. HASH is FNV-1a of the whole
//! namespace and name. NAME and NAMESPACE are their beginnings; bytes of characters other than ASCII letters, digits and
//! `-_{}$#` are written as `%XX`. So people can read the file's name, and [`super::near_misses`] can compare it.

/// The most bytes of a name in the name of its file: room for a GUID in braces.
const NAME_BYTES: usize = 44;

/// The most bytes of a namespace in the name of a file: room for an instance of SQL Server.
const NAMESPACE_BYTES: usize = 16;

/// What the files of sockets end with.
const SUFFIX: &str = ".vdi";

/// The longest name of a file. The address of a socket has 108 bytes, the last of which is zero; the directory is in it as
/// `/proc/self/fd/NUMBER/`.
pub(super) const MAX_FILE: usize = NAME_BYTES + 1 + NAMESPACE_BYTES + 1 + 16 + SUFFIX.len();
static_assertions::const_assert!("/proc/self/fd/1073741824/".len() + MAX_FILE < 108);

/// The name of a socket in a runtime directory: a name within a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketName {
    namespace: String,
    name: String,
    pub(super) file: String,
}

impl SocketName {
    /// A name within a namespace, which may be empty. Any text will do.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> SocketName {
        // Where two names share a file, the second one is refused.
        let hash = namespace
            .bytes()
            .chain([0])
            .chain(name.bytes())
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let shown = readable(name, NAME_BYTES);
        let file = if namespace.is_empty() {
            format!("{shown}-{hash:016x}{SUFFIX}")
        } else {
            format!("{shown}@{}-{hash:016x}{SUFFIX}", readable(namespace, NAMESPACE_BYTES))
        };
        SocketName { namespace: namespace.to_owned(), name: name.to_owned(), file }
    }

    /// The name that a file was made for; `None` where its name is too long to be told from the file, and for other files.
    pub(super) fn of_file(file: &str) -> Option<SocketName> {
        let (name, namespace) = parts(file)?;
        Some(SocketName::new(&namespace, &name)).filter(|found| found.file == file)
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether a file is called as the file of a socket.
pub(super) fn is_socket_file(file: &str) -> bool {
    file.len() > SUFFIX.len() && file.ends_with(SUFFIX)
}

/// What a file's name has of name and namespace.
pub(super) fn parts(file: &str) -> Option<(String, String)> {
    let (shown, _hash) = file.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    let (name, namespace) = shown.rsplit_once('@').unwrap_or((shown, ""));
    Some((text(name)?, text(namespace)?))
}

/// The beginning of a text, as a file's name has it.
fn readable(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        let next = if character.is_ascii_alphanumeric() || "-_{}$#".contains(character) {
            String::from(character)
        } else {
            character.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect()
        };
        if shown.len() + next.len() > most {
            break;
        }
        shown.push_str(&next);
    }
    shown
}

/// The text that [`readable`] made this of.
fn text(readable: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = readable.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A file tells the name that it was made for, or its beginning, and fits the address of a socket.
        #[test]
        fn a_file_tells_its_name(namespace in "[A-Za-zé_$#][A-Za-z0-9é_$#]{0,15}|", name in "\\PC{0,12}|[ -~]{1,128}") {
            let made = SocketName::new(&namespace, &name);
            prop_assert!(made.file.len() <= MAX_FILE, "{}", made.file);
            prop_assert!(!made.file.contains('/') && !made.file.starts_with('.'));
            let (found, within) = parts(&made.file).expect("a file of a socket");
            prop_assert!(name.starts_with(&found) && namespace.starts_with(&within), "{}", made.file);
            match SocketName::of_file(&made.file) {
                Some(found) => prop_assert_eq!(found, made),
                None => prop_assert!(found.len() < name.len() || within.len() < namespace.len(), "{}", made.file),
            }
        }

        #[test]
        fn other_files_are_no_names(file in "\\PC{0,30}(\\.vdi)?") {
            prop_assert_eq!(SocketName::of_file(&file), None);
        }
    }

    #[test]
    fn files_of_known_names() {
        // The text of names stays what it is: processes of different versions find each other.
        for (namespace, name, file) in [
            ("", "nightly", "nightly-9894f0eda2ce54f8.vdi"),
            ("TEST", "nightly", "nightly@TEST-fa1e4606de2bbff8.vdi"),
            ("", "a b/é@c", "a%20b%2F%C3%A9%40c-e7e5cdd576f82adc.vdi"),
        ] {
            assert_eq!(SocketName::new(namespace, name).file, file);
        }
        let guid = "{0F8FAD5B-D9CB-469F-A165-70867728950E}";
        assert!(SocketName::new("ABCDEFGHIJKLMNOP", guid).file.starts_with(&format!("{guid}@ABCDEFGHIJKLMNOP-")));
    }
}
