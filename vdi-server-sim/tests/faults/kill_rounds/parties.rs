//! The clients of a round, a process each, and the media that tells how far its device has come.
//!
//! All report on the standard error of the primary, which the others have from it: `PID WORD ...`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use vdi_client::media::{Media, MediaError};
use vdi_client::workers::{WorkerPool, serve};
use vdi_client::{ClientVirtualDeviceSet, CommandCode, Error, INFINITE, VdConfig, pump};

use super::case::{Case, Doing, Point, SET, Verb};
use crate::common::client::{device_name, stripe};
use crate::common::processes::{RoleContext, cast};

/// What a party has to know, and how it reports. Arguments: the seed, the verb, whether the point is reached, the folder of the
/// targets, the pipe to wait at, the number among its like.
pub(crate) struct Play {
    stage: RoleContext,
    case: Case,
    verb: Verb,
    disturbed: bool,
    folder: PathBuf,
    number: u32,
}

impl Play {
    pub(crate) fn arguments(case: &Case, verb: Verb, disturbed: bool, folder: &Path) -> [String; 5] {
        let verb = verb.name().to_owned();
        [case.seed.to_string(), verb, disturbed.to_string(), folder.display().to_string(), "0".to_owned()]
    }

    fn of(stage: &RoleContext, role: &str) -> Arc<Play> {
        let case = Case::new(stage.argument(0).parse().unwrap());
        let verb = if stage.argument(1) == Verb::Backup.name() { Verb::Backup } else { Verb::Restore };
        let (disturbed, folder) = (stage.argument(2) == "true", stage.argument(3).into());
        let number = stage.number(4);
        let stage = RoleContext { arguments: stage.arguments.clone() };
        let play = Play { stage, case, verb, disturbed, folder, number };
        play.say(&format!("hello {role} {number}"));
        Arc::new(play)
    }

    fn say(&self, report: &str) {
        self.stage.say(&format!("{} {report}", std::process::id()));
    }

    /// Says how it ended.
    fn end(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.say("ended well"),
            Err(text) => self.say(&format!("ended badly {}", text.replace('\n', " "))),
        }
    }

    /// Another process of the same case.
    fn other(&self, command: &mut Command, role: &str, number: u32) {
        let arguments = Play::arguments(&self.case, self.verb, self.disturbed, &self.folder);
        let mut arguments = arguments.each_ref().map(String::as_str);
        let number = number.to_string();
        arguments[4] = &number;
        cast(command, role, &arguments);
    }

    fn media(self: &Arc<Self>, device: u32) -> Watched {
        let inner = self.case.kept.media(&stripe(&self.folder, device), self.verb == Verb::Restore);
        let point = self.case.point.filter(|point| self.disturbed && point.device == device);
        Watched { play: Arc::clone(self), device, inner, point, seen: Vec::new() }
    }
}

/// Where a medium waits for the blow.
pub(crate) fn hold(folder: &Path) -> PathBuf {
    folder.with_file_name("hold")
}

fn show(error: Error) -> String {
    error.to_string()
}

pub(crate) fn primary(stage: &RoleContext) {
    let play = Play::of(stage, "primary");
    play.end(lead(&play));
}

fn lead(play: &Arc<Play>) -> Result<(), String> {
    let set = Arc::new(ClientVirtualDeviceSet::new());
    // Undisturbed it may take as long as the machine needs.
    let server_time_out = if play.disturbed { play.case.server_time_out } else { 0 };
    set.create(SET, &VdConfig { server_time_out, ..play.case.config() }).map_err(show)?;
    play.say("created");
    let canceller = set.canceller().map_err(show)?;
    std::thread::spawn(move || {
        let mut order = String::new();
        // An agent that has heard that its statement failed does not wait for the server any more.
        if std::io::stdin().read_line(&mut order).is_ok() && order == "cancel\n" {
            canceller.cancel();
        }
    });
    set.get_configuration(INFINITE).map_err(show)?;
    play.say("configured");
    share_out(play, &set).map_err(|failed| match set.get_configuration(Duration::ZERO) {
        Ok(_) => failed,
        Err(ended) => format!("{failed} / {ended}"),
    })?;
    set.close().map_err(show)
}

/// Has all devices served. Any failure ends the whole set at once; all are told.
fn share_out(play: &Arc<Play>, set: &ClientVirtualDeviceSet) -> Result<(), String> {
    let program = std::env::current_exe().unwrap();
    let secondaries = (0..play.case.secondaries).map(|number| {
        let mut secondary = Command::new(&program);
        play.other(&mut secondary, "secondary", number);
        secondary.spawn().unwrap()
    });
    let secondaries: Vec<_> = secondaries.collect();
    let workers = (0..play.case.workers).map(|number| {
        // The test program's own output is not to get between the answers.
        let mut worker = Command::new("sh");
        worker.args(["-c", "exec \"$0\" \"$@\" 3>&1 1>&2"]).arg(&program);
        play.other(&mut worker, "worker", number);
        worker
    });
    let workers: Vec<_> = workers.collect();
    let pool = if workers.is_empty() { None } else { Some(WorkerPool::start(workers).unwrap()) };
    let failed = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for (number, child) in secondaries.into_iter().enumerate() {
            running
                .push(scope.spawn(move || ended_well(child, set).map_err(|how| format!("secondary {number} {how}"))));
        }
        for device in 0..play.case.own {
            let pool = pool.as_ref();
            running.push(
                scope.spawn(move || serve_device(play, set, device, pool).inspect_err(|_| _ = set.signal_abort())),
            );
        }
        let ended = running.into_iter().map(|thread| thread.join().unwrap());
        ended.filter_map(Result::err).collect::<Vec<_>>()
    });
    let ends =
        pool.map_or(Ok(Vec::new()), |pool| if failed.is_empty() { pool.finish() } else { Ok(Vec::new()) }).unwrap();
    let ends =
        ends.iter().flatten().filter(|status| !status.success()).map(|status| format!("a worker ended with {status}"));
    let failed: Vec<_> = failed.into_iter().chain(ends).collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join(" / ")) }
}

