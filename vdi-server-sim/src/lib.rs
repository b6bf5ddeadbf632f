// The first definition of a link counts: those of the README lead to its files, these to pages of the documentation.
#![doc = "[docs/faults.md]: docs::faults"]
#![doc = "[docs/statements.md]: docs::statements"]
#![doc = "[docs/sqlcmd.md]: docs::sqlcmd"]
#![doc = "[docs/decisions.md]: docs::decisions"]
#![doc = "[docs/promises.md]: docs::promises"]
#![doc = "[docs/robustness.md]: docs"]
#![doc = "[docs/figures.md]: docs"]
#![doc = "[../vdi-shm/docs/runtime-directory.md]: ../vdi_shm/docs/runtime_directory/index.html"]
#![doc = "[bench]: docs"]
#![doc = "[mtf]: ../vdi_mtf/index.html"]
#![doc = "[bench/figures]: docs"]
#![doc = include_str!("../README.md")]
//! # Tracing
//!
//! With the feature `tracing` (a part of `cli`, which is on by default; otherwise off), [`vds`] and [`engine`] emit events to a
//! subscriber of the `tracing` crate. All events have the target `vdi_server_sim` and, where it applies, the fields `set`, `device`
//! and `call` (the published name):
//!
//! | level | event | further fields |
//! |---|---|---|
//! | INFO | `serverTimeOut passed`; the set is aborted next | `server_time_out_ms` |
//! | DEBUG | `set opened` | `instance`, `devices`, `features` and `server_time_out_ms` as the client requested |
//! | DEBUG | `configuration begun` | `features`, `block_size`, `max_transfer_size`, `alignment` |
//! | DEBUG | `configuration ended` | `buffers`, `buffer_area_size` |
//! | DEBUG | `device opened`, `device closed`, `abort signalled`, `set closed` | |
//! | DEBUG | `set aborted`, by any process, once, when the completion agent or Close sees it | `reason`, `text` (the text of the process that aborted it, if any) |
//! | DEBUG | `call refused` | `code` (`VD_E_...`), `error` |
//! | TRACE | `command sent` | `id`, `command`, `size`, `position`, `bytes` |
//! | TRACE | `command completed` | `id`, `command`, `code`, `bytes`, `position`, `outstanding_us`: microseconds since it was sent |
//! | INFO | `statement fails`, once, when it is first known | `failure` |
//! | INFO | `fault`: a fault acts | `command`, `act` |
//! | DEBUG | `recovering`: the engine clears an error of a device | `failure` |
//! | DEBUG | `medium loaded` | `medium` |
//!
//! Events of the threads of a statement are in a span `statement` (INFO) with `verb`, `database` and `set`.
//!
//! `command sent` comes before the same command's `command completed`, and that before its completion routine runs. The `id` is
//! the same in the client's events. A subscriber is called inside of calls of this library, some of which hold locks. So it must not
//! call the library. The cost is that of `vdi-client`: none without the feature, one relaxed load per event without a subscriber.
#![forbid(unsafe_code)]

pub mod catalog;
#[cfg(doc)]
pub mod docs {
    //! The pages of the folder `docs`. Further pages are in the repository: `docs/robustness.md`, `docs/figures.md`,
    //! `bench/README.md`, `bench/figures` and the repository's `fuzz`, which are about tests and measurements.

    #[doc = include_str!("../docs/decisions.md")]
    pub mod decisions {}
    #[doc = include_str!("../docs/faults.md")]
    pub mod faults {}
    #[doc = "[figures.md#reliability]: crate::docs"]
    #[doc = "[../../fuzz/README.md]: crate::docs"]
    #[doc = "[../../vdi-shm/docs/orderings.md]: ../../../vdi_shm/docs/orderings/index.html"]
    #[doc = include_str!("../docs/promises.md")]
    pub mod promises {}
    #[doc = "[statements.md]: statements"]
    #[doc = include_str!("../docs/sqlcmd.md")]
    pub mod sqlcmd {}
    #[doc = include_str!("../docs/statements.md")]
    pub mod statements {}
}
pub mod engine;
pub mod faults;
pub mod messages;
pub mod session;
pub mod storage;
mod trace;
pub mod tsql;
pub mod types;
pub mod vds;

/// The rules and numbers of the interface. Re-exported, so that a test needs one dependency.
#[doc(no_inline)]
pub use vdi_proto;
