//! Single words of the control segment that a member writes and must not, and what comes of each: `hostile_peer.rs` has
//! thousands of them at random.

use crate::common;
use crate::hostile;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::TEST_TIMEOUT;
use common::behaviour::{HookedMedia, MediaHook};
use common::bench::Bench;
use common::client::config;
use common::server::{BUFFER, Server, pair};
use common::tasks::task;
use hostile::raider::{Joined, join_by_hand, send};
use hostile::words::{Ring, Words, device_offset};
use vdi_client::media::{MediaError, StreamMedia};
use vdi_client::{CommandCode, Completion, CompletionCode, Error, ErrorKind, pump};
use vdi_proto::abort::Cause;
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_proto::status::VdError;
use vdi_proto::wire::join::Message;
use vdi_proto::wire::layout::{
    ABORT_OFFSET, DEVICE_CLIENT_OFFSET, DEVICE_NAME_OFFSET, DEVICE_SERVER_OFFSET, SLOT_LEASES_OFFSET, SLOT_WORD_OFFSET,
};
use vdi_server_sim::vds::{Completed, ServerVirtualDeviceSet, VdsCommand};
use vdi_shm::ipc::link::Received;

/// A secondary that has nothing but a link and the control segment.
struct Member(Joined);

impl Member {
    /// Joins the set of these tests.
    #[track_caller]
    fn join(bench: &Bench) -> Member {
        Member(join_by_hand(&bench.options(), "nightly").unwrap())
    }

    fn words(&self) -> &Words {
        &self.0.words
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        send(&self.0.link, &Message::Leave);
    }
}

/// VD_E_ABORT for a broken protocol, with this evidence.
#[track_caller]
fn assert_violation(error: &Error, evidence: &str) {
    assert_eq!((error.code(), error.kind()), (VdError::Abort, ErrorKind::Violation), "{error}");
    assert!(error.to_string().contains(evidence), "{error}");
}

/// The word is gone before anybody has looked: the links tell of the abort all the same, whoever aborted.
#[test]
fn an_abort_is_heard_although_its_word_is_cleared() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let member = Member::join(&bench);
    server.set.signal_abort().unwrap();
    member.words().put_u32(ABORT_OFFSET, 0);
    let error = device.get_command(TEST_TIMEOUT).unwrap_err();
    assert_eq!(error.code(), VdError::Abort, "{error}");
    assert!(error.to_string().contains("the server called SignalAbort"), "{error}");
    let deadline = std::time::Instant::now() + TEST_TIMEOUT;
    loop {
        match member.0.link.receive_until(deadline).unwrap() {
            Received::Packet(packet) => match Message::decode(packet.bytes()).unwrap() {
                Message::Aborted { reason, .. } => break assert_eq!(reason.cause, Cause::Signalled),
                message => assert!(matches!(message, Message::Class { .. }), "{message:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

/// The server reclaims a buffer only from a slot that is free.
#[test]
fn a_command_that_completes_with_its_buffer_still_lent_ends_the_set() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let server = ServerVirtualDeviceSet::with_options(bench.options());
    server.open("", "nightly").unwrap();
    let terms = ServerTerms { features: Features::READ_MEDIA, ..ServerTerms::default() };
    server.begin_configuration(&terms, TEST_TIMEOUT).unwrap();
    server.request_buffers(BUFFER, 0, 1).unwrap();
    server.end_configuration().unwrap();
    let sending = server.open_device("nightly").unwrap();
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    let member = Member::join(&bench);
    let (tell, ended) = channel();
    let routine = Arc::new(move |completed: Completed| tell.send(completed).unwrap());
    let buffer = server.allocate_buffer(BUFFER, 0).unwrap();
    sending.send_command(VdsCommand::transfer(CommandCode::READ, buffer, BUFFER, routine)).unwrap();
    let word = member.words().slot(0) + SLOT_WORD_OFFSET;
    let lent = member.words().get_u64(word);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    command.complete(Completion::transferred(BUFFER as usize)).unwrap();
    member.words().put_u64(word, lent);
    let error = server.handle_completions().unwrap_err();
    assert_eq!(error.code, VdError::Abort, "{error}");
    assert!(error.to_string().contains("is not free"), "{error}");
    let ended = ended.recv_timeout(TEST_TIMEOUT).unwrap();
    assert!(ended.code == CompletionCode::OPERATION_ABORTED && ended.buffer.is_none(), "{ended:?}");
}

/// A stray `memset` hides a command: the client finds a word that is never valid.
#[test]
fn a_zeroed_command_ends_the_set() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let member = Member::join(&bench);
    server.read(0);
    member.words().put_u64(Ring::of(0, false).entry(0), 0);
    let error = device.get_command(TEST_TIMEOUT).unwrap_err();
    assert_violation(&error, "a process of the set broke the protocol");
}

/// The same of a completion: the server's agent finds it.
#[test]
fn a_zeroed_completion_ends_the_set() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let member = Member::join(&bench);
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    member.words().put_u64(Ring::of(0, true).entry(0), 0);
    let error = device.get_command(TEST_TIMEOUT).unwrap_err();
    assert_violation(&error, "a process of the set broke the protocol");
    drop(held);
}

/// A device's word of the server, zeroed before the client opens the device.
#[test]
fn a_zeroed_device_word_ends_the_set() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let _server = Server::open(&bench, "nightly", 1);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let member = Member::join(&bench);
    member.words().put_u64(device_offset(0) + DEVICE_SERVER_OFFSET, 0);
    let error = set.open_device("nightly").unwrap_err();
    assert_violation(&error, "a process of the set broke the protocol");
}

