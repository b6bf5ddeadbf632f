use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// The directory's owner can put a link where a socket was just bound.
#[test]
fn a_mode_is_set_on_the_own_socket_and_on_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { runtime_dir: Some(dir.path().join("vdi")), ..Options::default() };
    let runtime = RuntimeDir::open(&options, true).expect("a directory");
    let precious = dir.path().join("precious");
    std::fs::write(&precious, "mine").expect("a file");
    std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).expect("our own");
    symlink(&precious, dir.path().join("vdi/link.vdi")).expect("a link");
    std::fs::hard_link(&precious, dir.path().join("vdi/file.vdi")).expect("a second name");
    for file in ["link.vdi", "file.vdi"] {
        let found = runtime.open_file(file).expect("it is there");
        assert_eq!(runtime.chmod(&found, file, Mode::from_bits_truncate(0o666)), Err(Errno::STALE), "{file}");
    }
    assert_eq!(std::fs::metadata(&precious).expect("a file").permissions().mode() & 0o777, 0o600);
}
