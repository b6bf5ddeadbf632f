//! What each process does, by the name of its role.

use std::path::Path;

use crate::baselines::{bare, iceoryx, socket};
use crate::processes::{Cost, Fallible, die_with_parent, rounds};
use crate::{against, database, handles, set, statements};

/// Runs this process's role. `words` are its name, its directory and its arguments.
pub(crate) fn run(words: &[String]) -> Fallible<()> {
    die_with_parent()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [role, dir, arguments @ ..] = &words[..] else { return Err("a role has a name and a directory".into()) };
    let dir = Path::new(dir);
    match (*role, arguments) {
        ("nothing", []) => rounds(|_| Ok(Cost::default())),
        ("set-commands", [devices]) => set::drive_commands(dir, devices.parse()?),
        ("set-data", [size]) => set::drive_data(dir, size.parse()?),
        ("set-starts", []) => set::drive_starts(dir),
        ("set-client", [devices]) => set::client(dir, devices.parse()?),
        ("handles", [how]) => handles::drive(dir, *how == "by-address"),

        ("backup", [data, checksum, medium, path]) => {
            statements::drive_backup(dir, Path::new(data), checksum, medium, Path::new(path))
        }
        ("restore", [data, medium, path]) => statements::drive_restore(dir, Path::new(data), medium, Path::new(path)),
        ("empty", [verb]) => statements::drive_empty(dir, *verb == "restore"),
        ("disk", [verb, data, path]) => {
            statements::drive_disk(dir, Path::new(data), *verb == "restore", Path::new(path))
        }
        ("statement-client", [medium, path]) => statements::client(dir, medium, Path::new(path)),
        ("read", [data]) => database::drive_read(Path::new(data)),
        ("write", [data]) => database::drive_write(dir, Path::new(data)),
        ("copy", [data]) => database::drive_copy(dir, Path::new(data)),
        ("build", [program, data, folders, what, checksum]) => {
            against::drive(dir, Path::new(program), [Path::new(data), Path::new(folders)], what, checksum)
        }

        ("ping-pong", []) => bare::drive_ping_pong(dir),
        ("ping-pong-peer", [path]) => bare::ping_pong_peer(Path::new(path)),
        ("ring", [size]) => bare::drive_ring(dir, size.parse()?),
        ("ring-peer", [path, size]) => bare::ring_peer(Path::new(path), size.parse()?),
        ("socket", [size]) => socket::drive(dir, size.parse()?),
        ("socket-peer", [size]) => socket::peer(dir, size.parse()?),
        ("iceoryx", []) => iceoryx::drive(dir),
        ("iceoryx-peer", []) => iceoryx::peer(dir),
        _ => Err(format!("there is no role {role} with {} arguments", arguments.len()).into()),
    }
}
