//! Shows what is in a backup file: label, header, files, pages, log; and whether it is sound.
//!
//! `cargo run --example bakinfo -- FILE...`. Several files are also checked to be the families of one media set.
//! The exit status is 1 if a file cannot be read or is damaged.

use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

use vdi_mtf::families;
use vdi_mtf::inspector::Inspector;
use vdi_mtf::listing::{Header, Label, file_list};
use vdi_mtf::medium::{BackupSet, Medium};
use vdi_mtf::sqlserver::config::{BackupKind, FileType};

/// Reads a file to its end, or to what cannot be read.
fn inspect(path: &str) -> Result<Inspector, Box<dyn std::error::Error>> {
    let (mut file, mut inspector, mut buffer) = (File::open(path)?, Inspector::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            len => inspector.read(&buffer[..len])?,
        }
    }
    inspector.finish()?;
    Ok(inspector)
}

fn show_label(medium: &Medium) {
    let label = Label::of(medium);
    println!("  media set {}, family {} of {}", label.media_set_id, label.family_number, label.family_count);
    println!("  written {} by {} (vendor {})", label.date, label.software_name, label.vendor_id);
    if !label.media_name.is_empty() {
        println!("  media name {}", label.media_name);
    }
}

fn show_set(set: &BackupSet) {
    let header = Header::of(set);
    let kind = match header.kind {
        BackupKind::Full => "full backup",
        BackupKind::Differential => "differential backup",
        BackupKind::Log => "log backup",
        BackupKind::Other(_) => "backup of another kind",
    };
    let (major, minor, build) = header.software_version;
    println!("  set {}: {kind} of {} on {}", header.position, header.database_name, header.server_name);
    if !header.backup_name.is_empty() {
        println!("    name            {}", header.backup_name);
    }
    println!("    server version  {major}.{minor}.{build}, database version {}", header.database_version);
    println!("    time            {} to {}", header.start, header.finish);
    println!("    size            {} bytes", header.backup_size);
    println!("    first LSN       {}", header.first_lsn);
    println!("    last LSN        {}", header.last_lsn);
    println!("    checkpoint LSN  {}", header.checkpoint_lsn);
    println!("    database LSN    {}", header.database_backup_lsn);
    println!("    recovery model  {:?}", header.recovery_model);
    println!("    checksums       {}", if header.has_checksums { "yes" } else { "no" });
    for file in file_list(set.config()) {
        let kind = match file.file_type {
            FileType::Data => "data",
            FileType::Log => "log ",
            FileType::Other(_) => "other",
        };
        println!(
            "    file {} {kind}     {} ({}), {} bytes",
            file.file_id, file.logical_name, file.physical_name, file.size
        );
    }
    for (number, stream) in set.data.iter().enumerate() {
        let pages = stream.pages;
        println!(
            "    pages, pass {}   {} ({} with checksum, {} with torn-page bits, {} unprotected, {} free, {} damaged) and {} fillers",
            number + 1,
            pages.pages,
            pages.checksums,
            pages.torn_bits,
            pages.unprotected,
            pages.free,
            pages.damaged,
            pages.fillers
        );
    }
    let blocks: u64 = set.log.iter().filter_map(|(_, stream)| Some(stream.as_ref()?.blocks)).sum();
    let bytes: u64 = set.log.iter().filter(|(_, stream)| stream.is_some()).map(|(vlf, _)| vlf.range_len()).sum();
    println!("    log             {blocks} blocks, {bytes} bytes, {} virtual log files", set.log.len());
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: bakinfo FILE...");
        return ExitCode::FAILURE;
    }
    let (mut media, mut sound) = (Vec::new(), true);
    for path in &paths {
        println!("{path}");
        match inspect(path) {
            Err(error) => {
                println!("  {error}");
                sound = false;
            }
            Ok(inspector) => {
                show_label(inspector.medium());
                inspector.medium().sets.iter().for_each(show_set);
                for damage in inspector.damages().iter().take(20) {
                    println!("  damaged: {damage}");
                }
                sound &= inspector.damage_count() == 0;
                media.push(inspector.into_medium());
            }
        }
    }
    if media.len() > 1
        && let Err(error) = families::validate(&media.iter().collect::<Vec<_>>())
    {
        println!("these files are not the families of one media set: {error}");
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
