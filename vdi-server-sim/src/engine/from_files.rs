//! Reads the files of a RESTORE FROM DISK: a thread a file.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crossbeam::channel::{bounded, select};
use rustix::fs::OFlags;

use super::feed::{Fed, Feed};
use super::from_devices::feed_all;
use super::job::Job;
use super::tally::Tally;
use super::{Cancel, Failure};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Reads files. `feed` makes the feed of a file by its number and name; a file without one is not read. `open` gives the path of a name.
/// `due` is called on this thread when there is progress to report. `decide` is called when all files are read, and takes the step that
/// decides.
pub(super) fn run<F: Feed, T>(
    folder: &Path,
    names: &[String],
    cancel: &Cancel,
    tally: &Tally,
    feed: impl Fn(usize, &str) -> Option<F>,
    mut due: impl FnMut(),
    decide: impl FnOnce(Vec<F>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let job = Arc::new(Job::new());
    let registered = cancel.on_cancel({
        let job = Arc::clone(&job);
        move || job.fail(Failure::Cancelled)
    });
    let (give, given) = bounded(names.len());
    std::thread::scope(|scope| {
        for (index, name) in names.iter().enumerate() {
            let Some(mut feed) = feed(index, name) else { continue };
            let (job, give) = (&job, give.clone());
            let body = move || match read(&folder.join(name), name, &mut feed, job, tally) {
                // Those that are through are counted by who decides.
                Ok(()) => drop(give.send(feed)),
                Err(Some(failure)) => job.fail(failure),
                Err(None) => {}
            };
            if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, body) {
                job.fail(Failure::System { action: super::reporting::START_A_THREAD, source });
            }
        }
        drop(give);
        let mut feeds = Vec::new();
        loop {
            select! {
                recv(tally.due()) -> _ => due(),
                recv(given) -> feed => match feed {
                    Ok(feed) => feeds.push(feed),
                    Err(_) => break,
                },
            }
        }
        due();
        let decided = job.decide();
        drop(registered);
        decided.and_then(|()| decide(feeds))
    })
}

/// Reads one file to the end of its content. `None`: the work is over.
fn read(path: &Path, name: &str, feed: &mut impl Feed, job: &Job, tally: &Tally) -> Result<(), Option<Failure>> {
    let failed = |action| {
        let path = name.to_owned();
        move |source| Some(Failure::DiskFile { action, path, source })
    };
    let mut file = open(path).map_err(failed("open"))?;
    let mut buffer = vec![0; PIECE];
    loop {
        if job.is_over() {
            return Err(None);
        }
        let len = match file.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read")(error)),
        };
        if len == 0 {
            return feed.end_of_data().map_err(Some);
        }
        let fed = feed_all(feed, buffer.get(..len).unwrap_or_default(), |over| job.wait(over))?;
        tally.add(feed.take_moved());
        if fed == Fed::End {
            return Ok(());
        }
    }
}

/// Opens a regular file. Nothing else, since a pipe or a terminal can keep a statement waiting for ever.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "it is no regular file")),
    }
}
