//! The join messages: every message decodes from its bytes, and other bytes are no message.

mod laws;

use laws::bytes::join_message;
use proptest::prelude::*;
use vdi_proto::abort::{AbortReason, Cause, MAX_REASON_BYTES, Process};
use vdi_proto::config::VdConfig;
use vdi_proto::index::{ClassIndex, MAX_CLASSES, MAX_MEMBERS, MemberIndex};
use vdi_proto::name::{MAX_INSTANCE_CHARS, MAX_NAME_BYTES, MAX_NAME_CHARS, NameError};
use vdi_proto::status::VdError;
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{JoinError, JoinRole, MAGIC, MAX_MESSAGE, Message, Refusal};
use vdi_proto::wire::layout::VERSION;

/// The offsets of the kind and of the fields.
const KIND: usize = 6;
const BODY: usize = 8;

fn negotiated() -> VdConfig {
    VdConfig::from_words(core::array::from_fn(|i| 0x0101_0101 * i as u32))
}

fn member(index: u32) -> MemberIndex {
    MemberIndex::new(index).expect("in range")
}

fn class(index: u32) -> ClassIndex {
    ClassIndex::new(index).expect("in range")
}

const SPEC: ClassSpec = ClassSpec { buffer_len: 1 << 20, alignment: 4096, count: 7 };

fn messages() -> Vec<Message<'static>> {
    let requested = VdConfig::default();
    let (secret, reason) = (u64::MAX, AbortReason { process: Process::Secondary(member(7)), cause: Cause::TimedOut });
    let mut messages = vec![
        Message::Hello { role: JoinRole::Server, instance: "", set: "s" },
        Message::Hello { role: JoinRole::Secondary, instance: "SQLEXPRESS", set: "Größe/1" },
        Message::Welcome { member: MemberIndex::SERVER, secret, requested, negotiated: None, classes: 0 },
        Message::Welcome { member: member(127), secret: 1, requested, negotiated: Some(negotiated()), classes: 64 },
        Message::Class { index: class(7), spec: SPEC },
        Message::ClassAnswer { index: class(7), answer: Ok(()) },
        Message::Configured(negotiated()),
        Message::ConfiguredAnswer(Ok(())),
        Message::Leave,
        Message::Aborted { reason, code: 0, text: "" },
        Message::Aborted { reason, code: 0x8077_000a, text: "no memory: größer" },
    ];
    for status in VdError::ALL {
        messages.extend([
            Message::Refused(Refusal::new(status, "a reason")),
            Message::ClassAnswer { index: class(1), answer: Err(Refusal::new(status, "")) },
            Message::ConfiguredAnswer(Err(Refusal::new(status, "no"))),
        ]);
    }
    messages
}

fn bytes_of(message: &Message<'_>) -> Vec<u8> {
    message.encode().bytes().to_vec()
}

#[test]
fn messages_decode_and_their_parts_do_not() {
    let messages = messages();
    assert_eq!(messages.len(), 11 + 3 * VdError::ALL.len());
    let mut cut = 0;
    for message in messages {
        let bytes = bytes_of(&message);
        assert_eq!(Message::decode(&bytes), Ok(message));
        for len in 0..bytes.len() {
            match Message::decode(&bytes[..len]) {
                Err(JoinError::Truncated { found, expected }) => {
                    assert!(found == len && (len + 1..=bytes.len()).contains(&expected), "{message:?} at {len}");
                }
                other => panic!("{message:?} cut to {len} bytes: {other:?}"),
            }
            cut += 1;
        }
        for extra in [1, 7] {
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + extra, 0);
            let (found, expected) = (longer.len(), bytes.len());
            assert_eq!(Message::decode(&longer), Err(JoinError::Oversized { found, expected }));
        }
    }
    assert_eq!(cut, 1239, "cuts tried");
}

#[test]
fn bytes_of_messages_are_stable() {
    let hello = Message::Hello { role: JoinRole::Secondary, instance: "A", set: "set" };
    assert_eq!(bytes_of(&hello), b"vdiJ\x06\0\x01\0\x02\0\x01\0A\x03\0set");
    assert_eq!(bytes_of(&Message::Leave), b"vdiJ\x06\0\x08\0");
    let message = Message::Class { index: class(2), spec: SPEC };
    assert_eq!(bytes_of(&message), b"vdiJ\x06\0\x04\0\x02\0\0\0\0\0\x10\0\0\x10\0\0\x07\0\0\0");
    let answer = Message::ClassAnswer { index: class(2), answer: Err(Refusal::new(VdError::Memory, "no")) };
    assert_eq!(bytes_of(&answer), b"vdiJ\x06\0\x05\0\x02\0\0\0\x0a\0\x77\x80\x02\0no");
}

