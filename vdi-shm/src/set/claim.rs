//! The segments that this process uses, and the set that each belongs to.
//!
//! A process can be in several sets. A peer that is in two of them could pass one segment to both, and this process would
//! hand out the same bytes twice. So each segment of a set is claimed before it is mapped.
//!
//! # Invariant
//!
//! A segment belongs to one set of this process at a time. The set is named by its control segment.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ipc::segment::SegmentIdentity;

/// For each segment its set, and the number of its claims: members of one set can be in one process.
static CLAIMS: Mutex<Claims> = Mutex::new(BTreeMap::new());

type Claims = BTreeMap<SegmentIdentity, (SegmentIdentity, usize)>;

fn claims() -> MutexGuard<'static, Claims> {
    // A map without half-made entries.
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right of a set to a segment. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Claim(SegmentIdentity);

impl Claim {
    /// Claims a control segment, for its set; `None` where it belongs to another set.
    pub(crate) fn control(control: SegmentIdentity) -> Option<Claim> {
        Claim::take(control, control)
    }

    /// Claims memory of the set that has this control segment; `None` where it belongs to another set.
    pub(crate) fn area(area: SegmentIdentity, control: &Claim) -> Option<Claim> {
        Claim::take(area, control.0)
    }

    fn take(segment: SegmentIdentity, set: SegmentIdentity) -> Option<Claim> {
        let mut claims = claims();
        let (owner, count) = claims.entry(segment).or_insert((set, 0));
        if *owner != set {
            return None;
        }
        *count += 1;
        Some(Claim(segment))
    }

    pub(crate) fn segment(&self) -> SegmentIdentity {
        self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = claims();
        if let Some((_, count)) = claims.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&self.0);
            }
        }
    }
}
