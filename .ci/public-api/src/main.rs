//! Compares what each library crate makes public with its `public-api.txt`, and fails where they differ; with `--accept` it
//! writes the listings anew.
//!
//! The listing is taken from rustdoc's JSON, which only a nightly toolchain writes, and whose format changes: where the
//! installed toolchain writes another one than this program reads, it says so and fails.

use std::collections::HashSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The crates that Rust programs may depend on, with their folders. The libraries for C and C++ have headers, which tests compare.
const CRATES: [(&str, &str); 6] = [
    ("vdi-proto", "vdi-proto"),
    ("vdi-shm", "vdi-shm"),
    ("vdi-client", "vdi-client"),
    ("vdi-server-sim", "vdi-server-sim"),
    ("vdi-mtf", "vdi-server-sim/mtf"),
    ("vdi-tds", "vdi-server-sim/tds"),
];

const ACCEPT: &str = "bash .ci/public-api/check --accept";

fn main() -> ExitCode {
    let accept = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [option] if option == "--accept" => true,
        _ => {
            eprintln!("usage: bash .ci/public-api/check [--accept]");
            return ExitCode::FAILURE;
        }
    };
    let mut changed = 0;
    for (name, folder) in CRATES {
        match compare(name, folder, accept) {
            Ok(Verdict::Same(items)) => println!("{name}: {items} public items, as listed"),
            Ok(Verdict::Accepted(items)) => println!("{name}: {items} public items, listed anew"),
            Ok(Verdict::Changed(difference)) => {
                println!("{name}: its public interface is not as listed in {folder}/public-api.txt:\n{difference}");
                changed += 1;
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    if changed == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "the public interface of {changed} crates changed; where that is intended: {ACCEPT}, and commit the listings"
    );
    ExitCode::FAILURE
}

enum Verdict {
    Same(usize),
    Accepted(usize),
    Changed(String),
}

fn compare(name: &str, folder: &str, accept: bool) -> Result<Verdict, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let found = list(&root, name)?;
    let items = found.lines().count();
    if items == 0 {
        return Err("nothing public was found: the listing is not to be trusted".into());
    }
    let path = root.join(folder).join("public-api.txt");
    let listed = match std::fs::read_to_string(&path) {
        Ok(listed) => listed,
        // A first listing shows as all new.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("could not read {}: {error}", path.display()).into()),
    };
    if listed == found {
        return Ok(Verdict::Same(items));
    }
    if accept {
        std::fs::write(&path, &found).map_err(|error| format!("could not write {}: {error}", path.display()))?;
        return Ok(Verdict::Accepted(items));
    }
    Ok(Verdict::Changed(difference(&listed, &found)))
}

/// What a crate makes public with all its features, an item a line, in order.
fn list(root: &Path, name: &str) -> Result<String, Box<dyn Error>> {
    let json = document(root, name)?;
    let text = std::fs::read_to_string(&json)?;
    let format = format_of(&text).ok_or_else(|| format!("{} names no format", json.display()))?;
    if format != rustdoc_types::FORMAT_VERSION {
        return Err(format!(
            "the installed nightly toolchain writes format {format} of rustdoc's JSON, this program reads format {}; install \
             a nightly that writes it ({} or a little later) and name it in VDI_NIGHTLY, or move public-api and rustdoc-types \
             in .ci/public-api/Cargo.toml to versions for format {format}",
            rustdoc_types::FORMAT_VERSION,
            public_api::MINIMUM_NIGHTLY_RUST_VERSION,
        )
        .into());
    }
    let api = public_api::Builder::from_rustdoc_json(json)
        // What follows from the fields alone, or from std, says nothing about an item.
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .sorted(true)
        .build()?;
    // The pages of documentation are modules for rustdoc only: no program can name them.
    let pages = format!("pub mod {}::docs", name.replace('-', "_"));
    Ok(api.items().map(|item| format!("{item}\n")).filter(|item| !item.starts_with(&pages)).collect())
}

/// Has rustdoc describe a crate.
fn document(root: &Path, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let nightly = std::env::var("VDI_NIGHTLY").unwrap_or_else(|_| "nightly".to_owned());
    let target = root.join("target/public-api");
    let status = Command::new("cargo")
        .arg(format!("+{nightly}"))
        .args(["rustdoc", "--quiet", "--locked", "--lib", "--all-features", "--package", name, "--target-dir"])
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"])
        // The toolchain that runs this program is another one.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .current_dir(root)
        .status()
        .map_err(|error| format!("could not run cargo +{nightly}: {error}"))?;
    if !status.success() {
        return Err(format!(
            "cargo +{nightly} rustdoc failed; a nightly toolchain is needed (VDI_NIGHTLY names another)"
        )
        .into());
    }
    Ok(target.join("doc").join(format!("{}.json", name.replace('-', "_"))))
}

/// The number behind the key that comes last at the outermost level.
fn format_of(json: &str) -> Option<u32> {
    let (_, rest) = json.rsplit_once("\"format_version\":")?;
    let digits = rest.trim_start();
    digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

/// The lines of only one of two listings.
fn difference(listed: &str, found: &str) -> String {
    let known: HashSet<_> = listed.lines().collect();
    let present: HashSet<_> = found.lines().collect();
    let gone = listed.lines().filter(|line| !present.contains(line)).map(|line| format!("  - {line}\n"));
    let new = found.lines().filter(|line| !known.contains(line)).map(|line| format!("  + {line}\n"));
    let lines: String = gone.chain(new).collect();
    // Lines that come more than once, or in another order.
    if lines.is_empty() { "  the same lines in another order or number\n".to_owned() } else { lines }
}
