//! The C interface, as programs in C and Python use it against `vdi-sim sql`: rightly, wrongly, and by a library that stands in
//! for SQL Server's.
#![allow(clippy::unwrap_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::LazyLock;

use common::bench::Bench;
use common::native::{has, library_folder, skipped};
use common::recorder::drop_in;
use common::server::Server;
use tempfile::TempDir;
use vdi_client::{CommandCode, Features};

/// The C interface's folder.
pub(super) static CAPI: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../vdi-client/capi"));

/// Where the library is, also by the name that programs load it by.
fn library() -> PathBuf {
    let folder = library_folder("vdi-capi");
    match std::os::unix::fs::symlink("libvdi_c.so", folder.join(SONAME)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => panic!("{SONAME}: {error}"),
        _ => folder,
    }
}

/// The name that a program that was linked with the library loads it by. Another number is another binary interface: every
/// program has to be linked anew.
const SONAME: &str = "libvdi_c.so.0";

/// Runs a compiler or one of its companions; what it printed on standard output.
#[track_caller]
fn tool(command: &mut Command) -> String {
    let name = command.get_program().to_owned();
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run {name:?}: {error}; install a C compiler (Debian, Ubuntu: apt install g++)")
    });
    assert!(output.status.success(), "{name:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// A C program, linked with the library.
pub(super) struct Program {
    _folder: TempDir,
    path: PathBuf,
}

impl Program {
    #[track_caller]
    pub(super) fn compile(source: &Path, link: &[&str]) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let mut rpath = std::ffi::OsString::from("-Wl,-rpath,");
        rpath.push(library());
        let mut gcc = Command::new("gcc");
        gcc.arg("-std=c99").args(STRICT).arg("-I").arg(CAPI.join("include")).arg(source).arg("-o").arg(&path);
        tool(gcc.arg("-L").arg(library()).args(link).arg("-lpthread").arg(rpath));
        Program { _folder: folder, path }
    }

    #[track_caller]
    fn of_test(name: &str) -> Program {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
        Program::compile(&sources.join(name), &["-lvdi_c"])
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments);
        command
    }
}

/// A client that is killed if the test fails.
struct Client {
    child: Child,
    /// What it prints, on either stream.
    output: BufReader<PipeReader>,
    said: String,
}

impl Client {
    /// Starts a client, and waits until it says that its set is there.
    #[track_caller]
    fn start(bench: &Bench, mut command: Command) -> Client {
        let (output, input) = pipe().unwrap();
        command.env("VDI_RUNTIME_DIR", bench.runtime()).stdout(input.try_clone().unwrap()).stderr(input);
        let child = command.spawn().unwrap();
        // It has copies of the pipe's end.
        drop(command);
        let mut client = Client { child, output: BufReader::new(output), said: String::new() };
        while !client.said.lines().any(|line| line.starts_with("ready")) {
            assert_ne!(client.output.read_line(&mut client.said).unwrap(), 0, "it ended: {}", client.said);
        }
        client
    }

