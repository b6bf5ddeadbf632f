//! Descriptors that a peer may pass and that are no segment.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use vdi_shm::ipc::segment::Segment;

/// The seals of a segment.
pub const SEALED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

pub fn memfd(len: u64, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("vdi-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a memfd");
    rustix::fs::ftruncate(&fd, len).expect("a length");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("seals");
    fd
}

/// Another descriptor of the same memory.
pub fn duplicate(segment: &Segment) -> OwnedFd {
    segment.fd().try_clone_to_owned().expect("a descriptor")
}

/// Sealed memory in huge pages, where the system has such.
pub fn huge_pages(len: u64) -> rustix::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let fd = rustix::fs::memfd_create("vdi-test", flags)?;
    rustix::fs::ftruncate(&fd, len)?;
    rustix::fs::fcntl_add_seals(&fd, SEALED)?;
    Ok(fd)
}

/// A good segment of `len` bytes, opened again without the permission to write.
fn read_only(len: u64) -> OwnedFd {
    use std::os::fd::AsRawFd;
    let fd = memfd(len, SEALED);
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("our own memory")
}

/// What is no segment of `len` bytes: with what it is, and the descriptor.
pub fn no_segments(len: u64) -> Vec<(&'static str, OwnedFd)> {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(len).expect("a length");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let zero = std::fs::OpenOptions::new().read(true).write(true).open("/dev/zero").expect("a device");
    let directory = rustix::fs::open(".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("a directory");
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an event descriptor");
    vec![
        ("a pipe's end", reader.into()),
        ("a pipe's other end", writer.into()),
        ("a file", file.into()),
        ("a directory", directory),
        ("a socket", socket.into()),
        ("a device", zero.into()),
        ("an event descriptor", event),
        ("an unsealed memfd", memfd(len, SealFlags::empty())),
        ("one that can grow", memfd(len, SealFlags::SHRINK | SealFlags::SEAL)),
        ("one that can shrink", memfd(len, SealFlags::GROW | SealFlags::SEAL)),
        ("one that takes more seals", memfd(len, SealFlags::SHRINK | SealFlags::GROW)),
        ("one that cannot be written to", memfd(len, SEALED | SealFlags::WRITE)),
        ("one that cannot be mapped for writing", memfd(len, SEALED | SealFlags::FUTURE_WRITE)),
        ("one that is open for reading only", read_only(len)),
        ("a shorter one", memfd(len - 1, SEALED)),
        ("a longer one", memfd(len + 1, SEALED)),
        ("an empty one", memfd(0, SEALED)),
    ]
}
