//! The pages of the folder `docs`, and the examples.

#[doc = "[../../vdi-shm/docs/runtime-directory.md]: ../../../vdi_shm/docs/runtime_directory/index.html"]
#[doc = include_str!("../docs/back-ends.md")]
pub mod back_ends {}
#[doc = include_str!("../docs/tracing.md")]
pub mod tracing {}

pub mod examples {
    //! The programs of the folder `examples`: `cargo run --example NAME`.
    //!
    //! # agent
    //! ```no_run
    #![doc = include_str!("../examples/agent.rs")]
    //! ```
    //! # stripes
    //! ```no_run
    #![doc = include_str!("../examples/stripes.rs")]
    //! ```
    //! # kinds
    //! ```no_run
    #![doc = include_str!("../examples/kinds.rs")]
    //! ```
    //! # snapshot
    //! ```no_run
    #![doc = include_str!("../examples/snapshot.rs")]
    //! ```
    //! # secondaries
    //! ```no_run
    #![doc = include_str!("../examples/secondaries.rs")]
    //! ```
    //! # handles
    //! ```no_run
    #![doc = include_str!("../examples/handles.rs")]
    //! ```
}
