//! What people see: `vdi-sim databases`, `history`, `sample` and `write`, and result sets by `sqlcmd`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    /// Runs `vdi-sim COMMAND --data DIR ARGUMENTS`: whether it succeeded, its output and its errors.
    fn run(&self, command: &str, arguments: &[&str]) -> (bool, String, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
        program.arg(command).arg("--data").arg(self.folder.path()).args(arguments);
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Open until the program has ended: `write` ends with its input.
        let input = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(input);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn lines(&self, command: &str, arguments: &[&str]) -> Vec<String> {
        let (succeeded, out, err) = self.run(command, arguments);
        assert!(succeeded, "{out}{err}");
        assert_eq!(err, "", "nothing is for the standard error");
        out.lines().map(str::to_owned).collect()
    }
}

/// A line with its times taken out, and one space between two words.
fn without_times(line: &str) -> String {
    let is_time = |word: &&str| word.contains([':', '-']) && word.starts_with(|c: char| c.is_ascii_digit());
    line.split_whitespace().filter(|word| !is_time(word)).collect::<Vec<_>>().join(" ")
}

#[test]
fn databases_and_history_tell_what_there_is() {
    let place = Place::new();
    let (succeeded, _, err) = place.run("databases", &[]);
    assert!(!succeeded && err.contains("has no catalog"), "{err}");
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0, "looking makes nothing");
    place.lines("sample", &["--database", "Sales", "--size", "1M"]);
    let sql = "CREATE DATABASE empty; ALTER DATABASE empty SET RECOVERY SIMPLE; ALTER DATABASE empty SET OFFLINE; \
               BACKUP DATABASE Sales TO DISK = 'a.bak' WITH NAME = 'nightly', COPY_ONLY; \
               RESTORE DATABASE sales FROM DISK = 'a.bak' WITH REPLACE";
    place.lines("sql", &["-Q", sql]);
    let databases = place.lines("databases", &[]);
    assert_eq!(
        databases[0].split_whitespace().collect::<Vec<_>>().join(" "),
        "name state recovery size last full backup"
    );
    assert!(
        without_times(&databases[2]).starts_with("Sales ONLINE FULL ") && !databases[2].ends_with("never"),
        "{databases:?}"
    );
    assert_eq!(without_times(&databases[3]), "empty OFFLINE SIMPLE 16.0 MB never");
    let history = place.lines("history", &[]);
    let shown: Vec<_> = history[2..].iter().map(|line| without_times(line)).collect();
    assert_eq!(shown.len(), 2, "{history:?}");
    assert_eq!(shown[0], "Sales restore of Sales, with replace");
    assert!(shown[1].starts_with("Sales backup full, copy only "), "{shown:?}");
    let path = place.folder.path().join("a.bak");
    assert!(shown[1].ends_with(&format!(" MB nightly {}", path.display())), "{shown:?}");
    assert_eq!(place.lines("history", &["--database", "EMPTY"]).len(), 2, "the head alone");
    assert_eq!(place.lines("history", &["--database", "SALES"]).len(), 4);
}

#[test]
fn a_folder_whose_catalog_is_missing_says_so() {
    let place = Place::new();
    fs::write(place.folder.path().join("catalog.lock"), "").unwrap();
    for command in ["databases", "history"] {
        let (succeeded, _, err) = place.run(command, &[]);
        assert!(!succeeded && err.contains("is missing") && err.contains("catalog.sqlite"), "{err}");
    }
}

#[test]
fn help_has_help() {
    for option in ["--help", "-h"] {
        let output = Command::new(env!("CARGO_BIN_EXE_vdi-sim")).args(["help", option]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_sample_is_written_to() {
    let place = Place::new();
    place.lines("sample", &["--database", "d", "--size", "300K"]);
    assert_eq!(place.lines("write", &["--database", "D", "--count", "70"]), ["wrote 64", "wrote 70"]);
    let (succeeded, _, err) = place.run("write", &["--database", "gone"]);
    assert!(!succeeded && err.contains("database 'gone' does not exist"), "{err}");
    place.lines("sql", &["-Q", "CREATE DATABASE empty"]);
    let (succeeded, _, err) = place.run("write", &["--database", "empty"]);
    assert!(!succeeded && err.contains("has no page with content"), "{err}");
    let (succeeded, _, err) = place.run("sample", &["--database", "d"]);
    assert!(!succeeded && err.contains("already exists"), "{err}");
}

/// Files of a user go out and come back with a database.
#[test]
fn a_sample_may_carry_files() {
    let (place, files) = (Place::new(), tempfile::tempdir().unwrap());
    fs::write(files.path().join("a"), b"some bytes").unwrap();
    place.lines("sample", &["--database", "d", "--files", files.path().to_str().unwrap()]);
    assert!(place.lines("databases", &[])[2].starts_with("d "));
}

#[test]
fn a_result_is_read_by_the_names_of_its_columns() {
    let (place, programs) = (Place::new(), tempfile::tempdir().unwrap());
    place.lines("sql", &["-Q", "CREATE DATABASE d; BACKUP DATABASE d TO DISK = 'd.bak'"]);
    let sqlcmd = programs.path().join("sqlcmd");
    symlink(env!("CARGO_BIN_EXE_vdi-sim"), &sqlcmd).unwrap();
    let run = |options: &[&str]| {
        let mut command = Command::new(&sqlcmd);
        command.args(options).args(["-b", "-Q", "SET NOCOUNT ON RESTORE FILELISTONLY FROM DISK = 'd.bak'"]);
        let output = command.env("VDI_SIM_DATA", place.folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["-W", "-s", ";"]);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(';').collect()).collect();
    assert_eq!((lines.len(), lines[0][..3].to_vec()), (4, vec!["LogicalName", "PhysicalName", "Type"]));
    assert_eq!((lines[2][0], lines[2][2], lines[3][0], lines[3][2]), ("d", "D", "d_log", "L"));
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
    // Filled up with spaces, each line is as long as the others but for the last column.
    let text = run(&[]);
    let hyphens = text.lines().nth(1).unwrap();
    assert!(
        hyphens.starts_with("----------- ---") && text.lines().nth(2).unwrap().starts_with("d           /"),
        "{text}"
    );
}
