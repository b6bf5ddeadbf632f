//! Inputs for the fuzz targets to begin with.

use vdi_server_sim::faults::TABLE;

/// A name, and the input.
pub(crate) type Seed = (String, Vec<u8>);

/// A law: whether it took the input.
pub(crate) type Law = fn(&[u8]) -> bool;

/// The fuzz targets of this crate but `set`, by the names of their files: seeds, and the law.
pub(crate) fn targets() -> Vec<(&'static str, Vec<Seed>, Law)> {
    vec![
        ("statement", statement(), super::statement::statement),
        ("fault", fault(), super::fault::fault),
        ("script", script(), super::script::script),
        ("options", options(), super::options::options),
    ]
}

fn texts(texts: &[&str]) -> Vec<Seed> {
    texts.iter().enumerate().map(|(at, text)| (format!("text-{at:02}"), text.as_bytes().to_vec())).collect()
}

/// Every option of either verb, every way to write a name, comments, several devices.
fn statement() -> Vec<Seed> {
    texts(&[
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='s'",
        "restore database [a]]b] from virtual_device = N'it''s', VIRTUAL_DEVICE='t' with replace;;",
        "BACKUP DATABASE \"d\"\"e\" TO VIRTUAL_DEVICE='s' WITH FORMAT, INIT, SKIP, UNLOAD, REWIND, CHECKSUM, \
         COMPRESSION (ALGORITHM = ZSTD, LEVEL = HIGH), COPY_ONLY, STATS, MAXTRANSFERSIZE=65536, BLOCKSIZE = 512, BUFFERCOUNT=7",
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='s' WITH NOFORMAT, NOINIT, NOSKIP, NOUNLOAD, NOREWIND, NO_CHECKSUM, STOP_ON_ERROR, \
         NO_COMPRESSION, RESTART, EXPIREDATE='2030-01-01', RETAINDAYS=7, NAME='n', DESCRIPTION=N'ü', MEDIANAME='', MEDIADESCRIPTION='m' -- done",
        "/* a /* b */ */ BACKUP DATABASE d TO VIRTUAL_DEVICE='s' WITH SNAPSHOT, STATS=100",
        "RESTORE DATABASE d\nFROM VIRTUAL_DEVICE='s'\nWITH KEEP_REPLICATION, FILE=1, SNAPSHOT, MEDIANAME='m', STATS=5",
        "RESTORE DATABASE d FROM VIRTUAL_DEVICE='s' WITH RECOVERY, MAXTRANSFERSIZE=4194304, BLOCKSIZE=65536, BUFFERCOUNT=1",
        "BACKUP DATABASE d FILE='f', FILEGROUP=N'g''h' TO DISK='/b/d.bak', DISK='d2.bak' WITH RETAINDAYS=7, CONTINUE_AFTER_ERROR, INIT",
        "RESTORE DATABASE d FROM DISK='/b/d.bak' WITH FILE=3, MOVE 'd' TO '/x/d.mdf', MOVE N'l''g' TO 'l.ldf', CONTINUE_AFTER_ERROR",
        "RESTORE LABELONLY FROM VIRTUAL_DEVICE='s' WITH BLOCKSIZE=512, MAXTRANSFERSIZE=65536",
        "restore filelistonly from disk='a.bak' with file = 2; -- files",
        "RESTORE HEADERONLY FROM DISK=N'a.bak', DISK='b.bak' WITH NOUNLOAD",
        "RESTORE VERIFYONLY FROM VIRTUAL_DEVICE='s' WITH CHECKSUM, STATS=5, FILE=1",
    ])
}

/// Every fault, with a value where it has one.
fn fault() -> Vec<Seed> {
    let value = |syntax: &str| match syntax {
        "" => String::new(),
        "N:MS" => "=3:9".to_owned(),
        "CALL:CODE" => "=OpenDevice:VD_E_OPEN".to_owned(),
        _ => "=12".to_owned(),
    };
    TABLE
        .iter()
        .map(|help| (help.name.to_owned(), format!("{}{}", help.name, value(help.value)).into_bytes()))
        .collect()
}

/// Batches of every step, and lines for sqlcmd itself.
fn script() -> Vec<Seed> {
    texts(&[
        "use [sales]; set nocount on\nSET ANSI_NULLS, QUOTED_IDENTIFIER ON SET LOCK_TIMEOUT 5;;\n  BACKUP DATABASE [use;] -- é;\n \
         TO VIRTUAL_DEVICE=N'ü;set' WITH STATS=5 PRINT 'it''s';select @@version as v",
        "BACKUP DATABASE d TO VIRTUAL_DEVICE='s'\n;",
        "\n  RESTORE DATABASE d FROM VIRTUAL_DEVICE='s', VIRTUAL_DEVICE='t'",
        "SELECT 5 n SELECT 'x' AS [y] SELECT @@SERVERNAME PRINT N'ü'",
        "PRINT '$(db)$(set) $( $() $(a b)'",
        "SET NOCOUNT OFF",
        "CREATE DATABASE [d] ON PRIMARY (NAME=a, FILENAME='a.mdf', SIZE=8MB, MAXSIZE=UNLIMITED, FILEGROWTH=10%), FILEGROUP g (NAME='b', \
         FILENAME=N'b.ndf') LOG ON (NAME=l, FILENAME='l.ldf', SIZE=1 GB)\nALTER DATABASE d SET RECOVERY SIMPLE, MULTI_USER WITH ROLLBACK \
         IMMEDIATE; DROP DATABASE IF EXISTS d, [e]",
        "BEGIN TRAN t; SELECT 99999999999.50 COMMIT TRANSACTION t\nROLLBACK WORK",
    ])
}

/// Arguments as agents give them, a line each. What no message may repeat is in some of them.
fn options() -> Vec<Seed> {
    texts(&[
        "-S\n.\\PROD\n-Usa\n-P§secret\n-QBACKUP x\n-b\n-h-1\n-m-1\n-V\n16\n-r1\n-va=1\n-t0",
        "-Stcp:host\\PROD,1433\n-E\n-d\nd\n-i\none,two\n-v\na=1\nb=\"2 3\"\n-p\n-k1\n-X\n-N\n-C",
        "-q\nx\n-o\nf\n-e\n-x\n-I\n-w\n80\n-y\n1\n-Y\n1\n-a\n512\n-A\n-K\nReadOnly\n-M\n-G\n-R\n-f\n65001\n-g\n-H\nh\n-c\nGO\n-l\n5\n-W\n-s\n,",
        "-?",
    ])
}
