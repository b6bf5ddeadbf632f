//! What an error says about sets that may be meant where a set was not found.

use std::fmt::Write;

use super::name::show_instance;
use crate::ipc::runtime::{NearMiss, SocketName};

/// The near misses of a set, each behind a semicolon.
pub(crate) fn show_near_misses(set: &str, instance: &str, near_misses: &[NearMiss]) -> String {
    let own = rustix::process::geteuid().as_raw();
    let mut text = String::new();
    for near_miss in near_misses {
        // Writing to a string cannot fail.
        let _ = match near_miss {
            NearMiss::Similar(found) => write!(
                text,
                "; there is a set {:?} of {}: {}",
                found.name(),
                show_instance(found.namespace()),
                difference(set, instance, found)
            ),
            NearMiss::Elsewhere { path, owner } if *owner == own => write!(
                text,
                "; this user has the set in {path}, so VDI_RUNTIME_DIR, XDG_RUNTIME_DIR or TMPDIR differ between the two \
                 sides: set VDI_RUNTIME_DIR={path} for this process",
                path = path.display()
            ),
            NearMiss::Elsewhere { path, owner } => write!(
                text,
                "; uid {owner} has a set of this name in {path}: if it is meant, set VDI_RUNTIME_DIR={path} and \
                 VDI_ALLOW_UID={owner} for this process, and VDI_ALLOW_UID={own} for the one that created the set",
                path = path.display()
            ),
            NearMiss::Closed { path, owner, mode } => write!(
                text,
                "; uid {owner} has the runtime directory {} (mode {mode:o}), which uid {own} may not read: if the set was \
                 created there, set VDI_RUNTIME_DIR to a directory that both may use, on both sides, VDI_ALLOW_UID={owner} \
                 for this process, and VDI_ALLOW_UID={own} for the one that creates the set",
                path.display()
            ),
        };
    }
    text
}

/// How a similar name differs.
fn difference(set: &str, instance: &str, found: &SocketName) -> &'static str {
    if found.name() == set {
        return if found.namespace().to_lowercase() == instance.to_lowercase() {
            "upper and lower case of instances differ"
        } else {
            "name the same instance on both sides"
        };
    }
    if found.name().to_lowercase() == set.to_lowercase() {
        "upper and lower case differ"
    } else {
        "braces and blanks count"
    }
}
