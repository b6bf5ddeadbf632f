//! BACKUP of a database that is in the page cache, beside `cat` and `cp` of the same files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use vdi_beside::processes::{Fallible, Start, on_demand, rounds, tell};
use vdi_beside::set::{SET, options};
use vdi_client::media::{FileMedia, Media, MediaError};
use vdi_client::{ClientVirtualDeviceSet, Features, INFINITE, VdConfig, pump};
use vdi_server_sim::{engine::Engine, sample};

/// The database's name.
const DATABASE: &str = "sales";
/// What `cat` reads at a time, and MAXTRANSFERSIZE.
pub(crate) const BLOCK: usize = 1 << 20;

/// Where the block that is read into begins, as `cat`'s does. Behind the 16 bytes that an allocator keeps for itself, some
/// processors copy whole pages at a sixth of their speed, and the row would flatter us.
const PAGE: usize = 4096;

/// Makes the database below `dir`; its data folder.
pub(crate) fn make_database(dir: &Path, bytes: u64) -> Fallible<PathBuf> {
    let data = dir.join("data");
    sample::create(&data.join(DATABASE), bytes, 7)?;
    // Or the system would write it back while others are timed.
    for file in files(&data)?.0 {
        File::open(file)?.sync_all()?;
    }
    Ok(data)
}

/// The files of the database, and their bytes.
pub(crate) fn files(data: &Path) -> Fallible<(Vec<PathBuf>, u64)> {
    fn below(dir: &Path, files: &mut Vec<PathBuf>, bytes: &mut u64) -> Fallible<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                below(&entry.path(), files, bytes)?;
            } else {
                *bytes += entry.metadata()?.len();
                files.push(entry.path());
            }
        }
        Ok(())
    }
    let (mut found, mut bytes) = (Vec::new(), 0);
    below(&data.join(DATABASE), &mut found, &mut bytes)?;
    found.sort();
    Ok((found, bytes))
}

/// A media that counts.
struct Counting(u64);

impl Media for Counting {
    fn write(&mut self, _position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.0 += data.len() as u64;
        Ok(())
    }

    fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
        Err(MediaError::not_supported("reading"))
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), MediaError> {
        Ok(())
    }
}

fn target(dir: &Path) -> PathBuf {
    dir.join("target.bak")
}

/// The backup program: a set for each line that it is sent.
pub(crate) fn client(dir: &Path, media: &str) -> Fallible<()> {
    on_demand(|_| {
        let set = ClientVirtualDeviceSet::with_options(options(dir));
        set.create(SET, &VdConfig { features: Features::REQUEST_COMPLETE, ..VdConfig::default() })?;
        tell("created")?;
        set.get_configuration(INFINITE)?;
        let mut device = set.open_device(SET)?;
        let bytes = if media == "file" {
            pump(&mut device, &mut FileMedia::create(target(dir))?)?.bytes_written
        } else {
            let mut counting = Counting(0);
            pump(&mut device, &mut counting)?;
            counting.0
        };
        set.close()?;
        tell(&bytes.to_string())
    })
}

/// The server: a BACKUP each time, from the statement until both sides have ended.
pub(crate) fn drive(dir: &Path, data: &Path, media: &str, options_of_statement: &str) -> Fallible<()> {
    let mut client = Start::new("backup-client", dir).with(media).start()?;
    let engine = Engine::new(data, options(dir))?;
    let (_, bytes) = files(data)?;
    let statement = format!(
        "BACKUP DATABASE {DATABASE} TO VIRTUAL_DEVICE='{SET}' WITH MAXTRANSFERSIZE={BLOCK}{options_of_statement}"
    );
    rounds(|count| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..count {
            remove(&target(dir))?;
            client.say("backup")?;
            client.hear()?;
            let started = Instant::now();
            let mut last = None;
            let result = engine.execute(&statement, &mut |message| last = Some(message));
            let told: u64 = client.hear()?.parse()?;
            elapsed += started.elapsed();
            result.map_err(|failure| format!("{statement}: {failure} ({last:?})"))?;
            assert!(told > bytes, "the client was sent {told} bytes of a database of {bytes}");
        }
        Ok(elapsed)
    })?;
    client.end()
}

fn remove(path: &Path) -> Fallible<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// What `cat FILES > /dev/null` does, with blocks of 1 MB and without the start of a program.
pub(crate) fn drive_read(data: &Path) -> Fallible<()> {
    let (files, _) = files(data)?;
    let mut room = vec![0; BLOCK + PAGE];
    let begin = room.as_ptr().align_offset(PAGE);
    let block = room.get_mut(begin..begin + BLOCK).ok_or("there is no page in the block")?;
    let mut nowhere = File::options().write(true).open("/dev/null")?;
    rounds(|count| {
        let started = Instant::now();
        for _ in 0..count {
            for file in &files {
                let mut file = File::open(file)?;
                loop {
                    match file.read(block)? {
                        0 => break,
                        bytes => nowhere.write_all(&block[..bytes])?,
                    }
                }
            }
        }
        Ok(started.elapsed())
    })
}

/// The programs themselves: `cat` to /dev/null, or `cp` to a new file and `sync` of it.
pub(crate) fn drive_program(dir: &Path, data: &Path, which: &str) -> Fallible<()> {
    let (files, _) = files(data)?;
    let script = match which {
        "cat" => "shift; exec cat \"$@\" > /dev/null",
        _ => "to=$1; shift; cp --reflink=never \"$@\" \"$to\" && exec sync \"$to\"/*",
    };
    let copies = dir.join("copies");
    rounds(|count| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..count {
            if copies.exists() {
                fs::remove_dir_all(&copies)?;
            }
            fs::create_dir(&copies)?;
            let started = Instant::now();
            let status = Command::new("sh").args(["-c", script, "sh"]).arg(&copies).args(&files).status()?;
            elapsed += started.elapsed();
            if !status.success() {
                return Err(format!("{which} ended with {status}").into());
            }
        }
        Ok(elapsed)
    })
}
