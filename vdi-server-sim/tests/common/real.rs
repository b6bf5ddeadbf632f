//! Backups that SQL Server made.

use std::path::{Path, PathBuf};

use super::native::skipped;

/// A real backup. Tests print its name and counts, never its content.
#[derive(Debug, Clone)]
pub(crate) struct Real {
    /// The path below the folder of all of them.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The real backups in the folder that `VDI_REAL_BACKUPS` names, else in `../shared/data` beside the workspace, by their names. Says that
/// the test is skipped where there are none.
pub(crate) fn real_backups(test: &str) -> Vec<Real> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = std::env::var_os("VDI_REAL_BACKUPS").map_or(beside, PathBuf::from);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if matches!(extension, "bak" | "trn") {
                let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
                found.push(Real { name, path });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    if found.is_empty() {
        skipped(&format!("{test}: no real backups; VDI_REAL_BACKUPS names a folder with some"));
    }
    found
}
