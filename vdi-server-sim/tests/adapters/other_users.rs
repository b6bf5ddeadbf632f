//! Root beside a service user, the usual pair on Linux: every door takes the variables that let each other in, and says which
//! one cannot be understood.

use crate::common;

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::bench::{Bench, names};
use common::eventually;
use common::examples::example;
use common::native::{compile, has, library_folder, skipped};

const SIM: &str = env!("CARGO_BIN_EXE_vdi-sim");
/// The service user, and its group.
const UID: u32 = 65533;
const GID: u32 = 65534;

/// What the documentation of the runtime directory names for this pair: the same for both sides.
const PAIR: [(&str, &str); 2] = [("VDI_ALLOW_UID", "0"), ("VDI_ALLOW_GID", "65534")];

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The clients and the servers of this project, where every user can run them.
struct Doors {
    folder: tempfile::TempDir,
}

/// How a client is called for a set and a file.
type Client = fn(&Doors, &Path) -> Command;

/// The clients, and whether the service user can run them as well: an interpreter may lie where only root can look.
const CLIENTS: [(&str, Client, bool); 4] = [
    ("the drop-in library", Doors::dropin, true),
    ("the C interface", Doors::c, true),
    ("the C interface, from Python", Doors::python, false),
    ("the Rust example", Doors::rust, true),
];

impl Doors {
    fn new() -> Doors {
        let folder = tempfile::tempdir().unwrap();
        chmod(folder.path(), 0o755);
        let doors = Doors { folder };
        let libraries = library_folder("vdi-sqlvdi");
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let include = project.join("vdi-client/sqlvdi/include");
        let link = ["-I".as_ref(), include.as_os_str(), "-L".as_ref(), libraries.as_os_str(), "-lsqlvdi".as_ref()];
        let dropin = compile("g++", "file_agent.cpp", &[&link[..], &["-lpthread".as_ref()]].concat());
        let c = library_folder("vdi-capi");
        let capi = project.join("vdi-client/capi");
        let mut gcc = Command::new("gcc");
        gcc.arg("-o").arg(doors.path("agent-c")).arg(capi.join("examples/agent.c")).arg("-I").arg(capi.join("include"));
        assert!(gcc.arg("-L").arg(&c).args(["-lvdi_c", "-lpthread"]).status().unwrap().success());
        for (from, to) in [
            (dropin, "agent-dropin"),
            (libraries.join("libsqlvdi.so"), "libsqlvdi.so"),
            (c.join("libvdi_c.so"), "libvdi_c.so"),
            (capi.join("examples/agent.py"), "agent.py"),
            (example("agent"), "agent-rust"),
            (SIM.into(), "vdi-sim"),
        ] {
            fs::copy(from, doors.path(to)).unwrap();
        }
        symlink("vdi-sim", doors.path("sqlcmd")).unwrap();
        symlink("libvdi_c.so", doors.path("libvdi_c.so.0")).unwrap();
        doors
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.folder.path()).env("VDI_LOG", "1").current_dir("/");
        command
    }

    fn dropin(&self, file: &Path) -> Command {
        let mut command = self.command(self.path("agent-dropin"));
        // The statement is sent by another user.
        command.args(["b", "s"]).arg(file).arg("true").env("VDI_GETCOMMAND_TIMEOUT_UNIT", "s");
        command
    }

    fn c(&self, file: &Path) -> Command {
        let mut command = self.command(self.path("agent-c"));
        command.arg("s").arg(file);
        command
    }

    fn python(&self, file: &Path) -> Command {
        let mut command = self.command("python3");
        command.arg(self.path("agent.py")).arg(self.path("libvdi_c.so")).arg("s").arg(file);
        command
    }

    fn rust(&self, file: &Path) -> Command {
        let mut command = self.command(self.path("agent-rust"));
        command.arg("s").arg(file);
        command
    }

    fn sql(&self, bench: &Bench) -> Command {
        let mut command = self.command(self.path("vdi-sim"));
        command.args(["sql", "--data"]).arg(bench.data()).args(["-Q", STATEMENT]);
        command
    }

    fn sqlcmd(&self, bench: &Bench) -> Command {
        let mut command = self.command(self.path("sqlcmd"));
        command.args(["-b", "-Q", STATEMENT]).env("VDI_SIM_DATA", bench.data());
        command
    }
}

