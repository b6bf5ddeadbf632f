//! What to do where the system lacks or forbids something.

use std::io;

use rustix::io::Errno;

/// What an operation needs of the system. One error number means different things for different operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Making or asking for an object of the kernel: a socket, a connection, a thread, random numbers.
    Object,
    /// Making, taking or mapping shared memory.
    Memory,
    /// Creating, opening, locking or using something in the runtime directory.
    Directory,
    /// Sending or receiving packets.
    Packet,
}

const MEMORY: &str =
    "; free memory, raise the process's limits (ulimit -v, its control group), or ask for fewer or smaller buffers";
const KERNEL_MEMORY: &str = "; free memory, or raise the limit of the process's control group";
const CONFINED: &str = "; have whatever confines this process (seccomp, a container's profile, RestrictAddressFamilies) \
                        permit it";

/// What to do about an error, to be put behind its text. Empty where there is nothing to say.
pub(crate) fn remedy(operation: Operation, error: &io::Error) -> &'static str {
    let Some(errno) = Errno::from_io_error(error) else { return "" };
    match errno {
        Errno::MFILE => return "; raise this process's limit of descriptors (ulimit -n)",
        Errno::NFILE => return "; raise the system's limit of open files (sysctl fs.file-max)",
        _ => {}
    }
    match operation {
        Operation::Object => of_object(errno),
        Operation::Memory => of_memory(errno),
        Operation::Directory => of_directory(errno),
        Operation::Packet => of_packet(errno),
    }
}

const fn of_object(errno: Errno) -> &'static str {
    match errno {
        // Also where there is no memory for the stack of a thread.
        Errno::AGAIN => {
            "; raise the limits of threads and of memory (ulimit -u, ulimit -v, the process's control group)"
        }
        Errno::NOMEM | Errno::NOBUFS => KERNEL_MEMORY,
        Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::AFNOSUPPORT => CONFINED,
        _ => "",
    }
}

const fn of_memory(errno: Errno) -> &'static str {
    match errno {
        // A memfd has no file system that could be full: its space is memory.
        Errno::NOMEM | Errno::NOSPC => MEMORY,
        Errno::AGAIN => "; raise the process's limit of locked memory (ulimit -l)",
        Errno::FBIG => {
            "; raise the process's limit of the size of files (ulimit -f), or ask for fewer or smaller buffers"
        }
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => CONFINED,
        _ => "",
    }
}

const fn of_directory(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC => {
            "; free space and inodes in its file system (df, df -i), or set VDI_RUNTIME_DIR to a directory in another one"
        }
        Errno::DQUOT => {
            "; free some of this user's quota in its file system, or set VDI_RUNTIME_DIR to a directory in another one"
        }
        Errno::ROFS => "; its file system is read-only: set VDI_RUNTIME_DIR to a directory that can be written to",
        Errno::NAMETOOLONG => "; set VDI_RUNTIME_DIR to a directory with a shorter path",
        Errno::NOENT => "; create the directory, or set VDI_RUNTIME_DIR to one that exists",
        Errno::NOTDIR | Errno::LOOP => "; set VDI_RUNTIME_DIR to a path on which everything is a directory",
        Errno::ACCESS => {
            "; let this user in (permissions, SELinux, AppArmor), or set VDI_RUNTIME_DIR to a directory of its own"
        }
        Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK => {
            "; its file system, an attribute (lsattr) or what confines this process does not permit that: set \
             VDI_RUNTIME_DIR to a directory in a local file system, a tmpfs for example"
        }
        Errno::AGAIN => {
            "; another process keeps it locked: end that (fuser shows it), or set VDI_RUNTIME_DIR to another directory"
        }
        Errno::IO => "; check its file system, or set VDI_RUNTIME_DIR to a directory in another one",
        Errno::NOMEM | Errno::NOBUFS => KERNEL_MEMORY,
        _ => "",
    }
}

