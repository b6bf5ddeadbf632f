//! A look, now and then, whether what this process has written for its clients is still there.
//!
//! A word that somebody wrote over is found by whoever reads it: it bears no seal. A word that somebody put back to what it
//! was before is a good word. Its reader goes on waiting for what this process has said already, and this process for the
//! reader's answer. Only the writer can know, so it looks.

use core::time::Duration;

use vdi_proto::layout::ServerWord;
use vdi_shm::control::ClientWord;
use vdi_shm::wait;

use super::set::OpenSet;

/// What was found so far.
pub(super) struct Watch {
    /// By the coarse clock.
    looked: Duration,
    /// What clients said last of each device.
    clients: Vec<ClientWord>,
}

impl Watch {
    pub(super) fn new(set: &OpenSet) -> Watch {
        Watch { looked: wait::coarse_now(), clients: vec![ClientWord::Unopened; set.devices().len()] }
    }

    /// Evidence, if it is time to look and something is not as it was told.
    pub(super) fn look(&mut self, set: &OpenSet) -> Option<String> {
        let now = wait::coarse_now();
        // After a sleep of a slice, which this clock may show as a little less.
        if now.saturating_sub(self.looked) < wait::SLICE / 2 || set.has_ended() {
            return None;
        }
        self.looked = now;
        let control = set.session.control();
        for (device, last) in set.devices().iter().zip(&mut self.clients) {
            if let Err(violation) = device.check_sent() {
                return Some(violation.to_string());
            }
            let now = match control.client_word(device.index) {
                Ok(now) => now,
                Err(violation) => return Some(violation.to_string()),
            };
            let early = now == ClientWord::Closed && !device.is_closed();
            if early || *last != ClientWord::Unopened && now != *last && now != ClientWord::Closed {
                let index = device.index;
                return Some(format!("the client's word of device {index} says {now:?} after {last:?}"));
            }
            *last = now;
        }
        set.told(|opened| {
            set.devices().iter().find_map(|device| {
                let told = match device.index < opened {
                    false => ServerWord::Unopened,
                    true if device.is_closed() => ServerWord::Closed,
                    true => ServerWord::Open,
                };
                let index = device.index;
                match control.server_word(index) {
                    Ok(found) if found == told => None,
                    Ok(found) => {
                        Some(format!("the server's word of device {index} says {found:?}, it had said {told:?}"))
                    }
                    Err(violation) => Some(violation.to_string()),
                }
            })
        })
        .flatten()
    }
}
