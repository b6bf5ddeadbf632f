//! What the media promise by their public interface. Tests that fail or kill single steps are beside the code.
#![allow(clippy::unwrap_used, missing_docs)]

mod media {
    mod disk;
    mod snapshot;
    mod stream;
    mod tape;
}

use std::path::PathBuf;
use std::{fs, io};

use tempfile::TempDir;
use vdi_client::media::{FileMedia, Media, MediaError, Sink, SnapshotMedia, Snapshots, StreamMedia, TapeImage};
use vdi_client::{CommandCode, CompletionCode, Features, VdConfig};

/// A directory with, or without, an old backup in it.
struct Place {
    directory: TempDir,
    target: PathBuf,
}

impl Place {
    fn new(old: Option<&[u8]>) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.bak");
        if let Some(old) = old {
            fs::write(&target, old).unwrap();
        }
        Place { directory, target }
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.directory.path()).unwrap().next().is_none()
    }

    fn content(&self) -> Option<Vec<u8>> {
        fs::read(&self.target).ok()
    }
}

fn backup(extra: Features) -> VdConfig {
    VdConfig { features: Features::WRITE_MEDIA | extra, ..VdConfig::default() }
}

fn restore() -> VdConfig {
    VdConfig { features: Features::READ_MEDIA, ..VdConfig::default() }
}
