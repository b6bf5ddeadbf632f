//! The one signal that writing a message may raise.
//!
//! # Invariants
//!
//! 1. No signal arises from here in any thread, and the thread's mask is afterwards what it was before.
//! 2. A signal that the program had pending stays pending.

use core::ffi::{c_int, c_void};
use core::ptr;

unsafe extern "C" {
    fn pthread_sigmask(how: c_int, set: *const SignalSet, before: *mut SignalSet) -> c_int;
    fn sigpending(set: *mut SignalSet) -> c_int;
    fn sigtimedwait(set: *const SignalSet, information: *mut c_void, timeout: *const [i64; 2]) -> c_int;
}

/// sigset_t: a bit a signal, from signal 1 on.
type SignalSet = [u64; 16];

/// Does something that writes to wherever the program's standard error leads. If nobody reads there any more the system sends
/// the thread a SIGPIPE, which ends programs that have not asked for it to be ignored; this one is taken away.
pub(crate) fn without_sigpipe(work: impl FnOnce()) {
    const SIG_BLOCK: c_int = 0;
    const SIG_SETMASK: c_int = 2;
    const SIGPIPE: SignalSet = {
        let mut set = [0; 16];
        set[0] = 1 << (13 - 1);
        set
    };
    let (mut pending, mut mask) = ([0; 16], [0; 16]);
    // SAFETY: `pending` is as large as a sigset_t.
    let known = unsafe { sigpending(&mut pending) } == 0;
    // SAFETY: both are sigset_t, which live during the call.
    let blocked = unsafe { pthread_sigmask(SIG_BLOCK, &SIGPIPE, &mut mask) } == 0;
    work();
    // One that was there before is the program's own.
    if known && blocked && pending[0] & SIGPIPE[0] == 0 {
        // SAFETY: the set and the time live during the call; nobody asks for information. It returns at once.
        unsafe { sigtimedwait(&SIGPIPE, ptr::null_mut(), &[0, 0]) };
    }
    if blocked {
        // SAFETY: the mask is what pthread_sigmask filled in above; a null pointer stands for no interest in the present one.
        unsafe { pthread_sigmask(SIG_SETMASK, &mask, ptr::null_mut()) };
    }
}
