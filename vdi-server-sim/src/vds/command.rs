//! Commands as the server sends them, and how they ended: VDS_Command.

use std::sync::Arc;

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_shm::set::pool::ServerBuffer;

/// Runs when a command has ended: VDS_Command's completion routine.
///
/// It runs on the thread that processes completions, or on the caller's where SendCommand refuses the command. No other
/// completion is processed while it runs, so it returns soon and does not wait for another thread.
pub trait CompletionRoutine: Send + Sync {
    /// A command has ended.
    fn completed(&self, completed: Completed);
}

impl<F: Fn(Completed) + Send + Sync> CompletionRoutine for F {
    fn completed(&self, completed: Completed) {
        self(completed);
    }
}

/// A command to send: VDS_Command.
#[doc(alias = "VDS_Command")]
pub struct VdsCommand {
    /// Which command.
    pub code: CommandCode,
    /// Bytes to transfer, or what [`vdi_proto::command::SizeField`] says.
    pub size: i32,
    /// See [`vdi_proto::command::PositionField`].
    pub position: u64,
    /// The buffer of a Read or Write. SendCommand lends it to the client.
    pub buffer: Option<ServerBuffer>,
    /// Runs when the command has ended.
    pub routine: Arc<dyn CompletionRoutine>,
    /// Passed through to the routine.
    pub context: u64,
}

impl core::fmt::Debug for VdsCommand {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VdsCommand").field("code", &self.code).field("size", &self.size).finish_non_exhaustive()
    }
}

impl VdsCommand {
    /// A Read or Write of the first `bytes` bytes of a buffer.
    #[must_use]
    pub fn transfer(code: CommandCode, buffer: ServerBuffer, bytes: u32, routine: Arc<dyn CompletionRoutine>) -> Self {
        VdsCommand { code, size: bytes as i32, position: 0, buffer: Some(buffer), routine, context: 0 }
    }

    /// A command without data.
    #[must_use]
    pub fn plain(code: CommandCode, routine: Arc<dyn CompletionRoutine>) -> Self {
        VdsCommand { code, size: 0, position: 0, buffer: None, routine, context: 0 }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Completed {
    /// The device's index in its set.
    pub device: u32,
    /// Which command it was.
    pub command: CommandCode,
    /// How it ended.
    pub code: CompletionCode,
    /// Bytes transferred.
    pub bytes: u32,
    /// The position, where the command returns one.
    pub position: u64,
    /// The command's buffer. `None` where an abort or CloseDevice ended a command that was sent: the client may still use
    /// the bytes, so the buffer is not lent again in this set.
    pub buffer: Option<ServerBuffer>,
    /// The command's context.
    pub context: u64,
}
