//! The READMEs and the docs: the tests that their tables name exist, their links lead somewhere, and what the repository's README
//! shows of programs is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

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

fn all_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for part in ["vdi-proto", "vdi-shm", "vdi-client", "vdi-server-sim"] {
        for kind in ["src", "tests"] {
            let folder = root().join(part).join(kind);
            if folder.is_dir() {
                collect_tests(&folder, &mut tests);
            }
        }
    }
    tests
}

/// Looks up the tests that the last columns of a page's tables name; how many there are in each row.
fn look_up(page: &Path, tests: &BTreeSet<String>) -> Vec<usize> {
    let text = fs::read_to_string(page).unwrap();
    assert!(!text.contains("_FIGURE"), "a figure is missing");
    let mut rows = Vec::new();
    for cell in text.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit(" | ").next()) {
        let is_name = |word: &&str| {
            word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
        };
        let names = cell.split('`').filter(is_name);
        rows.push(names.inspect(|name| assert!(tests.contains(*name), "there is no test {name}")).count());
    }
    rows
}

/// All pages in Markdown below a folder.
fn collect_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect_pages(&path, pages);
        } else if name.ends_with(".md") {
            pages.push(path);
        }
    }
}

/// The lines of a page that are not in a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !fence && !in_code
    })
}

/// The lines of the first block of code in a language.
fn code<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let fence = format!("```{language}");
    text.lines().skip_while(move |line| *line != fence).skip(1).take_while(|line| *line != "```")
}

/// What a link to a heading says behind its `#`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let (folder, tests) = (Path::new(env!("CARGO_MANIFEST_DIR")), all_tests());
    let mut pages = vec![folder.join("README.md"), root().join("vdi-shm/docs/orderings.md")];
    collect_pages(&folder.join("docs"), &mut pages);
    let named: usize = pages.iter().flat_map(|page| look_up(page, &tests)).sum();
    assert!(named > 60, "{named}");
}

#[test]
fn every_promise_has_its_test() {
    let rows = look_up(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/promises.md"), &all_tests());
    // The first row is the table's head.
    assert!(rows.len() > 10 && rows[1..].iter().all(|named| *named > 0), "{rows:?}");
}

#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let (mut pages, mut links, mut broken) = (Vec::new(), 0, Vec::new());
    collect_pages(&root(), &mut pages);
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        let inline = prose(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split_once(')'));
        let inline = inline.map(|(target, _)| target);
        // Links whose targets are listed at the end of the page, where the documentation of a crate shows the page.
        let listed = || prose(&text).filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
        let labels: BTreeSet<_> = listed().map(|(label, _)| label).collect();
        let used =
            prose(&text).flat_map(|line| line.split("][").skip(1)).filter_map(|rest| Some(rest.split_once(']')?.0));
        for label in used.filter(|label| label.contains(['/', '.']) && !labels.contains(label)) {
            broken.push(format!("{}: {label} is not listed", page.display()));
        }
        for target in inline.chain(listed().map(|(_, target)| target)).filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let has_heading = || {
                let text = fs::read_to_string(&file).unwrap();
                prose(&text).any(|line| line.starts_with('#') && anchor(line) == heading)
            };
            if !file.exists() || !heading.is_empty() && !has_heading() {
                broken.push(format!("{}: {target}", page.display()));
            }
            links += 1;
        }
    }
    assert!(broken.is_empty(), "they lead nowhere:\n{}", broken.join("\n"));
    assert!(links > 100, "{links}");
}

#[test]
fn the_readme_is_read_in_two_minutes() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(text.lines().count() < 150, "{} lines", text.lines().count());
}

#[test]
fn the_handle_pair_of_the_readme_is_in_its_example() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let example = fs::read_to_string(root().join("vdi-client/examples/handles.rs")).unwrap();
    let mut statements = 0;
    // The rest of the example, so that the order counts.
    let mut rest = example.lines().map(str::trim);
    for line in code(&readme, "rust").map(str::trim).filter(|line| !line.starts_with("//")) {
        assert!(rest.any(|there| there == line), "not in the example, or not in this order: {line}");
        statements += 1;
    }
    assert!(statements >= 7, "{statements}");
}

/// A line without its figures: each number is `0`, each digest `#`.
fn without_figures(line: &str) -> String {
    let mut shown = String::new();
    for part in line.split_inclusive(' ') {
        let word = part.trim_end();
        if word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit()) {
            shown.push('#');
        } else {
            shown.push_str(word);
        }
        shown.push_str(&part[word.len()..]);
    }
    let mut masked = String::new();
    for c in shown.chars() {
        if !c.is_ascii_digit() {
            masked.push(c);
        } else if !masked.ends_with('0') {
            masked.push('0');
        }
    }
    masked
}

#[test]
fn the_recorded_session_is_what_the_demo_prints() {
    let picture = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/session.svg")).unwrap();
    let lines = picture.lines().filter_map(|line| {
        let text = line.trim().strip_prefix("<text ")?.strip_suffix("</text>")?.split_once('>')?.1;
        // The text without its elements.
        let parts = text.split('<').enumerate();
        Some(parts.map(|(i, part)| if i == 0 { part } else { part.split_once('>').unwrap().1 }).collect::<String>())
    });
    let command = "$ cargo run --release --bin vdi-sim -- demo";
    let recorded = lines.skip_while(|line| line != command).skip(1).take_while(|line| !line.starts_with('$'));
    let recorded: Vec<_> = recorded.map(|line| without_figures(&line)).collect();

    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
    let output = demo.args(["demo", "--size", "5M"]).env("TMPDIR", folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(recorded, printed.lines().map(without_figures).collect::<Vec<_>>());
}
