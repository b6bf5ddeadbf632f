//! What a database's files are by their checksums, and whether they are what they were.

use std::io::Read;

use crc32fast::Hasher;

use super::{DataFolder, Database, DatabaseError, DatabaseFile};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

impl DataFolder {
    /// Whether the database `name` has the files of a backup: the same paths, lengths, and, where `checksums` (in the order
    /// of `files`, as many) knows them, bytes. Permissions may differ. `stop` is asked for each megabyte or so.
    ///
    /// This is for a database whose files the client of a virtual device has put into place itself (VDI specification,
    /// `VDC_MountSnapshot`). It should be frozen meanwhile, so that nobody writes to what was verified already.
    ///
    /// # Errors
    /// [`DatabaseError::FileMissing`], [`DatabaseError::FileUnexpected`], [`DatabaseError::WrongLength`],
    /// [`DatabaseError::WrongChecksum`]: the first file in the order of the paths that differs. [`DatabaseError::Stopped`]:
    /// `stop` said so. Else as [`DataFolder::open`] and [`Database::open_file`].
    pub fn verify(
        &self,
        name: &str,
        files: &[DatabaseFile],
        checksums: &[Option<u32>],
        stop: impl Fn() -> bool,
    ) -> Result<(), DatabaseError> {
        let database = self.open(name)?;
        let mut expected: Vec<(&DatabaseFile, Option<u32>)> =
            files.iter().zip(checksums.iter().copied().chain(std::iter::repeat(None))).collect();
        expected.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        // First what costs nothing.
        let mut found = database.files().iter().peekable();
        for (file, _) in &expected {
            let path = database.path().join(&file.path);
            match found.next_if(|found| found.path <= file.path) {
                None => return Err(DatabaseError::FileMissing { path }),
                Some(found) if found.path != file.path => {
                    return Err(DatabaseError::FileUnexpected { path: database.path().join(&found.path) });
                }
                Some(found) if found.size != file.size => {
                    return Err(DatabaseError::WrongLength { path, expected: file.size, found: found.size });
                }
                Some(_) => {}
            }
        }
        if let Some(found) = found.next() {
            return Err(DatabaseError::FileUnexpected { path: database.path().join(&found.path) });
        }
        for (index, (file, known)) in expected.iter().enumerate() {
            if let Some(expected) = *known {
                let found = checksum(&database, index, &stop)?;
                if found != expected {
                    let path = database.path().join(&file.path);
                    return Err(DatabaseError::WrongChecksum { path, expected, found });
                }
            }
        }
        Ok(())
    }
}

/// CRC-32 of all bytes of the file at place `index`.
pub(super) fn checksum(database: &Database, index: usize, stop: &impl Fn() -> bool) -> Result<u32, DatabaseError> {
    let mut file = database.open_file(index)?;
    let DatabaseFile { path, size, .. } = &database.files()[index];
    let path = database.path().join(path);
    let mut buffer = vec![0; CHUNK];
    let mut hasher = Hasher::new();
    let mut at = 0;
    loop {
        if stop() {
            return Err(DatabaseError::Stopped { doing: "reading", path });
        }
        match file.read(&mut buffer) {
            Ok(0) if at == *size => return Ok(hasher.finalize()),
            Ok(0) => return Err(DatabaseError::Changed { path, expected: *size, found: at }),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(DatabaseError::Io { action: "read", path, offset: Some(at), source }),
        }
    }
}
