//! Memory, records, waiting and packets between processes. It knows nothing of what is built on it, and can be used alone.
//!
//! | module | what it has |
//! |---|---|
//! | [`segment`] | sealed memfds, their mappings, typed references into them |
//! | [`ring`] | single-producer, single-consumer rings of records |
//! | [`event_count`], [`wait`] | waking and waiting: spin briefly, then sleep on a shared futex |
//! | [`link`] | packets with descriptors over a Unix socket |
//! | [`runtime`] | a directory in which processes find each other by name |
//!
//! # Trust
//!
//! A peer may be buggy, hostile or dead. Memory safety does not depend on it: each shared word is loaded once per step and
//! validated, a segment cannot be truncated, and every sleep is bounded. [`runtime::Access`] says which users are peers at all.
//!
//! # Example
//!
//! Two ends that share a ring:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use vdi_shm::ipc::event_count::EventCount;
//! use vdi_shm::ipc::link::Received;
//! use vdi_shm::ipc::ring::{Consumer, FIRST, Producer, RingMemory};
//! use vdi_shm::ipc::runtime::{Options, RuntimeDir, SocketName};
//! use vdi_shm::ipc::segment::{Segment, Shared};
//! use vdi_shm::ipc::wait;
//!
//! // The layout that both ends agree on: an event count, which fills a cache line, then a ring.
//! type Ring = RingMemory<64>;
//! const RING: u64 = size_of::<EventCount>() as u64;
//! const LEN: u64 = RING + size_of::<Ring>() as u64;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let options = Options { runtime_dir: Some(dir.path().join("ipc")), ..Options::default() };
//! let name = SocketName::new("", "example");
//! let runtime = RuntimeDir::open(&options, true)?;
//! let listener = runtime.listen(&name, &options.access)?;
//!
//! // The other end. It would be another process; its calls are the same.
//! let other = std::thread::spawn(move || {
//!     let runtime = RuntimeDir::open(&options, false).unwrap();
//!     let link = runtime.connect(&SocketName::new("", "example"), &options.access).unwrap();
//!     let Ok(Received::Packet(mut packet)) = link.receive_until(Instant::now() + Duration::from_secs(10)) else {
//!         panic!("no memory came");
//!     };
//!     assert_eq!(packet.bytes(), b"memory");
//!     // Checks that the memory is sealed and has the right length.
//!     let mapping = Arc::new(packet.take_segment(LEN).unwrap().map().unwrap());
//!     let event_count: Shared<EventCount> = mapping.shared(0).unwrap();
//!     let mut consumer = Consumer::new(mapping.shared::<Ring>(RING).unwrap());
//!     // Spins for a moment, then sleeps until it is notified.
//!     let deadline = wait::deadline(Duration::from_secs(10));
//!     wait::wait_until(&event_count, deadline, || consumer.pop().transpose()).expect("in time")
//! });
//!
//! let segment = Segment::create("example", LEN)?;
//! let mapping = Arc::new(segment.map()?);
//! let event_count: Shared<EventCount> = mapping.shared(0)?;
//! let ring: Shared<Ring> = mapping.shared(RING)?;
//! ring.init();
//! let mut producer = Producer::new(ring);
//!
//! let link = loop {
//!     match listener.accept()? {
//!         Some(link) => break link,
//!         None => std::thread::yield_now(), // a real program polls the listener
//!     }
//! };
//! link.send(b"memory", Some(segment.fd()))?;
//! producer.push([1, 2, 3, 4])?;
//! event_count.notify();
//!
//! assert_eq!(other.join().unwrap()?, (FIRST, [1, 2, 3, 4]));
//! runtime.remove(listener);
//! # Ok(())
//! # }
//! ```

pub(crate) mod atomics;
#[cfg(not(loom))]
pub mod error;
pub mod event_count;
pub(crate) mod futex;
#[cfg(not(loom))]
pub mod link;
#[cfg(not(loom))]
mod remedy;
pub mod ring;
#[cfg(not(loom))]
pub mod runtime;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
mod shared_layout;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
pub mod wait;
