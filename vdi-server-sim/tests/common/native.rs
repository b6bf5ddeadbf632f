//! Shared libraries of this workspace, and programs in other languages that use them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// What was made already, by its name. Whoever makes something keeps the lock, so that nobody uses half of it.
static MADE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

#[track_caller]
fn once(name: String, make: impl FnOnce() -> PathBuf) -> PathBuf {
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry(name).or_insert_with(make).clone()
}

/// The folder with the shared library of a package, built like this test.
#[track_caller]
pub(crate) fn library_folder(package: &str) -> PathBuf {
    once(package.to_owned(), || {
        let profile = Path::new(env!("CARGO_BIN_EXE_vdi-sim")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", package, "--target-dir"]).arg(profile.parent().unwrap());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        profile.to_owned()
    })
}

/// A tool that is there.
pub(crate) fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Says, whether or not the harness captures output, that a part of a test cannot be done here.
pub(crate) fn skipped(what: &str) {
    let _ = std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes());
}

/// The C++ compilers: g++, which has to be there, and clang++ where it is.
#[track_caller]
pub(crate) fn cpp_compilers() -> Vec<&'static str> {
    assert!(has("g++"), "g++ is missing; install it, on Debian and Ubuntu by: apt-get install g++");
    if has("clang++") {
        vec!["g++", "clang++"]
    } else {
        skipped("clang++ is not installed; compiled with g++ only");
        vec!["g++"]
    }
}

/// Compiles `tests/programs/SOURCE`; further arguments come behind the source.
#[track_caller]
pub(crate) fn compile(compiler: &str, source: &str, arguments: &[&OsStr]) -> PathBuf {
    let name = format!("{compiler} {source} {arguments:?}");
    once(name, || {
        let number = MADE_FILES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let program = format!("{}-{compiler}-{source}-{number}", env!("CARGO_CRATE_NAME"));
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(source);
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror", "-g", "-O1"]).arg(&source).args(arguments).arg("-o").arg(&program);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
        program
    })
}

static MADE_FILES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
