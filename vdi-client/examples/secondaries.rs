//! A process a device: `secondaries SET DEVICES FOLDER`, then back a database up to SET, SET-1, SET-2 and so on.
//!
//! The primary creates the set and opens no device. Each secondary joins it, opens a device of its own, and serves it.
//!
//! FOLDER holds one backup: files that are there already are not replaced. Each takes its place on its own, so a statement that
//! fails between two of them would leave neither backup whole.
use std::io::{Write, stderr};
use std::path::Path;
use std::process::{Child, Command};
use std::{env, fmt::Display, time::Duration};

use vdi_client::media::{FileMedia, MediaError};
use vdi_client::{BackEnd, ClientVirtualDeviceSet, CompletionCode, ErrorReport, Features, Progress, VdConfig};

/// Prints to standard error. A standard error that is closed is no failure.
fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

fn main() -> Result<(), ErrorReport> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [role, set, device, path] if role == "secondary" => secondary(set, device, Path::new(path)),
        [set, devices, folder] => primary(set, devices.parse()?, Path::new(folder)),
        _ => Err("usage: secondaries SET DEVICES FOLDER".into()),
    }
}

fn primary(name: &str, device_count: u32, folder: &Path) -> Result<(), ErrorReport> {
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    set.create(name, &VdConfig { device_count, features: Features::REQUEST_COMPLETE, ..VdConfig::default() })?;
    say(format_args!("ready for {device_count} devices: {name}, {name}-1 ..."));
    set.get_configuration(Duration::from_secs(600))?;
    let program = env::current_exe()?;
    let mut secondaries = Vec::new();
    for index in 0..device_count {
        let device = if index == 0 { name.to_owned() } else { format!("{name}-{index}") };
        let mut secondary = Command::new(&program);
        secondary.args(["secondary", name, &device]).arg(folder.join(format!("{device}.vdi")));
        secondaries.push(secondary.spawn()?);
    }
    // All at once: when one fails, even before it has joined, the others get VD_E_ABORT instead of waiting for what never comes.
    let failed = std::thread::scope(|scope| {
        let wait = |mut secondary: Child| {
            let failed = !secondary.wait().is_ok_and(|status| status.success());
            if failed {
                // Of no effect where it has aborted the set itself, with a better reason.
                let why = "the process of another device failed";
                let _ = set.signal_abort_because(CompletionCode::OPERATION_ABORTED, why);
            }
            failed
        };
        let waits: Vec<_> = secondaries.into_iter().map(|secondary| scope.spawn(move || wait(secondary))).collect();
        waits.into_iter().filter_map(|wait| wait.join().ok()).filter(|failed| *failed).count()
    });
    if failed > 0 {
        return Err(format!("{failed} of {device_count} secondaries failed").into());
    }
    set.close()?;
    say(format_args!("all {device_count} devices are done"));
    Ok(())
}

fn secondary(name: &str, device: &str, path: &Path) -> Result<(), ErrorReport> {
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    set.open_in_secondary(name)?;
    let media = |_, agreed: &VdConfig| match agreed.features.contains(Features::WRITE_MEDIA) {
        true if path.is_file() => {
            let what = format!("{} is of an earlier backup, and is not replaced", path.display());
            let remedy = "name another folder, and remove the old backup when the new one is good";
            Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy(remedy))
        }
        true => FileMedia::create(path),
        false => FileMedia::open(path),
    };
    // Warns once a minute while nothing moves.
    let warn = |progress: &Progress| {
        if progress.idle.as_secs() % 60 == 59 {
            say(progress)
        }
    };
    set.serve_with_progress(&[device], media, warn)?;
    Ok(set.close()?)
}