const fn of_packet(errno: Errno) -> &'static str {
    match errno {
        Errno::AGAIN => "; the process at the other end does not read what it is sent: check whether it was stopped",
        Errno::TOOMANYREFS => "; raise this user's limit of descriptors (ulimit -n): too many are on their way",
        Errno::NOMEM | Errno::NOBUFS => KERNEL_MEMORY,
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => CONFINED,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::error::SystemError;
    use crate::ipc::segment::SegmentError;

    const ALL: [Operation; 4] = [Operation::Object, Operation::Memory, Operation::Directory, Operation::Packet];

    /// A row an error number: what the remedy of each operation says, in the order of [`ALL`]. Nothing where it is empty.
    const TABLE: [(Errno, [&str; 4]); 21] = [
        (Errno::MFILE, ["ulimit -n"; 4]),
        (Errno::NFILE, ["fs.file-max"; 4]),
        (Errno::NOMEM, ["control group", "ulimit -v", "control group", "control group"]),
        (Errno::NOBUFS, ["control group", "", "control group", "control group"]),
        (Errno::NOSPC, ["", "smaller buffers", "free space and inodes", ""]),
        (Errno::DQUOT, ["", "", "quota", ""]),
        (Errno::ROFS, ["", "", "read-only", ""]),
        (Errno::NAMETOOLONG, ["", "", "shorter path", ""]),
        (Errno::NOENT, ["", "", "create the directory", ""]),
        (Errno::NOTDIR, ["", "", "everything is a directory", ""]),
        (Errno::LOOP, ["", "", "everything is a directory", ""]),
        (Errno::ACCESS, ["seccomp", "seccomp", "let this user in", "seccomp"]),
        (Errno::PERM, ["seccomp", "seccomp", "local file system", "seccomp"]),
        (Errno::NOSYS, ["seccomp", "seccomp", "local file system", "seccomp"]),
        (Errno::OPNOTSUPP, ["", "", "local file system", ""]),
        (Errno::NOLCK, ["", "", "local file system", ""]),
        (Errno::AFNOSUPPORT, ["RestrictAddressFamilies", "", "", ""]),
        (Errno::AGAIN, ["ulimit -u", "ulimit -l", "keeps it locked", "does not read"]),
        (Errno::FBIG, ["", "ulimit -f", "", ""]),
        (Errno::TOOMANYREFS, ["", "", "", "on their way"]),
        (Errno::IO, ["", "", "check its file system", ""]),
    ];

    #[test]
    fn remedies_fit_the_operation_and_the_error() {
        for (errno, expected) in TABLE {
            for (operation, expected) in ALL.into_iter().zip(expected) {
                let found = remedy(operation, &errno.into());
                let what = format!("{operation:?} {errno}: {found:?}");
                assert_eq!(found.is_empty(), expected.is_empty(), "{what}");
                assert!(found.contains(expected), "{what}");
                assert!(found.is_empty() || found.starts_with("; "), "{what}");
                // Only memory is mended by limits of memory or smaller buffers, and only a directory by another one.
                assert!(operation == Operation::Memory || !found.contains("buffers"), "{what}");
                assert!(operation == Operation::Directory || !found.contains("VDI_RUNTIME_DIR"), "{what}");
            }
        }
    }

    /// The text of an error has the action, the system's reason and the remedy, once each.
    #[test]
    fn errors_have_action_reason_and_remedy() {
        let full = SystemError::of(Operation::Directory, "bind the socket /run/vdi/s.vdi", Errno::NOSPC).to_string();
        assert_eq!(
            full,
            "could not bind the socket /run/vdi/s.vdi: No space left on device (os error 28); free space and inodes in its \
             file system (df, df -i), or set VDI_RUNTIME_DIR to a directory in another one"
        );
        let segment = SegmentError::System { action: "create", len: 4096, source: Errno::NOSPC.into() }.to_string();
        assert!(segment.starts_with("could not create a shared segment of 4096 bytes: No space left"), "{segment}");
        assert!(segment.ends_with("fewer or smaller buffers"), "{segment}");
        let foreign = SystemError::new("do it", io::Error::other("for no number")).to_string();
        assert_eq!(foreign, "could not do it: for no number");
    }

    #[test]
    fn descriptors_that_are_no_segment_are_shown_without_debug_text() {
        let found = |found| SegmentError::NotSealed { expected: 4096, found }.to_string();
        assert_eq!(
            found(Some(419_430_417_408)),
            "the peer passed a descriptor that is not a sealed memfd of 4096 bytes, but one of 419430417408 bytes"
        );
        assert!(found(None).ends_with("of 4096 bytes, but something else"));
    }
}
