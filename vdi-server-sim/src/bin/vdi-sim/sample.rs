//! `vdi-sim sample`: a database with content.

use std::error::Error;
use std::path::PathBuf;

use vdi_server_sim::storage::{DataFolder, content};

use crate::demo::parse_size;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The name of the new database
    #[arg(long, value_name = "NAME")]
    database: String,
    /// Bytes of content; K, M and G are understood
    #[arg(long, default_value = "50M", value_parser = parse_size)]
    size: u64,
    /// Carry this file, or all files of this folder, instead of a sample's pages
    #[arg(long, value_name = "PATH", conflicts_with = "size")]
    files: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let folder = DataFolder::open(&arguments.data)?;
    match &arguments.files {
        Some(path) => content::import(&folder, &arguments.database, path)?,
        None => content::create_sample(&folder, &arguments.database, arguments.size, 1)?,
    }
    Ok(())
}
