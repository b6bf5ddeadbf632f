//! What ends a wait in the making of a medium: the end of the set that it is made for.
//!
//! A medium is made by code of the program, which has no set to pass on. So the set of the calling thread is kept here while
//! [`serve`](crate::ClientVirtualDeviceSet::serve) has that code run.

use std::cell::RefCell;

use crate::back_end::Session;
use crate::error::Error;

#[derive(Debug)]
struct Making {
    session: Session,
    call: &'static str,
    /// A wait was ended.
    ended: bool,
}

thread_local! {
    static MAKING: RefCell<Option<Making>> = const { RefCell::new(None) };
}

/// Has `make` run for a set. The error of the set where that ended a wait in `make`.
pub(crate) fn make_for<T>(session: &Session, call: &'static str, make: impl FnOnce() -> T) -> Result<T, Error> {
    /// Puts back what was there, also after a panic.
    struct Restore(Option<Making>);
    impl Drop for Restore {
        fn drop(&mut self) {
            MAKING.set(self.0.take());
        }
    }
    let making = Making { session: session.clone(), call, ended: false };
    let _restore = Restore(MAKING.replace(Some(making)));
    let made = make();
    let ended = MAKING.with_borrow(|making| making.as_ref().is_some_and(|making| making.ended));
    match session.interruption(call).filter(|_| ended) {
        Some(error) => Err(error),
        None => Ok(made),
    }
}

/// Whether a wait has to end, because the set has ended or its waits were cancelled.
pub(super) fn has_ended() -> bool {
    MAKING.with_borrow_mut(|making| {
        making.as_mut().is_some_and(|making| {
            making.ended |= making.session.interruption(making.call).is_some();
            making.ended
        })
    })
}
