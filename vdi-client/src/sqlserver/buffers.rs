//! Buffers in the library's memory: who has which.
//!
//! # Invariants
//!
//! 1. [`HELD`] has every buffer of this process, whatever its set, from before its [`Buffer`] exists until it is dropped; no two
//!    of them overlap, prefix zones included. Sets share it because a library may map the memory of one set once for several
//!    set objects of a process.
//! 2. A session has its own buffers in `held` too: they say what may be asked about, and when Close may come.

use core::ptr::NonNull;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_proto::handle::BufferHandle;
use vdi_proto::status::VdError;

use super::library::Bytes;
use super::session::Session;
use crate::error::{Error, ErrorKind};

/// The buffers of this process: where they begin, prefix zones included, and end.
static HELD: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn all_held() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    // It is whole at every moment.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why bytes cannot be held as a buffer.
pub(super) enum Unheld {
    /// They cannot be a buffer; what they are.
    Nonsense(String),
    /// This process has them already; their address.
    Here(usize),
    /// The set was closed.
    Closed,
}

impl Session {
    /// Takes `len` bytes at `start`, and the prefix zone before them, which the library said are a buffer. The error is the
    /// evidence.
    pub(super) fn hold(self: &Arc<Self>, start: *mut u8, len: usize) -> Result<Buffer, Unheld> {
        let prefix = self.config.get().map_or(0, |config| config.prefix_zone_size as usize);
        let nonsense =
            |what: &str| Err(Unheld::Nonsense(format!("a buffer of {len} bytes at {:#x}{what}", start.addr())));
        let Some(start) = NonNull::new(start) else { return nonsense("") };
        let address = start.addr().get();
        let (Some(begin), Some(end)) = (address.checked_sub(prefix), address.checked_add(len.max(1))) else {
            return nonsense(", beyond all memory");
        };
        if !self.memory.can_write(begin, end - begin) {
            return nonsense(", where there is no such memory");
        }
        let mut known = self.known();
        if known.close_due {
            return Err(Unheld::Closed);
        }
        let mut held = all_held();
        let before = held.range(..end).next_back();
        if before.is_some_and(|(_, before)| *before > begin) {
            return Err(Unheld::Here(address));
        }
        held.insert(begin, end);
        known.held.insert(begin);
        drop((held, known));
        // SAFETY-relevant facts: `HELD` has no other buffer with these bytes, they are in memory that can be written to, and
        // the set is closed only when its `held` is empty.
        Ok(Buffer { bytes: bytes_of(start, len, prefix), begin, session: Arc::clone(self) })
    }

    /// A buffer is gone.
    fn release(&self, begin: usize) {
        let mut known = self.known();
        known.held.remove(&begin);
        all_held().remove(&begin);
        let close = known.close_due && known.held.is_empty();
        drop(known);
        if close {
            // The program has had its answer from the close that could not wait.
            let _ = self.object.close();
        }
    }

    pub(crate) fn get_buffer_handle(&self, address: *const u8) -> Result<BufferHandle, Error> {
        const CALL: &str = "GetBufferHandle";
        if let Some(closed) = self.closed_error(CALL) {
            return Err(closed);
        }
        let prefix = self.config.get().map_or(0, |config| config.prefix_zone_size as usize);
        let begin = address.addr().checked_sub(prefix);
        if !begin.is_some_and(|begin| self.known().held.contains(&begin)) {
            let what = format!(
                "{:#x} is not the data start of a buffer that an outstanding command of this process holds",
                address.addr()
            );
            return Err(self.error(ErrorKind::Misuse, VdError::Invalid, CALL, what));
        }
        let answer = self.object.get_buffer_handle(address.cast_mut());
        self.judge(CALL, answer.map(|(answer, _)| answer))?;
        Ok(BufferHandle::from_number(answer.map_or(0, |(_, handle)| handle)))
    }

    pub(super) fn map_buffer_handle(self: &Arc<Self>, handle: BufferHandle, bytes: usize) -> Result<Buffer, Error> {
        const CALL: &str = "MapBufferHandle";
        let limit = match self.closed_error(CALL) {
            Some(closed) => return Err(closed),
            None => self.agreed(CALL)?.max_transfer_size as usize,
        };
        if bytes > limit {
            let what =
                format!("{bytes} bytes of a buffer of at most {limit} (maxTransferSize): ask the command's holder");
            return Err(self.error(ErrorKind::Misuse, VdError::Invalid, CALL, what));
        }
        match self.hold(self.map_buffer_address(handle)?.as_ptr(), bytes) {
            Ok(buffer) => Ok(buffer),
            Err(Unheld::Closed) => Err(self.closed_now(CALL)),
            Err(Unheld::Here(_)) => {
                let what = format!(
                    "this process has buffer {handle} already, by its command or by an earlier mapping; use that, or drop it"
                );
                Err(self.error(ErrorKind::NotYet, VdError::Busy, CALL, what))
            }
            Err(Unheld::Nonsense(evidence)) => Err(self.accuse(CALL, &format!("MapBufferHandle gave {evidence}"))),
        }
    }

    pub(super) fn map_buffer_address(&self, handle: BufferHandle) -> Result<NonNull<u8>, Error> {
        const CALL: &str = "MapBufferHandle";
        let answer = self.object.map_buffer_handle(handle.number());
        self.judge(CALL, answer.map(|(answer, _)| answer))?;
        let start = answer.and_then(|(_, start)| NonNull::new(start));
        start.ok_or_else(|| self.accuse(CALL, "MapBufferHandle gave no address"))
    }
}

/// A buffer that this process has: of a command, or mapped by its handle.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Bytes,
    begin: usize,
    session: Arc<Session>,
}

#[allow(unsafe_code)]
fn bytes_of(start: NonNull<u8>, len: usize, prefix: usize) -> Bytes {
    // SAFETY: the one caller, `Session::hold`, has just entered these bytes, prefix zone included, in `HELD`, where no others
    // overlap them, after it has seen that they can be written to; the set is not closed while they are there.
    unsafe { Bytes::new(start, len, prefix) }
}

impl Buffer {
    pub(crate) fn data(&self) -> &[u8] {
        self.bytes.data()
    }

    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.data_mut()
    }

    pub(crate) fn prefix_mut(&mut self) -> &mut [u8] {
        self.bytes.prefix_mut()
    }

    pub(crate) fn address(&self) -> NonNull<u8> {
        self.bytes.start()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.session.release(self.begin);
    }
}
