//! What only all devices together can tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Action, Catalog, Identity, MAX_FAMILIES, SetError, Snapshot, Totals};

/// The totals of all devices of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetTotals {
    /// Segments of all kinds on all devices.
    pub segments: u64,
    /// Bytes of the database's files: each counted once.
    pub data_bytes: u64,
}

/// Which bytes of one file have come: start and end of each stretch, neighbours merged. Segments come more or less in order,
/// so there are about as many stretches as there are buffers under way.
#[derive(Debug, Default)]
struct Coverage(BTreeMap<u64, u64>);

impl Coverage {
    /// Adds a stretch that is not empty. False if a byte of it was there already.
    fn add(&mut self, mut start: u64, mut end: u64) -> bool {
        let before = self.0.range(..=start).next_back().map(|(start, end)| (*start, *end));
        let after = self.0.range(start..).next().map(|(start, end)| (*start, *end));
        if before.is_some_and(|(_, before_end)| before_end > start)
            || after.is_some_and(|(after_start, _)| after_start < end)
        {
            return false;
        }
        if let Some((before_start, _)) = before.filter(|(_, before_end)| *before_end == start) {
            start = before_start;
        }
        if let Some((after_start, after_end)) = after.filter(|(after_start, _)| *after_start == end) {
            self.0.remove(&after_start);
            end = after_end;
        }
        self.0.insert(start, end);
        true
    }

    /// The first byte below `size` that has not come.
    fn first_gap(&self, size: u64) -> Option<u64> {
        let covered = match self.0.first_key_value() {
            Some((0, end)) => *end,
            _ => 0,
        };
        (covered < size).then_some(covered)
    }
}

/// How far one family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Unseen,
    Begun,
    Ended,
}

/// Judges the devices of one restore together: every family there once, one catalog, every byte of every file once.
///
/// Feed it every [`Action`] of every parser; devices may be interleaved in any way. It does little for each segment, so one
/// behind a lock serves all devices.
#[derive(Debug)]
pub struct SetVerifier {
    families: Vec<Family>,
    /// The first device that had its catalog complete, and the catalog.
    first: Option<(Identity, Arc<Catalog>)>,
    coverage: Vec<Coverage>,
    totals: SetTotals,
    snapshot: Option<Arc<Snapshot>>,
}

impl SetVerifier {
    /// A verifier for a restore from so many devices, 1 to [`MAX_FAMILIES`] (other numbers are taken as the nearest of these).
    #[must_use]
    pub fn new(family_count: u32) -> Self {
        let count = family_count.clamp(1, MAX_FAMILIES);
        Self {
            families: vec![Family::Unseen; count as usize],
            first: None,
            coverage: Vec::new(),
            totals: SetTotals::default(),
            snapshot: None,
        }
    }

    /// Takes note of what the parser of the device `identity` found.
    ///
    /// # Errors
    /// [`SetError`] if it does not fit what was recorded before. The restore has failed then.
    pub fn record(&mut self, identity: &Identity, action: &Action) -> Result<(), SetError> {
        match action {
            Action::Catalog(catalog) => self.begin(identity, catalog),
            Action::Data { .. } => Ok(()),
            Action::DataEnd { file_index, file_offset, length } => {
                self.expect_begun(identity)?;
                self.cover(*file_index, *file_offset, *length)
            }
            Action::End(Totals { segments, .. }) => {
                self.expect_begun(identity)?;
                if let Some(family) = self.families.get_mut(identity.family_index as usize) {
                    *family = Family::Ended;
                }
                self.totals.segments = self.totals.segments.saturating_add(*segments);
                Ok(())
            }
        }
    }