/// Who leaves in order while a word of a device is written over is not the one who did it.
#[test]
fn who_leaves_is_not_blamed_for_what_somebody_wrote() {
    let bench = Bench::new();
    let (_set, _server, mut device) = pair(&bench);
    let (hostile, innocent) = (Member::join(&bench), Member::join(&bench));
    hostile.words().put_u64(device_offset(0) + DEVICE_CLIENT_OFFSET, 77);
    drop(innocent);
    let error = device.get_command(TEST_TIMEOUT).unwrap_err();
    assert_violation(&error, "a process of the set broke the protocol");
}

/// What comes when every device is closed changes nothing, and keeps the completion agent from nothing.
#[test]
fn a_ring_that_is_written_over_after_the_end_is_left_alone() {
    let bench = Bench::new();
    let (set, mut server, mut device) = pair(&bench);
    let member = Member::join(&bench);
    server.devices[0].close_device().unwrap();
    member.words().put_u64(Ring::of(0, true).entry(0), u64::MAX);
    assert!(device.get_command(TEST_TIMEOUT).unwrap_err().is_close());
    server.set.close().unwrap();
    assert!(server.agent_ended(), "the agent ended in good order");
    set.close().unwrap();
}

/// A client knows by itself that its work has ended.
#[test]
fn words_that_are_written_over_after_the_end_do_not_spoil_it() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let member = Member::join(&bench);
    server.devices[0].close_device().unwrap();
    assert!(device.get_command(TEST_TIMEOUT).unwrap_err().is_close());
    for word in [0, 1, u64::MAX] {
        member.words().put_u64(device_offset(0) + DEVICE_CLIENT_OFFSET, word);
        assert!(device.get_command(Duration::ZERO).is_err_and(|error| error.code() == VdError::Protocol));
    }
    set.close().unwrap();
}

/// Takes a lease on whatever is lent, and never gives it up.
struct Lessee(Arc<Member>);

impl MediaHook for Lessee {
    fn before(&mut self, _: CommandCode, _: usize) -> Result<(), MediaError> {
        let (words, lease) = (self.0.words(), 1u128 << self.0.0.member);
        words.lent().iter().for_each(|slot| words.put(words.slot(*slot) + SLOT_LEASES_OFFSET, &lease.to_le_bytes()));
        Ok(())
    }
}

/// A lease that is never given up holds nobody up: the command cannot be completed, so the pump ends and says who has the
/// buffer, and the set is aborted.
#[test]
fn a_lease_for_ever_ends_the_pump_and_its_holder_is_named() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let server = Server::with_features(&bench, "nightly", 1, Features::WRITE_MEDIA);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    let member = Arc::new(Member::join(&bench));
    server.write(0, 7);
    let lessee = Lessee(Arc::clone(&member));
    let pumped = task("the pump", move || {
        let media = Box::new(StreamMedia::sink(std::io::sink()));
        pump(&mut device, &mut HookedMedia { media, hook: lessee })
    });
    let error = pumped.result().unwrap_err();
    let holder = format!("still mapped by secondary client {}", member.0.member);
    assert!(error.code() == VdError::Busy && error.to_string().contains(&holder), "{error}");
    assert_eq!(server.completed().0, CompletionCode::OPERATION_ABORTED);
    let abort = server.set.session().unwrap().aborted().unwrap();
    assert_eq!(abort.reason.cause, Cause::GaveUp);
    assert!(abort.text.contains(&holder), "{abort}");
}

/// Which names are taken the server knows by itself.
#[test]
fn a_name_that_somebody_writes_is_not_taken() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = ServerVirtualDeviceSet::with_options(bench.options());
    server.open("", "nightly").unwrap();
    server.begin_configuration(&ServerTerms::default(), TEST_TIMEOUT).unwrap();
    server.request_buffers(BUFFER, 0, 1).unwrap();
    server.end_configuration().unwrap();
    let _first = server.open_device("nightly").unwrap();
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let member = Member::join(&bench);
    member.words().put(device_offset(0) + DEVICE_NAME_OFFSET, &[0xff; 32]);
    let twice = server.open_device("nightly").unwrap_err();
    assert_eq!(twice.code, VdError::Invalid);
    let _second = server.open_device("nightly/1").unwrap();
}
