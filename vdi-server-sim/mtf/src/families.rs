//! The families of a striped backup.
//!
//! Each device of a BACKUP statement holds one family: a whole medium with its own label. Extents are dealt out to all families, in no
//! fixed pattern; the log is in family 1. To restore:
//!
//! 1. [Check](validate) that the families are those of one media set, each once, in any order.
//! 2. Place the extents of the first data block of every family, then those of the second of every family: the last image of a page
//!    wins.
//! 3. Take the log from family 1, and the configuration from any.
//!
//! (Observed in sixteen sets of two families of SQL Server 2008 to 2025.)

use crate::error::Error;
use crate::medium::Medium;

/// Checks that `media` are all families of one media set. Returns for each family, in the order of their numbers, its index in `media`.
///
/// # Errors
/// [`Error::ForeignFamily`], [`Error::RepeatedFamily`], [`Error::MissingFamily`].
pub fn validate(media: &[&Medium]) -> Result<Vec<usize>, Error> {
    let Some(first) = media.first() else { return Err(Error::MissingFamily { number: 1, count: 1 }) };
    let count = first.media_set.family_count;
    let mut order = vec![None; usize::from(count)];
    for (index, medium) in media.iter().enumerate() {
        let set = &medium.media_set;
        let number = set.family_number;
        if set.id != first.media_set.id || set.family_count != count {
            return Err(Error::ForeignFamily { number, expected: first.media_set.id, found: set.id });
        }
        match order.get_mut(usize::from(number).wrapping_sub(1)) {
            Some(place @ None) => *place = Some(index),
            Some(Some(_)) => return Err(Error::RepeatedFamily { number }),
            None => return Err(Error::MissingFamily { number, count }),
        }
    }
    let missing = order.iter().position(Option::is_none);
    match missing {
        Some(at) => Err(Error::MissingFamily { number: at as u16 + 1, count }),
        None => Ok(order.into_iter().flatten().collect()),
    }
}