    /// Takes note that the device `identity` holds a snapshot: of its files no byte comes, neither before nor later. Without
    /// this call, a set is one with data.
    ///
    /// # Errors
    /// [`SetError::FamilyMissing`]: the device's catalog was not recorded. [`SetError::Snapshot`]: the restore has more devices than one,
    /// data has come, or the snapshot is of another number of files than the catalog.
    pub fn record_snapshot(&mut self, identity: &Identity, snapshot: &Arc<Snapshot>) -> Result<(), SetError> {
        let Some(catalog) = self.catalog() else {
            return Err(SetError::FamilyMissing { family: identity.family_index });
        };
        for (what, expected, found) in [
            ("so many devices", 1, self.families.len()),
            ("checksums of so many files", catalog.files().len(), snapshot.checksums.len()),
        ] {
            if found != expected {
                return Err(SetError::Snapshot { what, expected: expected as u64, found: found as u64 });
            }
        }
        if self.totals.data_bytes > 0 {
            return Err(SetError::Snapshot {
                what: "so many bytes of data",
                expected: 0,
                found: self.totals.data_bytes,
            });
        }
        self.snapshot = Some(Arc::clone(snapshot));
        Ok(())
    }

    /// The snapshot, if the set is one.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The catalog that all devices share, once a device has told it.
    #[must_use]
    pub fn catalog(&self) -> Option<&Arc<Catalog>> {
        self.first.as_ref().map(|(_, catalog)| catalog)
    }

    /// Bytes of the files so far.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.totals.data_bytes
    }

    /// All devices are done: is the database complete? Of a [snapshot](Self::snapshot), only the description is.
    ///
    /// # Errors
    /// [`SetError::FamilyMissing`]: a device was not there, or did not come to its end. [`SetError::Gap`]: bytes are missing.
    pub fn finish(&self) -> Result<SetTotals, SetError> {
        for (family, state) in (0..).zip(&self.families) {
            if *state != Family::Ended {
                return Err(SetError::FamilyMissing { family });
            }
        }
        if self.snapshot.is_some() {
            return Ok(self.totals);
        }
        let files = self.catalog().map_or(&[][..], |catalog| catalog.files());
        for (file, coverage) in files.iter().zip(&self.coverage) {
            if let Some(offset) = coverage.first_gap(file.size) {
                return Err(SetError::Gap { path: file.path.clone(), offset, size: file.size });
            }
        }
        Ok(self.totals)
    }

    fn begin(&mut self, identity: &Identity, catalog: &Arc<Catalog>) -> Result<(), SetError> {
        let expected = self.families.len() as u32;
        let family = identity.family_index;
        if identity.family_count != expected {
            return Err(SetError::FamilyCount { expected, found: identity.family_count });
        }
        match &self.first {
            None => {
                self.coverage.resize_with(catalog.files().len(), Coverage::default);
                self.first = Some((*identity, Arc::clone(catalog)));
            }
            Some((first, _)) if first.set_id != identity.set_id => {
                return Err(SetError::OtherBackup { expected: *first, found: *identity });
            }
            Some((_, known)) if known != catalog => return Err(SetError::CatalogDiffers { family }),
            Some(_) => {}
        }
        match self.families.get_mut(family as usize) {
            Some(state @ Family::Unseen) => {
                *state = Family::Begun;
                Ok(())
            }
            Some(_) => Err(SetError::FamilyTwice { family }),
            None => Err(SetError::FamilyCount { expected, found: identity.family_count }),
        }
    }

    fn expect_begun(&self, identity: &Identity) -> Result<(), SetError> {
        let family = identity.family_index;
        match self.families.get(family as usize) {
            Some(Family::Begun) => Ok(()),
            Some(Family::Ended) => Err(SetError::FamilyTwice { family }),
            Some(Family::Unseen) | None => Err(SetError::FamilyMissing { family }),
        }
    }

    fn cover(&mut self, file_index: usize, offset: u64, length: u64) -> Result<(), SetError> {
        let out_of_range = SetError::OutOfRange { file_index, offset, length };
        let file = self.first.as_ref().and_then(|(_, catalog)| catalog.files().get(file_index));
        let (Some(file), Some(coverage)) = (file, self.coverage.get_mut(file_index)) else {
            return Err(out_of_range);
        };
        let Some(end) = offset.checked_add(length).filter(|end| *end <= file.size && length > 0) else {
            return Err(out_of_range);
        };
        if self.snapshot.is_some() {
            return Err(SetError::Snapshot { what: "so many bytes of data", expected: 0, found: length });
        }
        if !coverage.add(offset, end) {
            return Err(SetError::Overlap { path: file.path.clone(), offset, length });
        }
        self.totals.data_bytes = self.totals.data_bytes.saturating_add(length);
        Ok(())
    }
}
