//! The join messages: every message comes back from its bytes, and nothing else is a message.

mod laws;

use laws::bytes::join_message;
use proptest::prelude::*;
use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::config::VdConfig;
use vdi_proto::join::{Agreement, JoinError, MAGIC, MAX_MESSAGE, Message, Role};
use vdi_proto::layout::{MAX_MEMBERS, VERSION};
use vdi_proto::name::{MAX_INSTANCE_CHARS, MAX_NAME_BYTES, MAX_NAME_CHARS, NameError};
use vdi_proto::status::VdError;

/// Where the kind and the contents begin.
const KIND: usize = 6;
const BODY: usize = 8;

fn agreement() -> Agreement {
    Agreement { config: VdConfig::from_words(core::array::from_fn(|i| 0x0101_0101 * i as u32)), slot_bits: 9 }
}

fn messages() -> Vec<Message<'static>> {
    let asked = VdConfig::default();
    let mut messages = vec![
        Message::Hello { role: Role::Server, instance: "", set: "s" },
        Message::Hello { role: Role::Secondary, instance: "SQLEXPRESS", set: "Größe/1" },
        Message::Welcome { member: 0, secret: u64::MAX, asked, agreement: None, areas: 0 },
        Message::Welcome { member: 127, secret: 1, asked, agreement: Some(agreement()), areas: 64 },
        Message::Area { index: 7, len: 1 << 40 },
        Message::AreaAnswer { index: 7, answer: Ok(()) },
        Message::Configured(agreement()),
        Message::ConfiguredAnswer(Ok(())),
        Message::Leave,
        Message::Aborted { reason: AbortReason { party: Party::Secondary(7), cause: Cause::TimedOut } },
    ];
    for status in VdError::ALL {
        messages.extend([
            Message::Refused { status },
            Message::AreaAnswer { index: 1, answer: Err(status) },
            Message::ConfiguredAnswer(Err(status)),
        ]);
    }
    messages
}

fn bytes_of(message: &Message<'_>) -> Vec<u8> {
    message.encode().bytes().to_vec()
}

#[test]
fn every_message_comes_back_and_no_part_of_it_does() {
    let messages = messages();
    assert_eq!(messages.len(), 10 + 3 * VdError::ALL.len());
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
    assert_eq!(cut, 960, "cuts tried");
}

#[test]
fn the_bytes_of_a_message_hold() {
    let hello = Message::Hello { role: Role::Secondary, instance: "A", set: "set" };
    assert_eq!(bytes_of(&hello), b"vdiJ\x04\0\x01\0\x02\0\x01\0A\x03\0set");
    assert_eq!(bytes_of(&Message::Leave), b"vdiJ\x04\0\x08\0");
    let answer = Message::AreaAnswer { index: 2, answer: Err(VdError::Memory) };
    assert_eq!(bytes_of(&answer), b"vdiJ\x04\0\x05\0\x02\0\0\0\x0a\0\x77\x80");
}

#[test]
fn the_longest_hello_fits() {
    let set = "\u{10348}".repeat(MAX_NAME_CHARS);
    let instance = "\u{10348}".repeat(MAX_INSTANCE_CHARS);
    assert_eq!(set.len(), MAX_NAME_BYTES);
    let hello = Message::Hello { role: Role::Server, instance: &instance, set: &set };
    let bytes = bytes_of(&hello);
    assert_eq!(bytes.len(), BODY + 2 + 2 + instance.len() + 2 + set.len());
    assert!(bytes.len() <= MAX_MESSAGE);
    assert_eq!(Message::decode(&bytes), Ok(hello));
}

