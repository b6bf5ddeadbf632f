//! Buffers that are lent to the client: a type without a way to the bytes.
//!
//! # Invariants
//!
//! 1. Lending consumes the [`ServerBuffer`]. Only [`LentBuffer::reclaim`] gives it back.
//! 2. A buffer that is dropped while it is lent is retired: it is not allocated again before the set has ended, because
//!    the client may still use its bytes.

use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;
use vdi_proto::command::Loan;
use vdi_proto::handle::{SlotState, SlotWord};
use vdi_shm::allocator::ServerBuffer;
use vdi_shm::control::Control;

/// The retired buffers of a device.
#[derive(Debug, Default)]
pub(super) struct Retired(Mutex<Vec<ServerBuffer>>);

/// A buffer that is lent out.
#[derive(Debug)]
pub(super) struct LentBuffer {
    /// `None` once it is reclaimed.
    buffer: Option<ServerBuffer>,
    loan: Loan,
    retired: Arc<Retired>,
}

/// The client completed a command without releasing its buffer.
#[derive(Debug, Error)]
#[error("a command was completed, and its buffer's slot {slot} is not free in generation {generation}, but {found:?}")]
pub(super) struct ReclaimError {
    slot: u32,
    generation: u32,
    found: Option<SlotWord>,
}

impl LentBuffer {
    /// Lends a buffer to the client.
    pub(super) fn lend(mut buffer: ServerBuffer, retired: &Arc<Retired>) -> LentBuffer {
        let loan = buffer.lend();
        LentBuffer { buffer: Some(buffer), loan, retired: Arc::clone(retired) }
    }

    /// What the command's record says of the buffer.
    pub(super) fn loan(&self) -> Loan {
        self.loan
    }

    /// Takes the buffer back after its command was completed.
    ///
    /// # Errors
    /// [`ReclaimError`] when the slot is not free: the client broke the protocol, and the buffer is retired.
    pub(super) fn reclaim(mut self, control: &Control) -> Result<ServerBuffer, ReclaimError> {
        let Loan { slot, generation } = self.loan;
        let found = control.slot(slot).and_then(|slot| slot.look());
        match self.buffer.take_if(|_| found == Some(SlotWord { generation, state: SlotState::Home })) {
            Some(buffer) => Ok(buffer),
            None => Err(ReclaimError { slot, generation, found }),
        }
    }
}

impl Drop for LentBuffer {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.retired.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}
