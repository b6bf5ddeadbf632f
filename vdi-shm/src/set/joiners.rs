//! What the primary has seen of the processes that came to its set: the server, and joiners that were refused.
//!
//! A refused joiner is told why. So is the set's creator: its program often waits for exactly that process.

use core::fmt;

use vdi_proto::status::VdError;
use vdi_proto::wire::join::JoinRole;

use crate::ipc::link::Peer;
use crate::ipc::runtime::Access;

/// The joiners of a set so far. Display gives a sentence for the messages of a wait that ended in vain.
#[derive(Debug, Clone, Default)]
pub struct Joiners {
    server: Option<Peer>,
    refused: u64,
    last_refused: Option<String>,
}

/// A process, for messages.
pub(crate) fn show_process(peer: &Peer) -> String {
    format!("uid {} (process {})", peer.uid, peer.pid)
}

/// The users that an access rule allows, for messages.
pub(crate) fn show_access(access: &Access) -> String {
    let own = rustix::process::geteuid().as_raw();
    let uids = access.uids.iter().filter(|uid| **uid != own).map(|uid| format!("uid {uid}"));
    let gids = access.gids.iter().map(|gid| format!("gid {gid}"));
    let all: Vec<String> = core::iter::once(format!("uid {own}")).chain(uids).chain(gids).collect();
    all.join(", ")
}

impl Joiners {
    /// The process that joined as the server.
    #[must_use]
    pub fn server(&self) -> Option<&Peer> {
        self.server.as_ref()
    }

    /// The joiner that was refused last, how, and why; `None` if none was.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        let last = self.last_refused.as_ref()?;
        Some(match self.refused {
            0 | 1 => last.clone(),
            refused => format!("{last} (the last of {refused} that were refused)"),
        })
    }

    pub(crate) fn server_joined(&mut self, server: Peer) {
        self.server = Some(server);
    }

    pub(crate) fn server_left(&mut self) {
        self.server = None;
    }

    /// `role` is `None` for a joiner that did not say its role.
    pub(crate) fn was_refused(&mut self, peer: &Peer, role: Option<JoinRole>, status: VdError, why: &str) {
        let role = match role {
            Some(JoinRole::Server) => " as the server",
            Some(JoinRole::Secondary) => " as a secondary client",
            None => "",
        };
        let why = if why.is_empty() { status.meaning() } else { why };
        self.refused += 1;
        self.last_refused =
            Some(format!("{} tried to join{role} and was refused: {}: {why}", show_process(peer), status.name()));
    }
}

impl fmt::Display for Joiners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(f, "{} has joined as the server", show_process(server))?,
            None if self.refused == 0 => return f.write_str("no process has tried to join"),
            None => f.write_str("no server has joined")?,
        }
        self.refused().map_or(Ok(()), |refused| write!(f, "; {refused}"))
    }
}
