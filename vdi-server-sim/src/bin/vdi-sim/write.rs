//! `vdi-sim write`: a database in use.
//!
//! It overwrites page after page of all files, each with a [`Stamp`], and waits while the database is backed up or frozen. It ends between two
//! pages: nobody who asks it to end finds half a page.

use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use vdi_server_sim::database::page::{HEADER_BYTES, Stamp};
use vdi_server_sim::database::{DataFolder, Database, DatabaseFile, DatabaseWriter};

use crate::say;

/// After so many pages it says how many there were.
const REPORT: u64 = 64;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data folder: a folder a database
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The database
    #[arg(long, value_name = "NAME")]
    database: String,
    /// Bytes of a page; what is left over at the end of a file is not written
    #[arg(long, value_name = "BYTES", default_value_t = 8192)]
    page: u32,
    /// End after so many pages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Held while a page is written, and by the thread that ends the process.
static WRITING: Mutex<()> = Mutex::new(());

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if !(HEADER_BYTES..=1 << 24).contains(&(arguments.page as usize)) {
        return Err(format!("a page of {} bytes: give {HEADER_BYTES} to {}", arguments.page, 1 << 24).into());
    }
    let folder = DataFolder::new(&arguments.data)?;
    let page_bytes = u64::from(arguments.page);
    // Says what is wrong before the end of the input can end the process.
    pages(&folder.open(&arguments.database)?, page_bytes)?;
    // Before anything that waits: opening does, while the database is backed up or frozen.
    std::thread::Builder::new().spawn(end_with_input)?;
    let mut writer = DatabaseWriter::open(&folder, &arguments.database)?;
    let pages = pages(writer.database(), page_bytes)?;
    let mut bytes = vec![0; arguments.page as usize];
    let mut written = 0;
    let sequence = 0..arguments.count.unwrap_or(u64::MAX);
    for (sequence, (file, page)) in sequence.zip(pages.iter().copied().cycle()) {
        Stamp { file, page, sequence }.fill(&mut bytes);
        {
            // Waits while the database is frozen; the end of the input ends the process then, too.
            let turn = writer.begin()?;
            let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
            turn.write_at(file as usize, page * page_bytes, &bytes)?;
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

/// The pages of a database, at least one: the file's place, and the page's place in it.
fn pages(database: &Database, page_bytes: u64) -> Result<Vec<(u32, u64)>, Box<dyn Error>> {
    let of_file = |(file, listed): (u32, &DatabaseFile)| (0..listed.size / page_bytes).map(move |page| (file, page));
    let pages: Vec<_> = (0..).zip(database.files()).flat_map(of_file).collect();
    if pages.is_empty() {
        return Err(format!("no file of {} has a page of {page_bytes} bytes", database.path().display()).into());
    }
    Ok(pages)
}

/// Ends this process well when its standard input closes.
fn end_with_input() {
    let mut byte = [0];
    while matches!(std::io::stdin().read(&mut byte), Ok(1..)) {}
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    std::process::exit(0);
}
