//! The end of a link: what was said before it is heard, and what it leaves behind is removed.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::config::VdConfig;
use vdi_proto::join::{Message, Role};
use vdi_proto::layout::SERVER_MEMBER;
use vdi_proto::seal::Seals;
use vdi_proto::status::VdError;
use vdi_shm::control::Control;
use vdi_shm::link::{Link, Received};
use vdi_shm::member::Member;
use vdi_shm::runtime::{Access, Options, Place, RuntimeDir};

const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that hangs up without having read everything resets the connection. What it said before still counts.
#[test]
fn a_reset_does_not_swallow_the_reason() {
    let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .expect("a pair");
    let (ours, theirs) = (Link::new(pair.0), Link::new(pair.1));
    ours.send(&Message::Leave, None).expect("a peer");
    theirs.send(&Message::Refused { status: VdError::Memory }, None).expect("a peer");
    drop(theirs);
    match ours.receive().expect("a reason") {
        Received::Packet(packet) => {
            assert_eq!(packet.message().expect("a reason"), Message::Refused { status: VdError::Memory });
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(ours.receive(), Ok(Received::HungUp)));
    assert!(ours.send(&Message::Leave, None).is_err());
}

/// The system closes a dead process's descriptors one after the other: its link may be gone while its socket still listens.
/// A survivor that leaves meanwhile removes the socket all the same.
#[test]
fn a_socket_that_dies_after_its_links() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { runtime_dir: Some(dir.path().to_owned()), access: Access::default() };
    let runtime = RuntimeDir::open(&options, true).expect("a directory");
    let place = Place::new("", "nightly").expect("a name");
    let listener = runtime.listen(&place, &Access::default()).expect("a socket");
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| Member::join(&options, Role::Server, "", "nightly"));
        rustix::event::poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).expect("a joiner");
        let link = Link::new(rustix::net::accept(&listener).expect("a joiner"));
        let (_control, segment) = Control::create(1, Seals::new(1)).expect("memory");
        let welcome = Message::Welcome {
            member: SERVER_MEMBER,
            secret: 1,
            asked: VdConfig::default(),
            agreement: None,
            areas: 0,
        };
        link.send(&welcome, Some(segment.fd())).expect("a joiner");
        let member = joining.join().expect("no panic").expect("a member");
        drop(link);
        let session = member.session();
        let reason =
            vdi_shm::wait::wait_until(session.control().set_doorbell(), Some(Instant::now() + PATIENCE), || {
                session.abort_reason()
            });
        assert_eq!(reason, Some(AbortReason { party: Party::Primary, cause: Cause::Died }));
        let leaving = scope.spawn(move || drop(member));
        // As long as a busy machine may take between two descriptors of a process that ends.
        std::thread::sleep(Duration::from_millis(30));
        drop(listener);
        leaving.join().expect("no panic");
    });
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "the dead one's socket is left behind");
}
