//! The configuration: every field that a client or a server can set wrongly, and the laws of negotiation.

#![allow(clippy::unwrap_used)]

mod laws;

use proptest::prelude::*;
use vdi_proto::config::{Author, ConfigError, MAX_TRANSFER_SIZE, ServerTerms, VdConfig};
use vdi_proto::features::{Features, UnsupportedFeatures};
use vdi_proto::status::VdError;

/// A tape-like client, so that every field can have a value.
const REQUESTED: VdConfig = VdConfig {
    device_count: 4,
    features: Features::from_bits_retain(0x173 | 0x2000),
    prefix_zone_size: 64,
    alignment: 4096,
    soft_file_mark_block_size: 1024,
    eom_warning_size: 1 << 20,
    server_time_out: 60_000,
    block_size: 7,
    max_io_depth: 7,
    max_transfer_size: 7,
    buffer_area_size: 7,
};

fn with(config: &VdConfig, field: usize, value: u32) -> VdConfig {
    let mut words = config.to_words();
    words[field] = value;
    VdConfig::from_words(words)
}

#[test]
fn the_words_are_in_the_published_order() {
    let config = VdConfig {
        device_count: 1,
        features: Features::from_bits_retain(2),
        prefix_zone_size: 3,
        alignment: 4,
        soft_file_mark_block_size: 5,
        eom_warning_size: 6,
        server_time_out: 7,
        block_size: 8,
        max_io_depth: 9,
        max_transfer_size: 10,
        buffer_area_size: 11,
    };
    assert_eq!(config.to_words(), core::array::from_fn(|i| i as u32 + 1));
    assert_eq!(VdConfig::from_words(config.to_words()), config);
}

#[test]
fn bad_fields_of_a_client_are_named() {
    assert_eq!(REQUESTED.validate_client(), Ok(()), "the server's fields are ignored");
    let rows: [(usize, &str, &[u32]); 6] = [
        (0, "deviceCount", &[0, 65, u32::MAX]),
        (1, "features", &[0x1_0173, 0x2_0173, 0x4_0173, 0x7_0000]),
        (2, "prefixZoneSize", &[65537, u32::MAX]),
        (3, "alignment", &[3, 4097, 1 << 17, u32::MAX]),
        (4, "softFileMarkBlockSize", &[1, 511, 513, 256, 1 << 17, u32::MAX]),
        (5, "EOMWarningSize", &[]),
    ];
    let mut tried = 0;
    for (field, name, bad) in rows {
        for value in bad {
            let error = with(&REQUESTED, field, *value).validate_client().unwrap_err();
            assert!(
                matches!(error, ConfigError::Field { author: Author::Client, field, found, .. }
                    if field == name && found == *value),
                "{error:?}"
            );
            assert_eq!(error.code(), VdError::NotSupported);
            let text = error.to_string();
            assert!(text.starts_with(&format!("the client set {name} to {value}; it must be ")), "{text}");
            tried += 1;
        }
    }
    assert_eq!(tried, 3 + 4 + 2 + 4 + 6);
}

#[test]
fn fields_that_need_a_feature_are_refused_without_it() {
    let pipe = VdConfig { features: Features::NONE, ..REQUESTED };
    let error = pipe.validate_client().unwrap_err();
    assert!(matches!(error, ConfigError::Field { field: "softFileMarkBlockSize", found: 1024, .. }), "{error:?}");
    let no_marks = VdConfig { soft_file_mark_block_size: 0, ..pipe };
    let error = no_marks.validate_client().unwrap_err();
    assert!(matches!(error, ConfigError::Field { field: "EOMWarningSize", found: 0x10_0000, .. }), "{error:?}");
    assert_eq!(VdConfig { features: Features::REMOVABLE, ..no_marks }.validate_client(), Ok(()));
    assert_eq!(VdConfig { eom_warning_size: 0, ..no_marks }.validate_client(), Ok(()));
}

#[test]
fn unsupported_features_are_shown() {
    for bits in [0x2, 0x100, 0x172, 0x173 | 0x200, 0x1000, 0x8000_0000, 0x4, 0x8] {
        let error = with(&REQUESTED, 1, bits).validate_client().unwrap_err();
        assert_eq!(error, ConfigError::Features(UnsupportedFeatures { features: Features::from_bits_retain(bits) }));
        assert_eq!(error.code(), VdError::NotSupported);
    }
}

#[test]
fn the_bounds_themselves_are_good() {
    for (field, good) in [
        (0, [1, 64].as_slice()),
        (2, &[0, 1, 65536]),
        (3, &[0, 1, 2, 512, 65536]),
        (4, &[0, 512, 65536]),
        (5, &[0, u32::MAX]),
        (6, &[0, u32::MAX]),
    ] {
        for value in good {
            assert_eq!(with(&REQUESTED, field, *value).validate_client(), Ok(()), "field {field}: {value}");
        }
    }
}

