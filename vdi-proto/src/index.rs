//! Bounded numbers: the index of a device, buffer slot, buffer class or member, and the generation of a loan.
//!
//! An index from outside becomes one of these types once, where it is checked. Later code cannot confuse two kinds of
//! index and cannot exceed a table.

use core::fmt;

/// The most devices of a set.
pub const MAX_DEVICES: u32 = 64;
/// The most buffer slots of a set.
pub const MAX_SLOTS: u32 = 4096;
/// The most buffer classes of a set.
pub const MAX_CLASSES: u32 = 64;
/// The most processes of a set.
pub const MAX_MEMBERS: u32 = 128;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $limit:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            #[doc = concat!("The index, or `None` from [`", stringify!($limit), "`] on.")]
            #[must_use]
            #[inline]
            pub const fn new(index: u32) -> Option<Self> {
                if index < $limit { Some($name(index)) } else { None }
            }

            /// The number.
            #[must_use]
            #[inline]
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The number, to index a table.
            #[must_use]
            #[inline]
            pub const fn as_usize(self) -> usize {
                self.0 as usize
            }

            /// The indices from 0 below `count`, and below the limit.
            pub fn all(count: u32) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
                (0..if count < $limit { count } else { $limit }).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index! {
    /// The index of a device in its set: the order in which the server opens devices.
    ///
    /// ```
    /// use vdi_proto::index::{DeviceIndex, MAX_DEVICES};
    ///
    /// assert_eq!(DeviceIndex::new(3).map(DeviceIndex::get), Some(3));
    /// assert_eq!(DeviceIndex::new(MAX_DEVICES), None);
    /// assert_eq!(DeviceIndex::all(2).count(), 2);
    /// ```
    DeviceIndex, MAX_DEVICES
}

index! {
    /// The index of a buffer in its set.
    SlotIndex, MAX_SLOTS
}

index! {
    /// The index of a buffer class in its set: the order of the RequestBuffers calls.
    ClassIndex, MAX_CLASSES
}

index! {
    /// The index of a process in its set.
    MemberIndex, MAX_MEMBERS
}

impl SlotIndex {
    /// The index in the low 12 bits; every value is one.
    #[inline]
    pub(crate) const fn from_low_bits(bits: u32) -> Self {
        SlotIndex(bits % MAX_SLOTS)
    }
}

impl MemberIndex {
    /// The server.
    pub const SERVER: MemberIndex = MemberIndex(0);
    /// The process that created the set.
    pub const PRIMARY: MemberIndex = MemberIndex(1);
}

/// The generation of a slot: it counts the loans, and wraps after 2^20.
///
/// ```
/// use vdi_proto::index::Generation;
///
/// let last = Generation::from_bits(u32::MAX);
/// assert_eq!((last.get(), last.next().get()), ((1 << Generation::BITS) - 1, 0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Generation(u32);

impl Generation {
    /// The width in bits. A handle has 32 bits: this, and 12 bits for the slot.
    pub const BITS: u32 = 20;

    const MASK: u32 = (1 << Self::BITS) - 1;

    /// The generation in the low bits; higher bits are dropped.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        Generation(bits & Self::MASK)
    }

    /// The number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The generation of the next loan.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self::from_bits(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