fn ended_well(mut child: Child, set: &ClientVirtualDeviceSet) -> Result<(), String> {
    let status = child.wait().unwrap();
    if status.success() {
        return Ok(());
    }
    // Before it has joined, nobody else hears of its death.
    let _ = set.signal_abort();
    Err(format!("ended with {status}"))
}

fn serve_device(
    play: &Arc<Play>,
    set: &ClientVirtualDeviceSet,
    device: u32,
    pool: Option<&WorkerPool>,
) -> Result<(), String> {
    let mut opened = set.open_device(&device_name(SET, device)).map_err(show)?;
    let report = match pool {
        Some(pool) => pool.drive(&mut opened, device, |_| {}),
        None => pump(&mut opened, &mut play.media(device)),
    };
    report.map(drop).map_err(show)
}

/// Serves devices of its own.
pub(crate) fn secondary(stage: &RoleContext) {
    let play = Play::of(stage, "secondary");
    let outcome = serve_own(&play);
    let failed = outcome.is_err();
    play.end(outcome);
    if failed {
        // The primary is to know.
        std::process::exit(1);
    }
}

fn serve_own(play: &Arc<Play>) -> Result<(), String> {
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary(SET).map_err(show)?;
    play.say("joined");
    set.get_configuration(INFINITE).map_err(show)?;
    let devices = (0..play.case.devices).filter(|device| play.case.secondary_of(*device) == Some(play.number));
    let failed = std::thread::scope(|scope| {
        let serving = devices.map(|device| {
            let set = &set;
            scope.spawn(move || serve_device(play, set, device, None).inspect_err(|_| _ = set.signal_abort()))
        });
        let serving: Vec<_> = serving.collect();
        serving.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect::<Vec<_>>()
    });
    if failed.is_empty() { set.close().map_err(show) } else { Err(failed.join(" / ")) }
}

/// Works on buffers by their handles.
pub(crate) fn worker(stage: &RoleContext) {
    let play = Play::of(stage, "worker");
    play.end(work(&play));
}

fn work(play: &Arc<Play>) -> Result<(), String> {
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary(SET).map_err(show)?;
    play.say("joined");
    let answers = File::options().write(true).open("/proc/self/fd/3").unwrap();
    let open = |stripe| Ok(Box::new(play.media(stripe)) as Box<dyn Media>);
    serve(&set, std::io::stdin().lock(), answers, open).map(drop).map_err(show)
}

/// A medium that tells how far it is, and waits at the point of the case.
struct Watched {
    play: Arc<Play>,
    device: u32,
    inner: Box<dyn Media>,
    point: Option<Point>,
    /// What it has been told to do so far, with how often.
    seen: Vec<(Doing, u64)>,
}

impl Watched {
    fn around<T>(&mut self, doing: Doing, work: impl FnOnce(&mut dyn Media) -> T) -> T {
        let count = match self.seen.iter_mut().find(|(seen, _)| *seen == doing) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                self.seen.push((doing, 1));
                1
            }
        };
        if count == 1 {
            self.play.say(&format!("doing {}", doing.name()));
        }
        let here = |behind| {
            let is = |point: &Point| (point.doing, point.nth, point.behind) == (doing, count, behind);
            self.point.as_ref().filter(|point| is(point)).copied()
        };
        let (before, after) = (here(false), here(true));
        if let Some(point) = before {
            self.reach(point);
        }
        let done = work(&mut *self.inner);
        if let Some(point) = after {
            self.reach(point);
        }
        if doing == Doing::Close {
            self.play.say(&format!("closed {}", self.device));
        }
        done
    }

    fn reach(&self, point: Point) {
        self.play.say("at point");
        if point.held {
            // Opening waits for the one who strikes, and reading for the blow.
            let mut nothing = Vec::new();
            let _ = File::open(hold(&self.play.folder)).and_then(|mut pipe| pipe.read_to_end(&mut nothing));
        }
    }
}

impl Media for Watched {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.inner.begin(config)
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.around(Doing::Write, |media| media.write(position, data))
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.around(Doing::Read, |media| media.read(position, buffer))
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        self.around(Doing::Flush, |media| media.flush())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        self.around(Doing::Complete, |media| media.complete())
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.inner.clear_error()
    }

    fn other(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        self.inner.other(code, size, position)
    }

    fn close(&mut self) -> Result<(), MediaError> {
        self.around(Doing::Close, |media| media.close())
    }
}
