//! What can go wrong when a library is loaded, told so that it can be put right.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vdi_proto::status::VdError;

/// Why a library cannot be used.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error("cannot find the library {}: {source}; install SQL Server (package mssql-server), or give the path of its \
             libsqlvdi.so, and see that this user may read it", path.display())]
    Missing { path: PathBuf, source: std::io::Error },
    #[error("{} is no shared library ({found}); give the path of SQL Server's libsqlvdi.so", path.display())]
    NotALibrary { path: PathBuf, found: &'static str },
    #[error("the library {} is for {found}, and this program for {}; build the program for the library's machine",
            path.display(), std::env::consts::ARCH)]
    Machine { path: PathBuf, found: String },
    #[error("the library {} needs {needs}, which the system does not find; start this program with LD_LIBRARY_PATH={} in its \
             environment (it is read when a program starts), or install what has {needs}", path.display(), folder(path))]
    Dependency { path: PathBuf, needs: String },
    #[error("the library {} needs the symbol {symbol}, which none of the libraries that it names has; start this program \
             with LD_LIBRARY_PATH={} in its environment, or preload the library that has it (LD_PRELOAD)",
            path.display(), folder(path))]
    Undefined { path: PathBuf, symbol: String },
    #[error("the system cannot load the library {}: {said}", path.display())]
    System { path: PathBuf, said: String },
    #[error("the library {} has no symbol {symbol}: it is none that serves the Virtual Device Interface, or of a version that \
             this program does not know", path.display())]
    Symbol { path: PathBuf, symbol: &'static str },
}

fn folder(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

impl LoadError {
    pub(super) const fn code(&self) -> VdError {
        match self {
            LoadError::Missing { .. } | LoadError::NotALibrary { .. } | LoadError::Machine { .. } => VdError::Invalid,
            LoadError::Dependency { .. } | LoadError::Undefined { .. } | LoadError::System { .. } => {
                VdError::Unexpected
            }
            LoadError::Symbol { .. } => VdError::NotSupported,
        }
    }
}

/// The full path of a library: with less, the loader might take another one of that name, which is loaded already. What the
/// loader would tell with few words is found out here.
pub(super) fn find(path: &Path) -> Result<PathBuf, LoadError> {
    let missing = |source| LoadError::Missing { path: path.to_owned(), source };
    let path = path.canonicalize().map_err(missing)?;
    // Before it is opened: opening a pipe would wait for somebody to write.
    let metadata = path.metadata().map_err(missing)?;
    if !metadata.is_file() {
        return Err(LoadError::NotALibrary { path, found: "it is no regular file" });
    }
    let mut header = Vec::new();
    let file = File::open(&path).map_err(missing)?;
    file.take(HEADERS).read_to_end(&mut header).map_err(missing)?;
    match judge(&header).and_then(|()| whole(&header, metadata.len()).ok_or(Header::Not("it is cut short"))) {
        Ok(()) => Ok(path),
        Err(Header::Not(found)) => Err(LoadError::NotALibrary { path, found }),
        Err(Header::Of(found)) => Err(LoadError::Machine { path, found }),
    }
}

/// How much of a library is looked at: its header, and what it says about its segments.
const HEADERS: u64 = 16384;

/// Whether a file of `len` bytes has all that its header says is to be mapped: the loader believes it, and whoever touches what
/// is not there crashes. For files that are 64 bits and little-endian; what cannot be found out counts as whole.
fn whole(header: &[u8], len: u64) -> Option<()> {
    const LOAD: u64 = 1;
    let word = |at: usize, bytes: usize| {
        let bytes = header.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte)))
    };
    if header.get(4..6)? != [2, 1] {
        return Some(());
    }
    let (table, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    for number in 0..count {
        let at = table.checked_add(number * size)?;
        if at.checked_add(size)? > HEADERS.min(len) {
            return (len > HEADERS).then_some(());
        }
        let at = usize::try_from(at).ok()?;
        let (kind, offset, bytes) = (word(at, 4)?, word(at + 8, 8)?, word(at + 32, 8)?);
        if kind == LOAD && offset.checked_add(bytes)? > len {
            return None;
        }
    }
    Some(())
}

#[derive(Debug, PartialEq, Eq)]
enum Header {
    Not(&'static str),
    Of(String),
}

/// Judges the beginning of an ELF file.
fn judge(header: &[u8]) -> Result<(), Header> {
    let Some((b"\x7fELF", rest)) = header.split_at_checked(4) else { return Err(Header::Not("it has no ELF header")) };
    let &[class, order, _, _, _, _, _, _, _, _, _, _, t0, t1, m0, m1, ..] = rest else {
        return Err(Header::Not("its ELF header is cut short"));
    };
    let word = |a, b| if order == 2 { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
    let machine = match (word(m0, m1), class) {
        (62, 2) => "x86_64".to_owned(),
        (62, _) => "x32".to_owned(),
        (3, _) => "x86".to_owned(),
        (183, _) => "aarch64".to_owned(),
        (number, class) => format!("machine {number}, {} bits", if class == 2 { 64 } else { 32 }),
    };
    if machine != std::env::consts::ARCH {
        return Err(Header::Of(machine));
    }
    if word(t0, t1) == 3 { Ok(()) } else { Err(Header::Not("it is a program or an object file")) }
}

/// Reads what the loader said.
pub(super) fn refused(path: &Path, error: &libloading::Error) -> LoadError {
    let said = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    let path = path.to_owned();
    if let Some((needs, _)) = said.split_once(": cannot open shared object file")
        && Path::new(needs) != path
    {
        return LoadError::Dependency { path, needs: needs.to_owned() };
    }
    if let Some((_, symbol)) = said.split_once("undefined symbol: ") {
        return LoadError::Undefined { path, symbol: symbol.split(',').next().unwrap_or(symbol).to_owned() };
    }
    LoadError::System { path, said }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(class: u8, kind: u16, machine: u16) -> Vec<u8> {
        let mut header = b"\x7fELF".to_vec();
        header.extend([class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(kind.to_le_bytes());
        header.extend(machine.to_le_bytes());
        header
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn headers_are_told_apart() {
        assert_eq!(judge(&header(2, 3, 62)), Ok(()));
        assert_eq!(judge(&header(2, 3, 183)), Err(Header::Of("aarch64".to_owned())));
        assert_eq!(judge(&header(1, 3, 62)), Err(Header::Of("x32".to_owned())));
        assert_eq!(judge(&header(2, 3, 243)), Err(Header::Of("machine 243, 64 bits".to_owned())));
        assert_eq!(judge(&header(2, 2, 62)), Err(Header::Not("it is a program or an object file")));
        assert_eq!(judge(&header(2, 3, 62)[..19]), Err(Header::Not("its ELF header is cut short")));
        assert_eq!(judge(b"GROUP ( libsqlvdi.so.1 )"), Err(Header::Not("it has no ELF header")));
        assert_eq!(judge(b""), Err(Header::Not("it has no ELF header")));
    }
}
