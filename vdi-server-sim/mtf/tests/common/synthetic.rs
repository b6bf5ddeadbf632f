//! Backups of a made-up database, written by the builder.

use std::collections::BTreeMap;

use vdi_mtf::builder::{Builder, filler_extent};
use vdi_mtf::media::{MediaSet, Tape};
use vdi_mtf::page::{PAGE_LEN, PFS_INTERVAL, PageHeader, page_type, protect};
use vdi_mtf::set::{SetStart, Volume};
use vdi_mtf::sqlserver::config::{Config, Database, FileRecord, FileType, Filegroup, database_flags};
use vdi_mtf::sqlserver::log::{Vlf, seal_log_block};
use vdi_mtf::value::{DateTime, FileId, Guid, Lsn, PageAddress, PageId};

/// What a backup is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) major: u8,
    pub(crate) filemark_len: u32,
    pub(crate) checksum: bool,
    pub(crate) torn_bits: bool,
    pub(crate) families: u16,
    pub(crate) files: u16,
    /// Extents of each file.
    pub(crate) extents: u32,
    /// With a second pass that has extent 0 of each file again.
    pub(crate) second_pass: bool,
    /// Sectors of each log block.
    pub(crate) log_blocks: Vec<u16>,
    pub(crate) name: String,
    /// Pages and log are zeros but for their headers.
    pub(crate) quiet: bool,
    pub(crate) seed: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            major: 16,
            filemark_len: 512,
            checksum: true,
            torn_bits: false,
            families: 1,
            files: 1,
            extents: 2,
            second_pass: false,
            log_blocks: vec![2, 1],
            name: "sales".to_owned(),
            quiet: false,
            seed: 1,
        }
    }
}

pub(crate) type Pages = BTreeMap<PageAddress, Vec<u8>>;

/// A backup, and what went in.
pub(crate) struct Synthetic {
    pub(crate) media: Vec<Vec<u8>>,
    pub(crate) leading: Config,
    pub(crate) trailing: Config,
    /// The last image of each page, fillers excepted.
    pub(crate) pages: Pages,
    pub(crate) log: Vec<u8>,
}

fn noise(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    }
}

/// The last four pages of a file are free; one of them has the bytes of another page.
fn is_allocated(shape: &Shape, page: u32) -> bool {
    page + 4 < shape.extents * 8
}

fn page(shape: &Shape, address: PageAddress, image: u64) -> Vec<u8> {
    let mut page = [0; PAGE_LEN];
    let number = address.page.0;
    let mut next = noise(shape.seed ^ u64::from(number) << 20 ^ u64::from(address.file.0) << 60 ^ image << 50);
    if number == shape.extents * 8 - 1 {
        return page.to_vec();
    }
    if !shape.quiet {
        page[96..].fill_with(&mut next);
    }
    let is_pfs = number == 1 || number > 0 && number.is_multiple_of(PFS_INTERVAL);
    let page_type = match number {
        0 => page_type::FILE_HEADER,
        _ if is_pfs => page_type::PFS,
        2 => page_type::GAM,
        _ => page_type::DATA,
    };
    if is_pfs {
        let first = number - number % PFS_INTERVAL;
        for index in 0..PFS_INTERVAL {
            page[100 + index as usize] = if is_allocated(shape, first + index) { 0x40 } else { 0 };
        }
    }
    let (file, mut id) = (address.file, address.page);
    if number + 2 == shape.extents * 8 {
        id = PageId(number ^ 0x55);
    }
    PageHeader { version: 1, page_type, page: id, file, ..PageHeader::default() }.encode_into(&mut page);
    if shape.torn_bits {
        torn_bits(&mut page);
    } else {
        protect(&mut page);
    }
    page.to_vec()
}

/// Replaces the low bits of each sector's end by a mark, and keeps them in the header.
fn torn_bits(page: &mut [u8; PAGE_LEN]) {
    let mut field = 2_u32;
    for sector in 1..16 {
        let last = &mut page[sector * 512 + 511];
        field |= u32::from(*last & 3) << (2 * sector);
        *last = *last & !3 | 2;
    }
    page[60..64].copy_from_slice(&field.to_le_bytes());
    page[4..6].copy_from_slice(&0x100_u16.to_le_bytes());
}

fn log(shape: &Shape) -> Vec<u8> {
    let mut log = Vec::new();
    for (number, &sectors) in shape.log_blocks.iter().enumerate() {
        let len = usize::from(sectors) * 512;
        let mut block = vec![0; len];
        if !shape.quiet {
            block.fill_with(noise(shape.seed + 77 + number as u64));
        }
        let used = len - usize::from(sectors);
        block[used..].fill(0);
        block[4..6].copy_from_slice(&(used as u16).to_le_bytes());
        block[6..8].copy_from_slice(&(len as u16).to_le_bytes());
        block[8] = 3;
        seal_log_block(&mut block, 0x80).unwrap();
        log.extend(block);
    }
    log
}

pub(crate) fn date() -> DateTime {
    DateTime::new(2024, 5, 31, 12, 30, 1).unwrap()
}