#[test]
fn the_longest_hello_fits() {
    let set = "\u{10348}".repeat(MAX_NAME_CHARS);
    let instance = "\u{10348}".repeat(MAX_INSTANCE_CHARS);
    assert_eq!(set.len(), MAX_NAME_BYTES);
    let hello = Message::Hello { role: JoinRole::Server, instance: &instance, set: &set };
    let bytes = bytes_of(&hello);
    assert_eq!(bytes.len(), BODY + 2 + 2 + instance.len() + 2 + set.len());
    assert!(bytes.len() <= MAX_MESSAGE);
    assert_eq!(Message::decode(&bytes), Ok(hello));
}

/// A name that is too long encodes to bytes that do not decode.
#[test]
fn too_long_names_do_not_decode() {
    for len in [129, 513, 600, 1020, 1024, 2000, 65535, 65536, 65537, 65536 + 64, 131_072 + 5] {
        let long = "x".repeat(len);
        for (instance, set) in [("", long.as_str()), (long.as_str(), "s"), (long.as_str(), long.as_str())] {
            let bytes = bytes_of(&Message::Hello { role: JoinRole::Server, instance, set });
            assert!(bytes.len() <= MAX_MESSAGE);
            assert!(Message::decode(&bytes).is_err(), "{len}");
        }
    }
}

#[test]
fn each_wrong_field_has_its_error() {
    let put = |message: &Message<'_>, at: usize, value: &[u8]| {
        let mut bytes = bytes_of(message);
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let hello = Message::Hello { role: JoinRole::Server, instance: "I", set: "s" };
    let requested = VdConfig::default();
    let welcome =
        Message::Welcome { member: member(2), secret: 3, requested, negotiated: Some(negotiated()), classes: 0 };
    let reason = AbortReason { process: Process::Server, cause: Cause::Died };
    let aborted = Message::Aborted { reason, code: 0, text: "t" };
    let refused = Message::Refused(Refusal::new(VdError::Abort, "why"));
    let message = Message::Class { index: class(2), spec: SPEC };
    let answer = Message::ClassAnswer { index: class(2), answer: Ok(()) };
    let classes = BODY + 4 + 8 + 44;
    let flag = classes + 4;
    let field = |field, found| JoinError::Field { field, found };
    let rows: [(Vec<u8>, JoinError, VdError); 27] = [
        (put(&hello, 0, b"VDIJ"), JoinError::Magic { found: u32::from_le_bytes(*b"VDIJ") }, VdError::Unexpected),
        (put(&hello, 4, &[0, 0]), JoinError::Version { found: 0 }, VdError::NotSupported),
        (put(&hello, 4, &[1, 0]), JoinError::Version { found: 1 }, VdError::NotSupported),
        (put(&hello, 4, &[2, 1]), JoinError::Version { found: 0x102 }, VdError::NotSupported),
        (put(&hello, KIND, &[0, 0]), JoinError::Kind { found: 0 }, VdError::Unexpected),
        (put(&hello, KIND, &[10, 0]), JoinError::Kind { found: 10 }, VdError::Unexpected),
        (put(&hello, KIND, &[1, 1]), JoinError::Kind { found: 0x101 }, VdError::Unexpected),
        (put(&hello, BODY, &[0, 0]), field("role", 0), VdError::Unexpected),
        (put(&hello, BODY, &[3, 0]), field("role", 3), VdError::Unexpected),
        (put(&hello, BODY + 2, &[1, 2]), field("string length", 513), VdError::Unexpected),
        (put(&hello, BODY + 4, b"1"), JoinError::Name(NameError::Instance), VdError::InstanceName),
        (
            put(&hello, BODY + 7, b"\\"),
            JoinError::Name(NameError::Character { character: '\\', at: 0 }),
            VdError::Invalid,
        ),
        (put(&hello, BODY + 7, b"\xff"), JoinError::Text, VdError::Unexpected),
        (put(&welcome, BODY, &MAX_MEMBERS.to_le_bytes()), field("member", u64::from(MAX_MEMBERS)), VdError::Unexpected),
        (put(&welcome, flag, &[2, 0]), field("configured", 2), VdError::Unexpected),
        (put(&welcome, classes, &[65, 0]), field("classes", u64::from(MAX_CLASSES) + 1), VdError::Unexpected),
        (put(&message, BODY, &[64, 0]), field("class", u64::from(MAX_CLASSES)), VdError::Unexpected),
        (put(&answer, BODY, &[0, 0, 0, 1]), field("class", 1 << 24), VdError::Unexpected),
        (put(&refused, BODY, &[0; 4]), field("status", 0), VdError::Unexpected),
        (put(&refused, BODY + 4, &[1, 2]), field("string length", 513), VdError::Unexpected),
        (put(&refused, BODY + 6, b"\xff"), JoinError::Text, VdError::Unexpected),
        (put(&aborted, BODY + 8, &[1, 2]), field("string length", 513), VdError::Unexpected),
        (put(&aborted, BODY + 2, &[9]), field("abort reason", 0x0209_0000), VdError::Unexpected),
        (
            put(&Message::ConfiguredAnswer(Ok(())), BODY, &[8, 0, 0x77, 0x80]),
            field("status", 0x8077_0008),
            VdError::Unexpected,
        ),
        (put(&aborted, BODY, &[0; 4]), field("abort reason", 0), VdError::Unexpected),
        // A word of a reason that encodes to another word.
        (put(&aborted, BODY, &[5, 0, 1, 2]), field("abort reason", 0x0201_0005), VdError::Unexpected),
        (vec![0; MAX_MESSAGE + 1], JoinError::Oversized { found: 1025, expected: 1024 }, VdError::Unexpected),
    ];
    for (bytes, error, status) in rows {
        assert_eq!(Message::decode(&bytes), Err(error));
        assert_eq!(error.code(), status, "{error}");
    }
    let mut empty_name = bytes_of(&Message::Hello { role: JoinRole::Server, instance: "", set: "s" });
    empty_name[BODY + 4] = 0;
    empty_name.pop();
    assert_eq!(Message::decode(&empty_name), Err(JoinError::Name(NameError::Empty)));
}

