//! Ctrl-C (SIGINT) and SIGTERM: the first one cancels the statement, the second one ends the process at once.
//!
//! # Invariants
//!
//! 1. Where no statement runs and none is about to, the first signal ends the process as well ([`Interrupt::idle`]).
//! 2. The second signal needs nothing of this program: its handler does what the system does by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use vdi_server_sim::engine::Cancel;

/// What the signals of this process do.
pub(crate) struct Interrupt {
    cancel: Cancel,
    idle: Arc<AtomicBool>,
}

impl Interrupt {
    /// Watches the signals from now on.
    pub(crate) fn watch() -> std::io::Result<Interrupt> {
        let (cancel, idle, second) = (Cancel::new(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let signals = [SIGINT, SIGTERM];
        for signal in signals {
            // In this order: what the first signal sets counts for the second.
            flag::register_conditional_default(signal, Arc::clone(&second))?;
            flag::register(signal, Arc::clone(&second))?;
        }
        let mut arriving = Signals::new(signals)?;
        std::thread::Builder::new().spawn({
            let (cancel, idle) = (cancel.clone(), Arc::clone(&idle));
            move || {
                for signal in arriving.forever() {
                    cancel.cancel();
                    if idle.load(Ordering::SeqCst) {
                        let _ = emulate_default_handler(signal);
                    }
                }
            }
        })?;
        Ok(Interrupt { cancel, idle })
    }

    /// What the first signal cancels.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Waits for something that a signal does not end. `None` after a signal.
    pub(crate) fn idle<T>(&self, wait: impl FnOnce() -> T) -> Option<T> {
        self.idle.store(true, Ordering::SeqCst);
        // A signal that did not find this process idle has cancelled before it looked.
        let waited = (!self.cancel.is_cancelled()).then(wait);
        self.idle.store(false, Ordering::SeqCst);
        waited
    }
}
