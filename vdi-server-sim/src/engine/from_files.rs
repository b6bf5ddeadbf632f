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
use super::progress_counter::ProgressCounter;
use super::{Cancel, Failure};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Reads files. `feed` makes the feed of a file by its number and name; a file without one is opened only. Relative names begin at
/// `folder`. `due` is called on this thread when there is progress to report. `decide` is called when all files are read, and takes the step that
/// decides.
pub(super) fn run<F: Feed, T>(
    folder: &Path,
    names: &[String],
    cancel: &Cancel,
    counter: &ProgressCounter,
    feed: impl Fn(usize, &str) -> Option<F>,
    mut due: impl FnMut(),
    decide: impl FnOnce(Vec<F>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let job = Arc::new(Job::new());
    let registered = cancel.on_cancel({
        let job = Arc::clone(&job);
        move || job.fail(Failure::Cancelled)
    });
    // All are opened before any is read, so that the failure that is reported does not depend on timing.
    let mut files = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let file = open(&folder.join(name)).map_err(failed("open", name))?;
        files.extend(feed(index, name).map(|feed| (name, file, feed)));
    }
    let (give, given) = bounded(names.len());
    std::thread::scope(|scope| {
        for (name, file, mut feed) in files {
            let (job, give) = (&job, give.clone());
            let body = move || match read(file, name, &mut feed, job, counter) {
                // The deciding thread counts the devices that are through.
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
                recv(counter.due()) -> _ => due(),
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

/// Reads one file to the end of its content. `None`: the operation is over.
fn read(
    mut file: File,
    name: &str,
    feed: &mut impl Feed,
    job: &Job,
    counter: &ProgressCounter,
) -> Result<(), Option<Failure>> {
    let mut buffer = vec![0; PIECE];
    loop {
        if job.is_over() {
            return Err(None);
        }
        let len = match file.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Some(failed("read", name)(error))),
        };
        if len == 0 {
            return feed.end_of_data().map_err(Some);
        }
        let fed = feed_all(feed, buffer.get(..len).unwrap_or_default(), |over| job.wait(over))?;
        counter.add(feed.take_moved());
        if fed == Fed::End {
            return Ok(());
        }
    }
}

fn failed(action: &'static str, name: &str) -> impl Fn(std::io::Error) -> Failure {
    move |source| Failure::DiskFile { action, path: name.to_owned(), source }
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

#[cfg(test)]
mod tests {
    use crossbeam::channel::Receiver;

    use super::*;
    use crate::tsql::parse;

    /// Counts bytes up to a number.
    struct Counter {
        left: usize,
        /// What to wait for before the first byte.
        gate: Option<Receiver<()>>,
        seen: u64,
    }

    impl Feed for Counter {
        fn needs_more(&mut self, bytes: &[u8]) -> bool {
            bytes.len() < self.left
        }

        fn feed(&mut self, bytes: &mut &[u8]) -> Result<Fed, Failure> {
            if self.gate.is_some() && self.seen == 0 {
                self.seen = 1;
                return Ok(Fed::SecondPass);
            }
            let taken = bytes.len().min(self.left);
            *bytes = &bytes[taken..];
            self.left -= taken;
            self.seen += taken as u64;
            Ok(if self.left == 0 { Fed::End } else { Fed::More })
        }

        fn end_of_data(&mut self) -> Result<(), Failure> {
            Err(Failure::Content { device: "file".to_owned(), what: "too short".to_owned() })
        }

        fn take_moved(&mut self) -> u64 {
            std::mem::take(&mut self.seen)
        }

        fn second_pass(&self) -> Option<&Receiver<()>> {
            self.gate.as_ref()
        }
    }

    fn run_on(folder: &Path, names: &[&str], cancel: &Cancel, gate: Option<Receiver<()>>) -> Result<usize, Failure> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let feed = |_, _: &str| Some(Counter { left: 2_500_000, gate: gate.clone(), seen: 0 });
        run(folder, &names, cancel, &ProgressCounter::new(0, None), feed, || {}, |feeds| Ok(feeds.len()))
    }

    fn number(failure: &Failure) -> u32 {
        failure.messages(&parse("RESTORE DATABASE d FROM VIRTUAL_DEVICE = 's'").unwrap())[0].number
    }

    #[test]
    fn files_are_read_to_the_end_of_their_content() {
        let folder = tempfile::tempdir().unwrap();
        for (name, len) in [("a", 2_500_000), ("b", 3_000_000), ("short", 2_499_999), ("empty", 0)] {
            std::fs::write(folder.path().join(name), vec![1; len]).unwrap();
        }
        let cancel = Cancel::new();
        assert_eq!(run_on(folder.path(), &["a", "b"], &cancel, None).unwrap(), 2);
        let absolute = folder.path().join("a").display().to_string();
        assert_eq!(run_on(Path::new("/"), &[&absolute], &cancel, None).unwrap(), 1);
        for name in ["short", "empty"] {
            let failure = run_on(folder.path(), &["a", name], &cancel, None).unwrap_err();
            assert!(matches!(failure, Failure::Content { .. }), "{failure}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        for (name, error) in [("missing", 2), ("dangling", 2), ("folder", 5), ("pipe", 5)] {
            let failure = run_on(folder.path(), &[name], &Cancel::new(), None).unwrap_err();
            assert_eq!(number(&failure), 3201, "{name}: {failure}");
            let text =
                failure.messages(&parse("RESTORE DATABASE d FROM VIRTUAL_DEVICE = 's'").unwrap())[0].text.clone();
            assert!(text.contains(&format!("Operating system error {error}(")), "{text}");
        }
    }

    /// A cancel, and a failure of another file, end the wait for the other devices' first pass.
    #[test]
    fn every_wait_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), vec![1; 3_000_000]).unwrap();
        let (_never, gate) = bounded(0);
        std::fs::write(folder.path().join("empty"), []).unwrap();
        let failure = run_on(folder.path(), &["a", "empty"], &Cancel::new(), Some(gate.clone())).unwrap_err();
        assert!(matches!(failure, Failure::Content { .. }), "{failure}");
        let cancel = Cancel::new();
        let canceller = std::thread::spawn({
            let cancel = cancel.clone();
            move || cancel.cancel()
        });
        let failure = run_on(folder.path(), &["a"], &cancel, Some(gate)).unwrap_err();
        assert_eq!(number(&failure), 3204);
        canceller.join().unwrap();
    }
}
