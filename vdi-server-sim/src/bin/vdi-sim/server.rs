//! The settings of the server that executes statements. `vdi-sim sql` has options for them, `sqlcmd` environment variables.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use vdi_server_sim::engine::Engine;
use vdi_server_sim::faults::{Fault, Faults};
use vdi_server_sim::vds::Options;

use crate::error_log;

/// The data folder.
pub(crate) const DATA: &str = "VDI_SIM_DATA";
const FAULTS: &str = "VDI_SIM_FAULTS";
const SEED: &str = "VDI_SIM_SEED";
const WAIT: &str = "VDI_SIM_WAIT";
const TRANSCRIPT: &str = "VDI_SIM_TRANSCRIPT";
const LOG: &str = "VDI_SIM_LOG";

/// The data folder and the behaviour of the server.
#[derive(clap::Args)]
pub(crate) struct Server {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The instance that the set was created for; the default instance if omitted
    #[arg(long, default_value = "")]
    instance: String,
    /// A user whose sets may be used, besides this user and those of VDI_ALLOW_UID; may be given more than once
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,
    /// A group whose users' sets may be used, besides those of VDI_ALLOW_GID; may be given more than once
    #[arg(long, value_name = "GID")]
    allow_gid: Vec<u32>,
    /// A fault of the server, as `vdi-sim faults` lists them; may be given more than once
    #[arg(long = "fault", value_name = "NAME[=VALUE]")]
    faults: Vec<Fault>,
    /// The seed of the random choices of faults: the same seed repeats them
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// Wait up to this many seconds for the client to create the set
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    wait: u32,
    /// Write the events of the set into this file, one line per event
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    /// Append the messages of SQL Server's error log (18210 and 3041) to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl Server {
    /// The settings in the environment. An empty variable counts as missing.
    ///
    /// # Errors
    /// A variable is missing or invalid. The error names it.
    pub(crate) fn from_environment(instance: String) -> Result<Server, String> {
        let data = variable(DATA)
            .ok_or_else(|| format!("{DATA} is not set; set it to the data folder of the simulated server"))?;
        let mut faults = Vec::new();
        for text in text(FAULTS)?.split(|c: char| c == ',' || c.is_whitespace()).filter(|text| !text.is_empty()) {
            faults.push(text.parse().map_err(|error| format!("{FAULTS}: {error}"))?);
        }
        let seed = match &*text(SEED)? {
            "" => 0,
            seed => {
                seed.parse().map_err(|_| format!("{SEED} is {seed:?}; set it to a number from 0 to {}", u64::MAX))?
            }
        };
        let wait = match &*text(WAIT)? {
            "" => 0,
            wait => wait
                .parse()
                .map_err(|_| format!("{WAIT} is {wait:?}; set it to seconds, a number from 0 to {}", u32::MAX))?,
        };
        let transcript = variable(TRANSCRIPT).map(PathBuf::from);
        let log = variable(LOG).map(PathBuf::from);
        Ok(Server {
            data: data.into(),
            instance,
            allow_uid: Vec::new(),
            allow_gid: Vec::new(),
            faults,
            seed,
            wait,
            transcript,
            log,
        })
    }

    /// Begins the transcript, which names `statement`, and creates the engine.
    ///
    /// # Errors
    /// The transcript or the log cannot be created, the data folder does not exist, or VDI_ALLOW_UID or VDI_ALLOW_GID is invalid.
    pub(crate) fn start(&self, statement: &str) -> Result<Engine, Box<dyn Error>> {
        let mut options = Options::from_env()?;
        options.access.uids.extend(&self.allow_uid);
        options.access.gids.extend(&self.allow_gid);
        if let Some(path) = &self.transcript {
            crate::transcript::begin(path, statement)?;
        }
        let faults = self.faults.iter().copied().fold(Faults::seeded(self.seed), Faults::with);
        let engine = Engine::new(&self.data, options)?;
        let timeout = Duration::from_secs(self.wait.into());
        let engine = engine.with_instance(&*self.instance).with_faults(faults).with_set_timeout(timeout);
        match &self.log {
            Some(path) => Ok(engine.with_log(error_log::open(path)?)),
            None => Ok(engine),
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text(name: &str) -> Result<String, String> {
    variable(name).unwrap_or_default().into_string().map_err(|value| format!("{name} is {value:?}, which is not UTF-8"))
}
