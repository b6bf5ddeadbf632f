//! Codes and features as text: what `Display` prints is read back, and nothing else is.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::features::Features;
use vdi_proto::parse::ParseError;
use vdi_proto::status::VdError;

/// The text of a value leads back to it.
fn round_trip<T: Display + FromStr<Err = ParseError> + PartialEq + Debug>(value: T) {
    assert_eq!(value.to_string().parse(), Ok(value));
}

/// A text is refused, or is a value whose own text leads back to it.
fn refused_or_stable<T: Display + FromStr<Err = ParseError> + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => round_trip(value),
        Err(error) => assert!(error.to_string().contains(" is no ") && text.contains(error.found()), "{error}"),
    }
}

#[test]
fn every_name_is_read_back() {
    for status in VdError::ALL {
        round_trip(status);
        assert_eq!(status.name().parse(), Ok(status));
        assert_eq!(format!("{} ({:#010x})", status.name(), status.hresult()).parse(), Ok(status));
        assert_eq!(format!("{:#010x}", status.hresult()).parse(), Ok(status));
    }
    for code in CompletionCode::NAMED {
        round_trip(*code);
        assert_eq!(code.name().unwrap_or_default().parse(), Ok(*code));
    }
    CommandCode::ALL.into_iter().for_each(round_trip);
    for (bit, name) in Features::NAMED {
        round_trip(*bit);
        assert_eq!(name.parse(), Ok(*bit));
    }
    round_trip(Features::NONE);
    round_trip(Features::TAPE | Features::REQUEST_COMPLETE);
}

#[test]
fn texts_that_contradict_themselves_are_refused() {
    for text in [
        "",
        "vd_e_abort",
        "VD_E_ABORT ",
        "VD_E_ABORT (0x80770003)",
        "VD_E_ABORT (0x80770004): the wait timed out",
        "VD_E_ABORT (0x80770004",
        "0x0",
        "+1",
    ] {
        assert!(text.parse::<VdError>().is_err(), "{text:?}");
    }
    for text in
        ["", "ERROR_DISK_FULL (113)", "ERROR_DISK_FULL (112) ", "Win32 error +7", "Win32 error 07", "112", "error"]
    {
        assert!(text.parse::<CompletionCode>().is_err(), "{text:?}");
    }
    for text in ["", "VDC_write", "command", "command -1", "command 4294967296", "VDC_Write|VDC_Read"] {
        assert!(text.parse::<CommandCode>().is_err(), "{text:?}");
    }
    for text in ["", "|", "VDF_Removable|", "VDF_Removable | 0x8", "8", "0x", "0x1g", "0x100000000"] {
        assert!(text.parse::<Features>().is_err(), "{text:?}");
    }
}

#[test]
fn an_error_says_what_was_found_and_what_was_expected() {
    let text = |error: ParseError| error.to_string();
    let found = "VDF_Removable|VDF_Tape".parse::<Features>().map_err(text);
    let expected = "\"VDF_Tape\" is no feature; expected VDF_Removable or 0x8 for example, with | between several";
    assert_eq!(found, Err(expected.to_owned()));
    // A long text is cut between two characters.
    let long = "ä".repeat(100);
    let error = long.parse::<VdError>().map_err(text).err().unwrap_or_default();
    assert!(error.starts_with(&format!("\"{}\" ... is no status; expected VD_E_ABORT", "ä".repeat(24))), "{error}");
}

proptest! {
    #[test]
    fn every_number_is_read_back(number: u32) {
        round_trip(CompletionCode::new(number));
        round_trip(CommandCode::new(number));
        round_trip(Features::from_bits_retain(number));
    }

    #[test]
    fn small_numbers_are_read_back(number in 0u32..2000) {
        round_trip(CompletionCode::new(number));
        round_trip(CommandCode::new(number));
        round_trip(Features::from_bits_retain(number));
    }

    #[test]
    fn other_texts_are_refused_or_mean_something(
        text in prop_oneof![".*", "(VD_E_|VDC_|VDF_|ERROR_|command |Win32 error |0x)?[A-Za-z0-9_ ()|:]{0,40}"]
    ) {
        refused_or_stable::<VdError>(&text);
        refused_or_stable::<CompletionCode>(&text);
        refused_or_stable::<CommandCode>(&text);
        refused_or_stable::<Features>(&text);
    }
}
