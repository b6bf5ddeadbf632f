//! The beginning of a shared library, as far as it tells whether the system can load it.

/// How much of a library is looked at: its header, and what it says about its segments.
pub(super) const HEADERS: u64 = 16384;

/// Whether a file of `len` bytes has all that its header says is to be mapped: the loader believes it, and whoever touches what
/// is not there crashes. For files that are 64 bits and little-endian; what cannot be found out counts as whole.
pub(super) fn whole(header: &[u8], len: u64) -> Option<()> {
    const LOAD: u64 = 1;
    let word = |at: usize, bytes: usize| {
        let bytes = header.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte)))
    };
    if header.get(4..6)? != [2, 1] {
        return Some(());
    }
    let (table, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    for number in 0..count {
        let at = table.checked_add(number * size)?;
        if at.checked_add(size)? > HEADERS.min(len) {
            return (len > HEADERS).then_some(());
        }
        let at = usize::try_from(at).ok()?;
        let (kind, offset, bytes) = (word(at, 4)?, word(at + 8, 8)?, word(at + 32, 8)?);
        if kind == LOAD && offset.checked_add(bytes)? > len {
            return None;
        }
    }
    Some(())
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    Not(&'static str),
    Of(String),
}

/// Judges the beginning of an ELF file.
pub(super) fn judge(header: &[u8]) -> Result<(), Header> {
    let Some((b"\x7fELF", rest)) = header.split_at_checked(4) else { return Err(Header::Not("it has no ELF header")) };
    let &[class, order, _, _, _, _, _, _, _, _, _, _, t0, t1, m0, m1, ..] = rest else {
        return Err(Header::Not("its ELF header is cut short"));
    };
    let word = |a, b| if order == 2 { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
    let machine = match (word(m0, m1), class) {
        (62, 2) => "x86_64".to_owned(),
        (62, _) => "x32".to_owned(),
        (3, _) => "x86".to_owned(),
        (183, _) => "aarch64".to_owned(),
        (number, class) => format!("machine {number}, {} bits", if class == 2 { 64 } else { 32 }),
    };
    if machine != std::env::consts::ARCH {
        return Err(Header::Of(machine));
    }
    if word(t0, t1) == 3 { Ok(()) } else { Err(Header::Not("it is a program or an object file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(class: u8, kind: u16, machine: u16) -> Vec<u8> {
        let mut header = b"\x7fELF".to_vec();
        header.extend([class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(kind.to_le_bytes());
        header.extend(machine.to_le_bytes());
        header
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn headers_are_told_apart() {
        assert_eq!(judge(&header(2, 3, 62)), Ok(()));
        assert_eq!(judge(&header(2, 3, 183)), Err(Header::Of("aarch64".to_owned())));
        assert_eq!(judge(&header(1, 3, 62)), Err(Header::Of("x32".to_owned())));
        assert_eq!(judge(&header(2, 3, 243)), Err(Header::Of("machine 243, 64 bits".to_owned())));
        assert_eq!(judge(&header(2, 2, 62)), Err(Header::Not("it is a program or an object file")));
        assert_eq!(judge(&header(2, 3, 62)[..19]), Err(Header::Not("its ELF header is cut short")));
        assert_eq!(judge(b"GROUP ( libsqlvdi.so.1 )"), Err(Header::Not("it has no ELF header")));
        assert_eq!(judge(b""), Err(Header::Not("it has no ELF header")));
    }
}
