//! The committed header is the one that cbindgen makes from the sources.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// The sources, in the order in which the header has their items.
const SOURCES: [&str; 6] = ["constants", "types", "errors", "set", "buffers", "device"];

/// Set, and not empty, to have the test write the header.
const UPDATE: &str = "VDI_UPDATE_HEADER";

#[test]
fn header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let sources = SOURCES.iter().map(|source| root.join("src").join(source).with_extension("rs"));
    let builder = sources.fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    let header = String::from_utf8(header).unwrap();
    // A source that cbindgen cannot read leaves its items out.
    for needed in ["vdi_set_create(", "vdi_device_free(", "vdi_mapped_release(", "#define VD_E_BUSY -2139684849"] {
        assert!(header.contains(needed), "{needed} is not in\n{header}");
    }

    let path = root.join("include/vdi_c.h");
    if std::env::var_os(UPDATE).is_some_and(|value| !value.is_empty()) {
        fs::write(&path, &header).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if committed != header {
        let differs = committed.lines().zip(header.lines()).position(|(one, other)| one != other);
        let line = differs.unwrap_or_else(|| committed.lines().count().min(header.lines().count()));
        panic!(
            "{} differs from the sources in line {}:\n  committed {:?}\n  sources   {:?}\nrun: {UPDATE}=1 cargo test -p vdi-capi",
            path.display(),
            line + 1,
            committed.lines().nth(line),
            header.lines().nth(line),
        );
    }
}
