//! Stamps of pages.

use crate::database::page::Stamp;

/// Also where the sequences differ by a multiple of 256, as those of one page do in a database of so many pages.
#[test]
fn a_page_of_two_writes_is_damaged_wherever_they_meet() {
    let page = |sequence| {
        let (stamp, mut bytes) = (Stamp { file: 1, page: 7, sequence }, vec![0; 8192]);
        stamp.fill(&mut bytes);
        assert_eq!(Stamp::read(&bytes), Some(stamp));
        bytes
    };
    for later in [1_u64, 256, 512, 1 << 16, 1 << 32] {
        let (old, new) = (page(3), page(3 + later));
        for at in (512..8192).step_by(512) {
            let torn = [&new[..at], &old[at..]].concat();
            assert_eq!(Stamp::read(&torn), None, "{later}: {at}");
            let torn = [&old[..at], &new[at..]].concat();
            assert_eq!(Stamp::read(&torn), None, "{later}: {at}");
        }
    }
}
