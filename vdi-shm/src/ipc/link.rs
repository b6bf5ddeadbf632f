//! Packets with descriptors between two processes: a Unix socket that keeps message boundaries.
//!
//! The end of a link is noticed as soon as the peer's process ends, however it ends.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use thiserror::Error;

use crate::ipc::error::{Operation, SystemError};
use crate::ipc::segment::{Segment, SegmentError};
pub use crate::ipc::sys::Peer;

/// The most bytes of a packet.
pub const MAX_PACKET: usize = 1024;

/// Why a packet was not sent or received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
    /// No packet came before the deadline.
    #[error("no packet came in time")]
    Timeout,
}

impl LinkError {
    fn system(action: &str, errno: Errno) -> Self {
        LinkError::System(SystemError::of(Operation::Packet, action, errno))
    }
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

/// What came over a link.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // short-lived: a box would only allocate
pub enum Received {
    /// A packet.
    Packet(Packet),
    /// Nothing, for now.
    Nothing,
    /// The peer closed its end or died.
    HungUp,
}

/// A packet, and the descriptor that came with it.
#[derive(Debug)]
pub struct Packet {
    bytes: [u8; MAX_PACKET + 1],
    len: usize,
    descriptor: Option<OwnedFd>,
    /// Descriptors came that this process could not take.
    lost: bool,
}

impl Packet {
    /// The bytes. A packet that was longer than [`MAX_PACKET`] is cut to one byte more than that.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Takes the descriptor out, if exactly one came.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Takes the segment of `len` bytes out that has to have come.
    ///
    /// # Errors
    /// [`SegmentError::NotSealed`] for another descriptor; [`SegmentError::NoDescriptor`] where none or several came;
    /// [`SegmentError::System`] where this process has no descriptor left for it.
    pub fn take_segment(&mut self, len: u64) -> Result<Segment, SegmentError> {
        match self.take_descriptor() {
            Some(descriptor) => Segment::from_peer(descriptor, len),
            None if self.lost => Err(SegmentError::no_descriptor_left(len)),
            None => Err(SegmentError::NoDescriptor { expected: len }),
        }
    }
}

impl Link {
    /// Takes over a connected socket that keeps message boundaries (SOCK_SEQPACKET).
    #[must_use]
    pub fn new(socket: OwnedFd) -> Link {
        Link { socket }
    }

    /// The process at the other end.
    ///
    /// # Errors
    /// [`SystemError`].
    pub fn peer(&self) -> Result<Peer, SystemError> {
        crate::ipc::sys::peer(self.socket.as_fd())
            .map_err(|errno| SystemError::new("inspect the process at the other end of a socket", errno))
    }

    /// Sends a packet without waiting. A peer that does not read its packets counts as dead.
    ///
    /// # Errors
    /// [`LinkError::System`] when the peer is gone or does not read, and for a packet of no bytes or more than
    /// [`MAX_PACKET`].
    pub fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), LinkError> {
        let refused = |errno| LinkError::system("send a packet", errno);
        // An empty packet would look like the end of the link.
        if !(1..=MAX_PACKET).contains(&bytes.len()) {
            return Err(refused(Errno::MSGSIZE));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.as_slice();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let bytes = [std::io::IoSlice::new(bytes)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.socket, &bytes, &mut ancillary, flags))
            .map(|_| ())
            .map_err(refused)
    }

    /// Receives the next packet, without waiting.
    ///
    /// # Errors
    /// [`LinkError::System`]; a connection that was reset counts as hung up.
    pub fn receive(&self) -> Result<Received, LinkError> {
        let mut packet = Packet { bytes: [0; MAX_PACKET + 1], len: 0, descriptor: None, lost: false };
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
                // The peer closed its end without having read everything. The system reports this once, before the packets
                // that the peer sent; there may be a reason among them.
                Err(Errno::CONNRESET) if !reset => reset = true,
                Err(Errno::CONNRESET | Errno::PIPE | Errno::NOTCONN) => return Ok(Received::HungUp),
                Err(errno) => return Err(LinkError::system("receive a packet", errno)),
            }
        };
        if received.bytes == 0 {
            return Ok(Received::HungUp);
        }
        packet.len = received.bytes;
        // A packet has one descriptor at most. Of several none can be meant: all are closed here.
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let truncated = received.flags.contains(ReturnFlags::CTRUNC);
        packet.lost = truncated && descriptors.is_empty();
        packet.descriptor = if descriptors.len() == 1 && !truncated { descriptors.pop() } else { None };
        Ok(Received::Packet(packet))
    }

    /// Waits for the next packet until `deadline`. Never returns [`Received::Nothing`].
    ///
    /// # Errors
    /// [`LinkError::Timeout`], [`LinkError::System`].
    pub fn receive_until(&self, deadline: Instant) -> Result<Received, LinkError> {
        loop {
            match self.receive()? {
                Received::Nothing => {}
                received => return Ok(received),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LinkError::Timeout);
            }
            poll_readable(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(left))?;
        }
    }

    /// Ends the link on both sides and wakes everything that waits on it.
    pub fn shut_down(&self) {
        // Fails only when the peer is gone already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of the descriptors is ready, for `timeout` at most.
pub(crate) fn poll_readable(descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), LinkError> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    match rustix::event::poll(descriptors, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(LinkError::system("wait for packets", errno)),
    }
}
