//! The honest parts: a client process that serves set after set, and a server process that carries out statement after
//! statement, several at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use vdi_client::media::{FileMedia, Media, MediaError};
use vdi_client::{ClientVirtualDeviceSet, CommandCode, Error, INFINITE, Options, VdConfig, pump};
use vdi_server_sim::engine::Engine;

use super::case::{Case, Moment, Verb};
use crate::common::TEST_TIMEOUT;
use crate::common::behaviour::{HookedMedia, MediaHook};
use crate::common::client::{config, device_name, execute, stripe};
use crate::common::processes::RoleContext;

/// The bystanders' set and database.
pub(crate) const INNOCENT: &str = "innocent";

/// The serverTimeOut of a raided set, in milliseconds.
const TIME_OUT: u32 = 500;

/// The moment that comes before all others: the set may be joined.
pub(crate) const ADMITTED: usize = usize::MAX;

fn out(stage: &RoleContext) -> PathBuf {
    stage.argument(1).into()
}

/// The server's data folder is the first argument of each part, the clients' folder the second.
pub(crate) fn engine(stage: &RoleContext) -> Engine {
    Engine::new(stage.argument(0), Options::default()).unwrap()
}

/// In one line.
fn flat(text: &str) -> String {
    text.replace('\n', " ")
}

/// Carries out a statement and says how it went.
pub(crate) fn run(stage: &RoleContext, engine: &Engine, tag: &str, sql: &str) {
    match execute(engine, sql) {
        Ok(_) => stage.say(&format!("{tag} done ok")),
        Err(failure) => stage.say(&format!("{tag} done {}", flat(&failure.to_string()))),
    }
}

/// The server's part: `run|TAG|STATEMENT`.
pub(crate) fn server(stage: &RoleContext) {
    let engine = engine(stage);
    std::thread::scope(|scope| {
        while let Some(order) = stage.next_order() {
            let order: Vec<&str> = order.split('|').collect();
            let ["run", tag, sql] = order[..] else { panic!("{order:?}") };
            let (tag, sql, engine) = (tag.to_owned(), sql.to_owned(), &engine);
            scope.spawn(move || run(stage, engine, &tag, &sql));
        }
    });
}

/// The client's part: `serve|TAG|SET|SEED|VERB|RAIDED`, `innocent|VERB`, and `go|TAG`, which lets a client go on that said
/// `moment`.
pub(crate) fn client(stage: &RoleContext) {
    let waiting: Mutex<HashMap<String, Sender<()>>> = Mutex::default();
    std::thread::scope(|scope| {
        while let Some(order) = stage.next_order() {
            let order: Vec<&str> = order.split('|').collect();
            match order[..] {
                ["serve", tag, set, seed, verb, raided] => {
                    let (tag, set, verb) = (tag.to_owned(), set.to_owned(), Verb::of(verb));
                    let (case, raided, waiting) = (Case::new(seed.parse().unwrap()), raided == "raided", &waiting);
                    scope.spawn(move || {
                        let at = |burst: usize| {
                            let (go, told) = channel();
                            waiting.lock().unwrap().insert(tag.clone(), go);
                            stage.say(&format!("{tag} moment {burst}"));
                            told.recv_timeout(TEST_TIMEOUT).expect("somebody to say that it goes on");
                        };
                        serve(stage, &tag, &set, &case, verb, raided, &at);
                    });
                }
                ["innocent", verb] => {
                    let verb = Verb::of(verb);
                    scope.spawn(move || {
                        let path = out(stage).join(INNOCENT);
                        let media = |_| -> Box<dyn Media> {
                            match verb {
                                Verb::Backup => Box::new(FileMedia::create(&path).unwrap()),
                                Verb::Restore => Box::new(FileMedia::open(&path).unwrap()),
                            }
                        };
                        let created = || stage.say("innocent created");
                        let served = serve_set(INNOCENT, &config(1), &created, &|| {}, &media, &|_, _| {});
                        stage.say(&format!("innocent ended {}", show(&served)));
                    });
                }
                ["go", tag] => waiting.lock().unwrap().remove(tag).unwrap().send(()).unwrap(),
                _ => panic!("{order:?}"),
            }
        }
    });
}

fn show(served: &Result<(), Error>) -> String {
    match served {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{:?} {}", error.kind(), flat(&error.to_string())),
    }
}

/// Serves a case's set, and calls `at` at the moments that it has. Says when the set is there, and how it ended.
pub(crate) fn serve(
    stage: &RoleContext,
    tag: &str,
    set: &str,
    case: &Case,
    verb: Verb,
    raided: bool,
    at: &(dyn Fn(usize) + Sync),
) {
    let folder = out(stage);
    let raid = case.raid(verb).filter(|_| raided);
    // Each burst comes once, two devices may be at their moments at the same time.
    let turn = Mutex::new(());
    let at = |burst| {
        let _turn = turn.lock().unwrap();
        at(burst);
    };
    let media = |index: u32| case.kept.media(&stripe(Path::new(&folder), index), verb == Verb::Restore);
    let opening = || {
        if let Some(raid) = raid {
            at(ADMITTED);
            (0..)
                .zip(&raid.bursts)
                .filter(|(_, burst)| burst.moment == Moment::Opening)
                .for_each(|(burst, _)| at(burst));
        }
    };
    let command = |device: u32, number: u64| {
        let due = Moment::Command { device, number };
        for (burst, _) in raid.iter().flat_map(|raid| (0..).zip(&raid.bursts)).filter(|(_, burst)| burst.moment == due)
        {
            at(burst);
        }
    };
    let created = || stage.say(&format!("{tag} created"));
    // A word that is put back to an earlier valid one may hide a command or a completion. Then the time-out ends the set.
    let server_time_out = if raid.is_some() { TIME_OUT } else { 0 };
    let config = VdConfig { server_time_out, ..case.config() };
    let served = serve_set(set, &config, &created, &opening, &media, &command);
    stage.say(&format!("{tag} ended {}", show(&served)));
}

/// What an agent does. `opening` comes between the configuration and the devices, `command` before each command.
fn serve_set(
    name: &str,
    config: &VdConfig,
    created: &dyn Fn(),
    opening: &dyn Fn(),
    media: &(dyn Fn(u32) -> Box<dyn Media> + Sync),
    command: &(dyn Fn(u32, u64) + Sync),
) -> Result<(), Error> {
    let set = ClientVirtualDeviceSet::new();
    set.create(name, config)?;
    created();
    set.get_configuration(INFINITE)?;
    opening();
    let devices = (0..config.device_count).map(|index| set.open_device(&device_name(name, index)));
    let devices = devices.collect::<Result<Vec<_>, _>>()?;
    let served: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        let serving: Vec<_> = (0..)
            .zip(devices)
            .map(|(index, mut device): (u32, _)| {
                scope.spawn(move || {
                    let hook = Moments { device: index, number: 0, command };
                    pump(&mut device, &mut HookedMedia { media: media(index), hook }).map(drop)
                })
            })
            .collect();
        serving.into_iter().map(|device| device.join().unwrap()).collect()
    });
    let served: Result<(), Error> = served.into_iter().collect();
    // After a failure the close tells of the abort, which the devices told better.
    let closed = set.close();
    served.and(closed)
}

/// Counts the commands of a device.
struct Moments<'a> {
    device: u32,
    number: u64,
    command: &'a (dyn Fn(u32, u64) + Sync),
}

impl MediaHook for Moments<'_> {
    fn before(&mut self, _: CommandCode, _: usize) -> Result<(), MediaError> {
        self.number += 1;
        (self.command)(self.device, self.number);
        Ok(())
    }
}