/// Memory is mapped with an alignment of 64 KiB, so no greater alignment can be kept.
#[test]
fn alignment_above_64_kib_is_refused() {
    for alignment in [1 << 17, 1 << 20, 1 << 31] {
        let requested = VdConfig { alignment, ..VdConfig::default() };
        let error = requested.validate_client().unwrap_err();
        assert!(matches!(error, ConfigError::Field { author: Author::Client, field: "alignment", .. }), "{error:?}");
        let terms = ServerTerms { alignment, ..ServerTerms::default() };
        assert_eq!(terms.negotiate(&VdConfig::default()).unwrap_err().code(), VdError::Invalid);
        let negotiated = ServerTerms::default().negotiate(&VdConfig::default()).unwrap();
        assert!(VdConfig { alignment, ..negotiated }.validate_answer(&VdConfig::default()).is_err());
    }
}

#[test]
fn bad_terms_of_a_server_are_named() {
    let good = ServerTerms::default();
    assert!(good.negotiate(&REQUESTED).is_ok());
    let with_features = |bits| ServerTerms { features: Features::from_bits_retain(bits), ..good };
    let with_alignment = |alignment| ServerTerms { alignment, block_size: 4096, ..good };
    let with_block = |block_size| ServerTerms { block_size, ..good };
    let with_transfer = |max_transfer_size| ServerTerms { max_transfer_size, ..good };
    type Rows<'a> = [(&'a str, &'a [u32], &'a dyn Fn(u32) -> ServerTerms); 4];
    let rows: Rows<'_> = [
        ("features", &[0, 0x4_0000, 0x5_0000, 0x1_0001, 0x1_2000, u32::MAX], &with_features),
        ("alignment", &[1, 512, 2048, 4097, 12288, 1 << 17, u32::MAX], &with_alignment),
        ("blockSize", &[0, 1, 256, 511, 513, 1 << 17, 1 << 31, u32::MAX], &with_block),
        ("maxTransferSize", &[0, 1, 65535, 65537, 98304, MAX_TRANSFER_SIZE + 65536, u32::MAX], &with_transfer),
    ];
    let mut tried = 0;
    for (name, bad, terms) in rows {
        for value in bad {
            let error = terms(*value).negotiate(&REQUESTED).unwrap_err();
            assert!(
                matches!(error, ConfigError::Field { author: Author::Server, field, found, .. }
                    if field == name && found == *value),
                "{name} {value}: {error:?}"
            );
            assert_eq!(error.code(), VdError::Invalid);
            tried += 1;
        }
    }
    assert_eq!(tried, 6 + 7 + 8 + 7);
}

/// A block size out of range is reported, also if it makes the alignment wrong.
#[test]
fn block_size_is_validated_before_the_alignment() {
    let terms = ServerTerms { block_size: 1 << 17, alignment: 4096, ..ServerTerms::default() };
    assert!(matches!(terms.negotiate(&REQUESTED), Err(ConfigError::Field { field: "blockSize", found: 0x2_0000, .. })));
}

#[test]
fn negotiated_alignment_is_the_greatest() {
    for (requested, alignment, block_size, negotiated) in [
        (0, 0, 512, 512),
        (4096, 0, 512, 4096),
        (512, 0, 4096, 4096),
        (512, 8192, 4096, 8192),
        (65536, 8192, 512, 65536),
    ] {
        let terms = ServerTerms { alignment, block_size, ..ServerTerms::default() };
        let config = terms.negotiate(&VdConfig { alignment: requested, ..REQUESTED }).unwrap();
        assert_eq!((config.alignment, config.block_size), (negotiated, block_size));
    }
}

#[test]
fn complete_is_enabled_exactly_if_requested() {
    for (requested, enabled) in [(Features::NONE, false), (Features::REQUEST_COMPLETE, true)] {
        let config = VdConfig { features: requested, ..VdConfig::default() };
        let negotiated = ServerTerms::default().negotiate(&config).unwrap();
        assert_eq!(negotiated.features.contains(Features::COMPLETE_ENABLED), enabled);
    }
    // A restore has nothing to finish.
    let restore = ServerTerms { features: Features::READ_MEDIA, ..ServerTerms::default() };
    let requested = VdConfig { features: Features::REQUEST_COMPLETE, ..VdConfig::default() };
    let negotiated = restore.negotiate(&requested).unwrap();
    assert!(!negotiated.features.contains(Features::COMPLETE_ENABLED));
    let enabled = VdConfig { features: negotiated.features | Features::COMPLETE_ENABLED, ..negotiated };
    assert!(enabled.validate_answer(&requested).is_err());
    // A server may omit it, but not add it unrequested.
    let requested = VdConfig { features: Features::REQUEST_COMPLETE, ..VdConfig::default() };
    let negotiated = ServerTerms::default().negotiate(&requested).unwrap();
    let without = VdConfig { features: negotiated.features.difference(Features::COMPLETE_ENABLED), ..negotiated };
    assert_eq!(without.validate_answer(&requested), Ok(()));
    let plain = VdConfig::default();
    let negotiated = ServerTerms::default().negotiate(&plain).unwrap();
    let unrequested = VdConfig { features: negotiated.features | Features::COMPLETE_ENABLED, ..negotiated };
    assert!(matches!(
        unrequested.validate_answer(&plain),
        Err(ConfigError::Field { author: Author::Server, field: "features", found: 0x5_0000, .. })
    ));
}

