//! What can go wrong when a library is loaded, told so that it can be put right.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vdi_proto::status::VdError;

use super::elf::{HEADERS, Header, judge, whole};

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
