//! An agent for every kind of device: `kinds SET pipe|disk|tape|volumes PATH`, then send the statement that names SET.
//! `volumes` is a removable disk whose media have 16 MiB each. As the PATH of a pipe, `-` is standard output or input.
use std::io::{Write, stderr};
use std::{env, time::Duration};

use vdi_client::media::{FileMedia, Media, MediaError, TapeImage, VolumeSet};
use vdi_client::{BackEnd, ClientVirtualDeviceSet, ErrorReport, Features, VdConfig};

const CAPACITY: u64 = 16 << 20;
/// What is on its way when a medium is nearly full has to find room in its last part.
const WARNING_ZONE: u32 = 4 << 20;

fn main() -> Result<(), ErrorReport> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [name, kind, path] = &arguments[..] else { return Err("usage: kinds SET pipe|disk|tape|volumes PATH".into()) };
    let features = match &**kind {
        "pipe" => Features::NONE,
        "disk" => Features::RANDOM_ACCESS,
        "tape" => Features::TAPE,
        "volumes" => Features::RANDOM_ACCESS | Features::REMOVABLE,
        other => return Err(format!("{other:?} is no kind: pipe, disk, tape or volumes").into()),
    };
    if path == "-" && kind != "pipe" {
        return Err("- is for the kind pipe: standard output and input have no positions".into());
    }
    let eom_warning_size = if kind == "volumes" { WARNING_ZONE } else { 0 };
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    let features = features | Features::REQUEST_COMPLETE;
    set.create(name, &VdConfig { features, eom_warning_size, ..VdConfig::default() })?;
    say(&format!("ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, VIRTUAL_DEVICE='{name}'"));
    set.get_configuration(Duration::from_secs(600))?;
    let reports = set.serve(&[name], |_, agreed| -> Result<Box<dyn Media>, MediaError> {
        let backup = agreed.features.contains(Features::WRITE_MEDIA);
        Ok(match (&**kind, backup) {
            ("tape", true) => Box::new(TapeImage::create(path)?),
            ("tape", false) => Box::new(TapeImage::open(path)?),
            ("volumes", true) => Box::new(VolumeSet::create(path, CAPACITY)?),
            ("volumes", false) => Box::new(VolumeSet::open(path)?),
            (_, true) if path == "-" => Box::new(FileMedia::stdout()?),
            (_, false) if path == "-" => Box::new(FileMedia::stdin()?),
            (_, true) => Box::new(FileMedia::create(path)?),
            (_, false) => Box::new(FileMedia::open(path)?),
        })
    })?;
    set.close()?;
    say(&reports[0].to_string());
    Ok(())
}

/// Messages are for people, and for standard error. A message that no process reads changes nothing.
fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