const STATEMENT: &str = "BACKUP DATABASE db TO VIRTUAL_DEVICE='s' WITH FORMAT";

/// A bench that both users can work in, with a runtime directory of root for the group.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("db", 1 << 20);
    bench.databases().open_to_all();
    chmod(bench.runtime().parent().unwrap(), 0o755);
    chmod(&bench.out(), 0o777);
    chown(bench.runtime(), Some(0), Some(GID)).unwrap();
    chmod(&bench.runtime(), 0o2770);
    bench
}

/// Has the service user run a program.
fn by_service(mut command: Command) -> Command {
    command.uid(UID).gid(GID);
    command
}

/// Whether this process may become another user; says so where it may not.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(&format!("{test}: only root can become another user"));
    }
    root
}

/// A backup by a client and a server, which both have to succeed.
#[track_caller]
fn backs_up(bench: &Bench, what: &str, client: Command, server: Command) {
    let client = bench.run(client);
    eventually(&format!("{what} has a set"), || {
        let sockets = names(&bench.runtime());
        if sockets.len() == 1 { Ok(()) } else { Err(format!("{sockets:?}")) }
    });
    let server = bench.run(server).outcome();
    assert!(server.status.success() && server.text.contains("successfully processed"), "{what}: {server:#?}");
    let client = client.outcome();
    assert!(client.status.success(), "{what}: {client:#?}");
    assert!(fs::metadata(bench.out().join("file")).unwrap().len() > 1 << 20, "{what}");
    fs::remove_file(bench.out().join("file")).unwrap();
}

#[test]
fn root_beside_a_service_user_from_every_door() {
    if !is_root("root_beside_a_service_user_from_every_door") {
        return;
    }
    let (doors, bench) = (Doors::new(), bench());
    let file = bench.out().join("file");
    for (what, client, for_all) in CLIENTS {
        if what.ends_with("Python") && !has("python3") {
            skipped("the Python agent: python3 is not installed");
            continue;
        }
        let as_pair = |mut command: Command| {
            command.envs(PAIR);
            command
        };
        let (by_root, server) = (as_pair(client(&doors, &file)), by_service(as_pair(doors.sql(&bench))));
        backs_up(&bench, what, by_root, server);
        if for_all {
            let (client, server) = (by_service(as_pair(client(&doors, &file))), as_pair(doors.sqlcmd(&bench)));
            backs_up(&bench, what, client, server);
        }
    }
    // The server's options add to its variables.
    let mut client = doors.dropin(&file);
    client.envs(PAIR);
    let mut server = doors.sql(&bench);
    server.env("VDI_ALLOW_UID", "1").args(["--allow-uid", "0", "--allow-gid", &GID.to_string()]);
    backs_up(&bench, "options of the server", client, by_service(server));
}

/// A variable that cannot be understood is never ignored.
#[test]
fn a_variable_that_cannot_be_understood_is_named_by_every_door() {
    let (doors, bench) = (Doors::new(), Bench::new());
    bench.database("db", 1 << 20);
    let file = bench.out().join("file");
    let python = has("python3");
    let clients = CLIENTS.iter().filter(|(what, ..)| python || !what.ends_with("Python"));
    let mut demo = doors.command(doors.path("vdi-sim"));
    demo.args(["demo", "--size", "1M"]);
    let others = [("sql", doors.sql(&bench)), ("sqlcmd", doors.sqlcmd(&bench)), ("demo", demo)];
    let all = clients.map(|(what, client, _)| (*what, client(&doors, &file))).chain(others);
    for (what, mut command) in all {
        command.env("VDI_ALLOW_UID", "0").env("VDI_ALLOW_GID", "mssql");
        let outcome = bench.run(command).outcome();
        assert!(!outcome.status.success(), "{what}: {outcome:#?}");
        let told = "VDI_ALLOW_GID is \"mssql\"; set it to the numbers of the groups to allow, separated by commas, as in \
                    VDI_ALLOW_GID=0,999";
        assert!(outcome.text.contains(told), "{what}: {outcome:#?}");
        assert_eq!(names(&bench.runtime()), [""; 0], "{what}");
    }
    bench.assert_output(&[]);
}
