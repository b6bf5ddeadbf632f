//! The READMEs' tables name the tests that show what they say: all of them exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of all tests in the Rust files below a folder.
fn collect_tests(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_tests(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // Behind the attribute, others may stand before the function.
            let functions = text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
            tests.extend(functions.map(|(name, _)| name.to_owned()));
        }
    }
}

/// Looks up the tests that the last columns of a README's tables name; how many there are.
fn look_up(readme: &Path) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut tests = BTreeSet::new();
    for part in ["vdi-proto", "vdi-shm", "vdi-client", "vdi-server-sim"] {
        for kind in ["src", "tests"] {
            let folder = root.join(part).join(kind);
            if folder.is_dir() {
                collect_tests(&folder, &mut tests);
            }
        }
    }
    let readme = fs::read_to_string(readme).unwrap();
    assert!(!readme.contains("_FIGURE"), "a figure is missing");
    let mut named = 0;
    for cell in readme.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit(" | ").next()) {
        let is_name = |word: &&str| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
        };
        for name in cell.split('`').filter(is_name) {
            assert!(tests.contains(name), "there is no test {name}");
            named += 1;
        }
    }
    named
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let named = look_up(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    assert!(named > 40, "{named}");
}

#[test]
fn every_promise_has_its_test() {
    let named = look_up(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"));
    assert!(named >= 20, "{named}");
}