/// Names that were never checked make no message, whatever their length: none decodes to another name.
#[test]
fn names_that_are_too_long_make_no_message() {
    for len in [129, 513, 600, 1020, 1024, 2000, 65535, 65536, 65537, 65536 + 64, 131_072 + 5] {
        let long = "x".repeat(len);
        for (instance, set) in [("", long.as_str()), (long.as_str(), "s"), (long.as_str(), long.as_str())] {
            let bytes = bytes_of(&Message::Hello { role: Role::Server, instance, set });
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
    let hello = Message::Hello { role: Role::Server, instance: "I", set: "s" };
    let welcome =
        Message::Welcome { member: 2, secret: 3, asked: VdConfig::default(), agreement: Some(agreement()), areas: 0 };
    let aborted = Message::Aborted { reason: AbortReason { party: Party::Server, cause: Cause::Died } };
    let flag = BODY + 4 + 8 + 44 + 4;
    let field = |field, found| JoinError::Field { field, found };
    let rows: [(Vec<u8>, JoinError, VdError); 23] = [
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
        (put(&welcome, flag + 2 + 44, &[5, 0, 0, 0]), field("slot bits", 5), VdError::Unexpected),
        (
            put(&Message::Configured(agreement()), BODY + 44, &[13, 0, 0, 0]),
            field("slot bits", 13),
            VdError::Unexpected,
        ),
        (put(&Message::Refused { status: VdError::Abort }, BODY, &[0; 4]), field("status", 0), VdError::Unexpected),
        (put(&aborted, BODY + 2, &[9]), field("abort reason", 0x0209_0000), VdError::Unexpected),
        (
            put(&Message::ConfiguredAnswer(Ok(())), BODY, &[8, 0, 0x77, 0x80]),
            field("status", 0x8077_0008),
            VdError::Unexpected,
        ),
        (put(&aborted, BODY, &[0; 4]), field("abort reason", 0), VdError::Unexpected),
        // A word that stands for a reason, but not the one by which it is sent.
        (put(&aborted, BODY, &[5, 0, 1, 2]), field("abort reason", 0x0201_0005), VdError::Unexpected),
        (vec![0; MAX_MESSAGE + 1], JoinError::Oversized { found: 1025, expected: 1024 }, VdError::Unexpected),
    ];
    for (bytes, error, status) in rows {
        assert_eq!(Message::decode(&bytes), Err(error));
        assert_eq!(error.code(), status, "{error}");
    }
    let mut empty_name = bytes_of(&Message::Hello { role: Role::Server, instance: "", set: "s" });
    empty_name[BODY + 4] = 0;
    empty_name.pop();
    assert_eq!(Message::decode(&empty_name), Err(JoinError::Name(NameError::Empty)));
}

#[test]
fn magic_and_version_are_what_the_messages_begin_with() {
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

fn agreed() -> impl Strategy<Value = Agreement> {
    (config(), 6u32..=12).prop_map(|(config, slot_bits)| Agreement { config, slot_bits })
}

fn answer() -> impl Strategy<Value = Result<(), VdError>> {
    prop_oneof![Just(Ok(())), prop::sample::select(VdError::ALL.to_vec()).prop_map(Err)]
}

fn comes_back(message: Message<'_>) {
    let encoded = message.encode();
    assert_eq!(Message::decode(encoded.bytes()), Ok(message));
    assert!(join_message(encoded.bytes()));
}

proptest! {
    #[test]
    fn hello(server: bool, instance in "([A-Za-z_#][A-Za-z0-9_$#]{0,15})?", set in name()) {
        comes_back(Message::Hello {
            role: if server { Role::Server } else { Role::Secondary },
            instance: &instance,
            set: &set,
        });
    }

    #[test]
    fn welcome(
        member in 0..MAX_MEMBERS,
        secret: u64,
        asked in config(),
        agreement in prop::option::of(agreed()),
        areas: u32,
    ) {
        comes_back(Message::Welcome { member, secret, asked, agreement, areas });
    }

    #[test]
    fn the_others(index: u32, len: u64, answer in answer(), agreement in agreed()) {
        comes_back(Message::Area { index, len });
        comes_back(Message::AreaAnswer { index, answer });
        comes_back(Message::Configured(agreement));
        comes_back(Message::ConfiguredAnswer(answer));
        if let Err(status) = answer {
            comes_back(Message::Refused { status });
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1100)) {
        join_message(&bytes);
    }

    /// Behind a good beginning anything may come.
    #[test]
    fn any_contents(kind in 0u16..10, body in prop::collection::vec(any::<u8>(), 0..700)) {
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend((VERSION as u16).to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(body);
        join_message(&bytes);
    }

    /// A message with one byte changed is that message no more.
    #[test]
    fn any_byte_changed(which in 0usize..54, at: prop::sample::Index, value in 1u8..) {
        let messages = messages();
        let message = messages[which % messages.len()];
        let mut bytes = bytes_of(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= value;
        join_message(&bytes);
        prop_assert_ne!(Message::decode(&bytes), Ok(message));
    }
}
