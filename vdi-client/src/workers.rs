//! Worker processes: one process gets the commands, others work on the bytes, by buffer handles.
//!
//! The primary sends its workers handles and sizes over pipes. Each worker has joined the set as a secondary, maps the handle,
//! works on the bytes that the server filled (or will read), and answers. The primary completes the command. No byte is
//! copied.
//!
//! ```text
//!            commands                handle, size              the buffer's bytes
//!  server  ----------->  primary  ------------------>  worker  <================  shared memory
//!          <-----------           <------------------
//!           completions         outcome, failure's text
//! ```
//!
//! [`WorkerPool`] is the primary's half, [`serve`] the worker's. Requests and answers are records of fixed length. A worker
//! answers in the order in which it was asked.
//!
//! # Invariants
//!
//! 1. Every command given to the pool is completed: by its worker's answer, or as aborted when the worker is gone or the pool
//!    is dropped. By then the set knows who died. A worker that is alive and silent is for `serverTimeOut` to end.
//! 2. A worker gives its lease up before it answers, so the completion is never refused as busy.
//! 3. A stripe's commands go to one worker, so they are carried out in the order in which they came.
//! 4. After a final failure of a stripe, that of opening its medium included, nothing succeeds for it: neither what the worker
//!    has been asked already, nor what comes later.
//! 5. The text of that failure travels with the answer. The primary returns it.
//! 6. What a worker did is told by its answers, also that it has closed its medium. So the pool works where this process's children
//!    are waited for by somebody else: by the system (SIGCHLD is ignored), or by the host.

mod ended;
mod pool;
mod process;
mod wire;
mod worker;

pub use pool::WorkerPool;
pub use worker::{Served, serve};
