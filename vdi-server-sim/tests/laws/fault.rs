//! Faults as text.

use vdi_server_sim::faults::{Fault, TABLE};

/// Reading is total; what is read is written as a text that is read as the same; what is refused is told what there is.
pub(crate) fn fault(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let name = text.split('=').next().unwrap_or_default();
    let known = TABLE.iter().find(|help| help.name == name);
    match text.parse::<Fault>() {
        Ok(fault) => {
            assert_eq!((fault.name(), Some(fault.name())), (name, known.map(|help| help.name)));
            assert_eq!(fault.to_string().parse().as_ref(), Ok(&fault), "{text:?}");
            true
        }
        Err(error) => {
            let told = error.to_string();
            match known {
                Some(help) => assert!(told.contains(&help.to_string()), "{text:?}: {told}"),
                None => assert!(TABLE.iter().all(|help| told.contains(&help.to_string())), "{text:?}: {told}"),
            }
            false
        }
    }
}
