//! Words of the control segment are taken with their checksums only.

use vdi_proto::abort::{Cause, Process};
use vdi_proto::command::{CommandCode, CommandId, CommandRecord, CompletionRecord};
use vdi_proto::completion::CompletionCode;

use super::*;

const DEVICES: u32 = 2;
const SECRET: u64 = 3;

/// A set's control segment as its roles see it, and a process that writes anywhere in it.
struct Scene {
    server: ServerControl,
    client: ClientControl,
    segment: Segment,
}

fn device(number: u32) -> DeviceIndex {
    DeviceIndex::new(number).expect("a device")
}

impl Scene {
    fn new() -> Scene {
        let (control, segment) = Control::create(DEVICES, Checksums::new(SECRET)).expect("memory");
        let attached = Control::attach(&segment, Checksums::new(SECRET)).expect("a control segment");
        let server = ServerControl::new(Arc::new(attached));
        let client = ClientControl::new(Arc::new(control), MemberIndex::PRIMARY);
        Scene { server, client, segment }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        assert_eq!(rustix::io::pwrite(self.segment.fd(), bytes, offset), Ok(bytes.len()));
    }

    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        assert_eq!(rustix::io::pread(self.segment.fd(), &mut bytes, offset), Ok(N));
        bytes
    }

    fn flip(&self, offset: u64) {
        let [byte] = self.read(offset);
        self.write(offset, &[byte ^ 1]);
    }
}

/// The offsets of a device's server word, client word, the length of its name, the name's checksum, and the name.
fn offsets(number: u32) -> [u64; 5] {
    let block = layout::device_offset(device(number));
    let name = block + layout::DEVICE_NAME_OFFSET;
    [block + layout::DEVICE_SERVER_OFFSET, block + layout::DEVICE_CLIENT_OFFSET, name, name + 4, name + 8]
}

fn command(id: u32) -> CommandRecord {
    CommandRecord { code: CommandCode::FLUSH, id: CommandId(id), size: 0, position: 0, loan: None }
}

#[test]
fn a_device_from_its_announcement_to_its_close() {
    let Scene { server, client, .. } = Scene::new();
    assert_eq!(client.device_name(device(1)), Ok(None));
    assert_eq!(client.server_word(device(1)), Ok(ServerWord::Unopened));
    server.announce_device(device(1), "nightly/1");
    assert_eq!(client.device_name(device(1)), Ok(Some("nightly/1".to_owned())));
    let mut rings = client.open_device(device(1)).expect("a good word").expect("unopened");
    assert!(client.open_device(device(1)).expect("a good word").is_none(), "the device is open");
    let opened = ClientWord::Open { member: MemberIndex::PRIMARY };
    assert_eq!(server.client_word(device(1)), Ok(opened));
    assert!(server.any_device_opened());
    let mut server_rings = server.take_rings(device(1)).expect("the first time");
    assert!(server.take_rings(device(1)).is_none(), "the ring ends were taken twice");
    server_rings.commands.push(&command(5)).expect("room");
    assert_eq!(rings.commands.pop(), Ok(Some(command(5))));
    let completion = CompletionRecord { id: CommandId(5), code: CompletionCode::SUCCESS, bytes: 0, position: 0 };
    rings.completions.push(&completion).expect("room");
    assert_eq!(server_rings.completions.pop(), Ok(Some(completion)));
    server.close_device(device(1));
    assert_eq!(client.server_word(device(1)), Ok(ServerWord::Closed));
    client.close_device(device(1));
    assert_eq!(server.client_word(device(1)), Ok(ClientWord::Closed { member: MemberIndex::PRIMARY }));
    assert!(!server.all_closed() && !client.server_closed_all());
    server.close_device(device(0));
    assert!(client.server_closed_all());
}

/// A stray "closed" would end a backup in the middle, and both sides would take it for its end.
#[test]
fn words_with_a_wrong_checksum_are_violations() {
    let scene = Scene::new();
    let Scene { server, client, .. } = &scene;
    for number in 0..DEVICES {
        server.announce_device(device(number), "nightly");
        assert!(client.open_device(device(number)).expect("a good word").is_some());
    }
    let [server_word, client_word, ..] = offsets(0);
    for word in [0u64, 1, 2, 3, u64::MAX, 1 << 32 | 2] {
        scene.write(server_word, &word.to_ne_bytes());
        let violation = LayoutError::ServerWord { device: device(0), found: word };
        assert_eq!(client.server_word(device(0)), Err(violation));
        assert_eq!(client.device_name(device(0)), Err(violation));
    }
    for word in [0u64, 1, 2, 1 << 31 | 2, u64::MAX] {
        scene.write(client_word, &word.to_ne_bytes());
        let violation = LayoutError::ClientWord { device: device(0), found: word };
        assert_eq!(server.client_word(device(0)), Err(violation));
        assert_eq!(client.open_device(device(0)).map(drop), Err(violation));
        client.close_device(device(0));
        assert_eq!(server.client_word(device(0)), Err(violation), "the word was repaired silently");
    }
    assert!(!client.server_closed_all() && !server.all_closed());
    // Another device's word is none either.
    let word: [u8; 8] = scene.read(offsets(1)[0]);
    scene.write(server_word, &word);
    assert!(client.server_word(device(0)).is_err());
    assert_eq!(client.server_word(device(1)), Ok(ServerWord::Open));
}