    /// Whether it ended well, and what it said until then.
    fn end(mut self) -> (bool, String) {
        self.output.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap().success(), core::mem::take(&mut self.said))
    }

    /// What it said, having ended well.
    #[track_caller]
    fn finish(self) -> String {
        let (well, said) = self.end();
        assert!(well, "{said}");
        said
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program printed that ends by itself; `log` is VDI_LOG.
#[track_caller]
fn run(bench: &Bench, mut command: Command, log: &str) -> (String, String) {
    let output = command.env("VDI_RUNTIME_DIR", bench.runtime()).env("VDI_LOG", log).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (said, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{:?} {said}{errors}", output.status);
    (said, errors)
}

const BACKUP: &str = "BACKUP DATABASE db TO VIRTUAL_DEVICE = 'c'";
const RESTORE: &str = "RESTORE DATABASE copy FROM VIRTUAL_DEVICE = 'c' WITH MOVE 'db' TO 'copy.mdf', MOVE 'db_1' TO 'copy_1.ndf', \
                       MOVE 'db_log' TO 'copy_log.ldf'";

/// An agent, given how to call it with a set and a file, backs a database up, restores it, and fails as it should.
fn assert_agent_works(agent: impl Fn(&str, &Path) -> Command) {
    let bench = Bench::new();
    bench.database("db", 3 << 20);
    let file = bench.out().join("db.bak");
    let client = Client::start(&bench, agent("c", &file));
    bench.sql(BACKUP).outcome().assert_success();
    assert!(client.finish().contains(" bytes written"));
    bench.assert_output(&["db.bak"]);
    let client = Client::start(&bench, agent("c", &file));
    bench.sql(RESTORE).outcome().assert_success();
    assert!(client.finish().contains(" bytes read"));
    bench.assert_identical("db", "copy");

    // The server aborts half way: the agent prints the reason, and the old backup stays.
    let before = fs::read(&file).unwrap();
    let client = Client::start(&bench, agent("c", &file));
    let aborted = bench.sql_with(BACKUP, |command| {
        command.args(["--fault", "abort-at=5"]);
    });
    aborted.outcome().assert_failure(&[]);
    let (well, said) = client.end();
    assert!(!well && said.contains("VD_E_ABORT") && said.contains("of set \"c\""), "{said}");
    bench.assert_output(&["db.bak"]);
    assert!(fs::read(&file).unwrap() == before);

    // A full disk is no success, and a device stays what it is.
    if Path::new("/dev/full").exists() {
        let full = bench.out().join("full");
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
        let client = Client::start(&bench, agent("c", &full));
        // 112, ERROR_DISK_FULL: another try is of no use.
        bench.sql(BACKUP).outcome().assert_failure(&["112("]);
        let (well, said) = client.end();
        assert!(!well && said.contains("No space left on device"), "{said}");
        assert_eq!(fs::read_link(&full).unwrap(), Path::new("/dev/full"));
        bench.assert_output(&["db.bak", "full"]);
    }
}

/// An agent's source that requests no VDC_COMPLETE, as for a server that does not send it.
fn without_complete(folder: &TempDir, example: &str) -> PathBuf {
    let source = fs::read_to_string(CAPI.join("examples").join(example)).unwrap();
    let (asks, does_not) = match example {
        "agent.c" => ("config.features = VDF_REQUEST_COMPLETE;", "config.features = 0;"),
        _ => ("features=VDF_REQUEST_COMPLETE)", "features=0)"),
    };
    assert!(source.contains(asks), "{asks} is not in {example}");
    let path = folder.path().join(example);
    fs::write(&path, source.replace(asks, does_not)).unwrap();
    path
}

/// An agent puts a backup into its place only when what the server sent proves that it is complete.
fn assert_agent_wants_proof(agent: impl Fn(&str, &Path) -> Command, negotiated: bool) {
    const WRITE: CommandCode = CommandCode::WRITE;
    const FLUSH: CommandCode = CommandCode::FLUSH;
    let sessions: &[(&[CommandCode], bool)] = match negotiated {
        true => &[(&[WRITE, FLUSH, CommandCode::COMPLETE], true), (&[WRITE, FLUSH], false), (&[], false)],
        false => &[(&[WRITE, FLUSH], true), (&[WRITE], false), (&[WRITE, FLUSH, WRITE], false), (&[], false)],
    };
    for (commands, proven) in sessions {
        let bench = Bench::new();
        let file = bench.out().join("db.bak");
        fs::write(&file, "the old backup").unwrap();
        let client = Client::start(&bench, agent("c", &file));
        let mut server = Server::with_features(&bench, "c", 1, Features::WRITE_MEDIA);
        for code in *commands {
            match *code {
                WRITE => server.write(0, 7),
                code => server.plain(0, code),
            }
            assert!(server.completed().0.is_success(), "{code}");
        }
        server.devices[0].close_device().unwrap();
        let (well, said) = client.end();
        let _ = server.set.close();
        server.agent_ended();
        assert_eq!(well, *proven, "{commands:?} {said}");
        assert_eq!(fs::read(&file).unwrap() != b"the old backup", *proven, "{commands:?} {said}");
        assert!(*proven || said.contains("not complete"), "{commands:?} {said}");
        bench.assert_output(&["db.bak"]);
    }
}

#[test]
fn the_c_agent_wants_proof_of_a_complete_backup() {
    let agent = Program::compile(&CAPI.join("examples/agent.c"), &["-lvdi_c"]);
    assert_agent_wants_proof(|set, file| agent.command(&[set, file.to_str().unwrap()]), true);
    let folder = tempfile::tempdir().unwrap();
    let agent = Program::compile(&without_complete(&folder, "agent.c"), &["-lvdi_c"]);
    assert_agent_wants_proof(|set, file| agent.command(&[set, file.to_str().unwrap()]), false);
}

#[test]
fn the_c_agent_backs_up_and_restores() {
    let agent = Program::compile(&CAPI.join("examples/agent.c"), &["-lvdi_c"]);
    assert_agent_works(|set, file| agent.command(&[set, file.to_str().unwrap()]));
}

/// A call to an agent, by the drop-in library in the place of SQL Server's.
fn by_library(mut command: Command) -> Command {
    command.env("VDI_LIBRARY", drop_in());
    command
}

#[test]
fn the_c_agent_works_with_sql_servers_library() {
    let agent = Program::compile(&CAPI.join("examples/agent.c"), &["-lvdi_c"]);
    assert_agent_works(|set, file| by_library(agent.command(&[set, file.to_str().unwrap()])));
}

#[test]
fn the_python_agent_works_with_sql_servers_library() {
    if !has("python3") {
        return skipped("the Python agent: python3 is not installed");
    }
    assert_agent_works(|set, file| by_library(python_agent(set, file)));
}

#[test]
fn a_library_that_cannot_be_used_is_an_error_of_create() {
    let agent = Program::compile(&CAPI.join("examples/agent.c"), &["-lvdi_c"]);
    let missing = Path::new("/nowhere/libsqlvdi.so");
    let output = agent.command(&["c", "file"]).env("VDI_LIBRARY", missing).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for text in ["agent: vdi_set_create: ", "VD_E_INVALID (0x80770006)", "/nowhere/libsqlvdi.so"] {
        assert!(said.contains(text), "{text:?} is missing in {said}");
    }
}

#[test]
fn the_c_agent_works_with_the_static_library() {
    // What the README tells to link with.
    let link = ["-l:libvdi_c.a", "-lpthread", "-ldl", "-lm"];
    let agent = Program::compile(&CAPI.join("examples/agent.c"), &link);
    let bench = Bench::new();
    bench.database("db", 1 << 20);
    let file = bench.out().join("db.bak");
    let client = Client::start(&bench, agent.command(&["c", file.to_str().unwrap()]));
    bench.sql(BACKUP).outcome().assert_success();
    assert!(client.finish().contains(" bytes written"));
}

#[test]
fn the_python_agent_backs_up_and_restores() {
    if !has("python3") {
        return skipped("the Python agent: python3 is not installed");
    }
    assert_agent_works(python_agent);
}

fn python_agent(set: &str, file: &Path) -> Command {
    python(&CAPI.join("examples/agent.py"), set, file)
}

pub(super) fn python(agent: &Path, set: &str, file: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(agent).arg(library().join("libvdi_c.so")).arg(set).arg(file);
    command
}

#[test]
fn the_python_agent_wants_proof_of_a_complete_backup() {
    if !has("python3") {
        return skipped("the Python agent: python3 is not installed");
    }
    assert_agent_wants_proof(python_agent, true);
    let folder = tempfile::tempdir().unwrap();
    let agent = without_complete(&folder, "agent.py");
    assert_agent_wants_proof(|set, file| python(&agent, set, file), false);
}

/// Backs a database up through a process that gets the commands and one that sums the buffers by their handles.
fn assert_handles_work(change: impl FnOnce(Command) -> Command) {
    let handles = Program::of_test("c_handles.c");
    let bench = Bench::new();
    bench.database("db", 1 << 20);
    let client = Client::start(&bench, change(handles.command(&["c"])));
    bench.sql(BACKUP).outcome().assert_success();
    let said = client.finish();
    let (here, there) = said.lines().last().unwrap().strip_prefix("here ").unwrap().split_once(" there ").unwrap();
    assert_eq!(here, there);
    assert!(here.parse::<u64>().unwrap() > 1 << 20, "{said}");
}

#[test]
fn buffers_are_mapped_by_their_handles_in_another_process() {
    assert_handles_work(|command| command);
}

#[test]
fn buffers_are_mapped_with_a_size_by_sql_servers_library() {
    assert_handles_work(by_library);
}

#[test]
fn a_storm_of_bad_arguments_ends_with_codes() {
    let misuse = Program::of_test("c_misuse.c");
    let bench = Bench::new();
    let (said, errors) = run(&bench, misuse.command(&["storm"]), "");
    assert_eq!(errors, "", "no messages were requested");
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some(concat!(env!("CARGO_PKG_VERSION"), ": unknown status, 0, ''")));
    let mut calls = 0;
    for line in lines.filter(|line| line.contains('(')) {
        let expected = match line.split_once(": ").unwrap().0 {
            "vdi_set_create(\"no instance!\", \"name\", &config, &set)" => "VD_E_INSTANCE_NAME",
            "vdi_set_create(NULL, \"name\", &config, &set)" => "VD_E_NOTSUPPORTED",
            "vdi_set_open_in_secondary(NULL, \"nobody's\", &set)"
            | "vdi_set_open_in_secondary(NULL, at_the_edge(), &set)" => "VD_E_PROTOCOL",
            _ => "VD_E_INVALID",
        };
        assert!(line.ends_with(&format!(": {expected}")), "{line}");
        calls += 1;
    }
    assert_eq!(calls, 18 + 3 * 14 + 8, "{said}");
    assert!(said.contains("set is NULL\n") && !said.contains("but "), "{said}");
}

#[test]
fn failed_calls_are_reported_where_vdi_log_is_set() {
    let misuse = Program::of_test("c_misuse.c");
    let bench = Bench::new();
    let (_, errors) = run(&bench, misuse.command(&["storm"]), "1");
    let expected = "vdi_set_open_in_secondary: OpenInSecondaryEx of set \"nobody's\": VD_E_PROTOCOL (0x8077000c): ";
    assert!(errors.lines().any(|line| line.starts_with(expected)), "{errors}");
    assert_eq!(errors.lines().count(), 18 + 3 * 14 + 8, "{errors}");
}

#[test]
fn sets_may_be_closed_and_freed_by_many_threads_at_once() {
    let misuse = Program::of_test("c_misuse.c");
    let bench = Bench::new();
    assert_eq!(run(&bench, misuse.command(&["threads"]), "").0, "done\n");
}

#[test]
fn a_wrong_order_and_an_abort_end_with_codes() {
    let misuse = Program::of_test("c_misuse.c");
    let bench = Bench::new();
    bench.database("db", 1 << 20);
    let client = Client::start(&bench, misuse.command(&["session", "c"]));
    bench.sql(BACKUP).outcome().assert_failure(&["the set was aborted: the primary client gave up: the disk is full"]);
    let said = client.finish();
    let (session, freed) = said.split_once("freed objects\n").unwrap();
    assert_eq!(session, include_str!("../programs/c_misuse.session.txt"));
    assert_eq!(freed.lines().count(), 14, "{freed}");
    assert!(freed.lines().all(|line| line.ends_with(": VD_E_INVALID")), "{freed}");
}

#[test]
fn what_a_fork_does_to_what_it_inherited_changes_nothing() {
    let corners = Program::of_test("c_corners.c");
    let bench = Bench::new();
    bench.database("db", 1 << 20);
    let client = Client::start(&bench, corners.command(&["fork", "c"]));
    bench.sql(BACKUP).outcome().assert_success();
    assert!(client.finish().ends_with("\n0 surprises\n"));
}

#[test]
fn a_storm_of_calls_from_many_threads_ends_with_codes() {
    let storm = Program::of_test("c_storm.c");
    for seed in ["1", "1000", "2000"] {
        let bench = Bench::new();
        bench.database("db", 4 << 20);
        let client = Client::start(&bench, storm.command(&["c", seed]));
        // It may succeed or fail, but it ends.
        bench.sql(BACKUP).outcome();
        let said = client.finish();
        assert!(
            said.contains("32000 calls, ") && !said.contains(" 0 commands") && !said.contains("panicked"),
            "{said}"
        );
    }
}

#[test]
fn data_of_commands_outlive_the_set() {
    let corners = Program::of_test("c_corners.c");
    let bench = Bench::new();
    bench.database("db", 1 << 20);
    let client = Client::start(&bench, corners.command(&["held", "c"]));
    bench.sql(BACKUP).outcome().assert_failure(&[]);
    assert!(client.finish().ends_with("\n0 surprises\n"));
}

#[test]
fn time_outs_at_the_ends_of_their_type_wait_and_end() {
    let corners = Program::of_test("c_corners.c");
    assert_eq!(run(&Bench::new(), corners.command(&["waits"]), "").0, "ready\n0 surprises\n");
}

#[test]
fn messages_that_no_process_reads_end_no_program() {
    let corners = Program::of_test("c_corners.c");
    assert_eq!(run(&Bench::new(), corners.command(&["deaf"]), "1").0, "0 surprises\n");
}

#[test]
fn vdi_log_0_asks_for_no_messages() {
    let misuse = Program::of_test("c_misuse.c");
    assert_eq!(run(&Bench::new(), misuse.command(&["storm"]), "0").1, "");
}

#[test]
fn the_header_is_c_and_cpp() {
    let include = CAPI.join("include");
    let mut compilers =
        vec![("gcc", "c", "c99"), ("gcc", "c", "c11"), ("g++", "c++", "c++11"), ("g++", "c++", "c++20")];
    match has("clang++") {
        true => compilers.push(("clang++", "c++", "c++17")),
        false => skipped("clang++ is not installed; the header was compiled with g++ only"),
    }
    for (compiler, language, standard) in compilers {
        let mut command = Command::new(compiler);
        command.args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"]).args(STRICT);
        tool(command.arg("-I").arg(&include).args(["-include", "vdi_c.h", "/dev/null"]));
    }
}

/// The functions of the header.
fn documented() -> Vec<String> {
    let header = fs::read_to_string(CAPI.join("include/vdi_c.h")).unwrap();
    let declarations = header.lines().filter(|line| line.starts_with("int32_t ") || line.starts_with("const char *"));
    let name = |line: &str| line.split_once('(').unwrap().0.rsplit([' ', '*']).next().unwrap().to_owned();
    let mut names: Vec<_> = declarations.map(name).collect();
    names.sort();
    names
}

#[test]
fn exactly_the_documented_functions_are_exported() {
    let mut nm = Command::new("nm");
    let symbols = tool(nm.args(["-D", "--defined-only", "--format=posix"]).arg(library().join("libvdi_c.so")));
    let mut exported: Vec<_> = symbols.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    exported.sort();
    assert_eq!(exported, documented());
    assert_eq!(exported.len(), 21);
}

/// An entry of the dynamic section of a program or a library.
fn dynamic(file: &Path, entry: &str) -> Vec<String> {
    let printed = tool(Command::new("readelf").args(["--dynamic", "--wide"]).arg(file));
    let values = printed.lines().filter(|line| line.contains(&format!("({entry})")));
    values.map(|line| line.split(['[', ']']).nth(1).unwrap().to_owned()).collect()
}

#[test]
fn the_name_of_the_library_has_the_version_of_the_interface() {
    assert_eq!(dynamic(&library().join("libvdi_c.so"), "SONAME"), [SONAME]);
}

#[test]
fn the_recipe_of_the_readme_installs_a_library_that_pkg_config_finds() {
    if !has("pkg-config") {
        return skipped("the installed library: pkg-config is not installed");
    }
    let prefix = tempfile::tempdir().unwrap();
    let readme = fs::read_to_string(CAPI.join("README.md")).unwrap();
    let block = readme.split_once("## Install\n").unwrap().1.split("```").nth(1).unwrap();
    let lines = block.strip_prefix("sh\n").unwrap().lines();
    // The folder of the test, and the library that was built for it.
    let lines = lines.filter(|line| !line.starts_with("export PREFIX=") && !line.starts_with("cargo build"));
    let recipe: Vec<_> = lines.map(|line| line.replace("target/release", library().to_str().unwrap())).collect();
    assert_eq!(recipe.len(), 5, "{recipe:?}");
    let mut shell = Command::new("sh");
    shell.args(["-euc", &recipe.join("\n")]).env("PREFIX", prefix.path()).current_dir(CAPI.join("../.."));
    tool(&mut shell);

    let pkg_config = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.args(arguments).arg("vdi_c").env("PKG_CONFIG_PATH", prefix.path().join("lib/pkgconfig"));
        tool(&mut command).trim().to_owned()
    };
    assert_eq!(pkg_config(&["--modversion"]), env!("CARGO_PKG_VERSION"), "vdi_c.pc has another version");
    // As the README builds programs.
    let program = |name, arguments: &[&str], libraries: &[&str]| {
        let program = prefix.path().join(name);
        let mut gcc = Command::new("gcc");
        gcc.arg("-std=c99").args(STRICT).arg(CAPI.join("examples/agent.c")).arg("-o").arg(&program);
        tool(gcc.args(pkg_config(arguments).split_whitespace()).args(libraries));
        program
    };
    let shared = program("shared", &["--cflags", "--libs"], &[]);
    let fixed = program("static", &["--cflags", "--libs-only-L"], &["-l:libvdi_c.a", "-lpthread", "-ldl", "-lm"]);
    let needs = |program| dynamic(program, "NEEDED").iter().any(|name| name == SONAME);
    assert!(needs(&shared) && !needs(&fixed));
    // Loaded from where it was installed: without it, the program does not start.
    let run = |program: &Path, folder: &Path| {
        let output = Command::new(program).env("LD_LIBRARY_PATH", folder).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (program, folder) in [(&shared, prefix.path().join("lib")), (&fixed, prefix.path().to_owned())] {
        let (_, said) = run(program, &folder);
        assert!(said.contains("usage: "), "{said}");
    }
    let (status, said) = run(&shared, prefix.path());
    assert!(status == Some(127) && said.contains(SONAME), "{status:?} {said}");
}
