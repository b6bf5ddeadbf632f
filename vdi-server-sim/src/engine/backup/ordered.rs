//! Transfers come from the readers in any order, and go to their device in the order of the stream.
//!
//! # Which thread sends
//!
//! A reader leaves its transfer in the list of those that wait, and then sends what is next in order, if it gets the lock of the sink. It
//! goes on as long as the device takes transfers without a wait. What the device does not take at once, the device's writer sends: it may
//! wait, and holds the lock meanwhile.
//!
//! # Invariants
//!
//! 1. Each transfer is sent once, in the order of the bytes: only the holder of the sink's lock takes transfers out of the list, and only the
//!    next one.
//! 2. No reader waits for a device. It waits for no lock that is held during a wait: it only tries the sink's.
//! 3. No transfer is forgotten. While one is next in order, a thread holds the sink's lock and will look at the list again, or the writer has
//!    been woken, or the reader that brought it is about to try the lock.
//!
//! Why 3 holds: a thread that releases the lock checks the list afterwards, and tries again if there is a next one. A reader that fails to get the
//! lock has put its transfer into the list before. Say the holder H looks at the list after its unlock and does not find that transfer. Then
//! the look came before the reader's entry (both hold the list's lock), so the unlock came before the reader's try, which can fail only
//! because of a later holder; and for that one the same is true. A thread that finds that the device would have to be waited for wakes the
//! writer; the wake-up stays in its channel until the writer takes it, and the writer then takes the lock with a wait.
//! The test `what_comes_before_the_unlock_is_found_after_it` checks this.
//!
//! 4. The writer learns of the end: the thread that sends the last transfer wakes it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam::channel::{Receiver, Sender, bounded};

/// Where transfers go.
pub(super) trait Sink<T> {
    type Error;
    /// Whether [`Sink::send`] would not have to wait.
    fn takes_at_once(&mut self, item: &T) -> bool;
    /// Waits until the next [`Sink::send`] has nothing to put right before.
    fn make_ready(&mut self) -> Result<(), Self::Error>;
    /// Sends a transfer.
    fn send(&mut self, item: T) -> Result<(), Self::Error>;
}

/// A sink, and the transfers that wait for it.
pub(super) struct Ordered<T, S> {
    waiting: Mutex<Waiting<T>>,
    sink: Mutex<S>,
    /// Bytes of all transfers.
    len: u64,
    wake: Sender<()>,
    woken: Receiver<()>,
    /// What a test does between the last look at the list and the unlock.
    #[cfg(test)]
    before_unlock: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

struct Waiting<T> {
    /// Where the next transfer in order begins.
    next: u64,
    /// By their first byte: where they end, and what they are.
    items: BTreeMap<u64, (u64, T)>,
}

/// What is next in order.
enum Next<T> {
    Item(T),
    /// The device would have to be waited for.
    Refused,
    /// It was not brought yet.
    Nothing,
}

impl<T, S: Sink<T>> Ordered<T, S> {
    /// A sink for `len` bytes of transfers.
    pub(super) fn new(sink: S, len: u64) -> Ordered<T, S> {
        let (wake, woken) = bounded(1);
        let waiting = Mutex::new(Waiting { next: 0, items: BTreeMap::new() });
        Ordered {
            waiting,
            sink: Mutex::new(sink),
            len,
            wake,
            woken,
            #[cfg(test)]
            before_unlock: Mutex::default(),
        }
    }

    /// Reader: brings the transfer of the bytes from `start` to `end`.
    pub(super) fn deliver(&self, start: u64, end: u64, item: T) -> Result<(), S::Error> {
        self.waiting().items.insert(start, (end, item));
        while self.has_next() {
            let mut sink = match self.sink.try_lock() {
                Ok(sink) => sink,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // The holder looks at the list when it lets go.
                Err(TryLockError::WouldBlock) => return Ok(()),
            };
            loop {
                match self.next(|item| sink.takes_at_once(item)) {
                    Next::Item(item) => sink.send(item)?,
                    Next::Nothing => break,
                    Next::Refused => {
                        drop(sink);
                        self.wake_writer();
                        return Ok(());
                    }
                }
            }
            self.unlock(sink);
        }
        if self.is_complete() {
            self.wake_writer();
        }
        Ok(())
    }

    /// Writer: sends all that is next in order, with whatever has to be waited for.
    pub(super) fn drain(&self) -> Result<(), S::Error> {
        while self.has_next() {
            let mut sink = self.lock();
            sink.make_ready()?;
            while let Next::Item(item) = self.next(|_| true) {
                sink.send(item)?;
                sink.make_ready()?;
            }
            self.unlock(sink);
        }
        Ok(())
    }

    fn unlock(&self, sink: MutexGuard<'_, S>) {
        #[cfg(test)]
        if let Some(act) = self.before_unlock.lock().ok().and_then(|mut act| act.take()) {
            act();
        }
        drop(sink);
    }

    /// Where the writer learns that it has something to do: see [`Ordered::drain`] and [`Ordered::is_complete`].
    pub(super) fn woken(&self) -> &Receiver<()> {
        &self.woken
    }

    /// Whether all transfers were sent.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting().next == self.len
    }

    /// Writer: the sink, for as long as it is needed. [`Ordered::drain`] is to be called afterwards.
    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_writer(&self) {
        // Where it is full the writer has not yet taken an earlier one.
        let _ = self.wake.try_send(());
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_next(&self) -> bool {
        let waiting = self.waiting();
        waiting.items.contains_key(&waiting.next)
    }

    /// Takes the next transfer in order, if it `may` be sent. Only for the holder of the sink's lock.
    fn next(&self, may: impl FnOnce(&T) -> bool) -> Next<T> {
        let mut waiting = self.waiting();
        let Waiting { next, items } = &mut *waiting;
        let Some(entry) = items.first_entry().filter(|entry| *entry.key() == *next) else { return Next::Nothing };
        if !may(&entry.get().1) {
            return Next::Refused;
        }
        let (end, item) = entry.remove();
        *next = end;
        Next::Item(item)
    }
}

#[cfg(test)]
mod tests;