/// With another device's name a client would open that one, and write its stripe.
#[test]
fn names_with_a_wrong_checksum_are_violations() {
    let scene = Scene::new();
    scene.server.announce_device(device(0), "nightly");
    let [.., len, checksum, name] = offsets(0);
    for offset in [len, checksum, checksum + 3, name, name + 6] {
        scene.flip(offset);
        let found = scene.client.device_name(device(0));
        assert!(matches!(found, Err(LayoutError::DeviceName { .. })), "{found:?}");
        scene.flip(offset);
        assert_eq!(scene.client.device_name(device(0)), Ok(Some("nightly".to_owned())));
    }
    scene.write(len, &u32::MAX.to_ne_bytes());
    let violation = LayoutError::DeviceName { device: device(0), len: u32::MAX };
    assert_eq!(scene.client.device_name(device(0)), Err(violation));
}

/// Memory that was zeroed looks like nothing that a process writes: a lost command is a violation, not a wait without an end.
#[test]
fn zeroed_memory_is_a_violation() {
    let scene = Scene::new();
    let block = layout::device_offset(device(0));
    let mut rings = scene.client.open_device(device(0)).expect("a good word").expect("unopened");
    let mut server_rings = scene.server.take_rings(device(0)).expect("the first time");
    server_rings.commands.push(&command(1)).expect("room");
    scene.write(block, &[0; layout::DEVICE_LEN as usize]);
    assert!(rings.commands.is_ready());
    let violation = rings.commands.pop().expect_err("a zeroed ring");
    assert_eq!(rings.commands.pop(), Err(violation), "it stays a violation");
    assert!(server_rings.completions.pop().is_err());
    assert!(scene.client.server_word(device(0)).is_err());
    assert!(scene.server.client_word(device(0)).is_err());
}

/// A record that was overwritten, or copied from another entry, is a violation.
#[test]
fn records_with_a_wrong_checksum_are_violations() {
    for byte in 8..40 {
        let scene = Scene::new();
        let mut rings = scene.client.open_device(device(0)).expect("a good word").expect("unopened");
        let mut server_rings = scene.server.take_rings(device(0)).expect("the first time");
        server_rings.commands.push(&command(1)).expect("room");
        let entry = layout::device_offset(device(0)) + layout::SUBMISSION_OFFSET + layout::RING_ENTRIES_OFFSET;
        scene.flip(entry + byte);
        assert!(
            matches!(rings.commands.pop(), Err(super::super::record_ring::RecordViolation::Record(_))),
            "byte {byte}"
        );
    }
}

#[test]
fn no_process_spins_while_the_server_needs_every_cpu() {
    let Scene { server, client, .. } = Scene::new();
    assert_eq!(client.spin(), wait::spin());
    server.needs_cpus();
    assert_eq!(client.spin(), Duration::ZERO);
}

#[test]
fn the_first_abort_stands() {
    let Scene { server, client, .. } = Scene::new();
    let [first, second] =
        [Process::Server, Process::Primary].map(|process| AbortReason { process, cause: Cause::Died });
    assert_eq!(client.abort_reason(), None);
    assert_eq!(server.abort(&first.into()), first);
    assert_eq!(client.abort(&second.into()), first);
    assert_eq!(client.abort_reason(), Some(first));
}

/// The text lies beside the abort word before the word is written, and belongs to the reason that stands.
#[test]
fn the_text_of_an_abort_belongs_to_its_reason() {
    let reason = |process| AbortReason { process, cause: Cause::GaveUp };
    let [first, second] = [Process::Server, Process::Primary].map(reason);
    let abort = |reason, text: &str| Abort::new(reason, 112, text);
    let scene = Scene::new();
    let Scene { server, client, .. } = &scene;
    assert_eq!(client.abort_text(first), None);
    let long = "ü".repeat(layout::HEADER_LEN as usize);
    assert_eq!(server.abort(&abort(first, &long)), first);
    assert_eq!(client.abort(&abort(second, "too late")), first);
    let (code, text) = client.abort_text(first).expect("a text");
    assert_eq!((code, &text), (112, &abort(first, &long).text));
    assert_eq!(client.abort_text(second), None, "another reason takes the text");
    // The code, the length, the checksum and the text.
    for at in [4, 8, 12, 16, 40] {
        let at = layout::ABORT_TEXT_OFFSET + at;
        scene.flip(at);
        assert_eq!(client.abort_text(first), None, "a stray write at {at} is not found");
        scene.flip(at);
    }
    assert!(client.abort_text(first).is_some());
    scene.write(layout::ABORT_TEXT_OFFSET, &[0xff; 16]);
    assert_eq!(client.abort_text(first), None);
}

/// A process died after it had claimed the text: the abort of another process stands, without a text.
#[test]
fn a_text_that_is_claimed_by_a_dead_process() {
    let scene = Scene::new();
    scene.write(layout::ABORT_TEXT_OFFSET, &1u32.to_le_bytes());
    let reason = AbortReason { process: Process::Server, cause: Cause::GaveUp };
    assert_eq!(scene.server.abort(&Abort::new(reason, 0, "no memory")), reason);
    assert_eq!((scene.client.abort_reason(), scene.client.abort_text(reason)), (Some(reason), None));
}
