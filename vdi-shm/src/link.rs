//! Packets with descriptors between two processes: a Unix socket that keeps message boundaries.
//!
//! A packet is at most [`MAX_MESSAGE`] bytes; longer ones are cut by the receiver and then fail to decode. The end of a
//! link is noticed as soon as the peer's process ends, however it ends.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use vdi_proto::join::{MAX_MESSAGE, Message};

use crate::error::ShmError;
use crate::segment::{Segment, SegmentError};

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

/// What came over a link.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // made, matched and gone: boxing would only allocate
pub enum Received {
    /// A packet, and the descriptor that came with it.
    Packet(Packet),
    /// Nothing, for now.
    Nothing,
    /// The peer closed its end or died.
    HungUp,
}

/// A packet.
#[derive(Debug)]
pub struct Packet {
    bytes: [u8; MAX_MESSAGE + 1],
    len: usize,
    descriptor: Option<OwnedFd>,
    /// Descriptors came that this process could not take.
    lost: bool,
}

impl Packet {
    /// The message in it.
    ///
    /// # Errors
    /// [`ShmError::Join`] when there is none.
    pub fn message(&self) -> Result<Message<'_>, ShmError> {
        Ok(Message::decode(&self.bytes[..self.len])?)
    }

    /// Takes the descriptor out, if exactly one came.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Takes the segment of `len` bytes out that has to have come.
    ///
    /// # Errors
    /// [`ShmError::Segment`] for anything but such a segment, and where this process has no descriptor left for it;
    /// [`ShmError::OutOfTurn`] where none or several came.
    pub fn take_segment(&mut self, len: u64) -> Result<Segment, ShmError> {
        match self.take_descriptor() {
            Some(descriptor) => Ok(Segment::from_peer(descriptor, len)?),
            None if self.lost => {
                let (action, source) = ("take", Errno::MFILE.into());
                Err(SegmentError::System { action, len, source }.into())
            }
            None => Err(ShmError::OutOfTurn { found: "no or several descriptors", expected: "a segment" }),
        }
    }
}

/// Who is at the other end, as the system saw it when the link was made: for one who accepts, the process that connected,
/// at that moment; for one who connects, the process that began to listen. What becomes of that process later, and who gets
/// the socket from it, changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 where that is none here, because it lives outside of this process's container.
    pub pid: i32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

impl Link {
    /// Takes over a connected socket that keeps message boundaries.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Link {
        Link { socket }
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// [`ShmError::System`].
    pub fn peer(&self) -> Result<Peer, ShmError> {
        crate::sys::peer(self.socket.as_fd())
            .map_err(|errno| ShmError::system("ask who is at the other end of a socket", errno))
    }

    /// Sends a message without waiting: a peer that does not read its messages is as good as dead.
    ///
    /// # Errors
    /// [`ShmError::System`] when the peer is gone or does not read.
    pub fn send(&self, message: &Message<'_>, descriptor: Option<BorrowedFd<'_>>) -> Result<(), ShmError> {
        let encoded = message.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.as_slice();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let bytes = [std::io::IoSlice::new(encoded.bytes())];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::sendmsg(&self.socket, &bytes, &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ShmError::system("send a join message", errno)),
            }
        }
    }

    /// Receives the next packet, without waiting.
    ///
    /// # Errors
    /// [`ShmError::System`]; a connection that was reset counts as hung up.
    pub fn receive(&self) -> Result<Received, ShmError> {
        let mut packet = Packet { bytes: [0; MAX_MESSAGE + 1], len: 0, descriptor: None, lost: false };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut reset = false;
        let received = loop {
            let mut bytes = [std::io::IoSliceMut::new(&mut packet.bytes)];
            match rustix::net::recvmsg(&self.socket, &mut bytes, &mut ancillary, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                // A peer that closed its end without having read everything. It is told once, before what the peer sent:
                // there may be a reason among it.
                Err(Errno::CONNRESET) if !reset => reset = true,
                Err(Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN) => return Ok(Received::HungUp),
                Err(errno) => return Err(ShmError::system("receive a join message", errno)),
            }
        };
        if received.bytes == 0 {
            return Ok(Received::HungUp);
        }
        packet.len = received.bytes;
        // No message has two, so that which of several is meant cannot be told: all of them are closed here.
        let mut descriptors = Vec::new();
        let cut = received.flags.contains(ReturnFlags::CTRUNC);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        packet.lost = cut && descriptors.is_empty();
        packet.descriptor = if descriptors.len() == 1 { descriptors.pop() } else { None };
        Ok(Received::Packet(packet))
    }

    /// Waits for the next packet until `deadline`.
    ///
    /// # Errors
    /// [`ShmError::Timeout`] naming `step`, [`ShmError::System`].
    pub fn receive_until(&self, deadline: Instant, step: &'static str) -> Result<Received, ShmError> {
        loop {
            match self.receive()? {
                Received::Nothing => {}
                received => return Ok(received),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ShmError::Timeout { step });
            }
            poll_readable(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(left))?;
        }
    }

    /// Ends the link on both sides; whoever waits on it wakes.
    pub fn shut_down(&self) {
        // Fails only when the peer is gone, which is what it is for.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of the descriptors is ready, for `timeout` at most.
pub(crate) fn poll_readable(descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), ShmError> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match rustix::event::poll(descriptors, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(ShmError::system("wait for messages", errno)),
    }
}
