//! Hostile joiners and members, towards the primary.

use vdi_proto::wire::join::MAX_MESSAGE;
use vdi_shm::set::primary::{HELLO_TIMEOUT, MAX_PENDING};
use vdi_shm::set::secondary::Secondary;

use super::*;
use crate::common::{TEST_TIMEOUT, negotiated, send};

fn send_bytes(socket: &OwnedFd, bytes: &[u8]) {
    // The system refuses what is too long. The primary may have disconnected.
    let _ = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL);
}

/// Messages that no joiner sends.
fn foreign_messages() -> [Message<'static>; 6] {
    let welcome = Message::Welcome {
        member: MemberIndex::PRIMARY,
        secret: 0,
        requested: requested(),
        negotiated: None,
        classes: 0,
    };
    [
        welcome,
        Message::Refused(Refusal::new(VdError::Abort, "no")),
        Message::Class { index: class_index(0), spec: SPEC },
        Message::ClassAnswer { index: class_index(0), answer: Ok(()) },
        Message::Configured(negotiated()),
        Message::ConfiguredAnswer(Ok(())),
    ]
}

#[test]
fn packets_that_are_no_message() {
    let set = Set::new();
    let hello = HELLO.encode();
    let hello = hello.bytes();
    let changed = |at: usize, byte: u8| {
        let mut bytes = hello.to_vec();
        bytes[at] = byte;
        bytes
    };
    let mut packets: Vec<(Vec<u8>, Option<VdError>)> =
        (1..hello.len()).map(|len| (hello[..len].to_vec(), Some(VdError::Unexpected))).collect();
    packets.extend([
        // An empty packet looks like the end of a connection.
        (Vec::new(), None),
        ([hello, &[0]].concat(), Some(VdError::Unexpected)),
        (vec![0; MAX_MESSAGE], Some(VdError::Unexpected)),
        ([hello, &[0; MAX_MESSAGE]].concat(), Some(VdError::Unexpected)),
        (vec![0xff; 60_000], Some(VdError::Unexpected)),
        (changed(0, b'x'), Some(VdError::Unexpected)),
        (changed(4, 1), Some(VdError::NotSupported)),
        (changed(6, 99), Some(VdError::Unexpected)),
        (changed(8, 3), Some(VdError::Unexpected)),
    ]);
    for len in [1usize, 8, 12, 100, 1000, 1024, 5000] {
        // Bytes without a pattern, the same in each run.
        let bytes = (0..len as u64).map(|at| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]);
        packets.push((bytes.collect(), Some(VdError::Unexpected)));
    }
    for (packet, status) in packets {
        let socket = set.connect();
        send_bytes(&socket, &packet);
        let link = Link::new(socket);
        let refused = next_answer(&link);
        assert_eq!(refused, status.map(Answer::Refused), "{packet:?}");
        if refused.is_some() {
            assert_eq!(next_answer(&link), None, "a refused joiner is still connected");
        }
    }
    set.serves();
}

#[test]
fn joiners_that_do_not_begin_with_hello() {
    let set = Set::new();
    for message in foreign_messages().iter().chain([&Message::Leave]) {
        let link = connect(set.path());
        send(&link, message, None);
        assert_eq!(next_answer(&link), Some(Answer::Refused(VdError::Unexpected)), "{message:?}");
        assert_eq!(next_answer(&link), None);
    }
    for (instance, name) in [(INSTANCE, "weekly"), ("OTHER", SET), ("", SET), (INSTANCE, "Nightly")] {
        let link = connect(set.path());
        send(&link, &Message::Hello { role: JoinRole::Server, instance, set: name }, None);
        assert_eq!(next_answer(&link), Some(Answer::Refused(VdError::Invalid)));
    }
    set.serves();
}

/// The creator of the set hears of each joiner that is refused: who it was, its role, and why. The joiner gets the same reason.
#[test]
fn the_creator_hears_of_refused_joiners() {
    let set = Set::new();
    let creator = || set.primary.session().joiners();
    assert_eq!(creator().to_string(), "no process has tried to join");
    assert_eq!(creator().refused(), None);
    let me = format!("uid {} (process {})", rustix::process::geteuid().as_raw(), std::process::id());
    let mut version = HELLO.encode().bytes().to_vec();
    version[4] ^= 0x40;
    let hello = |role, name| Message::Hello { role, instance: INSTANCE, set: name }.encode().bytes().to_vec();
    let server = set.raw_server();
    assert!(creator().to_string().ends_with(&format!("{me} has joined as the server")));
    let rows = [
        (hello(JoinRole::Server, SET), " as the server", VdError::Invalid, format!("the set has a server: {me}")),
        (
            hello(JoinRole::Server, "Nightly"),
            " as the server",
            VdError::Invalid,
            "it asked for set \"Nightly\"".to_owned(),
        ),
        (
            hello(JoinRole::Secondary, SET),
            " as a secondary client",
            VdError::Protocol,
            "join after its GetConfiguration".to_owned(),
        ),
        (version, "", VdError::NotSupported, "use the same version on both".to_owned()),
    ];
    for (at, (packet, role, status, why)) in rows.into_iter().enumerate() {
        let socket = set.connect();
        send_bytes(&socket, &packet);
        let answer = receive(&Link::new(socket)).expect("an answer");
        let Message::Refused(refusal) = message(&answer) else { panic!("{:?}", message(&answer)) };
        assert_eq!(refusal.status, status);
        assert!(refusal.text.contains(&why), "{}", refusal.text);
        let heard = creator().refused().expect("a refusal");
        let expected = format!("{me} tried to join{role} and was refused: {}: {}", status.name(), refusal.text);
        assert!(heard.starts_with(&expected), "{heard}");
        assert_eq!(heard.contains(&format!("the last of {} that were refused", at + 1)), at > 0, "{heard}");
    }
    drop(server);
}

