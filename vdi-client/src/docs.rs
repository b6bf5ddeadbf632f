//! The pages of the folder `docs`, and the examples.

#[doc = "[../../vdi-shm/docs/runtime-directory.md]: ../../../vdi_shm/docs/runtime_directory/index.html"]
#[doc = include_str!("../docs/back-ends.md")]
pub mod back_ends {}
#[doc = "[../../vdi-shm/docs/runtime-directory.md]: ../../../vdi_shm/docs/runtime_directory/index.html"]
#[doc = "[../../vdi-shm/README.md]: ../../../vdi_shm/index.html"]
#[doc = "[sql-server.md]: sql_server"]
#[doc = "[../../vdi-server-sim/docs/sqlcmd.md]: ../../../vdi_server_sim/docs/sqlcmd/index.html"]
#[doc = "[../../vdi-server-sim/docs/robustness.md]: ../../../vdi_server_sim/docs/index.html"]
#[doc = include_str!("../docs/environment.md")]
pub mod environment {}
#[doc = "[../sqlvdi/README.md]: ../../../sqlvdi/index.html"]
#[doc = "[back-ends.md]: back_ends"]
#[doc = include_str!("../docs/sql-server.md")]
pub mod sql_server {}
#[doc = "[environment.md]: environment"]
#[doc = "[../../vdi-shm/docs/runtime-directory.md]: ../../../vdi_shm/docs/runtime_directory/index.html"]
#[doc = "[../../vdi-proto/src/decisions.rs]: vdi_proto::decisions"]
#[doc = "[../../vdi-server-sim/docs/decisions.md]: ../../../vdi_server_sim/docs/decisions/index.html"]
#[doc = "[../../vdi-server-sim/docs/promises.md]: ../../../vdi_server_sim/docs/promises/index.html"]
#[doc = include_str!("../docs/trust.md")]
pub mod trust {}
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
