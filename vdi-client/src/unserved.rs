//! Devices that no thread serves, and the warning about them.
//!
//! A program that serves several devices in one thread, one after another, waits for ever in the first: the server waits for
//! the others. Nothing is wrong with any call, so no call fails. The wait gives a warning instead.

use core::fmt::Write;
use core::time::Duration;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::trace::{self, listening};

/// How long GetCommand without a time-out waits for its command before it looks for devices that no thread serves.
pub(crate) const QUIET: Duration = Duration::from_secs(10);

/// The devices that this process has opened, and whose GetCommand was never called.
#[derive(Debug, Default)]
pub(crate) struct Unserved(Mutex<Vec<String>>);

impl Unserved {
    fn names(&self) -> MutexGuard<'_, Vec<String>> {
        // No panic can leave it half updated.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn opened(&self, device: &str) {
        self.names().push(device.to_owned());
    }

    /// The device is served, or dropped.
    pub(crate) fn remove(&self, device: &str) {
        self.names().retain(|name| name != device);
    }

    /// The set is closed here.
    pub(crate) fn clear(&self) {
        self.names().clear();
    }

    /// Writes the warning, if devices are left without a thread, while `device` waits; whether it did. `unopened` are the devices
    /// of the set that no process has opened. It goes to the subscriber of `tracing`, or else to standard error.
    pub(crate) fn warn(&self, set: &str, device: &str, unopened: &[String]) -> bool {
        let Some(text) = self.warning(unopened) else { return false };
        if listening!(WARN) {
            trace::event!(WARN, call = "GetCommand", set = set, device = device, reason = %text, "no command comes");
        } else {
            let waited = QUIET.as_secs();
            let line = format!(
                "vdi-client: GetCommand on device {device:?} of set {set:?} has waited {waited} s for a command. {text}\n"
            );
            // Standard error may be closed.
            let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        }
        true
    }

    fn warning(&self, unopened: &[String]) -> Option<String> {
        let mut text = String::new();
        for (devices, what) in
            [(&**self.names(), "is open in this process, and no thread gets its commands"), (unopened, "is not open")]
        {
            for device in devices {
                let _ = write!(text, "Device {device:?} {what}. ");
            }
        }
        let remedy = "The server sends to all devices at once: each needs a thread of its own, as \
                      ClientVirtualDeviceSet::serve starts them";
        (!text.is_empty()).then(|| text + remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_the_devices_without_a_thread() {
        let unserved = Unserved::default();
        assert_eq!(unserved.warning(&[]), None);
        unserved.opened("a");
        unserved.opened("b");
        unserved.remove("a");
        let text = unserved.warning(&["c".to_owned()]).unwrap();
        let expected =
            "Device \"b\" is open in this process, and no thread gets its commands. Device \"c\" is not open. The";
        assert!(text.starts_with(expected), "{text}");
        unserved.clear();
        assert!(!unserved.warn("set", "a", &[]));
    }
}