/// A member that breaks the protocol ends the set. The reason names it, and the evidence is kept.
#[test]
fn members_that_break_the_protocol() {
    for message in foreign_messages().iter().chain([&HELLO]) {
        let set = Set::new();
        let server = set.raw_server();
        server.send(message, None);
        match message {
            // What a server sends. The class comes without its memory.
            Message::Class { .. } | Message::Configured(_) => {
                receive(&server.link).expect("an answer");
                assert_eq!(set.primary.session().abort_reason(), None);
                continue;
            }
            _ => {}
        }
        assert_eq!(set.aborted(), violation_of(Process::Server), "{message:?}");
        assert_eq!(next_answer(&server.link), None);
        let abort = set.primary.session().aborted().expect("an abort").to_string();
        assert!(abort.starts_with("the server broke the protocol: "), "{abort}");
    }
    let set = Set::new();
    let socket = set.connect();
    send_bytes(&socket, HELLO.encode().bytes());
    send_bytes(&socket, b"no message at all");
    assert_eq!(set.aborted(), violation_of(Process::Server));
}

/// A configuration that was not requested is refused, and one that was is taken once.
#[test]
fn configurations_that_were_not_negotiated() {
    let set = Set::new();
    let server = set.raw_server();
    let mut changed = negotiated();
    changed.prefix_zone_size += 1;
    let mut bad = negotiated();
    bad.block_size = 3;
    for config in [changed, bad] {
        server.send(&Message::Configured(config), None);
        let packet = receive(&server.link).expect("an answer");
        assert!(matches!(message(&packet), Message::ConfiguredAnswer(Err(_))), "{config:?}");
        assert_eq!(set.primary.session().negotiated(), None);
    }
    server.send(&Message::Configured(negotiated()), None);
    server.expect(&Message::ConfiguredAnswer(Ok(())));
    server.send(&Message::Configured(negotiated()), None);
    server.expect(&Message::ConfiguredAnswer(Err(Refusal::new(
        VdError::Unexpected,
        "the server configured the set twice",
    ))));
    assert_eq!(set.primary.session().negotiated(), Some(&negotiated()));
}

/// More silent connections than the set keeps: members are served, honest joiners wait behind them, and in the end the
/// silent ones are disconnected.
#[test]
fn more_silent_joiners_than_are_kept() {
    let set = Set::new();
    let server = set.join_server();
    let begun = Instant::now();
    let silent: Vec<_> = (0..MAX_PENDING + 20).map(|_| Link::new(set.connect())).collect();
    server.add_class(SPEC, TEST_TIMEOUT).expect("a member is served");
    server.configure(negotiated(), TEST_TIMEOUT).expect("a member is served");
    let served = begun.elapsed();
    set.primary.admit_secondaries();
    let late = Secondary::join(&options(set.path()), INSTANCE, SET).expect("an honest joiner");
    assert_eq!(classes_of(late.session()), 1);
    let (first, rest) = silent.split_at(MAX_PENDING);
    for link in first {
        assert_eq!(next_answer(link), None, "a silent joiner is disconnected");
    }
    assert!(begun.elapsed() >= HELLO_TIMEOUT, "no joiner had the time to send Hello");
    for link in rest {
        assert_eq!(next_answer(link), None, "a silent joiner is disconnected");
    }
    assert!(begun.elapsed() >= 2 * HELLO_TIMEOUT, "more than {MAX_PENDING} were kept at a time");
    assert!(served < HELLO_TIMEOUT, "members had to wait {served:?} for joiners");
    assert_eq!(set.primary.session().abort_reason(), None);
}

/// A joiner that disconnects before it is a member has not died.
#[test]
fn joiners_that_disconnect() {
    let set = Set::new();
    for _ in 0..100 {
        drop(set.connect());
        let socket = set.connect();
        send_bytes(&socket, &HELLO.encode().bytes()[..7]);
        drop(socket);
    }
    set.serves();
    drop(set.raw_server());
    assert_eq!(set.aborted(), AbortReason { process: Process::Server, cause: Cause::Died });
}
