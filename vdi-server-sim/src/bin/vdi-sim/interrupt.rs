//! SIGINT (Ctrl-C) and SIGTERM. The first signal cancels the statement, the second one ends the process at once.
//!
//! # Invariants
//!
//! 1. While the process waits for input ([`Interrupt::idle`]), the first signal ends the process.
//! 2. The second signal has the system's default effect. It does not depend on any thread of this program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use vdi_server_sim::engine::Cancel;

/// The signal handling of this process.
pub(crate) struct Interrupt {
    cancel: Cancel,
    idle: Arc<AtomicBool>,
}

impl Interrupt {
    /// Installs the signal handling.
    pub(crate) fn watch() -> std::io::Result<Interrupt> {
        let (cancel, idle, second) = (Cancel::new(), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let signals = [SIGINT, SIGTERM];
        for signal in signals {
            // The order matters: the second signal must see the flag that the first one set.
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

    /// The cancel that the first signal triggers.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Runs a wait that a signal cannot interrupt; the signal ends the process instead. Returns `None` after a signal.
    pub(crate) fn idle<T>(&self, wait: impl FnOnce() -> T) -> Option<T> {
        self.idle.store(true, Ordering::SeqCst);
        // The signal thread cancels before it reads `idle`. So a signal that saw `idle` unset is seen here.
        let waited = (!self.cancel.is_cancelled()).then(wait);
        self.idle.store(false, Ordering::SeqCst);
        waited
    }
}
