//! `vdi-sim` under the name `sqlcmd`: the shell lines that backup agents run, while this process serves the set.

use crate::common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use common::bench::Bench;
use common::client::{config, stripe};
use common::eventually;
use common::processes::{Guarded, Outcome, Statement};
use common::tasks::{Task, task, wait_until_asleep};
use rustix::process::Signal;
use vdi_client::media::{FileMedia, StreamMedia};
use vdi_client::{ClientVirtualDeviceSet, Error, VdError, pump};

const SIM: &str = env!("CARGO_BIN_EXE_vdi-sim");
const BACKUP: &str = "BACKUP DATABASE [sales] TO VIRTUAL_DEVICE='x' WITH FORMAT, MAXTRANSFERSIZE=1048576";

/// A bench with a database `sales`, and with `sqlcmd` in a folder of its own.
struct Agent {
    bench: Bench,
    programs: tempfile::TempDir,
}

impl Agent {
    fn new() -> Agent {
        let bench = Bench::new();
        bench.database("sales", 3 << 20);
        let programs = tempfile::tempdir().unwrap();
        symlink(SIM, programs.path().join("sqlcmd")).unwrap();
        Agent { bench, programs }
    }

    /// A line for the shell, as popen and system run it, with `sqlcmd` in the PATH.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let path = std::env::var("PATH").unwrap();
        command.args(["-c", line]).env("PATH", format!("{}:{path}", self.programs.path().display()));
        command.env("VDI_SIM_DATA", self.bench.data()).env("VDI_RUNTIME_DIR", self.bench.runtime());
        command.env("OUT", self.bench.out());
        for variable in ["SQLCMDSERVER", "SQLCMDDBNAME", "SQLCMDUSER", "SQLCMDPASSWORD"] {
            command.env_remove(variable);
        }
        command
    }

    fn start(&self, line: &str) -> Statement {
        self.bench.run(self.command(line))
    }

    /// Runs a line to its end.
    #[track_caller]
    fn run(&self, line: &str) -> Outcome {
        self.start(line).outcome()
    }

    /// Runs a line to its end: its exit status, and what it printed.
    #[track_caller]
    fn ends(&self, line: &str) -> (i32, String) {
        let Outcome { status, text } = self.run(line);
        (status.code().unwrap(), text)
    }

    /// Runs a line that backs `sales` up into set `x`, which works.
    #[track_caller]
    fn backs_up(&self, line: &str) -> Outcome {
        let agent = self.bench.writing_agent("x", &config(1));
        let outcome = self.run(line);
        outcome.assert_success();
        agent.result().unwrap();
        outcome
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bench.out().join(name)
    }
}

/// A disk that is full.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::Error::from_raw_os_error(28))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_agent_s_shell_lines_back_up_and_restore() {
    let agent = Agent::new();
    let line = format!(r#"sqlcmd -U sa -P 'p' -S . -Q "{BACKUP}""#);
    let text = agent.backs_up(&line).text;
    assert!(text.starts_with("Processed ") && text.contains(" pages for database 'sales', file '"), "{text}");
    // Three mebibytes of content, the fixed pages, and the log.
    let pages = |line: &str, before: &str| line.strip_prefix(before)?.split_once(' ')?.0.parse::<u64>().ok();
    let files: u64 = text.lines().filter_map(|line| pages(line, "Processed ")).sum();
    let all = pages(text.lines().last().unwrap(), "BACKUP DATABASE successfully processed ");
    assert!(all == Some(files) && files > 384, "{text}");
    let reader = agent.bench.reading_agent("x", &config(1));
    let outcome = agent.run(
        r#"sqlcmd -U sa -P p -S . -Q "RESTORE DATABASE copy FROM VIRTUAL_DEVICE='x' WITH REPLACE, MAXTRANSFERSIZE=1048576, MOVE 'sales' TO 'copy.mdf', MOVE 'sales_1' TO 'copy_1.ndf', MOVE 'sales_log' TO 'copy_log.ldf'""#,
    );
    outcome.assert_success();
    reader.result().unwrap();
    agent.bench.assert_identical("sales", "copy");
    agent.bench.assert_databases(&["copy", "sales"]);
    agent.bench.assert_output(&["stripe-00"]);
}

