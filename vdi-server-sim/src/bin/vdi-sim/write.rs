//! `vdi-sim write`: a database in use.
//!
//! It overwrites page after page of all data files, each with a stamp (`vdi_server_sim::storage::content::Stamp`), and waits while the
//! database is backed up or frozen. It ends between two pages: no half of a page is left when it is asked to end.

use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use vdi_server_sim::storage::{DataFolder, DatabaseWriter};

use crate::say;

/// After so many pages it says how many there were.
const REPORT: u64 = 64;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The database
    #[arg(long, value_name = "NAME")]
    database: String,
    /// End after so many pages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Held while a page is written, and by the thread that ends the process.
static WRITING: Mutex<()> = Mutex::new(());

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let folder = DataFolder::open(&arguments.data)?;
    let mut writer = DatabaseWriter::open(&folder, &arguments.database)?;
    let pages = writer.pages()?;
    if pages.is_empty() {
        let name = &arguments.database;
        return Err(format!("database '{name}' has no page with content: `vdi-sim sample` makes one that has").into());
    }
    // What is wrong so far is said before the end of the input can end the process.
    std::thread::Builder::new().spawn(end_with_input)?;
    let mut written = 0;
    let sequence = 0..arguments.count.unwrap_or(u64::MAX);
    for (sequence, page) in sequence.zip(pages.iter().copied().cycle()) {
        {
            // Waits while the database is frozen; the end of the input ends the process then, too.
            let guard = writer.begin()?;
            let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
            guard.write(page, sequence)?;
        }
        written = sequence + 1;
        if written % REPORT == 0 {
            say::out(format_args!("wrote {written}"));
        }
    }
    if written % REPORT != 0 {
        say::out(format_args!("wrote {written}"));
    }
    Ok(())
}

/// Ends this process well when its standard input closes.
fn end_with_input() {
    let mut byte = [0];
    while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    std::process::exit(0);
}