#[test]
fn bad_fields_of_an_answer_are_named() {
    let negotiated = ServerTerms::default().negotiate(&REQUESTED).unwrap();
    let rows: [(usize, &str, u32); 16] = [
        (0, "deviceCount", 5),
        (1, "features", 0x1_0000),
        (1, "features", 0x2173),
        (1, "features", 0x1_2173 | 0x80),
        (2, "prefixZoneSize", 0),
        (3, "alignment", 2048),
        (3, "alignment", 0),
        (3, "alignment", 1 << 17),
        (4, "softFileMarkBlockSize", 0),
        (5, "EOMWarningSize", 0),
        (6, "serverTimeOut", 0),
        (7, "blockSize", 0),
        (7, "blockSize", 1000),
        (8, "maxIODepth", 0),
        (9, "maxTransferSize", 0),
        (9, "maxTransferSize", MAX_TRANSFER_SIZE * 2),
    ];
    for (field, name, value) in rows {
        let error = with(&negotiated, field, value).validate_answer(&REQUESTED).unwrap_err();
        assert!(
            matches!(error, ConfigError::Field { author: Author::Server, field, found, .. }
                if field == name && found == value),
            "{error:?}"
        );
    }
    assert_eq!(with(&negotiated, 10, u32::MAX).validate_answer(&REQUESTED), Ok(()), "the buffer area has any size");
}

/// Mostly valid configurations and terms; some have a field replaced by any value.
fn requested() -> impl Strategy<Value = VdConfig> {
    let kind = prop::sample::select(vec![0u32, 1, 0x200, 0x201, 0x173]);
    let optional = prop::sample::subsequence(vec![0x80u32, 0x400, 0x800, 0x2000], 0..=4);
    let sizes = (0u32..=65536, 0u32..=17, any::<u32>(), any::<u32>());
    (1u32..=64, kind, optional, sizes, prop::option::weighted(0.2, (0usize..11, any::<u32>()))).prop_map(
        |(devices, kind, optional, (prefix, alignment, eom, time_out), spoilt)| {
            let features = optional.into_iter().fold(kind, |bits, bit| bits | bit);
            let alignment = if alignment == 0 { 0 } else { 1 << (alignment - 1) };
            let mark = if kind == 0x173 { 512 } else { 0 };
            let eom = if kind & 1 == 1 { eom } else { 0 };
            let mut words = [devices, features, prefix, alignment, mark, eom, time_out, 9, 9, 9, 9];
            if let Some((field, value)) = spoilt {
                words[field] = value;
            }
            VdConfig::from_words(words)
        },
    )
}

fn terms() -> impl Strategy<Value = ServerTerms> {
    let direction = prop::sample::select(vec![0x1_0000u32, 0x2_0000, 0x3_0000]);
    let spoilt = prop::option::weighted(0.2, (0usize..4, any::<u32>()));
    (direction, prop::option::of(9u32..=16), 9u32..=16, 1u32..=64, spoilt).prop_map(
        |(direction, alignment, block, units, spoilt)| {
            let alignment = alignment.map_or(0, |more| 1 << more.max(block));
            let mut words = [direction, alignment, 1 << block, units * 65536];
            if let Some((field, value)) = spoilt {
                words[field] = value;
            }
            let [features, alignment, block_size, max_transfer_size] = words;
            ServerTerms { features: Features::from_bits_retain(features), alignment, block_size, max_transfer_size }
        },
    )
}

proptest! {
    #[test]
    fn negotiation(
        requested in requested(),
        terms in terms(),
        field in 0usize..11,
        change: u32,
        bit in 0u32..32,
        area: u32,
    ) {
        laws::bytes::config_law(&requested, &terms, field, change, area);
        laws::bytes::config_law(&requested, &terms, field, 1 << bit, area);
        laws::bytes::config_law(&requested, &terms, field, 0, area);
    }

    #[test]
    fn negotiation_of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        laws::bytes::config(&bytes);
    }
}

/// The generators above lead to negotiated configurations, and to refusals of both sides.
#[test]
fn generators_reach_agreement_and_refusal() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut negotiated, mut client, mut server) = (0, 0, 0);
    for _ in 0..2000 {
        let (requested, terms) = (requested(), terms()).new_tree(&mut runner).unwrap().current();
        match terms.negotiate(&requested) {
            Ok(_) => negotiated += 1,
            Err(error) if error.code() == VdError::NotSupported => client += 1,
            Err(_) => server += 1,
        }
    }
    assert!(negotiated >= 1000 && client >= 100 && server >= 100, "{negotiated} {client} {server}");
}
