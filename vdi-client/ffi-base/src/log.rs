//! Messages on standard error.
//!
//! # Invariants
//!
//! 1. A message raises no signal, and the thread's signal mask is afterwards what it was before.
//! 2. A SIGPIPE that the program had pending stays pending.

use core::ffi::{c_int, c_void};
use core::ptr;
use std::io::Write;
use std::sync::OnceLock;

/// Whether the environment asks for messages: VDI_LOG is set, and neither empty nor 0. Read once, by the first call: a
/// program may change its environment later, while other threads read it.
#[must_use]
pub fn is_enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED.get_or_init(|| std::env::var_os("VDI_LOG").is_some_and(|value| !value.is_empty() && value != "0"))
}

/// Writes a line to standard error, in one piece. A line that cannot be written is lost.
pub fn write(line: &str) {
    let line = format!("{line}\n");
    without_sigpipe(|| drop(std::io::stderr().write_all(line.as_bytes())));
}

unsafe extern "C" {
    fn pthread_sigmask(how: c_int, set: *const SignalSet, before: *mut SignalSet) -> c_int;
    fn sigpending(set: *mut SignalSet) -> c_int;
    fn sigtimedwait(set: *const SignalSet, information: *mut c_void, timeout: *const [i64; 2]) -> c_int;
}

/// sigset_t: a bit a signal, from signal 1 on.
type SignalSet = [u64; 16];

/// Runs `work` with SIGPIPE blocked, and consumes the one that `work` raised. SIGPIPE ends a program that does not
/// handle it, and a write to standard error raises it in the writing thread when no process reads the other end.
fn without_sigpipe(work: impl FnOnce()) {
    const SIG_BLOCK: c_int = 0;
    const SIG_SETMASK: c_int = 2;
    const SIGPIPE: SignalSet = {
        let mut set = [0; 16];
        set[0] = 1 << (13 - 1);
        set
    };
    let (mut pending, mut mask) = ([0; 16], [0; 16]);
    // SAFETY: `pending` has the size and alignment of a sigset_t, and lives during the call.
    let known = unsafe { sigpending(&mut pending) } == 0;
    // SAFETY: both sets have the size and alignment of a sigset_t, and live during the call.
    let blocked = unsafe { pthread_sigmask(SIG_BLOCK, &SIGPIPE, &mut mask) } == 0;
    work();
    if known && blocked && pending[0] & SIGPIPE[0] == 0 {
        // SAFETY: the set and the time live during the call, and a null pointer stands for no information. A time of
        // zero makes it return at once.
        unsafe { sigtimedwait(&SIGPIPE, ptr::null_mut(), &[0, 0]) };
    }
    if blocked {
        // SAFETY: pthread_sigmask filled the mask in above. A null pointer stands for no interest in the present one.
        unsafe { pthread_sigmask(SIG_SETMASK, &mask, ptr::null_mut()) };
    }
}
