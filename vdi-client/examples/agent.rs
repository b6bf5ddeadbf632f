//! A complete backup agent: `agent SET FILE`, then send the statement that names SET. With VDI_LIBRARY=libsqlvdi.so, and the
//! feature `sqlserver`, it is one for a real SQL Server.
use std::{env, error::Error, time::Duration};

use vdi_client::media::FileMedia;
use vdi_client::{BackEnd, ClientVirtualDeviceSet, Features, VdConfig, pump};

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(name), Some(path)) = (env::args().nth(1), env::args().nth(2)) else {
        return Err("usage: agent SET FILE".into());
    };
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    set.create(&name, &VdConfig { features: Features::REQUEST_COMPLETE, ..VdConfig::default() })?;
    println!("ready for BACKUP DATABASE ... TO, or RESTORE DATABASE ... FROM, VIRTUAL_DEVICE='{name}'");
    let agreed = set.get_configuration(Duration::from_secs(600))?;
    let mut device = set.open_device(&name)?;
    let backup = agreed.features.contains(Features::WRITE_MEDIA);
    let mut media = if backup { FileMedia::create(&path)? } else { FileMedia::open(&path)? };
    let report = pump(&mut device, &mut media)?;
    set.close()?;
    println!("{} bytes written, {} bytes read, {} commands", report.bytes_written, report.bytes_read, report.commands);
    Ok(())
}
