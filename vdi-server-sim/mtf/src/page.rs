//! pages
/// The length of a page.
pub const PAGE_LEN: usize = 8192;
