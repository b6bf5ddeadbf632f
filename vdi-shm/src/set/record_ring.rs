//! Rings of commands and completions: [`crate::ipc::ring`] with the record codec of [`vdi_proto::wire::record`].
//!
//! A record carries a checksum over its words, its ring and its number. A record that was overwritten, or copied from
//! elsewhere, is a violation. After a violation a receiver returns the same violation for ever.

use thiserror::Error;
use vdi_proto::command::{CommandRecord, CompletionRecord};
use vdi_proto::wire::checksum::ChecksumKey;
use vdi_proto::wire::layout::{RING_CAPACITY, RING_LEN};
use vdi_proto::wire::record::{self, RecordError};

use crate::ipc::ring::{Consumer, Producer, PushError, RingMemory, RingViolation, Words};
use crate::ipc::segment::Shared;

/// A ring of a device.
pub(crate) type Ring = RingMemory<{ RING_CAPACITY as usize }>;

static_assertions::const_assert_eq!(size_of::<Ring>(), RING_LEN as usize);

/// A ring or a record was overwritten: VD_E_ABORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordViolation {
    /// The ring's own words.
    #[error(transparent)]
    Ring(#[from] RingViolation),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// The receiving end of a ring.
#[derive(Debug)]
struct Receiver {
    consumer: Consumer<Shared<Ring>, { RING_CAPACITY as usize }>,
    key: ChecksumKey,
    violation: Option<RecordViolation>,
}

impl Receiver {
    #[inline]
    fn pop<T>(
        &mut self,
        decode: impl FnOnce(&ChecksumKey, u64, Words) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordViolation> {
        if let Some(violation) = self.violation {
            return Err(violation);
        }
        let popped = match self.consumer.pop() {
            Ok(None) => return Ok(None),
            Ok(Some((number, words))) => decode(&self.key, number, words).map_err(RecordViolation::from),
            Err(error) => Err(error.into()),
        };
        popped.map(Some).inspect_err(|violation| self.violation = Some(*violation))
    }

    /// Whether [`Receiver::pop`] returns a record or a violation.
    #[inline]
    fn is_ready(&self) -> bool {
        self.violation.is_some() || self.consumer.is_ready()
    }
}

macro_rules! sender {
    ($(#[$doc:meta])* $name:ident, $record:ty, $encode:path) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            producer: Producer<Shared<Ring>, { RING_CAPACITY as usize }>,
            key: ChecksumKey,
        }

        impl $name {
            pub(crate) fn new(ring: Shared<Ring>, key: ChecksumKey) -> Self {
                $name { producer: Producer::new(ring), key }
            }

            /// Sends a record. The caller notifies the receiver.
            ///
            /// # Errors
            /// [`PushError`]: the ring is full, or its cursor was overwritten.
            #[inline]
            pub fn push(&mut self, record: &$record) -> Result<(), PushError> {
                let words = $encode(&self.key, self.producer.next_number(), record);
                self.producer.push(words).map(drop)
            }
        }
    };
}

macro_rules! receiver {
    ($(#[$doc:meta])* $name:ident, $record:ty, $decode:path) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Receiver);

        impl $name {
            pub(crate) fn new(ring: Shared<Ring>, key: ChecksumKey) -> Self {
                $name(Receiver { consumer: Consumer::new(ring), key, violation: None })
            }

            /// The next record, if there is one.
            ///
            /// # Errors
            /// [`RecordViolation`], from then on for ever.
            #[inline]
            pub fn pop(&mut self) -> Result<Option<$record>, RecordViolation> {
                self.0.pop($decode)
            }

            /// Whether `pop` returns a record or a violation.
            #[must_use]
            #[inline]
            pub fn is_ready(&self) -> bool {
                self.0.is_ready()
            }
        }
    };
}

sender! {
    /// The server's end of a submission ring.
    CommandSender, CommandRecord, record::encode_command
}
receiver! {
    /// The client's end of a submission ring.
    CommandReceiver, CommandRecord, record::decode_command
}
sender! {
    /// The client's end of a completion ring.
    CompletionSender, CompletionRecord, record::encode_completion
}
receiver! {
    /// The server's end of a completion ring.
    CompletionReceiver, CompletionRecord, record::decode_completion
}
