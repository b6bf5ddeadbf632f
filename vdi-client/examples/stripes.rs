//! An agent for several devices: `stripes SET FOLDER [DEVICES]`, then send the statement that names SET, SET-1, SET-2 and so on
//! (four unless told otherwise). Each device has its own thread and its own file. A line a second tells how far it is.
//!
//! FOLDER holds one backup: stripes that are there already are not replaced. Each file takes its place on its own, so a statement
//! that fails between two of them would leave neither backup whole.
//!
//! Ctrl-C cancels: the statement fails. A second Ctrl-C ends the program at once.
use std::io::{Write, stderr};
use std::path::Path;
use std::{env, fmt::Display, process, thread, time::Duration};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vdi_client::media::{FileMedia, MediaError};
use vdi_client::{BackEnd, Canceller, ClientVirtualDeviceSet, CompletionCode, ErrorReport, Features, VdConfig};

/// Prints to standard error. A standard error that is closed is no failure.
fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

fn main() -> Result<(), ErrorReport> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let (name, folder, device_count) = match &arguments[..] {
        [name, folder] => (name, folder, 4),
        [name, folder, devices] => (name, folder, devices.to_string_lossy().parse()?),
        _ => return Err("usage: stripes SET FOLDER [DEVICES]".into()),
    };
    let name = name.to_string_lossy();
    let device = |index| if index == 0 { name.to_string() } else { format!("{name}-{index}") };
    let names: Vec<_> = (0..device_count).map(device).collect();

    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    set.create(&name, &VdConfig { device_count, features: Features::REQUEST_COMPLETE, ..VdConfig::default() })?;
    cancel_on_signals(set.canceller()?)?;
    let clauses: Vec<_> = names.iter().map(|name| format!("VIRTUAL_DEVICE='{name}'")).collect();
    say(format_args!("ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, {}", clauses.join(", ")));
    set.get_configuration(Duration::from_secs(600))?;

    let media = |index, agreed: &VdConfig| {
        let path = Path::new(folder).join(format!("stripe-{index}.vdi"));
        if agreed.features.contains(Features::WRITE_MEDIA) { create(&path) } else { FileMedia::open(path) }
    };
    set.serve_with_progress(&names, media, |progress| say(progress))?;
    set.close()?;
    say("done");
    Ok(())
}

/// A stripe of a new backup. Pipes and devices may be there already.
fn create(path: &Path) -> Result<FileMedia, MediaError> {
    if path.is_file() {
        let what = format!("{} is of an earlier backup, and is not replaced", path.display());
        let remedy = "name another folder, and remove the old backup when the new one is good";
        return Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy(remedy));
    }
    FileMedia::create(path)
}

/// Has SIGINT and SIGTERM cancel the work. The second one ends the process.
fn cancel_on_signals(canceller: Canceller) -> Result<(), ErrorReport> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        let mut cancelled = false;
        for signal in signals.forever() {
            if cancelled {
                process::exit(128 + signal);
            }
            say("cancelling; once more ends the program at once");
            canceller.cancel();
            cancelled = true;
        }
    });
    Ok(())
}
