//! Builds of this workspace's shared libraries, and of programs in other languages that use them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The finished builds by name. The lock is held during a build, so that no thread uses an unfinished file.
static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

#[track_caller]
fn build_once(name: String, build: impl FnOnce() -> PathBuf) -> PathBuf {
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name).or_insert_with(build).clone()
}

/// Builds the shared library of a package with the profile of this test. Returns its folder.
#[track_caller]
pub(crate) fn library_folder(package: &str) -> PathBuf {
    build_once(package.to_owned(), || {
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

/// Whether a tool is installed.
pub(crate) fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Reports that a part of a test is skipped. The report is visible even if the harness captures output.
pub(crate) fn skipped(what: &str) {
    let _ = std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes());
}

/// The C++ compilers: g++, which must be installed, and clang++ if it is installed.
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

/// Compiles `tests/programs/SOURCE`. The arguments follow the source.
#[track_caller]
pub(crate) fn compile(compiler: &str, source: &str, arguments: &[&OsStr]) -> PathBuf {
    let name = format!("{compiler} {source} {arguments:?}");
    build_once(name, || {
        let number = PROGRAMS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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

static PROGRAMS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
