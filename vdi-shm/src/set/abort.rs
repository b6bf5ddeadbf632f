//! An abort as a process knows it: the reason, the code behind it, and the text of the process that aborted the set.

use core::fmt;

use vdi_proto::abort::{AbortReason, MAX_REASON_BYTES};
use vdi_proto::wire::join::Message;

/// Why a set was aborted, in full.
///
/// Display gives one line: the reason, and the text behind a colon.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abort {
    /// Which process, and what it did.
    pub reason: AbortReason,
    /// The completion code, system error or status (HRESULT) behind it; 0 where there is none.
    pub code: u32,
    /// What the process that aborted the set knows about it; empty where the reason says it all. A peer wrote it: it has no
    /// control characters and is one line, but it may say anything.
    pub text: String,
}

impl Abort {
    pub(crate) fn new(reason: AbortReason, code: u32, text: &str) -> Abort {
        Abort { reason, code, text: cut(printable(text)) }
    }

    pub(crate) fn message(&self) -> Message<'_> {
        Message::Aborted { reason: self.reason, code: self.code, text: &self.text }
    }
}

/// A text of at most [`MAX_REASON_BYTES`]; three dots stand for what was cut.
fn cut(mut text: String) -> String {
    const DOTS: &str = "...";
    if text.len() > MAX_REASON_BYTES {
        text.truncate(text.floor_char_boundary(MAX_REASON_BYTES - DOTS.len()));
        text.push_str(DOTS);
    }
    text
}

/// A text of a peer for a line of a log: line breaks, other control characters, and characters that change the order in which
/// others are shown, are blanks.
pub(crate) fn printable(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() || is_layout(c) { ' ' } else { c }).collect();
    shown.trim().to_owned()
}

/// Whether a character separates lines, or changes the direction of text.
const fn is_layout(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl From<AbortReason> for Abort {
    fn from(reason: AbortReason) -> Self {
        Abort::new(reason, 0, "")
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.text {
            "" => write!(f, "{}", self.reason),
            text => write!(f, "{}: {text}", self.reason),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_shows_that_it_was_cut() {
        assert_eq!(cut("x".repeat(MAX_REASON_BYTES)), "x".repeat(MAX_REASON_BYTES));
        let text = cut("ü".repeat(MAX_REASON_BYTES));
        assert!(
            text.ends_with("ü...") && text.len() > MAX_REASON_BYTES - 4 && text.len() <= MAX_REASON_BYTES,
            "{text}"
        );
    }

    #[test]
    fn texts_of_peers_are_one_line_in_one_direction() {
        for (text, shown) in [
            ("the disk is full", "the disk is full"),
            ("a\r\nMsg 3014, Level 0", "a  Msg 3014, Level 0"),
            ("\u{1b}[2J\u{0}x\u{9b}y\u{7f}", "[2J x y"),
            ("ok\u{2028}next\u{2029}", "ok next"),
            ("\u{202e}lluf si\u{202c} \u{2066}x\u{2069}", "lluf si   x"),
            ("\n\t", ""),
            ("Größe 磁盘 مساحة", "Größe 磁盘 مساحة"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
        }
    }
}
