//! A Unix socket, which carries the bytes itself.

use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::sockopt;

use super::{Give, Take, sum};
use crate::processes::{Fallible, Start};

/// What each end asks the system to hold. The system may hold less.
const ROOM: usize = 1 << 20;

struct Socket {
    stream: UnixStream,
    chunk: Vec<u8>,
}

impl Socket {
    fn new(stream: UnixStream, size: usize) -> Socket {
        let _ = sockopt::set_socket_send_buffer_size(&stream, ROOM);
        let _ = sockopt::set_socket_recv_buffer_size(&stream, ROOM);
        Socket { stream, chunk: vec![0; size] }
    }
}

impl Give for Socket {
    fn give(&mut self, chunk: &[u8]) {
        self.stream.write_all(chunk).expect("the other end lives");
    }
}

impl Take for Socket {
    fn take(&mut self) -> u64 {
        self.stream.read_exact(&mut self.chunk).expect("the other end lives");
        sum(black_box(&self.chunk))
    }
}

pub(crate) fn drive(dir: &Path, size: usize) -> Fallible<()> {
    let listener = UnixListener::bind(dir.join("socket"))?;
    let peer = Start::new("socket-peer", dir).with(size.to_string()).start()?;
    let (stream, _) = listener.accept()?;
    super::drive_data(Socket::new(stream, size), peer, size)
}

pub(crate) fn peer(dir: &Path, size: usize) -> Fallible<()> {
    super::take_data(Socket::new(UnixStream::connect(dir.join("socket"))?, size))
}
