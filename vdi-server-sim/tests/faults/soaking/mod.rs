//! The soak's rounds, and who drives them.

mod figures;
pub(crate) mod parts;
mod rounds;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use figures::{Held, Sample, Series};
use rounds::Round;

use crate::common::bench::{Bench, names};
use crate::common::eventually;
use crate::common::processes::Part;

/// What a run leaks on purpose, to show that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leak {
    /// The server keeps a descriptor at each statement.
    Descriptor,
    /// The agent keeps 256 KiB at each statement.
    Memory,
}

/// Every so many rounds comes one that is always the same, for its time.
const REFERENCE: usize = 3;

/// Reference rounds that a run has at least: three in a quarter.
const LEAST: usize = 12;

/// Reference rounds before anything is counted: what is allocated once is allocated then.
const WARM_UP: usize = 3;

/// Runs rounds for this long. The table of what was measured, or what was wrong.
pub(crate) fn soak(time: Duration, seed: u64, leak: Option<Leak>) -> Result<String, String> {
    let bench = Bench::new();
    let leaked = leak.map_or(String::new(), |leak| format!("{leak:?}"));
    let mut pair = Pair {
        agent: bench.part("soaking agent", &[bench.out().to_str().unwrap(), &leaked]),
        server: bench.part("soaking server", &[bench.data().to_str().unwrap(), &leaked]),
        bench: &bench,
    };
    pair.agent.expect("ready");
    pair.server.expect("ready");
    let mut random = fastrand::Rng::with_seed(seed);
    let reference = Round::reference();
    let mut series = Series::default();
    let begin = Instant::now();
    let mut held: Option<[Held; 2]> = None;
    for number in 0.. {
        // A run that leaks on purpose is to be short.
        let every = if leak.is_some() { 1 } else { REFERENCE };
        let warm = number >= WARM_UP * every;
        if series.len() >= LEAST && begin.elapsed() >= time {
            break;
        }
        let is_reference = number % every == 0;
        let round = if is_reference { reference.clone() } else { Round::random(&mut random) };
        let times = pair.run(&round);
        series.rounds += 1;
        series.bytes += round.bytes;
        series.troubled += usize::from(round.has_trouble());
        // From the warm-up on, everything is as it was: a thread that was joined may be there for a moment.
        let now = || pair.held();
        match held {
            None if warm => held = Some(now()),
            None => {}
            Some(before) => {
                let exceeds =
                    |found: &[Held; 2]| found.iter().zip(&before).any(|(found, before)| found.exceeds(before));
                let mut found = now();
                for _ in 0..200 {
                    if !exceeds(&found) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                    found = now();
                }
                if exceeds(&found) {
                    return Err(format!(
                        "after round {number}, {round:?}, agent and server hold {found:?}, and held {before:?} before"
                    ));
                }
            }
        }
        if warm && is_reference {
            let yardstick = pair.yardstick();
            series.add(Sample::take(pair.agent.process.id(), pair.server.process.id(), times, yardstick));
        }
    }
    pair.agent.end();
    pair.server.end();
    series.judge(begin.elapsed())
}

/// The two processes.
struct Pair<'a> {
    agent: Part,
    server: Part,
    bench: &'a Bench,
}

/// Wall time of a round, and the processes' times on a CPU in it.
#[derive(Debug, Clone, Copy)]
struct Times {
    wall: Duration,
    agent: Duration,
    server: Duration,
}

impl Pair<'_> {
    fn held(&self) -> [Held; 2] {
        [Held::of(self.agent.process.id()), Held::of(self.server.process.id())]
    }

    /// A backup of a new database and a restore of it, and that what comes back is what went out.
    fn run(&mut self, round: &Round) -> Times {
        let bench = self.bench;
        for name in names(&bench.out()) {
            let path = bench.out().join(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        bench.drop_database("copy");
        round.make_database(&bench.databases());
        let begin = Instant::now();
        let (backed_up, [agent, server]) = self.statement(round, false);
        let mut times = Times { wall: begin.elapsed(), agent, server };
        let whole = !names(&bench.out()).is_empty();
        assert!(backed_up || round.has_trouble(), "nothing stood in the way of {round:?}");
        assert!(!backed_up || whole, "{round:?} left nothing");
        if backed_up {
            let begin = Instant::now();
            let (restored, [agent, server]) = self.statement(round, true);
            times.wall += begin.elapsed();
            times.agent += agent;
            times.server += server;
            assert!(restored || round.has_trouble(), "nothing stood in the way of the restore of {round:?}");
            if restored {
                bench.assert_identical("sales", "copy");
            } else {
                bench.assert_databases(&["sales"]);
            }
        }
        assert!(!names(&bench.out()).iter().any(|name| name.starts_with('.')), "{round:?} left something hidden");
        assert_eq!(bench.databases().litter(), Vec::<String>::new(), "{round:?}");
        eventually("the set's socket to be gone", || match names(&bench.runtime()) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?} is there")),
        });
        times
    }

    /// How long something takes now that never changes: words with both processes, and a disk that is written to. Other work on the
    /// machine makes a round last longer, and this as well.
    fn yardstick(&mut self) -> Duration {
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(self.agent.ask("nothing"), "nothing");
            assert_eq!(self.server.ask("nothing"), "nothing");
        }
        let path = self.bench.out().join("yardstick");
        for _ in 0..4 {
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(&[7; 1 << 20]).unwrap();
            file.sync_all().unwrap();
        }
        begin.elapsed()
    }

    /// One statement: whether it succeeded, and both sides' times on a CPU.
    fn statement(&mut self, round: &Round, restore: bool) -> (bool, [Duration; 2]) {
        self.agent.order(&round.order(restore));
        self.agent.expect("created");
        self.server.order(&format!("{}\t{}", round.server_fault(restore), round.statement(restore)));
        let result = |report: String| {
            let (word, rest) = report.split_once(' ').unwrap();
            let (nanoseconds, told) = rest.split_once(' ').unwrap_or((rest, ""));
            (word == "ok", Duration::from_nanos(nanoseconds.parse().unwrap()), told.to_owned())
        };
        let (succeeded, server, why) = result(self.server.report());
        let (served, agent, told) = result(self.agent.report());
        assert!(!succeeded || served, "the statement succeeded, and the agent failed: {told}");
        assert!(succeeded || round.has_trouble(), "{round:?}, restore {restore}: {why}; {told}");
        (succeeded, [agent, server])
    }
}
