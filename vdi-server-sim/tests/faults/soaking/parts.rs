//! The two processes that live as long as the run.

use std::path::Path;
use std::process::Command as Program;
use std::time::Duration;

use vdi_client::Options;
use vdi_client::workers::WorkerPool;
use vdi_client::{ClientVirtualDevice, ClientVirtualDeviceSet, CompletionCode, Features, VdConfig};
use vdi_server_sim::engine::Engine;
use vdi_server_sim::faults::Faults;

use super::Leak;
use crate::common::TEST_TIMEOUT;
use crate::common::behaviour::{Behaviour, MediaKind, serve};
use crate::common::client::{config, device_name, execute, stripe};
use crate::common::processes::RoleContext;

const SET: &str = "soak";

/// The time that this process was on a CPU.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn leaks(stage: &RoleContext, leak: Leak) -> bool {
    stage.arguments.get(1).is_some_and(|asked| *asked == format!("{leak:?}"))
}

/// Carries out statement after statement: a line has faults, a tab, the statement.
pub(crate) fn server(stage: &RoleContext) {
    let engine = |faults| Engine::new(stage.argument(0), Options::default()).unwrap().with_faults(faults);
    let plain = engine(Faults::default());
    let mut kept = Vec::new();
    stage.say("ready");
    while let Some(order) = stage.next_order() {
        if order == "nothing" {
            stage.say("nothing");
            continue;
        }
        let (fault, statement) = order.split_once('\t').unwrap();
        let before = cpu_time();
        let outcome = if fault.is_empty() {
            execute(&plain, statement)
        } else {
            execute(&engine(Faults::seeded(7).with(fault.parse().unwrap())), statement)
        };
        let spent = (cpu_time() - before).as_nanos();
        if leaks(stage, Leak::Descriptor) {
            kept.push(std::fs::File::open(stage.argument(0)).unwrap());
        }
        match outcome {
            Ok(_) => stage.say(&format!("ok {spent}")),
            Err(failure) => stage.say(&format!("failed {spent} {failure}")),
        }
    }
}

/// Serves set after set: a line is an order of the round's.
pub(crate) fn agent(stage: &RoleContext) {
    stage.say("ready");
    let mut kept = Vec::new();
    while let Some(order) = stage.next_order() {
        if order == "nothing" {
            stage.say("nothing");
            continue;
        }
        let before = cpu_time();
        let outcome = serve_set(stage, &order);
        let spent = (cpu_time() - before).as_nanos();
        if leaks(stage, Leak::Memory) {
            kept.push(vec![1u8; 256 << 10]);
        }
        match outcome {
            Ok(()) => stage.say(&format!("ok {spent}")),
            Err(told) => stage.say(&format!("failed {spent} {told}")),
        }
    }
}

fn serve_set(stage: &RoleContext, order: &str) -> Result<(), String> {
    let [direction, kind, devices, workers, wrong, at] =
        order.split(' ').collect::<Vec<_>>().try_into().expect("an order");
    let (restore, count) = (direction == "restore", devices.parse().unwrap());
    let at = at.parse().unwrap();
    let wrong = match wrong {
        "fails" => Behaviour::MediaFails { at, code: CompletionCode::DISK_FULL },
        "drops" => Behaviour::Drops { at },
        "aborts" => Behaviour::Aborts { at },
        _ => Behaviour::Pump,
    };
    let (kept, features, eom_warning_size) = match kind {
        "tape" => (MediaKind::Tape, Features::TAPE, 0),
        // A medium has a warning zone of what a server sends at a time.
        "volumes" => (MediaKind::Volumes(24 << 20), Features::REMOVABLE, 8 << 20),
        _ => (MediaKind::File, Features::NONE, 0),
    };
    let show = |error: vdi_client::Error| error.to_string();
    let set = ClientVirtualDeviceSet::new();
    let config = VdConfig { features: Features::REQUEST_COMPLETE | features, eom_warning_size, ..config(count) };
    set.create(SET, &config).map_err(show)?;
    stage.say("created");
    set.get_configuration(TEST_TIMEOUT).map_err(show)?;
    let open = || {
        (0..count).map(|index| set.open_device(&device_name(SET, index))).collect::<Result<Vec<_>, _>>().map_err(show)
    };
    let folder = Path::new(stage.argument(0));
    let ends: Vec<Result<(), String>> = match workers.parse().unwrap() {
        0 => std::thread::scope(|scope| {
            let serving: Vec<_> = (0u32..)
                .zip(open()?)
                .map(|(index, device): (u32, ClientVirtualDevice)| {
                    let set = &set;
                    // One device is enough to go wrong.
                    let behaviour = if index == 0 { wrong } else { Behaviour::Pump };
                    scope.spawn(move || {
                        let media = kept.media(&stripe(folder, index), restore);
                        serve(set, device, media, behaviour, fastrand::Rng::with_seed(1))
                    })
                })
                .collect();
            Ok::<_, String>(serving.into_iter().map(|serving| serving.join().unwrap()).collect())
        })?,
        workers => {
            let programs = (0..workers).map(|_| {
                let mut worker = Program::new(env!("CARGO_BIN_EXE_vdi-sim"));
                worker.args(["demo-worker", "--set", SET]).arg("--folder").arg(folder);
                worker.args(restore.then_some("--restore"));
                worker
            });
            let pool = WorkerPool::start(programs).map_err(|error| error.to_string())?;
            let pool = &pool;
            std::thread::scope(|scope| {
                let driving: Vec<_> = (0u32..)
                    .zip(open()?)
                    .map(|(stripe, mut device)| {
                        scope.spawn(move || pool.drive(&mut device, stripe, |_| {}).map(drop).map_err(show))
                    })
                    .collect();
                Ok::<_, String>(driving.into_iter().map(|driving| driving.join().unwrap()).collect())
            })?
        }
    };
    let ended: Result<(), String> = ends.into_iter().collect();
    // The devices told better how it went.
    let closed = set.close().map_err(show);
    ended.and(closed)
}
