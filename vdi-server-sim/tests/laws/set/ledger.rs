//! What was sent, and what became of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_client::{CommandCode, CompletionCode};
use vdi_server_sim::vds::{Completed, CompletionRoutine};

/// A command.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) device: usize,
    pub(super) code: CommandCode,
    pub(super) size: i32,
    /// The client got it.
    pub(super) delivered: bool,
    /// As what the client completed it.
    pub(super) completed: Option<(CompletionCode, u32)>,
    /// How often its routine ran.
    ended: u32,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) sent: Vec<Sent>,
    pub(super) succeeded: usize,
    /// The intruder was at work: what arrives proves nothing any more.
    pub(super) touched: bool,
}

/// The book that the server's routines and the client write in.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a command, before it is sent; its number is its context and its position.
    pub(super) fn enter(&self, device: usize, code: CommandCode, size: i32) -> u64 {
        let mut book = self.book();
        book.sent.push(Sent { device, code, size, delivered: false, completed: None, ended: 0 });
        book.sent.len() as u64 - 1
    }

    pub(super) fn assert_all_ended(&self) {
        for (number, sent) in self.book().sent.iter().enumerate() {
            assert_eq!(sent.ended, 1, "command {number} ended {} times: {sent:?}", sent.ended);
        }
    }
}

impl CompletionRoutine for Ledger {
    fn completed(&self, completed: Completed) {
        let mut guard = self.book();
        let book = &mut *guard;
        let sent = &mut book.sent[completed.context as usize];
        sent.ended += 1;
        assert_eq!((sent.ended, sent.code), (1, completed.command), "a command ended twice");
        assert_eq!(completed.device as usize, sent.device);
        book.succeeded += usize::from(completed.code.is_success());
        if book.touched {
            return;
        }
        match sent.completed {
            Some(told) if completed.code != CompletionCode::OPERATION_ABORTED => {
                assert_eq!((completed.code, completed.bytes), told, "{sent:?}");
                if let (Some(buffer), CommandCode::READ) = (&completed.buffer, sent.code) {
                    assert!(is_pattern(completed.context, &buffer.data()[..completed.bytes as usize]));
                }
            }
            Some(_) => {}
            None => assert!(!completed.code.is_success(), "{sent:?} succeeded, and the client did not say so"),
        }
    }
}

fn pattern(number: u64) -> u8 {
    (number as u8).wrapping_mul(3).wrapping_add(0x5a)
}

/// The bytes of command `number`.
pub(super) fn fill(number: u64, bytes: &mut [u8]) {
    bytes.fill(pattern(number));
}

pub(super) fn is_pattern(number: u64, bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == pattern(number))
}
