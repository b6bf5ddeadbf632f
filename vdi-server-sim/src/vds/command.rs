//! The commands that the server sends, and their results: VDS_Command.

use std::sync::Arc;

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_shm::set::pool::ServerBuffer;

/// The completion routine of a command: runs once, when the command has ended.
///
/// It runs on the thread that processes completions, or on the caller's thread if SendCommand refuses the command. No other
/// completion is processed meanwhile, so it must return soon and must not wait for another thread.
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
    /// The command.
    pub code: CommandCode,
    /// Bytes to transfer; for other commands see [`vdi_proto::command::SizeField`].
    pub size: i32,
    /// See [`vdi_proto::command::PositionField`].
    pub position: u64,
    /// The buffer of a Read or Write; `None` for other commands. SendCommand lends it to the client.
    pub buffer: Option<ServerBuffer>,
    /// The completion routine.
    pub routine: Arc<dyn CompletionRoutine>,
    /// A value of the caller that the routine receives.
    pub context: u64,
}

impl core::fmt::Debug for VdsCommand {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VdsCommand").field("code", &self.code).field("size", &self.size).finish_non_exhaustive()
    }
}

impl VdsCommand {
    /// A Read or Write of the first `bytes` bytes of a buffer. `bytes` is a multiple of the set's block size, at most the buffer's
    /// length.
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
    /// The command.
    pub command: CommandCode,
    /// The completion code.
    pub code: CompletionCode,
    /// Bytes transferred.
    pub bytes: u32,
    /// The position, if the command returns one; otherwise 0.
    pub position: u64,
    /// The command's buffer. `None` if an abort or CloseDevice ended the command: the client may still use the bytes, so the
    /// buffer is not lent again in this set.
    pub buffer: Option<ServerBuffer>,
    /// The command's context.
    pub context: u64,
}
