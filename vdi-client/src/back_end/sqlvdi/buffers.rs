//! Buffers in the library's memory, and the registry of those that this process has.
//!
//! # Invariants
//!
//! 1. [`REGISTRY`] has every buffer of this process, whatever its set, from before its [`Buffer`] exists until it is dropped. No
//!    two of them overlap, prefix zones included. Sets share it because a library may map the memory of one set once for several
//!    set objects of a process.
//! 2. A session has its own buffers in `buffers` too: they say what may be asked about, and when Close may come.

use core::ptr::NonNull;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_proto::handle::BufferHandle;
use vdi_proto::status::VdError;

use super::library::Bytes;
use super::session::Session;
use crate::error::{Error, ErrorKind};

/// The buffers of this process: where they begin, prefix zones included, and end.
static REGISTRY: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn registry() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    // No panic can leave it half updated.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why bytes cannot be a buffer of this process.
pub(super) enum Unavailable {
    /// They cannot be a buffer; what they are.
    Invalid(String),
    /// This process has them already.
    Registered,
    /// The set was closed.
    Closed,
}

impl Session {
    /// Registers `len` bytes at `start`, and the prefix zone before them, which the library said are a buffer.
    pub(super) fn register(self: &Arc<Self>, start: *mut u8, len: usize) -> Result<Buffer, Unavailable> {
        let prefix = self.prefix_len();
        let range = NonNull::new(start).and_then(|start| {
            let address = start.addr().get();
            Some((start, address.checked_sub(prefix)?, address.checked_add(len.max(1))?))
        });
        let Some((start, begin, end)) = range else {
            return Err(Unavailable::Invalid(format!("a buffer of {len} bytes at {:#x}", start.addr())));
        };
        let mut known = self.known();
        if known.close_due {
            return Err(Unavailable::Closed);
        }
        let mut registry = registry();
        let before = registry.range(..end).next_back();
        if before.is_some_and(|(_, before)| *before > begin) {
            return Err(Unavailable::Registered);
        }
        registry.insert(begin, end);
        known.buffers.insert(begin);
        drop((registry, known));
        #[allow(unsafe_code)]
        // SAFETY: the registry has no other buffer with these bytes, prefix zone included; the library is trusted that they are
        // memory that can be written to; the set is closed only when it has no buffers.
        let bytes = unsafe { Bytes::new(start, len, prefix) };
        Ok(Buffer { bytes, begin, session: Arc::clone(self) })
    }

    fn prefix_len(&self) -> usize {
        self.config().map_or(0, |config| config.prefix_zone_size as usize)
    }

    /// A buffer is gone.
    fn release(&self, begin: usize) {
        let mut known = self.known();
        known.buffers.remove(&begin);
        registry().remove(&begin);
        let close = known.close_due && known.buffers.is_empty();
        drop(known);
        if close {
            // The program has had its answer from the close that could not wait.
            let _ = self.object().close();
        }
    }

    pub(crate) fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        const CALL: &str = "GetBufferHandle";
        if let Some(closed) = self.closed_error(CALL) {
            return Err(closed);
        }
        let begin = address.addr().checked_sub(self.prefix_len());
        if !begin.is_some_and(|begin| self.known().buffers.contains(&begin)) {
            let what = format!(
                "{:#x} is not the data start of a buffer that an outstanding command of this process holds",
                address.addr()
            );
            return Err(self.error(ErrorKind::Misuse, VdError::Invalid, CALL, what));
        }
        let answer = self.object().get_buffer_handle(address.cast_mut());
        self.check(CALL, answer.map(|(answer, _)| answer))?;
        Ok(BufferHandle::from_number(answer.map_or(0, |(_, handle)| handle)))
    }

    pub(crate) fn map_buffer_handle(
        self: &Arc<Self>,
        handle: BufferHandle,
        bytes: Option<usize>,
    ) -> Result<MappedBuffer, Error> {
        const CALL: &str = "MapBufferHandle";
        let misuse = |code, what: String| Err(self.error(ErrorKind::Misuse, code, CALL, what));
        let Some(bytes) = bytes else {
            let what = "SQL Server's library does not tell how many bytes a buffer has; use map_buffer_handle_sized, with the \
                        size of the command";
            return misuse(VdError::NotSupported, what.to_owned());
        };
        let limit = match self.closed_error(CALL) {
            Some(closed) => return Err(closed),
            None => self.negotiated(CALL)?.max_transfer_size as usize,
        };
        if bytes > limit {
            let what =
                format!("{bytes} bytes of a buffer of at most {limit} (maxTransferSize): ask the command's holder");
            return misuse(VdError::Invalid, what);
        }
        match self.register(self.map_buffer_address(handle)?.as_ptr(), bytes) {
            Ok(buffer) => Ok(MappedBuffer { buffer, handle }),
            Err(Unavailable::Closed) => Err(self.closed_now(CALL)),
            Err(Unavailable::Registered) => {
                let what = format!(
                    "this process has buffer {handle} already, by its command or by an earlier mapping; use that, or drop it"
                );
                Err(self.error(ErrorKind::NotYet, VdError::Busy, CALL, what))
            }
            Err(Unavailable::Invalid(what)) => Err(self.violation(CALL, &format!("MapBufferHandle gave {what}"))),
        }
    }

    pub(crate) fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        const CALL: &str = "MapBufferHandle";
        let answer = self.object().map_buffer_handle(handle.number());
        self.check(CALL, answer.map(|(answer, _)| answer))?;
        let start = answer.and_then(|(_, start)| NonNull::new(start));
        start.ok_or_else(|| self.violation(CALL, "MapBufferHandle gave no address"))
    }
}

/// A buffer that this process has: of a command, or mapped by its handle.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: Bytes,
    begin: usize,
    session: Arc<Session>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.session.release(self.begin);
    }
}

/// A buffer that was mapped by its handle. There is no lease on it.
#[derive(Debug)]
pub(crate) struct MappedBuffer {
    buffer: Buffer,
    handle: BufferHandle,
}

impl MappedBuffer {
    pub(crate) fn data(&self) -> &[u8] {
        self.buffer.bytes.data()
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes.data_mut()
    }

    pub(crate) fn prefix_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes.prefix_mut()
    }

    pub(crate) fn address(&self) -> NonNull<u8> {
        self.buffer.bytes.start()
    }

    pub(crate) fn handle(&self) -> BufferHandle {
        self.handle
    }
}
