//! Reads headers of a medium, and neither pages nor log: RESTORE LABELONLY, HEADERONLY and FILELISTONLY.

use vdi_mtf::inspector::Inspector;
use vdi_mtf::medium::Medium;

use super::Failure;
use super::feed::{Fed, Feed};
use super::medium_parser::{MediumParser, Progression, Scout, Until};

/// Reads one medium.
pub(super) struct Scan {
    device: String,
    until: Until,
    scout: Scout,
    parser: MediumParser,
    progression: Progression,
    inspector: Inspector,
    /// CONTINUE_AFTER_ERROR.
    continues: bool,
    damages: u64,
    /// What follows the last complete set, and is none: reading ended there.
    rest: Option<vdi_mtf::Error>,
}

impl Scan {
    pub(super) fn new(device: &str, until: Until, continues: bool) -> Scan {
        Scan {
            device: device.to_owned(),
            until,
            scout: Scout::new(until),
            parser: MediumParser::new(),
            progression: Progression::new(until),
            inspector: Inspector::headers_only(),
            continues,
            damages: 0,
            rest: None,
        }
    }

    /// What follows the last complete set of a medium that was read to its end, and is no set: the rest of a BACKUP that was killed, for
    /// example.
    pub(super) fn rest(&self) -> Option<&vdi_mtf::Error> {
        self.rest.as_ref()
    }

    /// What was read.
    pub(super) fn into_medium(self) -> Medium {
        let mut medium = self.inspector.into_medium();
        if self.rest.is_some() {
            medium.sets.retain(|set| set.complete);
        }
        medium
    }

    /// The parser cannot go on. Complete sets are sound whatever follows them.
    fn stopped(&mut self, source: vdi_mtf::Error) -> Result<Fed, Failure> {
        let has_sets = self.inspector.medium().sets.iter().any(|set| set.complete);
        if has_sets && matches!(self.until, Until::Medium { .. }) {
            self.rest = Some(source);
            return Ok(Fed::End);
        }
        Err(broken(&self.device, source))
    }
}

fn broken(device: &str, source: vdi_mtf::Error) -> Failure {
    Failure::Medium { device: device.to_owned(), database: String::new(), source }
}

impl Feed for Scan {
    fn needs_more(&mut self, bytes: &[u8]) -> bool {
        self.scout.needs_more(bytes)
    }

    fn may_end(&self) -> bool {
        self.scout.may_end()
    }

    fn feed(&mut self, bytes: &mut &[u8]) -> Result<Fed, Failure> {
        let broken = |source| broken(&self.device, source);
        loop {
            let event = match self.parser.next(bytes) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(source) => return self.stopped(source),
            };
            let (read, ended) = (self.inspector.event(&event), self.progression.ends_with(&event));
            read.map_err(broken)?;
            if self.inspector.damage_count() > self.damages {
                self.damages = self.inspector.damage_count();
                if let Some(source) = self.inspector.take_damages().into_iter().next().filter(|_| !self.continues) {
                    return Err(broken(source));
                }
            }
            if ended {
                return Ok(Fed::End);
            }
        }
        Ok(if self.progression.ends_here(&self.parser) { Fed::End } else { Fed::More })
    }

    fn end_of_data(&mut self) -> Result<(), Failure> {
        if let Err(source) = self.parser.finish() {
            return self.stopped(source).map(|_| ());
        }
        match self.until {
            Until::Medium { .. } => Ok(()),
            Until::Set(file) | Until::Configuration(file) => {
                Err(Failure::NoSuchSet { device: self.device.clone(), file, sets: self.inspector.medium().sets.len() })
            }
            Until::Label => Err(Failure::NoSuchSet { device: self.device.clone(), file: 0, sets: 0 }),
        }
    }
}
