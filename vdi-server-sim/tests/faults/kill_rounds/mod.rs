//! Nothing is lost, whatever dies: BACKUP and RESTORE over random sets, and a process of them is struck at a random moment: killed,
//! terminated, or stopped for a while.
//!
//! A round is a seed: see [`case::Case`]. It backs a database up undisturbed, which is the old backup and shows how long that
//! takes; then comes the statement that is disturbed; then everything is looked at, and what the law says is checked:
//! [`judge`]. How many rounds:
//!
//! ```sh
//! VDI_KILL_ROUNDS=1000 VDI_KILL_FIRST_SEED=0 cargo test -p vdi-server-sim --test faults -- kill_rounds --nocapture
//! ```
//!
//! A round that fails is printed with the command that repeats it alone.

use crate::common;

mod case;
mod judge;
mod parties;
mod play;
mod tally;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use case::Case;
use common::number;
use common::processes::run_role;
use tally::Tally;

/// Rounds of an ordinary run.
const ROUNDS: u64 = 50;

/// How long after the last signal everybody has to be gone. A busy machine can make any single try slow, so the best of three
/// counts.
const LIMIT: Duration = Duration::from_secs(1);
const TRIES: u64 = 3;

#[test]
fn child_entry() {
    run_role(&[("primary", parties::primary), ("secondary", parties::secondary), ("worker", parties::worker)]);
}

#[test]
fn nothing_is_lost_whatever_dies() {
    let (first, count) = (number("VDI_KILL_FIRST_SEED", 0), number("VDI_KILL_ROUNDS", ROUNDS));
    let mut tally = Tally::default();
    let begun = Instant::now();
    for seed in first..first.saturating_add(count) {
        let case = Case::new(seed);
        let judged = catch_unwind(AssertUnwindSafe(|| {
            for turn in 1..=TRIES {
                let lateness = judge::round(&case, &mut tally);
                if lateness.is_none_or(|lateness| lateness < LIMIT) {
                    return;
                }
                assert!(turn < TRIES, "somebody lived on for {lateness:?} after the last signal, {turn} times");
                tally.count("tries repeated because they were late".to_owned());
            }
        }));
        if let Err(panic) = judged {
            eprintln!("round {seed} broke the law; to repeat it:\n{}", case.repeat());
            resume_unwind(panic);
        }
    }
    eprintln!("{count} rounds from seed {first} took {:?}", begun.elapsed());
    tally.print();
    if count >= ROUNDS {
        tally.assert_breadth(count);
    }
}
