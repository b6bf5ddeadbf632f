//! The records between a primary and its workers.

// They are the crate's own affair, so they are not its to give.
#[path = "../../src/workers/wire.rs"]
mod wire;

use std::io::{Cursor, ErrorKind, Read};

use wire::{Answer, FailureText, Request, read_record};

/// Gives what it has in pieces of this length.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(self.1);
        self.0.read(&mut buffer[..len])
    }
}

/// Any record is valid, and is written as it was read. A pipe gives them whole, however it cuts them, and a record that is cut
/// short is told from the end. A failure's text that is read is written as it was read, where it is text.
pub(crate) fn worker(bytes: &[u8]) -> bool {
    let Some((first, bytes)) = bytes.split_first() else { return false };
    let requests = records::<32>(bytes, 1 + usize::from(*first));
    for request in &requests {
        assert_eq!(Request::from_bytes(request).to_bytes(), *request);
    }
    for answer in records::<24>(bytes, 1 + usize::from(*first)) {
        assert_eq!(Answer::from_bytes(&answer).to_bytes(), answer);
    }
    let text = FailureText::read(&mut Pieces(bytes, 1 + usize::from(*first)));
    if let Ok(text) = &text
        && !text.what.contains('\u{FFFD}')
        && !text.remedy.contains('\u{FFFD}')
    {
        assert!(bytes.starts_with(&text.to_bytes()));
    }
    !requests.is_empty() || text.is_ok()
}

fn records<const N: usize>(bytes: &[u8], most: usize) -> Vec<[u8; N]> {
    let mut pieces = Pieces(bytes, most);
    let mut records = Vec::new();
    let end = loop {
        match read_record::<N>(&mut pieces) {
            Ok(Some(record)) => records.push(record),
            end => break end,
        }
    };
    let (whole, rest) = bytes.as_chunks::<N>();
    assert_eq!(records, whole);
    match end {
        Ok(_) => assert!(rest.is_empty()),
        Err(error) => assert!(!rest.is_empty() && error.kind() == ErrorKind::UnexpectedEof),
    }
    assert_eq!(read_record::<N>(&mut Cursor::new(rest)).is_ok(), rest.is_empty());
    records
}

/// A name, the input.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let request = Request { tag: 1, code: 2, stripe: 3, handle: 0xdead_beef, bytes: 65536, position: 1 << 40 };
    let answer = Answer { tag: 1, code: 0, bytes: 65536, position: 7 };
    let requests = request.to_bytes().repeat(3);
    let text = FailureText { what: "the disk is full".to_owned(), remedy: "make room".to_owned() };
    vec![
        ("requests".to_owned(), [&[255][..], &requests].concat()),
        ("requests-in-pieces".to_owned(), [&[4][..], &requests].concat()),
        ("answers".to_owned(), [&[0][..], &answer.to_bytes().repeat(4)].concat()),
        ("failure".to_owned(), [&[5][..], &text.to_bytes()].concat()),
        ("cut-short".to_owned(), [&[9][..], &requests[..70]].concat()),
    ]
}
