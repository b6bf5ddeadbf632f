//! Addresses of buffers, looked up while their slots go from command to command.

use vdi_proto::command::Loan;

use super::*;
use crate::starts::Starts;

#[test]
fn loom_starts_what_is_found_is_so() {
    check("starts", None, 50, || {
        let starts = Arc::new(Starts::new(1));
        let (first, second) = (Loan { slot: 0, generation: 1 }, Loan { slot: 0, generation: 2 });
        starts.begin(first, 1 << 12);
        let looking = {
            let starts = Arc::clone(&starts);
            thread::spawn(move || {
                let found = starts.find(1 << 12);
                assert!(found.is_none_or(|found| found == first), "{found:?} is not there");
                let found = starts.find(2 << 12);
                assert!(found.is_none_or(|found| found == second), "{found:?} is not there");
            })
        };
        starts.end(0);
        starts.begin(second, 2 << 12);
        looking.join().expect("the one that looks");
        assert_eq!((starts.find(1 << 12), starts.find(2 << 12)), (None, Some(second)));
    });
}