fn config(shape: &Shape) -> Config {
    let lsn = |block| Lsn { vlf: 40, block, slot: 1 };
    let mut database = Database {
        software_build: 4236,
        first_lsn: lsn(16),
        last_lsn: lsn(32),
        checkpoint_lsn: lsn(16),
        start: date(),
        kind_letter: b'D',
        compatibility_level: 160,
        database_id: 7,
        database_version: 957,
        data_files: u32::from(shape.files),
        log_files: 1,
        name: shape.name.as_str().into(),
        server: "server".into(),
        binding_id: Guid([3; 16]),
        recovery_fork: Guid([4; 16]),
        family: Guid([4; 16]),
        ..Database::new(shape.major)
    };
    if shape.checksum {
        database.flags |= database_flags::CHECKSUMS;
    }
    let mut files = Vec::new();
    for number in 1..=shape.files {
        let file_id = FileId(if number == 1 { 1 } else { number + 1 });
        let size = u64::from(shape.extents) * 65536;
        let (pages, name) = (shape.extents * 8, format!("{}{file_id}", shape.name));
        files.push(FileRecord {
            pages,
            size,
            size_again: size,
            backup_bytes: size,
            logical_name: name.as_str().into(),
            physical_name: format!("C:\\data\\{name}.mdf").as_str().into(),
            ..FileRecord::new(shape.major, file_id, FileType::Data)
        });
    }
    files.push(FileRecord {
        size: 8192 + (2 << 18),
        logical_name: "log".into(),
        physical_name: "C:\\data\\log.ldf".into(),
        ..FileRecord::new(shape.major, FileId(2), FileType::Log)
    });
    Config { database, filegroups: vec![Filegroup::new(shape.major, 1, "PRIMARY")], files }
}

/// The extents of each family in a pass.
fn deal(shape: &Shape, pages: &mut Pages, image: u64, extents: u32) -> Vec<Vec<u8>> {
    let mut dealt = vec![Vec::new(); usize::from(shape.families)];
    let mut turn = 0;
    for number in 1..=shape.files {
        let file = FileId(if number == 1 { 1 } else { number + 1 });
        for extent in 0..extents {
            for index in 0..8 {
                let address = PageAddress { file, page: PageId(extent * 8 + index) };
                let bytes = page(shape, address, image);
                dealt[turn].extend_from_slice(&bytes);
                pages.insert(address, bytes);
            }
            turn = (turn + 1) % usize::from(shape.families);
        }
    }
    let longest = dealt.iter().map(Vec::len).max().unwrap();
    for family in &mut dealt {
        while family.len() < longest {
            family.extend(filler_extent());
        }
    }
    dealt
}

/// Appends a set to each builder's medium.
pub(crate) fn append(shape: &Shape, number: u16, builders: &mut [Builder], media: &mut [Vec<u8>]) -> Synthetic {
    let leading = config(shape);
    let (mut pages, log) = (Pages::new(), log(shape));
    let mut passes = vec![deal(shape, &mut pages, 0, shape.extents)];
    if shape.second_pass {
        passes.push(deal(shape, &mut pages, 1, 1));
    }
    let volume =
        Volume { attributes: 2, date: date(), device: "C:".into(), machine: "machine".into(), ..Volume::default() };
    let mut vlf = Vlf::new(shape.major, FileId(2), 8192, 1 << 18);
    (vlf.sequence, vlf.parity, vlf.start) = (40, 0x80, 8192 + 16 * 512);
    vlf.end = vlf.start + log.len() as u64;
    let mut unused = Vlf::new(shape.major, FileId(2), 8192 + (1 << 18), 1 << 18);
    unused.parity = 0;

    let mut size = 0;
    for (family, (builder, out)) in builders.iter_mut().zip(media.iter_mut()).enumerate() {
        let start = SetStart {
            name: "nightly".into(),
            user: "sa".into(),
            ..SetStart::new(number, Guid([2; 16]), date(), shape.major)
        };
        builder.begin_set(start, volume.clone(), &leading, out).unwrap();
        for pass in &passes {
            builder.begin_data(pass[family].len() as u64, shape.checksum, out).unwrap();
            builder.bytes(&pass[family]).unwrap();
            out.extend_from_slice(&pass[family]);
            builder.end_data(out).unwrap();
        }
        builder.begin_log(&vlf, family == 0, shape.checksum, out).unwrap();
        if family == 0 {
            builder.bytes(&log).unwrap();
            out.extend_from_slice(&log);
        }
        builder.end_log(out).unwrap();
        builder.begin_log(&unused, false, shape.checksum, out).unwrap();
        builder.end_log(out).unwrap();
        size += builder.size();
    }
    let mut trailing = leading.clone();
    trailing.database.backup_size = size;
    trailing.database.finish = date();
    if shape.second_pass {
        let data = trailing.files.iter_mut().filter(|file| file.file_type() == FileType::Data);
        data.for_each(|file| file.pages = 8);
    }
    for (builder, out) in builders.iter_mut().zip(media.iter_mut()) {
        builder.end_set(&trailing, out).unwrap();
        assert_eq!(builder.position(), out.len() as u64);
    }
    Synthetic { media: media.to_vec(), leading, trailing, pages, log }
}

/// A backup of one set.
pub(crate) fn backup(shape: &Shape) -> Synthetic {
    let mut builders: Vec<Builder> = (1..=shape.families)
        .map(|family| {
            let tape = Tape::new(4711 + u32::from(family), shape.filemark_len, date());
            Builder::new(tape, MediaSet::new(Guid([1; 16]), family, shape.families))
        })
        .collect();
    let mut media = vec![Vec::new(); builders.len()];
    append(shape, 1, &mut builders, &mut media)
}
