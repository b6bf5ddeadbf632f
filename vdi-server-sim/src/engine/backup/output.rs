//! What one device gets: the stream of its family.

use std::ops::Range;

use vdi_mtf::value::FileId;
use vdi_proto::features::DeviceKind;

use super::ordered::Sink;
use crate::engine::Failure;
use crate::engine::free_list::{BufferOrigin, FreeList};
use crate::engine::operation::{Operation, Stopped};
use crate::engine::pages::{Contents, Pages};
use crate::engine::plan::{FamilyStream, Part, Plan};
use crate::engine::writes::Writes;
use crate::vds::ServerBuffer;

/// Length of the buffers for all that is not pages. A device has [`SMALL_BUFFERS`] of its own, so that its writer never waits for readers,
/// which may have all the large ones.
pub(in crate::engine) const SMALL_LEN: u32 = 65536;
/// One is filled while the other is sent.
pub(in crate::engine) const SMALL_BUFFERS: u32 = 2;

/// A buffer with pages in it.
pub(super) struct Filled {
    pub(super) buffer: ServerBuffer,
    /// Bytes of it that are to be sent.
    pub(super) len: u32,
    pub(super) contents: Contents,
    pub(super) origin: BufferOrigin,
}

/// A small buffer that is not full.
struct Begun {
    buffer: ServerBuffer,
    filled: usize,
    /// Bytes of the log in it.
    payload: u32,
}

/// One device, and the stream of its family.
pub(in crate::engine) struct Output<'a> {
    operation: &'a Operation,
    pub(in crate::engine) writes: Writes<'a>,
    stream: FamilyStream,
    /// Small buffers of this device alone.
    small: FreeList,
    begun: Option<Begun>,
    /// The stream has come to the pages.
    in_pages: bool,
}

impl<'a> Output<'a> {
    pub(in crate::engine) fn new(
        operation: &'a Operation,
        writes: Writes<'a>,
        stream: FamilyStream,
        small: FreeList,
    ) -> Output<'a> {
        Output { operation, writes, stream, small, begun: None, in_pages: false }
    }

    /// Sends the label, before there is a plan, and a mark.
    pub(in crate::engine) fn label(&mut self, software_major: u8) -> Result<(), Stopped> {
        let label = self.stream.label(software_major).map_err(|error| self.operation.stop(error))?;
        self.apart(&label)?;
        self.writes.mark()
    }

    /// Sends bytes that are no part of the stream, or end it for now.
    pub(in crate::engine) fn apart(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.bytes(bytes)?;
        self.send_begun()
    }

    /// Sends all up to the pages, or the summary.
    pub(in crate::engine) fn headers(&mut self, plan: &Plan) -> Result<(), Stopped> {
        while self.advance(plan, None)? == Part::Mark {}
        Ok(())
    }

    /// Sends what follows the pages, up to the summary.
    pub(super) fn log(&mut self, plan: &Plan, pages: &Pages<'_>) -> Result<(), Stopped> {
        self.in_pages = false;
        while self.advance(plan, Some(pages))? == Part::Mark {}
        Ok(())
    }

    /// Sends the summary and what follows. `damaged`: there are damaged pages in the backup.
    pub(in crate::engine) fn end(&mut self, plan: &Plan, damaged: bool) -> Result<(), Stopped> {
        let trailing = plan.trailing(damaged).map_err(|failure| self.operation.stop(failure))?;
        let summary = self.stream.end(&trailing).map_err(|error| self.operation.stop(error))?;
        self.bytes(&summary)?;
        while self.advance(plan, None)? != Part::End {}
        Ok(())
    }

    /// Sends the stream up to the next mark, which it writes, the pages, or the summary, and says what it has come to.
    fn advance(&mut self, plan: &Plan, pages: Option<&Pages<'_>>) -> Result<Part, Stopped> {
        loop {
            let part = self.stream.next(plan).map_err(|error| self.operation.stop(error))?;
            match part {
                Part::Bytes(bytes) => self.bytes(&bytes)?,
                Part::Log { file, bytes } => self.log_bytes(pages, file, bytes)?,
                Part::Mark => {
                    // Other devices get no mark, so what is before it goes out with what follows.
                    if self.writes.driver.kind == DeviceKind::TapeLike {
                        self.send_begun()?;
                        self.writes.mark()?;
                    }
                    return Ok(Part::Mark);
                }
                // What is before the summary goes out with it.
                Part::Summary => return Ok(part),
                Part::Pages | Part::End => {
                    self.send_begun()?;
                    self.in_pages = part == Part::Pages;
                    return Ok(part);
                }
            }
        }
    }

    /// Adds bytes to the stream.
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let mut begun = self.begin()?;
            let room = &mut begun.buffer.data_mut()[begun.filled..];
            let (piece, rest) = bytes.split_at(bytes.len().min(room.len()));
            room[..piece.len()].copy_from_slice(piece);
            begun.filled += piece.len();
            bytes = rest;
            self.put(begun)?;
        }
        Ok(())
    }

    /// Adds bytes of the log file, read straight into the buffers.
    fn log_bytes(&mut self, pages: Option<&Pages<'_>>, file: FileId, bytes: Range<u64>) -> Result<(), Stopped> {
        let mut at = bytes.start;
        while let Some(pages) = pages.filter(|_| at < bytes.end) {
            let mut begun = self.begin()?;
            let room = &mut begun.buffer.data_mut()[begun.filled..];
            let len = usize::try_from(bytes.end - at).unwrap_or(usize::MAX).min(room.len());
            let piece = &mut room[..len];
            pages.read_log(file, piece, at).map_err(|failure| self.operation.stop(failure))?;
            self.stream.log(piece).map_err(|error| self.operation.stop(error))?;
            begun.filled += len;
            begun.payload += len as u32;
            at += len as u64;
            self.put(begun)?;
        }
        Ok(())
    }

    /// The buffer to go on with.
    fn begin(&mut self) -> Result<Begun, Stopped> {
        match self.begun.take() {
            Some(begun) => Ok(begun),
            None => Ok(Begun { buffer: self.small_buffer()?, filled: 0, payload: 0 }),
        }
    }

    /// Sends the buffer if it is full, else keeps it.
    fn put(&mut self, begun: Begun) -> Result<(), Stopped> {
        let full = begun.filled == begun.buffer.data().len();
        self.begun = Some(begun);
        if full { self.send_begun() } else { Ok(()) }
    }

    /// Sends what the buffer has.
    fn send_begun(&mut self) -> Result<(), Stopped> {
        match self.begun.take() {
            Some(Begun { buffer, filled, payload }) => {
                self.writes.write(buffer, filled as u32, payload, BufferOrigin::SMALL)
            }
            None => Ok(()),
        }
    }

    /// A small buffer of the device.
    pub(in crate::engine) fn small_buffer(&mut self) -> Result<ServerBuffer, Stopped> {
        let take = self.small.take.clone();
        self.writes.wait_for(&take)?.ok_or(Stopped)
    }
}

impl Sink<Filled> for Output<'_> {
    type Error = Stopped;

    fn takes_at_once(&mut self, filled: &Filled) -> bool {
        self.in_pages && self.writes.takes_at_once(filled.len)
    }

    fn make_ready(&mut self) -> Result<(), Stopped> {
        self.writes.repair()
    }

    fn send(&mut self, filled: Filled) -> Result<(), Stopped> {
        let Filled { buffer, len, contents, origin } = filled;
        let counted = self.stream.pages(len.into(), contents.sum);
        counted.map_err(|error| self.operation.stop(Failure::Layout(error)))?;
        self.writes.write(buffer, len, contents.payload, origin)
    }
}
