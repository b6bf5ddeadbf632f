//! Unix sockets and pipes, which carry the bytes themselves.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, sockopt};
use rustix::pipe::fcntl_setpipe_size;
use vdi_beside::processes::{Fallible, Process, Start};
use vdi_beside::set::sum;

use super::{Answer, Ask, Give, Take, Words};

/// What a wire asks the system to hold; where it does not want to, it is as it is.
const ROOM: usize = 1 << 20;

/// Which wire.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Stream,
    Packets,
    Pipe,
}

impl Kind {
    pub(crate) fn parse(word: &str) -> Fallible<Kind> {
        match word {
            "unix" => Ok(Kind::Stream),
            "seqpacket" => Ok(Kind::Packets),
            "pipe" => Ok(Kind::Pipe),
            other => Err(format!("no wire is called {other}").into()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Stream => "unix",
            Kind::Packets => "seqpacket",
            Kind::Pipe => "pipe",
        }
    }

    /// The driver's end, and the peer in a role.
    fn drive(self, dir: &Path, role: &str, size: usize) -> Fallible<(Wire, Process)> {
        let start = Start::new(role, dir).with(self.word()).with(size.to_string());
        let path = dir.join("wire");
        match self {
            Kind::Stream => {
                let listener = UnixListener::bind(&path)?;
                let peer = start.start()?;
                let (stream, _) = listener.accept()?;
                Ok((Wire::both_ways(stream.into())?, peer))
            }
            Kind::Packets => {
                let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
                rustix::net::bind(&listener, &SocketAddrUnix::new(&path)?)?;
                rustix::net::listen(&listener, 1)?;
                let peer = start.start()?;
                Ok((Wire::both_ways(rustix::net::accept(&listener)?)?, peer))
            }
            Kind::Pipe => {
                for name in ["there", "back"] {
                    mknodat(CWD, dir.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
                }
                let peer = start.start()?;
                Ok((Wire::fifos(dir, "there", "back")?, peer))
            }
        }
    }

    /// The peer's end.
    fn join(self, dir: &Path) -> Fallible<Wire> {
        let path = dir.join("wire");
        match self {
            Kind::Stream => Wire::both_ways(UnixStream::connect(path)?.into()),
            Kind::Packets => {
                let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
                rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
                Wire::both_ways(socket)
            }
            Kind::Pipe => Wire::fifos(dir, "back", "there"),
        }
    }
}

struct Wire {
    out: File,
    back: File,
    chunk: Vec<u8>,
}

impl Wire {
    fn both_ways(socket: OwnedFd) -> Fallible<Wire> {
        let _ = sockopt::set_socket_send_buffer_size(&socket, ROOM);
        let _ = sockopt::set_socket_recv_buffer_size(&socket, ROOM);
        Ok(Wire { back: socket.try_clone()?.into(), out: socket.into(), chunk: Vec::new() })
    }

    fn fifos(dir: &Path, out: &str, back: &str) -> Fallible<Wire> {
        // For both directions, so that no end waits for the other to open it.
        let open = |name| OpenOptions::new().read(true).write(true).open(dir.join(name));
        let (out, back) = (open(out)?, open(back)?);
        let _ = fcntl_setpipe_size(out.as_fd(), ROOM);
        Ok(Wire { out, back, chunk: Vec::new() })
    }

    fn with_chunks(mut self, size: usize) -> Wire {
        self.chunk = vec![0; size];
        self
    }

    fn send(&mut self, words: Words) {
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        self.out.write_all(&bytes).expect("the other end lives");
    }

    fn receive(&mut self) -> Words {
        let mut bytes = [0; 32];
        if self.back.read_exact(&mut bytes).is_err() {
            // The other end is gone, and so is whoever wants to know.
            std::process::exit(0);
        }
        let (words, _) = bytes.as_chunks::<8>();
        std::array::from_fn(|index| u64::from_le_bytes(words[index]))
    }
}

impl Ask for Wire {
    fn ask(&mut self, record: Words) -> Words {
        self.send(record);
        self.receive()
    }
}

impl Answer for Wire {
    fn answer(&mut self) -> Words {
        let record = self.receive();
        self.send(record);
        record
    }
}

impl Give for Wire {
    fn give(&mut self, chunk: &[u8]) {
        self.out.write_all(chunk).expect("the other end lives");
    }
}

impl Take for Wire {
    fn take(&mut self) -> u64 {
        self.back.read_exact(&mut self.chunk).expect("the other end lives");
        sum(black_box(&self.chunk))
    }
}

pub(crate) fn drive_records(dir: &Path, kind: Kind) -> Fallible<()> {
    let (wire, peer) = kind.drive(dir, "wire-peer", 0)?;
    super::drive_records(wire, peer, Default::default())
}

pub(crate) fn records_peer(dir: &Path, kind: Kind) -> Fallible<()> {
    super::answer_records(kind.join(dir)?)
}

pub(crate) fn drive_data(dir: &Path, kind: Kind, size: usize) -> Fallible<()> {
    let (wire, peer) = kind.drive(dir, "wire-data-peer", size)?;
    super::drive_data(wire, peer, size)
}

pub(crate) fn data_peer(dir: &Path, kind: Kind, size: usize) -> Fallible<()> {
    super::take_data(kind.join(dir)?.with_chunks(size))
}
