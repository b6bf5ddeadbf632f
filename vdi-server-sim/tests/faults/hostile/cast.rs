//! Three processes that play set after set: an honest client, an honest server, and a hostile one.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::time::{Duration, Instant};

use super::case::{Act, Case, Role, Verb};
use super::honest::{ADMITTED, INNOCENT};
use crate::common::bench::{Bench, names};
use crate::common::client::{backup_statement, config, copy_statement};
use crate::common::eventually;
use crate::common::processes::Part;

/// How long a statement may take, whatever is done to its set: waits sleep for half a second at most, a buffer area that was
/// not announced is waited for two, and the machine may have other things to do.
const LIMIT: Duration = Duration::from_secs(15);

/// The set that is raided.
const SET: &str = "raided";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Client,
    Server,
    Hostile,
}

/// The processes.
pub(crate) struct Cast<'a> {
    bench: &'a Bench,
    client: Part,
    server: Part,
    hostile: Part,
    /// What was said about other things than what was waited for.
    said: HashMap<(Who, String), VecDeque<String>>,
    /// Descriptors of the honest processes before the first set.
    descriptors: [usize; 2],
}

/// How a statement ended.
#[derive(Debug)]
pub(crate) struct Played {
    /// What the client said in the end; `None` where it died.
    pub(crate) client: Option<String>,
    /// What the server said.
    pub(crate) server: Option<String>,
    pub(crate) elapsed: Duration,
    /// Words that the hostile process wrote, by what it did.
    pub(crate) written: Vec<(String, u64)>,
    /// What the raid was refused with, where it could not even join.
    pub(crate) refused: Option<String>,
}

impl Played {
    pub(crate) fn client_succeeded(&self) -> bool {
        self.client.as_deref() == Some("ok")
    }

    pub(crate) fn server_succeeded(&self) -> bool {
        self.server.as_deref() == Some("ok")
    }
}

fn start(bench: &Bench, part: &str) -> Part {
    let (data, out) = (bench.data().display().to_string(), bench.out().display().to_string());
    bench.part(part, &[&data, &out])
}

fn descriptors(part: &Part) -> usize {
    fs::read_dir(format!("/proc/{}/fd", part.process.id())).unwrap().count()
}