#[test]
fn a_hard_link_and_attached_values_do_as_well() {
    let agent = Agent::new();
    // Links of this kind do not leave a file system.
    let programs = tempfile::tempdir_in(Path::new(SIM).parent().unwrap()).unwrap();
    fs::hard_link(SIM, programs.path().join("sqlcmd")).unwrap();
    let line = format!(
        r#"{}/sqlcmd -Usa -P-p -Stcp:localhost,1433 -b -C -N -l30 -t 0 -h-1 -W -Q"{BACKUP}""#,
        programs.path().display()
    );
    agent.backs_up(&line);
}

#[test]
fn user_server_and_database_come_from_the_environment() {
    let agent = Agent::new();
    let line = "SQLCMDUSER=sa SQLCMDPASSWORD='a secret' SQLCMDSERVER=localhost SQLCMDDBNAME=sales sqlcmd -b -Q";
    let outcome = agent.backs_up(&format!(r#"{line} "{BACKUP}""#));
    assert!(!outcome.text.contains("secret"), "{outcome:?}");
    let (status, text) = agent.ends(r#"SQLCMDDBNAME=gone sqlcmd -Q "PRINT 'x'""#);
    assert!(status == 1 && text.contains(r#"cannot open the database "gone""#), "{text}");
    let (status, text) = agent.ends(r#"SQLCMDDBNAME=gone sqlcmd -d master -Q "PRINT 'x'""#);
    assert_eq!((status, &*text), (0, "x\n"));
}

#[test]
fn the_exit_status_is_that_of_sqlcmd() {
    let agent = Agent::new();
    // Nobody has created the set.
    for (options, expected) in [("", 0), ("-b", 1), ("-V 16", 16), ("-V17", 0), ("-b -V 17", 0), ("-b -V 16", 16)] {
        let (status, text) = agent.ends(&format!(r#"sqlcmd -U sa -P 'p' -S . {options} -Q "{BACKUP}""#));
        assert_eq!(status, expected, "{options}: {text}");
        assert!(text.starts_with("Msg 3201, Level 16, State 7, Server vdi-sim, Line 1\n"), "{text}");
        let end = "Msg 3013, Level 16, State 1, Server vdi-sim, Line 1\nBACKUP DATABASE is terminating abnormally.\n";
        assert!(text.ends_with(end), "{text}");
    }
    // The statement is none.
    for (options, expected) in [("", 0), ("-b", 1), ("-V 15", 15), ("-V 16", 0)] {
        let (status, text) = agent.ends(&format!("sqlcmd {options} -Q 'BACKUP DATABASE d FORM x'"));
        let said = "Msg 102, Level 15, State 1, Server vdi-sim, Line 1\nIncorrect syntax near 'FORM'.\nline 1, column 19: \
                    incorrect syntax near 'FORM': expected TO\n";
        assert_eq!((status, &*text), (expected, said), "{options}");
    }
}

#[test]
fn a_client_that_fails_fails_the_statement() {
    let agent = Agent::new();
    for (options, expected) in [("", 0), ("-b", 1)] {
        let client = agent.bench.agent("x", &config(1), |_| Ok(StreamMedia::sink(Full)));
        let (status, text) = agent.ends(&format!(r#"sqlcmd -U sa -P 'p' -S . {options} -Q "{BACKUP}""#));
        assert_eq!(status, expected, "{text}");
        for part in ["Msg 3202, Level 16, ", "112(There is not enough space on the disk.)", "Msg 3013, "] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("successfully processed"), "{text}");
        client.result().unwrap_err();
    }
}

/// A client of an instance, which writes a file.
fn client_of(bench: &Bench, instance: &'static str) -> Task<Result<u64, Error>> {
    let set = ClientVirtualDeviceSet::with_options(bench.options());
    set.create_ex(Some(instance), "x", &config(1)).unwrap();
    let path = stripe(&bench.out(), 0);
    task("the client", move || {
        set.get_configuration(common::TEST_TIMEOUT)?;
        let mut device = set.open_device("x")?;
        let report = pump(&mut device, &mut FileMedia::create(path).unwrap())?;
        set.close()?;
        Ok(report.bytes_written)
    })
}

#[test]
fn the_instance_follows_the_backslash() {
    let agent = Agent::new();
    for server in [r".\PROD", r"host\PROD", r"tcp:db7.example.com\PROD,1433"] {
        let client = client_of(&agent.bench, "PROD");
        let (status, text) = agent.ends(&format!(r#"sqlcmd -b -S '{server}' -Q "{BACKUP}""#));
        assert_eq!(status, 0, "{text}");
        assert!(client.result().unwrap() > 3 << 20);
    }
    let (status, text) = agent.ends(&format!(r#"sqlcmd -b -S '.\TEST' -Q "{BACKUP}""#));
    assert_eq!(status, 1, "{text}");
    assert!(text.contains(r"Server vdi-sim\TEST, Line 1"), "{text}");
}

#[test]
fn names_may_need_quotes() {
    let agent = Agent::new();
    agent.bench.database("it's a [test]", 1 << 20);
    for (set, line) in [
        ("a'b;c", r#"sqlcmd -b -Q "BACKUP DATABASE [it's a [test]]] TO VIRTUAL_DEVICE = N'a''b;c';""#),
        ("GO", r#"sqlcmd -b -Q "BACKUP DATABASE \"it's a [test]\" TO VIRTUAL_DEVICE='GO'""#),
        ("$(x)", r#"sqlcmd -b -x -Q "BACKUP DATABASE [it's a [test]]] TO VIRTUAL_DEVICE='\$(x)'""#),
        ("over two", r#"sqlcmd -b -v set='over two' -Q "BACKUP DATABASE [sales] TO VIRTUAL_DEVICE='\$(SET)'""#),
    ] {
        let client = agent.bench.writing_agent(set, &config(1));
        agent.run(line).assert_success();
        client.result().unwrap();
    }
    let (status, text) = agent.ends(r#"sqlcmd -Q "BACKUP DATABASE [\$(NO_SUCH_NAME)] TO VIRTUAL_DEVICE='x'""#);
    assert!(status == 1 && text.contains("$(NO_SUCH_NAME) has no value"), "{text}");
}

#[test]
fn input_and_output_may_be_files() {
    let agent = Agent::new();
    let script = format!("\u{feff}USE [sales];\r\nSET NOCOUNT ON;\r\nGO\r\n{BACKUP}\r\nGO\r\nPRINT 'done'\r\n");
    fs::write(agent.file("in.sql"), script).unwrap();
    let client = agent.bench.writing_agent("x", &config(1));
    let (status, text) = agent.ends(r#"sqlcmd -U sa -P 'p' -S . -b -i "$OUT/in.sql" -o "$OUT/out.txt""#);
    assert_eq!((status, &*text), (0, ""));
    client.result().unwrap();
    let output = fs::read_to_string(agent.file("out.txt")).unwrap();
    assert!(output.starts_with("Changed database context to 'sales'.\nProcessed "), "{output}");
    assert!(output.contains("\nBACKUP DATABASE successfully processed ") && output.ends_with("\ndone\n"), "{output}");
    // The standard input, which is where sqlcmd reads when nothing else is given.
    let client = agent.bench.writing_agent("x", &config(1));
    let text = agent.run(&format!("sqlcmd -b <<EOF\n{BACKUP}\ngo\nPRINT 'behind'\nEOF\n")).text;
    assert!(text.contains("BACKUP DATABASE successfully processed") && text.ends_with("behind\n"), "{text}");
    client.result().unwrap();
    let text = agent.run("sqlcmd -b -q \"PRINT 'first'\" <<EOF\nPRINT 'second'\nQUIT\nPRINT 'never'\nEOF\n").text;
    assert_eq!(text, "first\n", "QUIT discards what was not run yet");
    for (line, said) in [
        (r#"sqlcmd -i "$OUT/gone.sql""#, "could not read the input file"),
        (r#"sqlcmd -Q "PRINT 'x'" -o "$OUT/gone/out""#, "could not create the output file"),
        (r#"sqlcmd -Q ":r other.sql""#, "a command that begins with ':'"),
    ] {
        let (status, text) = agent.ends(line);
        assert!(status == 1 && text.starts_with("Sqlcmd: ") && text.contains(said), "{text}");
    }
    agent.bench.assert_output(&["in.sql", "out.txt", "stripe-00"]);
}

#[test]
fn batches_run_one_after_the_other() {
    let agent = Agent::new();
    let script = "PRINT 'one'\nGO 2\n\nUSE gone; PRINT 'never'\nGO\nPRINT 'two'; EXEC p\nGO\nPRINT 'three'\n";
    fs::write(agent.file("in.sql"), script).unwrap();
    let first = "one\none\nMsg 911, Level 16, State 1, Server vdi-sim, Line 2\nDatabase 'gone' does not exist. ";
    let (status, text) = agent.ends(r#"sqlcmd -i "$OUT/in.sql""#);
    assert_eq!(status, 0);
    assert!(text.starts_with(first) && !text.contains("never"), "{text}");
    assert!(!text.contains("two"), "a batch that is not understood does not run: {text}");
    assert!(text.contains("the EXEC statement is not supported yet") && text.ends_with("three\n"), "{text}");
    let (status, text) = agent.ends(r#"sqlcmd -b -i "$OUT/in.sql""#);
    assert_eq!((status, text.lines().count()), (1, 4), "{text}");
}

#[test]
fn a_batch_goes_on_behind_a_statement_that_failed() {
    let agent = Agent::new();
    let client = agent.bench.writing_agent("x", &config(1));
    let other = "BACKUP DATABASE [sales]\nTO VIRTUAL_DEVICE='nobody'";
    let (status, text) = agent.ends(&format!("sqlcmd -b -e -Q \"PRINT 'a'\n{other};\n{BACKUP}\""));
    assert_eq!(status, 1, "{text}");
    client.result().unwrap();
    assert!(text.starts_with("PRINT 'a'\nBACKUP "), "the echo: {text}");
    assert!(text.contains("Msg 3013, Level 16, State 1, Server vdi-sim, Line 2\n"), "{text}");
    assert!(text.contains("BACKUP DATABASE successfully processed"), "{text}");
}

#[test]
fn a_backup_in_a_transaction_is_3021() {
    let agent = Agent::new();
    let (status, text) = agent.ends(&format!("sqlcmd -Q \"BEGIN TRAN\n{BACKUP}\nROLLBACK; COMMIT; ROLLBACK TRAN\""));
    let refused = "Msg 3021, Level 16, State 0, Server vdi-sim, Line 2\nCannot perform a backup or restore operation within a \
                   transaction.\na transaction is open: end it by COMMIT or ROLLBACK before the statement\nMsg 3013, Level 16, \
                   State 1, Server vdi-sim, Line 2\nBACKUP DATABASE is terminating abnormally.\n";
    assert_eq!(status, 0);
    let rest = text.strip_prefix(refused).unwrap_or_else(|| panic!("{text}"));
    let numbers: Vec<_> = rest.lines().filter(|line| line.starts_with("Msg ")).map(|line| &line[..8]).collect();
    assert_eq!(numbers, ["Msg 3902", "Msg 3903"], "{rest}");
    // A transaction lasts from batch to batch, and each COMMIT ends one.
    let client = agent.bench.writing_agent("x", &config(1));
    let line = format!("sqlcmd <<EOF\nBEGIN TRAN BEGIN TRAN COMMIT\nGO\n{BACKUP}\nGO\nCOMMIT\nGO\n{BACKUP}\nEOF\n");
    let text = agent.run(&line).text;
    client.result().unwrap();
    assert!(text.starts_with("Msg 3021, ") && text.contains("BACKUP DATABASE successfully processed"), "{text}");
}

#[test]
fn side_questions_are_answered_or_refused() {
    let agent = Agent::new();
    let (status, text) = agent.ends(r#"sqlcmd -S '.\PROD' -Q "SELECT @@SERVERNAME AS name""#);
    assert_eq!((status, &*text), (0, "name\n------------\nvdi-sim\\PROD\n\n(1 rows affected)\n"));
    let (status, text) = agent.ends(r#"sqlcmd -h -1 -W -Q "SET NOCOUNT ON; SELECT @@VERSION""#);
    assert_eq!((status, text.lines().count()), (0, 1), "{text}");
    assert!(text.starts_with("Microsoft SQL Server (simulated) - 16."), "{text}");
    let (status, text) = agent.ends(r#"sqlcmd -b -Q "SELECT name FROM sys.databases""#);
    assert!(status == 1 && text.contains("this SELECT is not supported by this simulator"), "{text}");
}

#[test]
fn messages_go_where_they_are_sent() {
    let agent = Agent::new();
    let line =
        |options: &str, shell: &str| agent.ends(&format!(r#"sqlcmd {options} -Q "PRINT 'note'; USE gone" {shell}"#)).1;
    let error = "Msg 911, Level 16, State 1, Server vdi-sim, Line 1\nDatabase 'gone' does not exist. Make sure that the name \
                 is entered correctly.\n";
    assert_eq!(line("", "2>/dev/null"), format!("note\n{error}"));
    for options in ["-r", "-r0", "-r 0"] {
        assert_eq!(line(options, "2>/dev/null"), "note\n", "{options}");
        assert_eq!(line(options, ">/dev/null"), error, "{options}");
    }
    assert_eq!(line("-r1", "2>/dev/null"), "");
    assert_eq!(line("-r1", ">/dev/null"), format!("note\n{error}"));
    assert_eq!(line("-m 11", ""), error);
    assert_eq!(line("-m 17", ""), "");
    assert_eq!(line("-m-1", ""), format!("note\n{error}"));
}

#[test]
fn an_output_file_where_errors_go_is_refused() {
    let agent = Agent::new();
    let (status, text) =
        agent.ends(r#"sqlcmd -o "$OUT/log" -Q "PRINT 'note'" 2>>"$OUT/log"; status=$?; cat "$OUT/log"; exit $status"#);
    assert!(status == 1 && text.contains("log is where this program's messages go"), "{text}");
}

#[test]
fn what_sqlcmd_would_not_begin_with_ends_with_1() {
    let agent = Agent::new();
    for (line, said) in [
        ("sqlcmd -Z secret", "'-Z': there is no such option"),
        ("sqlcmd -P my secret -Q 'PRINT 1'", "belongs to no option"),
        ("sqlcmd -U sa -P secret -Q", "'-Q': a value is missing"),
        ("sqlcmd -E -U sa -P secret", "exclude each other"),
        ("sqlcmd -U sa -P secret -d gone -Q x", r#"cannot open the database "gone""#),
        ("VDI_SIM_DATA= sqlcmd -U sa -P secret -Q x", "VDI_SIM_DATA is not set"),
        ("unset VDI_SIM_DATA; sqlcmd -U sa -P secret -Q x", "VDI_SIM_DATA is not set"),
        ("VDI_SIM_DATA=/nowhere/at/all sqlcmd -P secret -Q x", "/nowhere/at/all"),
        ("VDI_SIM_FAULTS=explode sqlcmd -P secret -Q x", "VDI_SIM_FAULTS: there is no fault \"explode\""),
        ("VDI_SIM_FAULTS=delay=soon sqlcmd -P secret -Q x", "VDI_SIM_FAULTS: \"delay=soon\""),
        ("VDI_SIM_SEED=one sqlcmd -P secret -Q x", "VDI_SIM_SEED is \"one\""),
        ("VDI_SIM_WAIT=soon sqlcmd -P secret -Q x", "VDI_SIM_WAIT is \"soon\""),
        ("VDI_SIM_TRANSCRIPT=/nowhere/at/all sqlcmd -P secret -Q x", "/nowhere/at/all"),
    ] {
        let (status, text) = agent.ends(line);
        assert!(status == 1 && text.starts_with("Sqlcmd: ") && text.contains(said), "{line}: {text}");
        assert!(!text.contains("secret"), "{line}: {text}");
    }
    let (status, text) = agent.ends("SQLCMDPASSWORD=secret sqlcmd -Q 'PRINT '\\''$(SQLCMDPASSWORD)'\\'");
    assert!(status == 1 && !text.contains("secret"), "{text}");
    let (status, text) = agent.ends("sqlcmd '-?'");
    assert!(status == 0 && text.contains("VDI_SIM_DATA") && text.contains("-Q <STATEMENTS>"), "{text}");
}

#[test]
fn faults_come_from_the_environment() {
    let agent = Agent::new();
    let client = agent.bench.writing_agent("x", &config(1));
    let variables =
        r#"VDI_SIM_FAULTS='delay=1, small-transfers abort-at=3,' VDI_SIM_SEED=7 VDI_SIM_TRANSCRIPT="$OUT/log""#;
    let (status, text) = agent.ends(&format!(r#"{variables} sqlcmd -b -U sa -P 'p' -S . -Q "{BACKUP}""#));
    assert!(status == 1 && text.contains("Msg 3013, "), "{text}");
    client.result().unwrap_err();
    let log = fs::read_to_string(agent.file("log")).unwrap();
    assert!(log.starts_with(&format!("# {BACKUP}\n")) && log.contains("fault: "), "{log}");
    // The same as by options.
    let client = agent.bench.writing_agent("x", &config(1));
    let outcome = agent.bench.sql_with(BACKUP, |command| {
        command.args(["--fault", "delay=1", "--fault", "small-transfers", "--fault", "abort-at=3", "--seed", "7"]);
        command.arg("--transcript").arg(agent.file("log2"));
    });
    outcome.outcome().assert_failure(&[]);
    client.result().unwrap_err();
    let commands = |log: &str| {
        let sent = log.lines().filter(|line| line.contains(" -> "));
        // Without the ids, which say what else was outstanding at the moment.
        let words =
            |line: &str| line.split_whitespace().skip(3).filter(|word| !word.starts_with('#')).collect::<String>();
        sent.map(words).collect::<Vec<_>>()
    };
    let log2 = fs::read_to_string(agent.file("log2")).unwrap();
    assert_eq!(commands(&log), commands(&log2));
    assert_eq!(commands(&log).len(), 2, "{log}");
}

#[test]
fn ctrl_c_cancels_the_statement_and_nothing_runs_after_it() {
    let agent = Agent::new();
    for (options, expected) in [("", 0), ("-b", 1), ("-V 16", 16)] {
        for signal in [Signal::INT, Signal::TERM] {
            let (tell, has_it) = channel();
            let script = agent.bench.scripted("x", &config(1), move |mut device, _| {
                let mut held = Vec::new();
                loop {
                    match device.get_command(common::TEST_TIMEOUT) {
                        Ok(command) => held.push(command),
                        Err(end) => return end,
                    }
                    let _ = tell.send(());
                }
            });
            // The shell makes way for the program.
            let line = format!("exec sqlcmd {options} -Q \"PRINT 'first'; {BACKUP}; PRINT 'never'\"");
            let statement = agent.start(&line);
            has_it.recv_timeout(common::TEST_TIMEOUT).unwrap();
            statement.process.signal(signal);
            let Outcome { status, text } = statement.outcome();
            assert_eq!(status.code(), Some(expected), "{options}: {text}");
            let error = |number| format!("Msg {number}, Level 16, State 1, Server vdi-sim, Line 1\n");
            let (first, last) = (error(3204), error(3013));
            assert!(text.starts_with(&format!("first\n{first}The backup or restore was aborted.\n")), "{text}");
            assert!(text.ends_with(&format!("{last}BACKUP DATABASE is terminating abnormally.\n")), "{text}");
            assert_eq!(script.result()[0].code(), VdError::Abort);
        }
    }
}

#[test]
fn ctrl_c_ends_a_sqlcmd_that_waits_for_statements() {
    let agent = Agent::new();
    let mut command = agent.command("exec sqlcmd");
    let mut process = Guarded::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (mut input, mut output) = process.pipes();
    input.write_all(b"PRINT 'here'\nGO\n").unwrap();
    let mut told = [0; 5];
    output.read_exact(&mut told).unwrap();
    wait_until_asleep(process.id(), process.id() as i32);
    process.signal(Signal::INT);
    assert_eq!(process.wait().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn the_environment_says_how_long_to_wait_for_the_set() {
    let agent = Agent::new();
    let line = format!(r#"sqlcmd -b -U sa -P 'p' -S . -Q "{BACKUP}""#);
    let statement = agent.start(&format!("VDI_SIM_WAIT=600 exec {line}"));
    wait_until_asleep(statement.process.id(), statement.process.id() as i32);
    let client = agent.bench.writing_agent("x", &config(1));
    statement.outcome().assert_success();
    client.result().unwrap();
    let (status, text) = agent.ends(&format!("VDI_SIM_WAIT=1 {line}"));
    assert!(status == 1 && text.contains(" s for the set to be created: no virtual device set \"x\""), "{text}");
}

/// Starts a line with this standard output.
fn start_with(agent: &Agent, line: &str, stdout: impl Into<Stdio>) -> Guarded {
    let mut command = agent.command(line);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(stdout);
    Guarded::start(&mut command)
}

#[test]
fn an_output_that_nobody_takes_changes_nothing() {
    let agent = Agent::new();
    let line = format!(r#"sqlcmd -b -U sa -P 'p' -S . -Q "{BACKUP}, STATS=1""#);
    // The reader closes its end before anything comes.
    let client = agent.bench.writing_agent("x", &config(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(start_with(&agent, &line, writer).wait().code(), Some(0));
    client.result().unwrap();
    // There never was an output.
    let client = agent.bench.writing_agent("x", &config(1));
    assert_eq!(agent.run(&format!("{line} >&- 2>&-")).status.code(), Some(0));
    client.result().unwrap();
    // The pipe is full, and read only when the statement is over.
    let client = agent.bench.writing_agent("x", &config(1));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let filled = fill(&writer);
    let mut process = start_with(&agent, &line, writer);
    client.result().unwrap();
    eventually("the set is gone", || match agent.bench.runtime().read_dir().unwrap().count() {
        0 => Ok(()),
        count => Err(format!("{count} files in the runtime directory")),
    });
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text.split_off(filled)).unwrap();
    assert_eq!(process.wait().code(), Some(0));
    assert!(text.contains("100 percent processed.\n") && text.contains(" successfully processed "), "{text}");
}

/// Fills a pipe; how many bytes it took.
pub(crate) fn fill(mut pipe: &std::io::PipeWriter) -> usize {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(pipe).unwrap();
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).unwrap();
    let mut filled = 0;
    while let Ok(written) = pipe.write(&[b'.'; 4096]) {
        filled += written;
    }
    fcntl_setfl(pipe, flags).unwrap();
    filled
}
