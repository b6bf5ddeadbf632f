//! What lies in the control segment is believed with its seal only.

use vdi_proto::abort::{Cause, Party};
use vdi_proto::layout::{CLIENT_CLOSED, slot_offset};

use super::*;

const DEVICES: u32 = 2;
const PLACE: RawPlace = RawPlace { area: 0, len: 4096, offset: 8192 };

/// A set's control segment, and a member that writes anywhere in it.
struct Scene {
    control: Control,
    segment: Segment,
}

impl Scene {
    fn new() -> Scene {
        let (control, segment) = Control::create(DEVICES, Seals::new(3)).expect("memory");
        Scene { control, segment }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        assert_eq!(rustix::io::pwrite(self.segment.fd(), bytes, offset), Ok(bytes.len()));
    }

    fn flip(&self, offset: u64) {
        let mut byte = [0];
        assert_eq!(rustix::io::pread(self.segment.fd(), &mut byte, offset), Ok(1));
        self.write(offset, &[byte[0] ^ 1]);
    }
}

#[test]
fn nobody_spins_where_the_server_wants_all_cpus() {
    let Scene { control, segment } = Scene::new();
    let client = Control::attach(&segment, Seals::new(3)).expect("a control segment");
    assert_eq!(client.spin(), wait::spin());
    control.want_cpus();
    assert_eq!(client.spin(), Duration::ZERO);
}

/// Offsets of a device's server word, client word, name's length, name's seal, and name.
fn parts(device: u32) -> [u64; 5] {
    let block = layout::device_offset(device);
    let name = block + layout::DEVICE_NAME_OFFSET;
    [block + layout::DEVICE_SERVER_OFFSET, block + layout::DEVICE_CLIENT_OFFSET, name, name + 4, name + 8]
}

#[test]
fn a_device_goes_its_way() {
    let Scene { control, .. } = Scene::new();
    assert_eq!(control.device_name(1), Ok(None));
    assert_eq!(control.server_word(1), Ok(ServerWord::Unopened));
    control.announce_device(1, "nightly/1");
    assert_eq!(control.device_name(1), Ok(Some("nightly/1".to_owned())));
    assert!(control.open_device(1, 5));
    assert!(!control.open_device(1, 6), "somebody has it");
    assert_eq!(control.client_word(1), Ok(ClientWord::Open { member: 5 }));
    assert_eq!(control.opener(1), Ok((Some(5), false)));
    control.server_close_device(1);
    assert_eq!(control.server_word(1), Ok(ServerWord::Closed));
    control.close_device(1);
    assert_eq!(control.client_word(1), Ok(ClientWord::Closed));
    assert_eq!(control.opener(1), Ok((Some(5), true)));
    assert_eq!((control.counts(), control.all_closed(), control.server_closed_all()), ((1, 1), false, false));
    control.server_close_device(0);
    assert!(control.server_closed_all());
}

/// A stray "closed" would end a backup in the middle, and both sides would take it for its end.
#[test]
fn words_without_a_seal_are_no_words() {
    let scene = Scene::new();
    let control = &scene.control;
    for device in 0..DEVICES {
        control.announce_device(device, "nightly");
        assert!(control.open_device(device, 1));
    }
    let [server, client, ..] = parts(0);
    for word in [1u64, 2, 3, u64::MAX, 1 << 32 | 2] {
        scene.write(server, &word.to_ne_bytes());
        assert_eq!(control.server_word(0), Err(LayoutError::ServerWord { device: 0, found: word }));
        assert_eq!(control.device_name(0), Err(LayoutError::ServerWord { device: 0, found: word }));
    }
    for word in [1u64, 2, u64::from(CLIENT_CLOSED | 2), u64::MAX] {
        scene.write(client, &word.to_ne_bytes());
        let violation = LayoutError::ClientWord { device: 0, found: word };
        assert_eq!((control.client_word(0), control.opener(0)), (Err(violation), Err(violation)));
        control.close_device(0);
        assert_eq!(control.client_word(0), Err(violation), "it was mended silently");
    }
    assert!(!control.server_closed_all() && !control.all_closed());
    // Another device's word is none either.
    let mut words = [0; 8];
    let [other_server, ..] = parts(1);
    assert_eq!(rustix::io::pread(scene.segment.fd(), &mut words, other_server), Ok(8));
    scene.write(server, &words);
    assert!(control.server_word(0).is_err());
    assert_eq!(control.server_word(1), Ok(ServerWord::Open));
}

/// With another device's name a client would open that one, and write its stripe.
#[test]
fn names_without_a_seal_are_no_names() {
    let scene = Scene::new();
    scene.control.announce_device(0, "nightly");
    let [.., len, seal, name] = parts(0);
    for offset in [len, seal, seal + 3, name, name + 6] {
        scene.flip(offset);
        let found = scene.control.device_name(0);
        assert!(matches!(found, Err(LayoutError::DeviceName { device: 0, .. })), "{found:?}");
        scene.flip(offset);
        assert_eq!(scene.control.device_name(0), Ok(Some("nightly".to_owned())));
    }
    scene.write(len, &u32::MAX.to_ne_bytes());
    assert_eq!(scene.control.device_name(0), Err(LayoutError::DeviceName { device: 0, len: u32::MAX }));
}

/// With another buffer's place a client would store another buffer's bytes.
#[test]
fn places_without_a_seal_are_no_places() {
    let scene = Scene::new();
    let control = &scene.control;
    assert_eq!(control.place(0), Err(LayoutError::PlaceSeal { slot: 0 }), "a slot that was never set");
    control.set_place(0, PLACE);
    assert_eq!(control.place(0), Ok(PLACE));
    let place = slot_offset(DEVICES, 0) + layout::SLOT_PLACE_OFFSET;
    for byte in 0..20 {
        scene.flip(place + byte);
        assert_eq!(control.place(0), Err(LayoutError::PlaceSeal { slot: 0 }), "byte {byte}");
        scene.flip(place + byte);
    }
    assert_eq!(control.place(0), Ok(PLACE));
    // Another slot's place, seal and all.
    control.set_place(1, RawPlace { offset: 16384, ..PLACE });
    let mut other = [0; 20];
    let from = slot_offset(DEVICES, 1) + layout::SLOT_PLACE_OFFSET;
    assert_eq!(rustix::io::pread(scene.segment.fd(), &mut other, from), Ok(20));
    scene.write(place, &other);
    assert_eq!(control.place(0), Err(LayoutError::PlaceSeal { slot: 0 }));
    assert_eq!(control.place(layout::MAX_SLOTS), Err(LayoutError::PlaceSeal { slot: layout::MAX_SLOTS }));
}

#[test]
fn the_first_abort_stands() {
    let Scene { control, .. } = Scene::new();
    let [first, second] = [Party::Server, Party::Primary].map(|party| AbortReason { party, cause: Cause::Died });
    assert_eq!(control.abort_reason(), None);
    assert_eq!(control.abort(first), first);
    assert_eq!(control.abort(second), first);
    assert_eq!(control.abort_reason(), Some(first));
}