#[test]
fn messages_begin_with_magic_and_version() {
    for message in messages() {
        let bytes = bytes_of(&message);
        assert_eq!(bytes[..4], MAGIC.to_le_bytes());
        assert_eq!(bytes[4..6], (VERSION as u16).to_le_bytes());
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 1..=MAX_NAME_CHARS)
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '\\' && !c.is_control()).collect::<String>())
        .prop_filter("a name has a character", |name| !name.is_empty())
}

fn config() -> impl Strategy<Value = VdConfig> {
    any::<[u32; 11]>().prop_map(VdConfig::from_words)
}

fn answer() -> impl Strategy<Value = Result<(), (VdError, String)>> {
    prop_oneof![Just(Ok(())), (prop::sample::select(VdError::ALL.to_vec()), ".{0,128}").prop_map(Err)]
}

fn decodes(message: Message<'_>) {
    let encoded = message.encode();
    assert_eq!(Message::decode(encoded.bytes()), Ok(message));
    assert!(join_message(encoded.bytes()));
}

proptest! {
    #[test]
    fn hello(server: bool, instance in "([A-Za-z_#][A-Za-z0-9_$#]{0,15})?", set in name()) {
        decodes(Message::Hello {
            role: if server { JoinRole::Server } else { JoinRole::Secondary },
            instance: &instance,
            set: &set,
        });
    }

    #[test]
    fn welcome(
        index in 0..MAX_MEMBERS,
        secret: u64,
        requested in config(),
        negotiated in prop::option::of(config()),
        classes in 0..=MAX_CLASSES,
    ) {
        decodes(Message::Welcome { member: member(index), secret, requested, negotiated, classes });
    }

    #[test]
    fn other_messages(index in 0..MAX_CLASSES, spec: (u32, u32, u32), answer in answer(), config in config()) {
        let index = class(index);
        let answer = answer.as_ref().map_err(|(status, text)| Refusal::new(*status, text)).copied();
        let (buffer_len, alignment, count) = spec;
        decodes(Message::Class { index, spec: ClassSpec { buffer_len, alignment, count } });
        decodes(Message::ClassAnswer { index, answer });
        decodes(Message::Configured(config));
        decodes(Message::ConfiguredAnswer(answer));
        if let Err(refusal) = answer {
            decodes(Message::Refused(refusal));
        }
    }

    /// A text of any length is cut, never refused: the process that aborts a set cannot fail to say so.
    #[test]
    fn aborted(code: u32, text in ".{0,400}") {
        let reason = AbortReason { process: Process::Server, cause: Cause::GaveUp };
        let encoded = Message::Aborted { reason, code, text: &text }.encode();
        prop_assert!(join_message(encoded.bytes()));
        match Message::decode(encoded.bytes()) {
            Ok(Message::Aborted { reason: found, code: number, text: cut }) => {
                prop_assert_eq!((found, number), (reason, code));
                prop_assert!(text.starts_with(cut) && cut.len() <= MAX_REASON_BYTES);
                prop_assert!(cut == text || cut.len() > MAX_REASON_BYTES - 4);
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
        join_message(&bytes);
    }

    /// Any fields after a valid header.
    #[test]
    fn any_contents(kind in 0u16..10, body in prop::collection::vec(any::<u8>(), 0..700)) {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend((VERSION as u16).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(body);
        join_message(&bytes);
    }

    /// A message with one byte changed is another message or none.
    #[test]
    fn any_byte_changed(which in 0usize..56, at: prop::sample::Index, value in 1u8..) {
        let messages = messages();
        let message = messages[which % messages.len()];
        let mut bytes = bytes_of(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= value;
        join_message(&bytes);
        prop_assert_ne!(Message::decode(&bytes), Ok(message));
    }
}
