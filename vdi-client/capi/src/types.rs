//! What C sees of objects, configurations and commands.

use vdi_client::VdConfig;

/// A virtual device set that this process created or joined.
pub struct SetHandle {
    _opaque: [u8; 0],
}

/// An open device of a set.
pub struct DeviceHandle {
    _opaque: [u8; 0],
}

/// The buffer of another process's command, mapped by its handle: a lease on it.
pub struct MappedHandle {
    _opaque: [u8; 0],
}

/// The configuration of a set: VDConfig. The client requests what is marked "by the client" and leaves the other fields
/// 0; vdi_set_get_configuration gives all, as negotiated.
///
/// Source: VDI specification, "Configuration".
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// By the client: devices in the set, 1 to 64.
    pub device_count: u32,
    /// By the client, then by the server: VDF_* bits.
    pub features: u32,
    /// By the client: bytes right before each buffer's data for the client's own use, 0 to 65536.
    pub prefix_zone_size: u32,
    /// By the client, raised by the server: least alignment of each buffer's data in bytes; 0 or a power of two up to
    /// 65536.
    pub alignment: u32,
    /// By the client, only with VDF_FILE_MARKS: 0 for hard filemarks, else the size of a soft one in bytes, a power of
    /// two from 512 to 65536.
    pub soft_file_mark_block_size: u32,
    /// By the client, only with VDF_REMOVABLE: bytes of the end-of-media warning zone; 0 for none.
    pub eom_warning_size: u32,
    /// By the client: the server's time-out in milliseconds; 0 for none.
    pub server_time_out: u32,
    /// By the server: every transfer is a multiple of this, in bytes.
    pub block_size: u32,
    /// By the server: how many commands a device may have outstanding; always 4, as in the specification.
    pub max_io_depth: u32,
    /// By the server: the largest transfer in bytes.
    pub max_transfer_size: u32,
    /// By the server: all buffer space in bytes.
    pub buffer_area_size: u32,
}

/// A command that the server sent to a device: VDC_Command.
///
/// Source: VDI specification, "Commands".
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// What it is completed by. Unique among the device's outstanding commands.
    pub id: u32,
    /// Which command: VDC_*. Numbers without a name may come and are completed with VDI_ERROR_NOT_SUPPORTED.
    pub code: u32,
    /// VDC_READ and VDC_WRITE: bytes to transfer. VDC_SKIP_MARKS and VDC_SKIP_BLOCKS: how many, negative for backwards.
    /// VDC_LOAD: the number of the medium. VDC_SET_POSITION of a disk-like device: what position counts from (0
    /// beginning, 1 current, 2 end). Else 0.
    pub size: i32,
    /// The bytes at prefix: prefix_zone_size of the configuration; 0 for a command without data.
    pub prefix_size: u32,
    /// VDC_READ and VDC_WRITE of a disk-like device: the byte position on the medium. VDC_SET_POSITION: where to go.
    pub position: u64,
    /// VDC_WRITE: the bytes to store. VDC_READ: where to put them. NULL for all others. Shared memory, valid until the
    /// command is completed or its device is freed; not to be touched after that.
    pub data: *mut u8,
    /// The bytes right before data, for the client's own use, valid as long as data; NULL where there are none.
    pub prefix: *mut u8,
}

/// Converts a configuration by its words: these are the fields, in the order of the published struct.
macro_rules! convert {
    ($($field:ident),*) => {
        impl From<Config> for VdConfig {
            fn from(config: Config) -> VdConfig {
                VdConfig::from_words([$(config.$field),*])
            }
        }

        impl From<VdConfig> for Config {
            fn from(config: VdConfig) -> Config {
                let [$($field),*] = config.to_words();
                Config { $($field),* }
            }
        }
    };
}

convert!(
    device_count,
    features,
    prefix_zone_size,
    alignment,
    soft_file_mark_block_size,
    eom_warning_size,
    server_time_out,
    block_size,
    max_io_depth,
    max_transfer_size,
    buffer_area_size
);

/// A time-out of the caller's: milliseconds.
pub(crate) fn timeout(milliseconds: i64) -> core::time::Duration {
    vdi_ffi::call::timeout(milliseconds, core::time::Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_converted_both_ways() {
        let config = VdConfig { device_count: 1, buffer_area_size: 11, ..VdConfig::from_words([2; 11]) };
        let converted = Config::from(config);
        assert_eq!((converted.device_count, converted.eom_warning_size, converted.buffer_area_size), (1, 2, 11));
        assert_eq!(VdConfig::from(converted), config);
    }
}
