//! Streams as media: whatever implements `Write` or `Read`.

use std::fmt;
use std::io::{self, Read, Write};

use vdi_proto::command::CommandCode;
use vdi_proto::config::VdConfig;
use vdi_proto::features::DeviceKind;

use super::error::MediaError;
use super::interface::Media;
use super::target::{Direction, Target};
use super::transfer::{fill, store};

/// A writer (for a backup) or a reader (for a restore) as a medium of a pipe-like device: [Streams](super#streams).
///
/// ```
/// use std::fs::File;
/// use std::io::BufWriter;
/// use vdi_client::media::{Media, StreamMedia};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = BufWriter::new(tempfile::tempfile()?);
/// let mut media = StreamMedia::sink(file).named("spool file").on_durable(|file| file.get_ref().sync_all());
/// media.write(0, b"data")?;
/// media.flush()?;
/// media.close()?;
///
/// // Only counts what it is given: for benchmarks.
/// let mut null = StreamMedia::sink(std::io::sink());
/// null.write(0, &[0; 65536])?;
/// assert_eq!(null.bytes(), 65536);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StreamMedia<S> {
    stream: S,
    target: Target<()>,
}

type Hook<W> = Box<dyn FnMut(&mut W) -> io::Result<()> + Send>;

/// The writing side of a [`StreamMedia`]: see [`StreamMedia::sink`].
pub struct Sink<W> {
    writer: W,
    durable: Option<Hook<W>>,
    finish: Option<Hook<W>>,
}

impl<W> fmt::Debug for Sink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("durable", &self.durable.is_some())
            .field("finish", &self.finish.is_some())
            .finish_non_exhaustive()
    }
}

/// The reading side of a [`StreamMedia`]: see [`StreamMedia::source`].
pub struct Source<R> {
    reader: R,
    ended: bool,
}

impl<R> fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<S> StreamMedia<S> {
    fn new(stream: S, direction: Direction) -> Self {
        let fate = "what had been written to it cannot be taken back";
        StreamMedia { stream, target: Target::new("the stream".to_owned(), direction, fate, ()) }
    }

    /// The same media under a name that its errors show: an address, a command line, a path.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.target.name = name.into();
        self
    }

    /// The bytes written or read so far, those of a command that failed half-way included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.target.bytes
    }
}

impl<W: Write + Send> StreamMedia<Sink<W>> {
    /// A medium that writes a backup to `writer`.
    #[must_use]
    pub fn sink(writer: W) -> Self {
        StreamMedia::new(Sink { writer, durable: None, finish: None }, Direction::Backup)
    }

    /// Has Flush, Complete and a committing close call `hook` after [`Write::flush`]; it returns when everything written
    /// so far is safe.
    #[must_use]
    pub fn on_durable(mut self, hook: impl FnMut(&mut W) -> io::Result<()> + Send + 'static) -> Self {
        self.stream.durable = Some(Box::new(hook));
        self
    }

    /// Has Complete, or the close that commits where Complete was not negotiated, call `hook` before [`Write::flush`]; it
    /// writes what ends the stream. It is called at most once.
    #[must_use]
    pub fn on_finish(mut self, hook: impl FnMut(&mut W) -> io::Result<()> + Send + 'static) -> Self {
        self.stream.finish = Some(Box::new(hook));
        self
    }

    /// The writer.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.stream.writer
    }

    fn settle(&mut self, finish: bool) -> Result<(), MediaError> {
        let Sink { writer, durable, finish: end } = &mut self.stream;
        let end = if finish { end.as_mut() } else { None };
        let settled = end
            .map_or(Ok(()), |hook| hook(writer))
            .map_err(|error| ("finish", error))
            .and_then(|()| writer.flush().map_err(|error| ("flush", error)))
            .and_then(|()| {
                durable.as_mut().map_or(Ok(()), |hook| hook(writer)).map_err(|error| ("make durable", error))
            });
        settled.map_err(|(verb, error)| {
            let what = format!("cannot {verb} {} after {} bytes", self.target.name, self.target.bytes);
            self.target.fail(MediaError::io(what, error))
        })
    }
}

impl<R: Read + Send> StreamMedia<Source<R>> {
    /// A medium that reads a restore's data from `reader`.
    #[must_use]
    pub fn source(reader: R) -> Self {
        StreamMedia::new(Source { reader, ended: false }, Direction::Restore)
    }

    /// The reader.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.stream.reader
    }
}

impl<W: Write + Send> Media for StreamMedia<Sink<W>> {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.target.begin(config, &[DeviceKind::PipeLike])
    }

    fn write(&mut self, _position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.target.open("a Write")?;
        let stored = store(data, |_, rest| self.stream.writer.write(rest));
        let done = stored.as_ref().map_or_else(|(done, _)| *done, |()| data.len());
        self.target.bytes += done as u64;
        self.target.progress.written();
        stored.map_err(|(_, error)| {
            let what = format!("cannot write to {} at byte {}", self.target.name, self.target.bytes);
            self.target.fail(MediaError::io(what, error).with_bytes(done))
        })
    }

    fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
        Err(MediaError::not_supported("a Read in a backup").with_remedy("use StreamMedia::source for a restore"))
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        if self.target.open_or_done("a Flush")?.is_some() {
            self.settle(false)?;
            self.target.progress.flushed();
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        if self.target.open_or_done("Complete")?.is_some() {
            self.settle(true)?;
            self.target.finish();
        }
        Ok(())
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.target.clear_error()
    }

    /// Discard: the stream is never finished. What was written to it cannot be taken back.
    fn other(&mut self, code: CommandCode, _size: i32, _position: u64) -> Result<u64, MediaError> {
        if code != CommandCode::DISCARD {
            return Err(MediaError::not_supported(code));
        }
        self.target.open("Discard")?;
        self.target.discard();
        Ok(0)
    }

    fn close(&mut self) -> Result<(), MediaError> {
        if self.target.close()? { self.complete() } else { Ok(()) }
    }
}

impl<R: Read + Send> Media for StreamMedia<Source<R>> {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.target.begin(config, &[DeviceKind::PipeLike])
    }

    fn write(&mut self, _position: u64, _data: &[u8]) -> Result<(), MediaError> {
        Err(MediaError::not_supported("a Write in a restore").with_remedy("use StreamMedia::sink for a backup"))
    }

    fn read(&mut self, _position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.target.open("a Read")?;
        if self.stream.ended {
            return Ok(0);
        }
        let filled = fill(buffer, |_, rest| self.stream.reader.read(rest));
        let done = *filled.as_ref().unwrap_or_else(|(done, _)| done);
        self.target.bytes += done as u64;
        // What comes after an end is not asked for: a terminal would go on.
        self.stream.ended = done < buffer.len();
        filled.map_err(|(_, error)| {
            let what = format!("cannot read {} at byte {}", self.target.name, self.target.bytes);
            self.target.fail(MediaError::io(what, error).with_bytes(done))
        })
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.target.clear_error()
    }

    fn close(&mut self) -> Result<(), MediaError> {
        self.target.close().map(drop)
    }
}
