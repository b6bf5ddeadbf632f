//! Streams as media, and the errors of all.

use std::error::Error;
use std::io::{Cursor, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};

use crate::*;

/// Takes three bytes a call, is interrupted now and then, and fails once it is full.
#[derive(Default)]
struct Slow {
    taken: Vec<u8>,
    room: usize,
    calls: usize,
}

impl Write for Slow {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(2) {
            return Err(ErrorKind::Interrupted.into());
        }
        let count = data.len().min(3).min(self.room - self.taken.len());
        if count == 0 {
            return Err(io::Error::from_raw_os_error(28));
        }
        self.taken.extend_from_slice(&data[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(2) {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.room == 0 {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.room -= 1;
        let count = buffer.len().min(3).min(self.taken.len());
        buffer[..count].copy_from_slice(&self.taken[..count]);
        self.taken.drain(..count);
        Ok(count)
    }
}

#[test]
fn a_sink_stores_everything_or_says_how_much() {
    let mut media = StreamMedia::sink(Slow { room: 10, ..Slow::default() }).named("the slow one");
    media.begin(&backup(Features::NONE)).unwrap();
    media.write(0, b"0123456").unwrap();
    let error = media.write(0, b"789abc").unwrap_err();
    assert_eq!((error.code, error.bytes, media.bytes()), (CompletionCode::DISK_FULL, 3, 10));
    let text = error.to_string();
    assert!(
        text.contains(
            "cannot write to the slow one at byte 10 (what had been written to it cannot be taken back): No space"
        ),
        "{text}"
    );
    assert!(text.contains("3 bytes of the command") && text.contains("free some space"), "{text}");
    assert!(text.ends_with("[ERROR_DISK_FULL (112)]"), "{text}");
    assert!(error.source().is_some());
    assert!(media.clear_error().is_err() && media.flush().is_err() && media.close().is_err());
    assert_eq!(media.into_inner().taken, b"0123456789");

    let mut stuck = StreamMedia::sink(&mut [][..]);
    assert_eq!(stuck.write(0, b"x").unwrap_err().code, CompletionCode::IO_DEVICE);
}

#[test]
fn a_source_fills_buffers_up_to_the_end() {
    let mut media = StreamMedia::source(Slow { taken: b"0123456789".to_vec(), room: 99, ..Slow::default() });
    media.begin(&restore()).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(media.read(0, &mut buffer).unwrap(), 8);
    assert_eq!(&buffer, b"01234567");
    assert_eq!(media.read(0, &mut buffer).unwrap(), 2);
    assert_eq!(media.read(0, &mut buffer).unwrap(), 0);
    assert_eq!(media.bytes(), 10);
    assert_eq!(media.write(0, b"x").unwrap_err().code, CompletionCode::NOT_SUPPORTED);
    media.flush().unwrap();
    media.complete().unwrap();
    media.close().unwrap();
    assert!(media.read(0, &mut buffer).is_err());
    assert!(media.into_inner().taken.is_empty());

    let mut media = StreamMedia::source(Slow { taken: b"0123456789".to_vec(), room: 2, ..Slow::default() });
    let error = media.read(0, &mut buffer).unwrap_err();
    assert_eq!((error.code, error.bytes, media.bytes()), (CompletionCode::IO_DEVICE, 6, 6));
    assert!(media.clear_error().is_err() && media.read(0, &mut buffer).is_err() && media.close().is_err());
}

/// Goes on after its end, as a terminal does.
struct Terminal(Vec<&'static [u8]>);

impl Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = self.0.remove(0);
        buffer[..line.len()].copy_from_slice(line);
        Ok(line.len())
    }
}

#[test]
fn the_end_is_the_end_even_if_the_reader_would_go_on() {
    let mut media = StreamMedia::source(Terminal(vec![b"line", b"", b"more"]));
    let mut buffer = [0; 8];
    assert_eq!(media.read(0, &mut buffer).unwrap(), 4);
    assert_eq!(media.read(0, &mut buffer).unwrap(), 0);
    assert_eq!(media.into_inner().0, [b"more"]);
}

type Log = Arc<Mutex<Vec<&'static str>>>;

fn logging(log: &Log) -> StreamMedia<Sink<Cursor<Vec<u8>>>> {
    let (durable, finish) = (Arc::clone(log), Arc::clone(log));
    StreamMedia::sink(Cursor::new(Vec::new()))
        .on_durable(move |_| {
            durable.lock().unwrap().push("durable");
            Ok(())
        })
        .on_finish(move |writer| {
            finish.lock().unwrap().push("finish");
            writer.write_all(b".")
        })
}

#[test]
fn hooks_run_when_they_should() {
    let log = Log::default();
    let mut media = logging(&log);
    media.begin(&backup(Features::COMPLETE_ENABLED)).unwrap();
    media.write(0, b"data").unwrap();
    media.flush().unwrap();
    assert_eq!(*log.lock().unwrap(), ["durable"]);
    media.complete().unwrap();
    media.complete().unwrap();
    media.flush().unwrap();
    assert!(media.write(0, b"x").is_err());
    media.close().unwrap();
    assert_eq!(*log.lock().unwrap(), ["durable", "finish", "durable"]);
    assert_eq!(media.into_inner().into_inner(), b"data.");

    // Without Complete, the close finishes.
    let log = Log::default();
    let mut media = logging(&log);
    media.begin(&backup(Features::NONE)).unwrap();
    media.write(0, b"data").unwrap();
    media.flush().unwrap();
    media.close().unwrap();
    assert_eq!(*log.lock().unwrap(), ["durable", "finish", "durable"]);
    assert_eq!(media.into_inner().into_inner(), b"data.");
}

#[test]
fn an_unproven_stream_is_not_finished() {
    for (agreed, flush, write_again, expected) in [
        (true, true, false, "without the Complete"),
        (false, false, false, "without a Flush,"),
        (false, true, true, "without a Flush after the last Write"),
    ] {
        let log = Log::default();
        let mut media = logging(&log);
        media.begin(&backup(if agreed { Features::COMPLETE_ENABLED } else { Features::NONE })).unwrap();
        media.write(0, b"data").unwrap();
        if flush {
            media.flush().unwrap();
        }
        if write_again {
            media.write(0, b"data").unwrap();
        }
        let error = media.close().unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(media.complete().is_err());
        assert!(!log.lock().unwrap().contains(&"finish"));
    }
}

#[test]
fn a_failing_hook_fails_the_media() {
    let full = || io::Error::from(ErrorKind::QuotaExceeded);
    let mut media = StreamMedia::sink(Vec::new()).on_durable(move |_| Err(full()));
    media.write(0, b"data").unwrap();
    let error = media.flush().unwrap_err();
    assert_eq!(error.code, CompletionCode::DISK_FULL);
    assert!(error.to_string().contains("cannot make durable the stream after 4 bytes"), "{error}");
    assert!(media.flush().is_err() && media.close().is_err());

    let mut media = StreamMedia::sink(Vec::new()).on_finish(|_| Err(ErrorKind::BrokenPipe.into()));
    let error = media.complete().unwrap_err();
    assert!(error.to_string().contains("cannot finish the stream"), "{error}");
    assert!(error.to_string().contains("the reader at the other end went away"), "{error}");
    assert!(media.complete().is_err());
}

#[test]
fn streams_serve_pipe_like_sets_of_their_direction_only() {
    assert!(StreamMedia::sink(io::sink()).begin(&restore()).is_err());
    assert!(StreamMedia::source(io::empty()).begin(&backup(Features::NONE)).is_err());
    let error = StreamMedia::sink(io::sink()).begin(&backup(Features::RANDOM_ACCESS)).unwrap_err();
    assert_eq!(error.code, CompletionCode::NOT_SUPPORTED);
    StreamMedia::sink(io::sink()).begin(&backup(Features::REMOVABLE)).unwrap();
    assert!(format!("{:?}", StreamMedia::sink(io::sink())).contains("Sink"));
    assert!(format!("{:?}", StreamMedia::source(io::empty())).contains("Source"));
}

#[test]
fn the_codes_of_the_systems_errors() {
    for (number, code) in [
        (28, CompletionCode::DISK_FULL),
        (122, CompletionCode::DISK_FULL),
        (27, CompletionCode::DISK_FULL),
        (5, CompletionCode::IO_DEVICE),
        (2, CompletionCode::IO_DEVICE),
        (13, CompletionCode::IO_DEVICE),
        (30, CompletionCode::IO_DEVICE),
        (11, CompletionCode::IO_DEVICE),
    ] {
        let error = MediaError::io("it", io::Error::from_raw_os_error(number));
        assert_eq!(error.code, code, "{number}");
        assert!(!error.remedy.is_empty());
    }
    assert_eq!(MediaError::new(CompletionCode::SUCCESS, "it").code, CompletionCode::IO_DEVICE);
    assert_eq!(MediaError::new(CompletionCode::IO_DEVICE, "it").with_bytes(usize::MAX).bytes, u32::MAX);
    assert_eq!(
        MediaError::new(CompletionCode::IO_DEVICE, "it failed").to_string(),
        "it failed [ERROR_IO_DEVICE (1117)]"
    );
}

#[test]
fn a_discarded_stream_is_never_finished() {
    let mut media = StreamMedia::sink(Vec::new()).on_finish(|_| panic!("not a whole backup"));
    media.write(0, b"new").unwrap();
    assert_eq!(media.other(CommandCode::LOAD, 2, 0).unwrap_err().code, CompletionCode::NOT_SUPPORTED);
    media.other(CommandCode::DISCARD, 0, 0).unwrap();
    assert!(media.flush().is_err() && media.complete().is_err() && media.clear_error().is_err());
    assert!(media.close().unwrap_err().to_string().contains("the server discarded the backup"));
}
