//! A wall clock that jumps. Nothing may wait by it, and nothing may be named or judged by it.

use std::process::Command;
use std::time::Instant;

use rustix::io::Errno;

use super::calls::{Rules, can_fail_calls, reported};
use super::trial::{Verb, attempt, nothing};
use crate::common::TEST_TIMEOUT;
use crate::common::bench::Bench;
use crate::common::native::compile;

#[test]
fn a_wall_clock_that_jumps_disturbs_nothing() {
    let shim = compile("gcc", "jumping_clock.c", &["-shared".as_ref(), "-fPIC".as_ref()]);
    let told = Command::new("date").arg("+%s").env("LD_PRELOAD", &shim).output().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let jumped: u64 = String::from_utf8(told.stdout).unwrap().trim().parse().unwrap();
    assert!(jumped.abs_diff(now) > 3600, "the clock does not jump: {jumped} is {now}");

    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    let jumping = |command: &mut Command| {
        command.env("LD_PRELOAD", &shim);
    };
    let begin = Instant::now();
    for _ in 0..3 {
        assert!(attempt(&bench, Verb::Backup, "file", jumping, jumping).judge());
        assert!(attempt(&bench, Verb::Restore, "file", jumping, jumping).judge());
        bench.assert_identical("sales", "copy");
    }
    assert!(begin.elapsed() < TEST_TIMEOUT);
}

/// A clock that the system sets reaches those who sleep until a time of the wall clock; nobody does, on either side.
#[test]
fn nobody_waits_by_the_wall_clock() {
    if !can_fail_calls() {
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 1_000_000);
    let report = bench.out().with_file_name("calls");
    // Of these, only uses of the wall clock count. One that does is refused, which no wait would stand.
    let calls = ["futex", "clock_nanosleep", "timerfd_create"];
    let rules = Rules { calls: &calls, under: "/".as_ref(), at: 1, persists: true, error: Errno::INVAL };
    for verb in [Verb::Backup, Verb::Restore] {
        assert!(attempt(&bench, verb, "file", |command| rules.apply(command, &report), nothing).judge());
        assert_eq!(reported(&report), []);
        assert!(attempt(&bench, verb, "file", nothing, |command| rules.apply(command, &report)).judge());
        assert_eq!(reported(&report), []);
    }
}
