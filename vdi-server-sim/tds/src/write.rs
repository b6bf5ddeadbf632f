//! Texts in the protocol's forms.

pub(crate) fn put_utf16(out: &mut Vec<u8>, text: &str) {
    out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
}

/// The longest beginning of `text` that has at most `most` UTF-16 code units, and how many it has.
pub(crate) fn cut(text: &str, most: usize) -> (&str, usize) {
    let mut units = 0;
    for (at, character) in text.char_indices() {
        if units + character.len_utf16() > most {
            return (&text[..at], units);
        }
        units += character.len_utf16();
    }
    (text, units)
}

/// A text after its length in UTF-16 code units as one byte; cut to 255.
pub(crate) fn put_b_varchar(out: &mut Vec<u8>, text: &str) {
    let (text, units) = cut(text, 255);
    out.push(units as u8);
    put_utf16(out, text);
}

/// A text after its length in UTF-16 code units as two bytes; cut to `most`.
pub(crate) fn put_us_varchar(out: &mut Vec<u8>, text: &str, most: u16) {
    let (text, units) = cut(text, usize::from(most));
    out.extend((units as u16).to_le_bytes());
    put_utf16(out, text);
}

/// Bytes after their length as one byte. `bytes` are at most 255.
pub(crate) fn put_b_varbyte(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(bytes.len() as u8);
    out.extend(bytes);
}

/// Runs `body` and puts the number of bytes that it wrote, as two bytes, before them.
pub(crate) fn with_len16(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 2]);
    body(out);
    let len = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&len.to_le_bytes());
}
