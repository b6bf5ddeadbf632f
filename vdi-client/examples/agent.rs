//! A complete backup agent: `agent SET FILE`, then send the statement that names SET. As the FILE, `-` is standard output or
//! input. With VDI_LIBRARY=libsqlvdi.so, and the feature `sqlserver`, it is one for a real SQL Server.
use std::io::{Write, stderr};
use std::{env, fmt::Display, time::Duration};

use vdi_client::media::FileMedia;
use vdi_client::{BackEnd, ClientVirtualDeviceSet, ErrorReport, Features, Progress, VdConfig};

/// Prints to standard error, since standard output may be the backup. A standard error that is closed is no failure.
fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

fn main() -> Result<(), ErrorReport> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [name, path] = &arguments[..] else { return Err("usage: agent SET FILE".into()) };
    let name = name.to_string_lossy();
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    set.create(&name, &VdConfig { features: Features::REQUEST_COMPLETE, ..VdConfig::default() })?;
    say(format_args!("ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, VIRTUAL_DEVICE='{name}'"));
    set.get_configuration(Duration::from_secs(600))?;
    let open = |_, agreed: &VdConfig| match (agreed.features.contains(Features::WRITE_MEDIA), path == "-") {
        (true, false) => FileMedia::create(path),
        (true, true) => FileMedia::stdout(),
        (false, false) => FileMedia::open(path),
        (false, true) => FileMedia::stdin(),
    };
    // Warns once a minute while nothing moves.
    let warn = |progress: &Progress| {
        if progress.idle.as_secs() % 60 == 59 {
            say(progress)
        }
    };
    let reports = set.serve_with_progress(&[name], open, warn)?;
    set.close()?;
    say(reports[0]);
    Ok(())
}