impl<'a> Cast<'a> {
    pub(crate) fn new(bench: &'a Bench) -> Cast<'a> {
        let [client, server, hostile] = ["client", "server", "hostile"].map(|part| start(bench, part));
        Cast { bench, client, server, hostile, said: HashMap::new(), descriptors: [usize::MAX; 2] }
    }

    fn part(&mut self, who: Who) -> &mut Part {
        match who {
            Who::Client => &mut self.client,
            Who::Server => &mut self.server,
            Who::Hostile => &mut self.hostile,
        }
    }

    fn order(&mut self, who: Who, order: &str) {
        self.part(who).order(order);
    }

    /// The next that somebody says about something.
    #[track_caller]
    fn next_report(&mut self, who: Who, tag: &str) -> String {
        loop {
            if let Some(said) = self.said.get_mut(&(who, tag.to_owned())).and_then(VecDeque::pop_front) {
                return said;
            }
            let report = self.part(who).report();
            let (about, said) = report.split_once(' ').unwrap();
            self.said.entry((who, about.to_owned())).or_default().push_back(said.to_owned());
        }
    }

    /// Plays one statement of a case, and one of the bystanders at the same time, which has to succeed.
    #[track_caller]
    pub(crate) fn play(&mut self, case: &Case, verb: Verb, raided: bool) -> Played {
        let role = if raided { case.role } else { Role::Secondary };
        let (client, server) = match role {
            Role::Secondary => (Who::Client, Who::Server),
            Role::Server => (Who::Client, Who::Hostile),
            Role::Primary => (Who::Hostile, Who::Server),
        };
        let word = verb.word();
        self.order(Who::Client, &format!("innocent|{word}"));
        assert_eq!(self.next_report(Who::Client, INNOCENT), "created");
        let innocent = match verb {
            Verb::Backup => backup_statement(INNOCENT, INNOCENT, 1, ""),
            Verb::Restore => copy_statement(INNOCENT, "bystander", INNOCENT, 1, "REPLACE"),
        };
        let begun = Instant::now();
        let in_raid = if raided { "|raided" } else { "|" };
        let in_raid = if client == Who::Client { in_raid } else { "" };
        self.order(client, &format!("serve|main|{SET}|{}|{word}{in_raid}", case.seed));
        let said = self.next_report(client, "main");
        assert_eq!(said, "created");
        self.order(server, &format!("run|main|{}", case.statement(SET, verb)));
        self.order(Who::Server, &format!("run|{INNOCENT}|{innocent}"));
        let mut played =
            Played { client: None, server: None, elapsed: Duration::ZERO, written: Vec::new(), refused: None };
        let dies = raided && self.follow(case, verb, client, &mut played);
        if client == Who::Client && played.client.is_none() {
            played.client = Some(self.ending(Who::Client));
        }
        if server == Who::Server {
            played.server = Some(self.done(Who::Server, "main"));
        } else if !dies {
            played.server = Some(self.done(Who::Hostile, "main"));
        }
        played.elapsed = begun.elapsed();
        if raided && !dies {
            self.order(Who::Hostile, "leave");
            while !self.take_leave(&mut played) {}
        }
        if dies {
            self.hostile.process.wait();
            if role == Role::Primary {
                // Its socket may have outlived it where the server had left before. Who creates a set removes it.
                let _ = self.bench.create("another", &config(1)).close();
            }
            self.hostile = start(self.bench, "hostile");
            self.said.retain(|(who, _), _| *who != Who::Hostile);
        }
        let bystanders = [self.ending_of(INNOCENT), self.done(Who::Server, INNOCENT)];
        assert!(bystanders.iter().all(|said| said == "ok"), "the bystanders: {bystanders:?}");
        assert!(played.elapsed < LIMIT, "it took {:?}: {played:?}", played.elapsed);
        self.assert_nothing_left(case, verb, role);
        played
    }

    fn ending_of(&mut self, tag: &str) -> String {
        let said = self.next_report(Who::Client, tag);
        said.strip_prefix("ended ").unwrap_or_else(|| panic!("{said:?}")).to_owned()
    }

    fn ending(&mut self, who: Who) -> String {
        let said = self.next_report(who, "main");
        said.strip_prefix("ended ").unwrap_or_else(|| panic!("{said:?}")).to_owned()
    }

    fn done(&mut self, who: Who, tag: &str) -> String {
        let said = self.next_report(who, tag);
        said.strip_prefix("done ").unwrap_or_else(|| panic!("{said:?}")).to_owned()
    }

    /// Follows a client from moment to moment until it has ended; true when the hostile process died meanwhile.
    fn follow(&mut self, case: &Case, verb: Verb, client: Who, played: &mut Played) -> bool {
        if client == Who::Hostile {
            return self.follow_hostile(played);
        }
        // Acts that were ordered and not reported yet.
        let (mut dead, mut owed) = (false, 0);
        loop {
            let said = self.next_report(Who::Client, "main");
            if let Some(ended) = said.strip_prefix("ended ") {
                played.client = Some(ended.to_owned());
                return dead;
            }
            let burst: usize = said.strip_prefix("moment ").unwrap_or_else(|| panic!("{said:?}")).parse().unwrap();
            if !dead {
                if burst == ADMITTED {
                    self.order(Who::Hostile, &format!("join|{}|{SET}", case.seed));
                    let said = self.next_report(Who::Hostile, "raid");
                    played.refused = said.strip_prefix("refused ").map(str::to_owned);
                } else {
                    self.order(Who::Hostile, &format!("act|{}|{}|{burst}", case.seed, verb.word()));
                    let plan = &case.raid(verb).unwrap().bursts[burst];
                    let dies = played.refused.is_none() && plan.acts.iter().any(|(act, _)| *act == Act::Die);
                    owed += 1;
                    while (dies || !plan.free) && owed > 0 && !dead {
                        dead = self.has_died_acting(played);
                        owed -= 1;
                    }
                }
            }
            self.order(Who::Client, "go|main");
        }
    }

    /// The hostile process is the client itself, and acts when it likes.
    fn follow_hostile(&mut self, played: &mut Played) -> bool {
        loop {
            let report = self.hostile.report();
            let (about, said) = report.split_once(' ').unwrap();
            if let Some(account) = said.strip_prefix("dying") {
                note(account, played);
                return true;
            }
            if about == "main" {
                played.client = Some(said.strip_prefix("ended ").unwrap_or_else(|| panic!("{said:?}")).to_owned());
                return false;
            }
        }
    }

    fn has_died_acting(&mut self, played: &mut Played) -> bool {
        let said = self.next_report(Who::Hostile, "raid");
        let account = said.strip_prefix("dying");
        if let Some(account) = account {
            note(account, played);
        }
        account.is_some()
    }

    fn take_leave(&mut self, played: &mut Played) -> bool {
        let said = self.next_report(Who::Hostile, "raid");
        let Some(account) = said.strip_prefix("left") else { return false };
        note(account, played);
        true
    }

    /// The honest processes have nothing any more of the sets that have ended, and left nothing in their folders.
    #[track_caller]
    fn assert_nothing_left(&mut self, case: &Case, verb: Verb, role: Role) {
        // What a hostile process has left there is its own, and others may be told by it that it died.
        let (data, out) = (self.bench.data(), self.bench.out());
        let honest = match (role, verb) {
            (Role::Secondary, _) => vec![&data, &out],
            (Role::Server, _) => vec![&out],
            (Role::Primary, _) => vec![&data],
        };
        let (client, server) = (self.client.process.id(), self.server.process.id());
        let before = self.descriptors;
        eventually("nothing stays behind", || {
            let sockets = names(&self.bench.runtime());
            if !sockets.is_empty() {
                return Err(format!("the runtime directory holds {sockets:?} after {case:?}"));
            }
            for folder in &honest {
                if let Some(hidden) = names(folder).into_iter().find(|name| name.starts_with('.')) {
                    return Err(format!("{} holds {hidden}", folder.display()));
                }
            }
            for (who, pid) in [("client", client), ("server", server)] {
                let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
                let left = maps.matches("memfd:vdi-").count();
                if left > 0 {
                    return Err(format!("the {who} has {left} mappings of sets"));
                }
            }
            let now = [descriptors(&self.client), descriptors(&self.server)];
            if now.iter().zip(before).any(|(now, before)| *now > before) {
                return Err(format!("client and server have {now:?} descriptors, and had {before:?}"));
            }
            Ok(())
        });
        if before[0] == usize::MAX {
            self.descriptors = [descriptors(&self.client), descriptors(&self.server)];
        }
        for part in [&self.client, &self.server, &self.hostile] {
            assert_sound(&part.log());
        }
    }

    /// Ends the processes in good order.
    #[track_caller]
    pub(crate) fn end(self) {
        for part in [self.client, self.server, self.hostile] {
            assert_sound(&part.end_with_output());
        }
    }
}

/// Nobody panicked, and no sanitizer found anything.
#[track_caller]
fn assert_sound(said: &[String]) {
    let bad = said.iter().find(|line| line.contains("panicked") || line.contains("Sanitizer"));
    assert!(bad.is_none(), "{said:#?}");
}

/// Takes note of an account: ` act:words act:words`.
fn note(account: &str, played: &mut Played) {
    for entry in account.split_whitespace() {
        let (act, words) = entry.split_once(':').unwrap();
        played.written.push((act.to_owned(), words.parse().unwrap()));
    }
}
