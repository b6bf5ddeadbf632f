//! The trait of all media.

use vdi_proto::command::CommandCode;
use vdi_proto::config::VdConfig;
#[cfg(doc)]
use vdi_proto::features::Features;

use super::error::MediaError;
#[cfg(doc)]
use super::{FileMedia, SnapshotMedia};

/// What a device's commands are carried out on.
///
/// One media belongs to one device; its methods are called one after the other, in the order of the server's commands,
/// and each returns only when its command may be completed. An error is the command's completion: its
/// [`code`](MediaError::code) and its [`bytes`](MediaError::bytes) go to the server as they are.
///
/// When a backup counts as complete is told in the [module's documentation](super); every implementation has to keep to it. A
/// media that is dropped without a successful [`complete`](Media::complete) or [`close`](Media::close) belongs to work that
/// failed, and has to leave nothing behind.
///
/// A wrapper that takes snapshots flushes its media before answering VDC_Snapshot, as [`SnapshotMedia`] does: no Flush
/// follows there.
///
/// ```
/// use vdi_client::media::{Media, MediaError};
///
/// /// Keeps a backup in memory; can neither be read nor fail.
/// #[derive(Default)]
/// struct Memory(Vec<u8>);
///
/// impl Media for Memory {
///     fn write(&mut self, _position: u64, data: &[u8]) -> Result<(), MediaError> {
///         self.0.extend_from_slice(data);
///         Ok(())
///     }
///     fn read(&mut self, _position: u64, _buffer: &mut [u8]) -> Result<usize, MediaError> {
///         Err(MediaError::not_supported("a restore from memory"))
///     }
///     fn flush(&mut self) -> Result<(), MediaError> { Ok(()) }
///     fn complete(&mut self) -> Result<(), MediaError> { Ok(()) }
///     fn close(&mut self) -> Result<(), MediaError> { Ok(()) }
/// }
///
/// let mut media: Box<dyn Media> = Box::new(Memory::default());
/// media.write(0, b"abc")?;
/// # Ok::<(), MediaError>(())
/// ```
pub trait Media: Send {
    /// Called once, with the negotiated configuration, before the first command.
    ///
    /// # Errors
    /// The media cannot serve such a set: usually ERROR_NOT_SUPPORTED. The set has to be aborted then.
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        let _ = config;
        Ok(())
    }

    /// VDC_Write: stores all of `data`, at `position` on a disk-like device, and next on any other.
    ///
    /// # Errors
    /// Not every byte was stored; [`MediaError::bytes`] says how many were. ERROR_DISK_FULL makes the server give up the
    /// backup; ERROR_NOT_SUPPORTED says that this medium cannot be written. [A condition](MediaError::condition)
    /// ERROR_END_OF_MEDIA, even with all bytes stored, has the server load the next medium.
    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError>;

    /// VDC_Read: fills `buffer`, from `position` on a disk-like device, and with the next bytes on any other. Returns the
    /// bytes read; fewer than asked for mean the end of the data.
    ///
    /// # Errors
    /// Reading failed; [`MediaError::bytes`] of the buffer are good. ERROR_NOT_SUPPORTED says that this medium
    /// cannot be read. [A condition](MediaError::condition) ERROR_FILEMARK_DETECTED says that a filemark ended the Read, and
    /// that the tape is behind it now.
    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError>;

    /// VDC_Flush: when this returns `Ok`, everything written so far is durable. On a disk-like device it also sets the end of
    /// the file, here: to the highest byte written.
    ///
    /// # Errors
    /// Something written before is not, or may not be, durable.
    fn flush(&mut self) -> Result<(), MediaError>;

    /// VDC_Complete: no more data will come. When this returns `Ok`, the backup is durable and where it belongs.
    ///
    /// # Errors
    /// The backup could not be finished; the server reports it as failed.
    fn complete(&mut self) -> Result<(), MediaError>;

    /// VDC_ClearError: leave the error state that an earlier command's failure had brought about.
    ///
    /// # Errors
    /// The error cannot be cleared.
    fn clear_error(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    /// Every other command, with its size and position; returns the resulting position where the command has one, else
    /// anything.
    ///
    /// | command | comes to | size | position | what it means |
    /// |---|---|---|---|---|
    /// | Rewind | tape-like | | | go to the beginning of the medium |
    /// | WriteMark | tape-like | | | write a filemark at the position; what followed is lost |
    /// | SkipMarks | tape-like | marks, negative: backwards | | go behind that many filemarks; backwards: to before the last of them |
    /// | SkipBlocks | tape-like | blocks of `blockSize`, negative: backwards | | go over that many blocks; stops at a filemark |
    /// | GetPosition | tape-like, disk-like | | | return the position: a block address (any number that SetPosition will understand), or a byte offset |
    /// | SetPosition | tape-like | | a position that GetPosition returned | go there and return the position |
    /// | SetPosition | disk-like | counted from: 0 beginning, 1 here, 2 end | a signed byte offset | go there and return the position, counted from the beginning |
    /// | Load | [`Features::REMOVABLE`] | the medium's number, from 2 on | | change the medium, and be at its beginning; medium 1 is there from the start |
    /// | Discard | [`Features::DISCARD`] | | | throw away what was written |
    /// | PrepareToFreeze | [`Features::SNAPSHOT_PREPARE`] | | | a snapshot will follow |
    /// | FileInfoBegin, FileInfoEnd | [`Features::ENUM_FROZEN_FILES`] | | | the Writes between them list the frozen files |
    /// | Snapshot, MountSnapshot | all | | | take the snapshot; put it into place: [`SnapshotMedia`] |
    /// | GetError | all | | | report the device's error |
    ///
    /// Source: VDI specification, "Commands".
    ///
    /// # Errors
    /// ERROR_NOT_SUPPORTED unless the media knows the command, which [`pump`](fn@crate::pump) takes for no failure.
    /// ERROR_FILEMARK_DETECTED, ERROR_BEGINNING_OF_MEDIA, ERROR_NO_DATA_DETECTED as [conditions](MediaError::condition) where a
    /// skip ends early. Whatever else went wrong.
    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        let _ = (size, position);
        Err(MediaError::not_supported(code))
    }

    /// The server closed the device (VD_E_CLOSE): commits what is proven to be complete.
    ///
    /// # Errors
    /// The backup is not complete, or an earlier command had failed, or the commit failed.
    fn close(&mut self) -> Result<(), MediaError>;
}

/// Has a wrapper's methods be those of what it wraps: the generics, the type, and where the medium is in it.
macro_rules! forward {
    (impl($($generics:tt)*) $wrapper:ty, $media:ident => $inner:expr) => {
        impl<$($generics)*> $crate::media::Media for $wrapper {
            $crate::media::interface::forward! { $media => $inner;
                begin(config: &vdi_proto::config::VdConfig) -> ();
                write(position: u64, data: &[u8]) -> ();
                read(position: u64, buffer: &mut [u8]) -> usize;
                flush() -> ();
                complete() -> ();
                clear_error() -> ();
                other(code: vdi_proto::command::CommandCode, size: i32, position: u64) -> u64;
                close() -> ();
            }
        }
    };
    ($media:ident => $inner:expr; $($method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            fn $method(&mut self, $($argument: $type),*) -> Result<$result, $crate::media::MediaError> {
                let $media = self;
                $inner.$method($($argument),*)
            }
        )*
    };
}
pub(super) use forward;

forward!(impl(M: Media + ?Sized) Box<M>, media => (**media));
forward!(impl(M: Media + ?Sized) &mut M, media => (**media));
