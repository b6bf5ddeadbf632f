//! The demo's client side: a primary that gets the commands, and workers that get the buffers by their handles.
//!
//! The primary tells the demo what happens by lines on its standard output: `ready`, `progress BYTES`,
//! `done COMMANDS HANDLES`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use vdi_client::media::{FileMedia, Media};
use vdi_client::workers::{WorkerPool, serve};
use vdi_client::{ClientVirtualDeviceSet, Features, VdConfig};

use crate::say;

#[derive(clap::Args)]
pub(crate) struct PrimaryArguments {
    /// The set's name
    #[arg(long)]
    pub(crate) set: String,
    /// Devices
    #[arg(long)]
    pub(crate) devices: u32,
    /// Worker processes
    #[arg(long)]
    pub(crate) workers: u32,
    /// The folder of the backup: a file a device
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// Read instead of written
    #[arg(long)]
    pub(crate) restore: bool,
}

#[derive(clap::Args)]
pub(crate) struct WorkerArguments {
    /// The set's name
    #[arg(long)]
    set: String,
    /// The folder of the backup
    #[arg(long)]
    folder: PathBuf,
    /// Read instead of written
    #[arg(long)]
    restore: bool,
}

/// The name of a device: the first has the set's.
pub(crate) fn device_name(set: &str, index: u32) -> String {
    if index == 0 { set.to_owned() } else { format!("{set}-{index}") }
}

fn stripe_path(folder: &Path, stripe: u32) -> PathBuf {
    folder.join(format!("stripe-{stripe:02}.vdi"))
}

pub(crate) fn run_primary(arguments: &PrimaryArguments) -> Result<(), Box<dyn Error>> {
    crate::children::reap_own_children()?;
    crate::children::end_with_input();
    let PrimaryArguments { set: name, devices, workers, folder, restore } = arguments;
    let set = ClientVirtualDeviceSet::new();
    let config = VdConfig { device_count: *devices, features: Features::REQUEST_COMPLETE, ..VdConfig::default() };
    set.create(name, &config)?;
    say::out("ready");
    set.get_configuration(Duration::from_secs(60))?;

    let program = std::env::current_exe()?;
    let pool = WorkerPool::start((0..*workers).map(|_| {
        let mut worker = Command::new(&program);
        worker.args(["demo-worker", "--set", name]).arg("--folder").arg(folder);
        if *restore {
            worker.arg("--restore");
        }
        worker
    }))?;
    let names: Vec<_> = (0..*devices).map(|index| device_name(name, index)).collect();
    let total = Mutex::new((0, 0));
    let drive = |index, device: &mut _| pool.drive(device, index as u32, |bytes| progress(&total, bytes));
    let commands: u64 = set.serve_by(&names, drive)?.iter().map(|report| report.commands).sum();
    let handles = pool.handles_passed();
    set.close()?;
    for status in pool.finish()? {
        // The system waits for no child of this process.
        if let Some(status) = status.filter(|status| !status.success()) {
            return Err(format!("a worker ended with {status}").into());
        }
    }
    say::out(format_args!("done {commands} {handles}"));
    Ok(())
}

/// Says how far the work has come, every few megabytes.
fn progress(total: &Mutex<(u64, u64)>, bytes: u64) {
    const STEP: u64 = 8 << 20;
    if let Ok(mut total) = total.lock() {
        total.0 += bytes;
        if total.0 >= total.1 + STEP {
            total.1 = total.0;
            say::out(format_args!("progress {}", total.0));
        }
    }
}

pub(crate) fn run_worker(arguments: &WorkerArguments) -> Result<(), Box<dyn Error>> {
    let WorkerArguments { set: name, folder, restore } = arguments;
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary(name)?;
    serve(&set, std::io::stdin().lock(), std::io::stdout().lock(), |stripe| {
        let path = stripe_path(folder, stripe);
        let media = if *restore { FileMedia::open(path)? } else { FileMedia::create(path)? };
        Ok(Box::new(media) as Box<dyn Media>)
    })?;
    set.close()?;
    Ok(())
}
