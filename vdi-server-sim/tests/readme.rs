//! The README's tables name the tests that show what they say: all of them exist.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_readme_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let files =
        fs::read_dir(root.join("tests")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let tests: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let mut named = 0;
    // The last column of a table's row.
    for cell in readme.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit(" | ").next()) {
        let is_name = |word: &&str| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
        };
        for name in cell.split('`').filter(is_name) {
            assert!(tests.contains(&format!("#[test]\nfn {name}()")), "there is no test {name}");
            named += 1;
        }
    }
    assert!(named > 40, "{named}");
}
