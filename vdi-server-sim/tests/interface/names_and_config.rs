//! Create, and joining, with names and configurations that cannot be: each answers its code, and says what is wrong.

use crate::common;

use std::os::unix::fs::PermissionsExt;

use common::bench::{Bench, names};
use common::client::config;
use common::processes::{RoleContext, run_role};
use vdi_client::{ClientVirtualDeviceSet, Features, Options, VdConfig, VdError};
use vdi_server_sim::vds::ServerVirtualDeviceSet;

#[test]
fn child_entry() {
    run_role(&[("create", create), ("joiner", join)]);
}

fn say_outcome(stage: &RoleContext, outcome: Result<(), vdi_client::Error>) {
    match outcome {
        Ok(()) => stage.say("done"),
        Err(error) => stage.say(&format!("{:?} {error}", error.code())),
    }
}

fn create(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    say_outcome(stage, set.create(stage.argument(0), &config(1)));
    stage.stay();
}

fn join(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    say_outcome(stage, set.open_in_secondary(stage.argument(0)));
    stage.stay();
}

#[test]
fn names_that_cannot_be_are_invalid_and_say_why() {
    let bench = Bench::new();
    let too_long = "n".repeat(129);
    for (name, reason) in [
        ("", "the name is empty"),
        (&*too_long, "129 characters; at most 128"),
        ("a\\b", "'\\\\' at character 1"),
        ("\\", "'\\\\' at character 0"),
        ("line\nbreak", "'\\n' at character 4"),
        ("nul\0", "at character 3"),
        ("\u{7f}", "at character 0"),
    ] {
        let set = ClientVirtualDeviceSet::with_options(bench.options());
        for error in [set.create(name, &config(1)).unwrap_err(), set.open_in_secondary(name).unwrap_err()] {
            assert_eq!(error.code(), VdError::Invalid, "{name:?}: {error}");
            assert!(error.to_string().contains(reason), "{name:?}: {error}");
        }
        let server = ServerVirtualDeviceSet::with_options(bench.options());
        let error = server.open("", name).unwrap_err();
        assert_eq!(error.code, VdError::Invalid, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn names_that_look_dangerous_are_just_names() {
    let bench = Bench::new();
    let longest = "ß".repeat(128);
    for name in
        ["../../etc/passwd", "/", ".", "..", " ", "a'b", "%s%n", "{0F8FAD5B-D9CB-469F-A165-70867728950E}", &longest]
    {
        let set = bench.create(name, &config(1));
        assert_eq!(names(&bench.runtime()).len(), 1, "{name:?}");
        let server = ServerVirtualDeviceSet::with_options(bench.options());
        server.open("", name).unwrap();
        server.close().unwrap();
        set.close().unwrap();
        assert!(names(&bench.runtime()).is_empty(), "{name:?}");
    }
}

#[test]
fn instances_that_cannot_be_are_answered_as_such() {
    let bench = Bench::new();
    let set = ClientVirtualDeviceSet::with_options(bench.options());
    for instance in ["machine\\sales", "seventeen_letters", "1st", "a b"] {
        let error = set.create_ex(Some(instance), "nightly", &config(1)).unwrap_err();
        assert_eq!(error.code(), VdError::InstanceName, "{instance:?}: {error}");
    }
}

#[test]
fn sets_of_two_instances_may_have_one_name() {
    let bench = Bench::new();
    let (default, sales) = (bench.create("nightly", &config(1)), ClientVirtualDeviceSet::with_options(bench.options()));
    sales.create_ex(Some("SALES"), "nightly", &config(1)).unwrap();
    let server = ServerVirtualDeviceSet::with_options(bench.options());
    assert_eq!(server.open("OTHER", "nightly").unwrap_err().code, VdError::Invalid);
    server.open("SALES", "nightly").unwrap();
    drop(default);
    server.close().unwrap();
}

#[test]
fn every_field_that_cannot_be_served_is_named_with_its_value() {
    let bench = Bench::new();
    let base = config(1);
    let server_bits = [Features::WRITE_MEDIA, Features::READ_MEDIA, Features::COMPLETE_ENABLED];
    let mut cases = vec![
        (VdConfig { device_count: 0, ..base }, "deviceCount to 0"),
        (VdConfig { device_count: 65, ..base }, "deviceCount to 65"),
        (VdConfig { device_count: u32::MAX, ..base }, "deviceCount to 4294967295"),
        (VdConfig { prefix_zone_size: 65537, ..base }, "prefixZoneSize to 65537"),
        (VdConfig { alignment: 3, ..base }, "alignment to 3"),
        (VdConfig { alignment: 131_072, ..base }, "alignment to 131072"),
        (VdConfig { soft_file_mark_block_size: 512, ..base }, "softFileMarkBlockSize to 512"),
        (VdConfig { eom_warning_size: 1, ..base }, "EOMWarningSize to 1"),
        // Half a tape, and both a tape and a disk.
        (VdConfig { features: Features::FILE_MARKS, ..base }, "features VDF_FileMarks make up none"),
        (
            VdConfig { features: Features::RANDOM_ACCESS | Features::FILE_MARKS, ..base },
            "VDF_FileMarks|VDF_RandomAccess",
        ),
        (VdConfig { features: Features::from_bits_retain(0x8), ..base }, "0x8"),
    ];
    let named: Vec<_> = server_bits.iter().map(|bit| format!("features to {}", bit.bits())).collect();
    cases
        .extend(server_bits.iter().zip(&named).map(|(bit, text)| (VdConfig { features: *bit, ..base }, text.as_str())));
    let set = ClientVirtualDeviceSet::with_options(bench.options());
    for (config, text) in cases {
        let error = set.create("nightly", &config).unwrap_err();
        assert_eq!(error.code(), VdError::NotSupported, "{config:?}: {error}");
        assert!(error.to_string().contains(text), "{text:?} is missing: {error}");
        assert!(names(&bench.runtime()).is_empty());
    }
    // The server's fields are not the client's to set, and are passed over.
    set.create("nightly", &VdConfig { block_size: 3, max_transfer_size: 1, max_io_depth: 9, ..base }).unwrap();
}

#[test]
fn an_object_holds_one_set_at_a_time() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    for error in [set.create("other", &config(1)), set.open_in_secondary("nightly")].map(Result::unwrap_err) {
        assert_eq!(error.code(), VdError::Protocol, "{error}");
    }
    assert_eq!(names(&bench.runtime()).len(), 1);
}

#[test]
fn a_live_set_s_name_is_taken_for_everybody() {
    let bench = Bench::new();
    let _set = bench.create("nightly", &config(1));
    let other = ClientVirtualDeviceSet::with_options(bench.options());
    let error = other.create("nightly", &config(1)).unwrap_err();
    assert_eq!(error.code(), VdError::Protocol, "{error}");
    let mut part = bench.part("create", &["nightly"]);
    let answer = part.report();
    assert!(answer.starts_with("Protocol ") && answer.contains("nightly"), "{answer}");
    part.end();
    // Nor did either attempt harm the live one.
    let server = ServerVirtualDeviceSet::with_options(bench.options());
    server.open("", "nightly").unwrap();
    part = bench.part("create", &["Nightly"]);
    assert_eq!(part.report(), "done", "names are case-sensitive");
    part.end();
}

#[test]
fn a_secondary_joins_no_set_that_is_unknown_configurable_aborted_or_closed() {
    let bench = Bench::new();
    let join = |what: &str, code: VdError| {
        let part = bench.part("joiner", &["nightly"]);
        let answer = part.report();
        assert!(answer.starts_with(&format!("{code:?} ")), "a set that {what}: {answer}");
        part.end();
    };
    join("nobody created", VdError::Protocol);
    let set = bench.create("nightly", &config(1));
    join("is not configured", VdError::Protocol);
    set.signal_abort().unwrap();
    join("was aborted", VdError::Abort);
    set.close().unwrap();
    join("was closed", VdError::Protocol);
}

#[test]
fn a_server_opens_no_set_that_is_aborted_and_no_set_twice() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let (one, two) =
        (ServerVirtualDeviceSet::with_options(bench.options()), ServerVirtualDeviceSet::with_options(bench.options()));
    one.open("", "nightly").unwrap();
    assert_eq!(two.open("", "nightly").unwrap_err().code, VdError::Invalid);
    assert_eq!(one.open("", "nightly").unwrap_err().code, VdError::Protocol);
    // One that left before the configuration makes room for the next.
    one.close().unwrap();
    common::eventually("the server's place is free", || two.open("", "nightly").map_err(|error| error.to_string()));
    two.close().unwrap();
    set.signal_abort().unwrap();
    let late = ServerVirtualDeviceSet::with_options(bench.options());
    assert_eq!(late.open("", "nightly").unwrap_err().code, VdError::Abort);
}

#[test]
fn a_runtime_directory_that_anybody_can_write_to_is_not_trusted() {
    let bench = Bench::new();
    let open = bench.out().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let set = ClientVirtualDeviceSet::with_options(Options { runtime_dir: Some(open), ..Options::default() });
    for error in [set.create("nightly", &config(1)), set.open_in_secondary("nightly")].map(Result::unwrap_err) {
        assert_eq!(error.code(), VdError::Security, "{error}");
        assert!(error.to_string().contains("sticky bit"), "{error}");
    }
}

#[test]
fn a_runtime_directory_that_is_missing_is_made_by_create_only() {
    let bench = Bench::new();
    let missing = bench.out().join("a/b");
    let options = Options { runtime_dir: Some(missing.clone()), ..Options::default() };
    let server = ServerVirtualDeviceSet::with_options(options.clone());
    assert_eq!(server.open("", "nightly").unwrap_err().code, VdError::Invalid);
    assert!(!missing.exists());
    let set = ClientVirtualDeviceSet::with_options(options);
    set.create("nightly", &config(1)).unwrap();
    server.open("", "nightly").unwrap();
    assert_eq!(std::fs::metadata(&missing).unwrap().permissions().mode() & 0o777, 0o700);
}
