//! Replacements of SQL Server's library: one that runs a script and records the calls, and the drop-in library.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use vdi_client::{
    BackEnd, ClientVirtualDevice, ClientVirtualDeviceSet, Error, ErrorKind, INFINITE, SqlServer, VdConfig, VdError,
};

use super::examples::build;
use super::native;

/// Compiles a source of `tests/programs` into a shared library.
#[track_caller]
pub(crate) fn compile(source: &str, arguments: &[&str]) -> PathBuf {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vdi-client/sqlvdi/include");
    let include = format!("-I{}", include.display());
    let shared = ["-std=c++11", "-shared", "-fPIC", &include];
    native::cpp_compilers();
    native::compile("g++", source, &shared.iter().chain(arguments).map(AsRef::as_ref).collect::<Vec<_>>())
}

/// The library that runs scripts.
pub(crate) fn recorder() -> &'static Path {
    static RECORDER: OnceLock<PathBuf> = OnceLock::new();
    RECORDER.get_or_init(|| compile("recording_sqlvdi.cpp", &[]))
}

/// The drop-in library: vdi-client for C++ programs.
pub(crate) fn drop_in() -> PathBuf {
    native::library_folder("vdi-sqlvdi").join("libsqlvdi.so")
}

/// An example of vdi-client with the feature `sqlserver`. It is a copy, because other tests build it without the feature.
pub(crate) fn example(name: &str) -> PathBuf {
    let built = build(&["-p", "vdi-client", "--example", name, "--features", "sqlserver"]).join("examples").join(name);
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", env!("CARGO_CRATE_NAME")));
    fs::copy(built, &copy).unwrap();
    copy
}

/// The script line of a negotiated configuration: one device, these features and prefix zone, transfers of at most 64 KiB.
pub(crate) fn negotiated(features: u32, prefix: u32) -> String {
    format!("config 1 {features} {prefix} 512 0 0 0 512 4 65536 262144\n")
}

pub(crate) const WRITE_MEDIA: u32 = 0x1_0000;

/// A folder with a script. The path of the folder is the name of the set.
pub(crate) struct Played(tempfile::TempDir);

impl Played {
    pub(crate) fn new(script: &str) -> Played {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("script"), script).unwrap();
        Played(folder)
    }

    pub(crate) fn name(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    pub(crate) fn count(&self, beginning: &str) -> usize {
        self.calls().iter().filter(|call| call.starts_with(beginning)).count()
    }

    pub(crate) fn object() -> ClientVirtualDeviceSet {
        let vendor = SqlServer { library: Some(recorder().into()), ..SqlServer::default() };
        ClientVirtualDeviceSet::with_back_end(BackEnd::SqlServer(vendor)).unwrap()
    }

    /// A set with an open device.
    pub(crate) fn open(&self) -> (ClientVirtualDeviceSet, ClientVirtualDevice) {
        let set = Played::object();
        set.create(self.name(), &VdConfig::default()).unwrap();
        set.get_configuration(INFINITE).unwrap();
        let device = set.open_device(self.name()).unwrap();
        (set, device)
    }
}

/// A script of a backup without prefix zones; `script` follows the line of the configuration.
pub(crate) fn backup(script: &str) -> Played {
    Played::new(&(negotiated(WRITE_MEDIA, 0) + script))
}

#[track_caller]
pub(crate) fn assert_calls(played: &Played, expected: &[&str]) {
    assert_eq!(played.calls(), expected);
}

#[track_caller]
pub(crate) fn assert_violation(error: &Error, evidence: &str) {
    let text = error.to_string();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Violation, VdError::Abort), "{text}");
    assert!(text.contains(evidence) && text.contains("broke the interface"), "{text}");
}
