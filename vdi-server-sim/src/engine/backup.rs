//! BACKUP to virtual devices: see [`crate::engine`].
//!
//! | module | what it holds |
//! |---|---|
//! | `dealer` | which transfer is read next |
//! | `reader` | readers: they fill buffers from the files, and send them |
//! | `ordered` | transfers come in any order, and go out in the order of the stream |
//! | `output` | the stream of one device |
//! | `writer` | a device's writer: all but the pages, errors, media |

mod dealer;
mod ordered;
pub(super) mod output;
mod reader;
mod writer;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam::channel::{bounded, select};
use vdi_proto::config::{MIN_BLOCK_SIZE, ServerTerms, TRANSFER_UNIT};
use vdi_proto::features::{DeviceKind, Features};

use super::completed::Completed;
use super::driver::Driver;
use super::free_list::{FreeList, FreeLists};
use super::operation::{Gate, Operation};
use super::pages::Pages;
use super::plan::{Cuts, Media, Plan, Terms};
use super::progress_counter::ProgressCounter;
use super::writes::Writes;
use super::{Cancel, Engine, Failure, Progress, Summary, default_buffers};
use crate::messages::{Message, PAGE_BYTES, Verb};
use crate::storage::StorageError;
use crate::tsql::Backup;
use dealer::Dealer;
use ordered::Ordered;
use output::{Output, SMALL_BUFFERS, SMALL_LEN};
use reader::Reader;
use writer::Writer;

/// Carries out a BACKUP to virtual devices.
pub(super) fn run(
    engine: &Engine,
    statement: &Backup,
    cancel: &Cancel,
    report: &mut dyn FnMut(Message),
) -> Result<Summary, Failure> {
    let options = &statement.options;
    refuse_unknown(engine, &statement.database)?;
    let devices = &statement.devices.names;
    let transfer = options.max_transfer_size.unwrap_or(TRANSFER_UNIT);
    let block_size = options.block_size.unwrap_or(MIN_BLOCK_SIZE);
    let buffers = options.buffer_count.unwrap_or_else(|| default_buffers(devices.len())).max(1);

    Operation::with(engine, devices, cancel, |operation| {
        let _lock = engine.folder.lock(&statement.database, Verb::Backup)?;
        let database = engine.folder.database(&statement.database)?;
        // There is no log that would tell what writers do meanwhile, so they wait until all is read and flushed.
        let frozen = operation.freeze(&database)?;
        let started = Instant::now();
        let server = engine.server_name();
        let requested = operation.set.get_configuration().map_err(|error| operation.explain(error.into()))?;
        let cuts = match requested.features.device_kind() {
            Ok(DeviceKind::TapeLike) => Cuts::Marks,
            _ => Cuts::Pages,
        };
        let media = Media::new(statement, block_size, cuts)?;
        let plan = Plan::new(frozen.checkpoint()?, &Terms { statement, server, transfer, snapshot: None }, &media)?;
        let (plan, mut frozen) = (&plan, Some(frozen));
        let terms =
            ServerTerms { features: Features::WRITE_MEDIA, alignment: 0, block_size, max_transfer_size: transfer };
        let wanted = [(transfer, buffers), (SMALL_LEN, SMALL_BUFFERS * devices.len() as u32)];
        let (config, opened) = operation.configure(&terms, &wanted, devices)?;
        let free = FreeList::fill_several(operation, transfer, buffers, readers())?;
        let free: Vec<FreeList> = free.into_iter().map(|list| list.for_readers(operation)).collect();

        let pages = Pages::new(plan, &database, &operation.faults, options.continue_after_error)?;
        let dealer = Dealer::new(devices.len(), plan.dealing.stream_len());
        let counter = ProgressCounter::new(plan.bytes(), options.stats);
        let (through, all_through) = bounded::<()>(0);
        let (reading, all_read) = bounded::<()>(0);
        let (flushed, done) = (Gate::new(), Gate::new());
        let (mut outputs, mut failed) = (Vec::new(), Vec::new());
        for (family, (device, stream)) in opened.into_iter().zip(media.streams).enumerate() {
            let small = FreeList::fill(operation, SMALL_LEN, SMALL_BUFFERS)?;
            let lists = FreeLists::new(&small, &free).counting(Arc::clone(dealer.in_flight(family)));
            let driver = Driver::new(operation, device, config, Some(lists.clone()), &counter);
            let writes = Writes::new(driver, lists);
            failed.push(writes.driver.failed.clone());
            outputs.push(Ordered::new(Output::new(operation, writes, stream, small), plan.dealing.stream_len()));
        }
        let (outputs, dealer, free) = (&outputs[..], &dealer, &free[..]);
        let (flushed, done) = (&flushed, &done);
        let mut progress = Progress::new(plan.bytes(), options.stats);
        if readers() >= cpus() {
            operation.set.want_cpus();
        }
        std::thread::scope(|scope| {
            let pages = &pages;
            operation.spawn(scope, || operation.run_agent());
            for own in 0..readers() {
                // A transfer is whole pages, and a multiple of BLOCKSIZE.
                let unit = block_size.max(PAGE_BYTES as u32);
                let reader = Reader { operation, pages, dealer, free, own, outputs, transfer, unit };
                let reading = reading.clone();
                operation.spawn(scope, move || {
                    reader.run();
                    drop(reading);
                });
            }
            drop(reading);
            for (ordered, failed) in outputs.iter().zip(failed) {
                let writer =
                    Writer { operation, plan, pages, ordered, failed, all_read: all_read.clone(), flushed, done };
                let through = through.clone();
                operation.spawn(scope, move || {
                    writer.run();
                    drop(through);
                });
            }
            drop(through);
            let mut arrived = [0; 2];
            let mut ended = false;
            while !ended {
                select! {
                    recv(counter.due()) -> _ => counter.report(&mut progress, report),
                    recv(all_through) -> _ => {
                        counter.report(&mut progress, report);
                        ended = true;
                    }
                    recv(flushed.arrivals()) -> _ => {
                        arrived[0] += 1;
                        if arrived[0] == outputs.len() {
                            match frozen.take().map_or(Ok(()), |frozen| frozen.check_unchanged()) {
                                Ok(()) => flushed.open(),
                                Err(error) => operation.fail(error.into()),
                            }
                        }
                    }
                    recv(done.arrivals()) -> _ => {
                        arrived[1] += 1;
                        // A failure is recorded already.
                        if arrived[1] == outputs.len() && operation.decide().is_ok() {
                            done.open();
                        }
                    }
                    recv(operation.over()) -> _ => ended = true,
                }
            }
            // Ends the agent.
            operation.finish()
        })?;
        let commands = counter.commands();
        Completed { statement, plan, damage: pages.messages(), block_size, commands, started }.report(engine, report)
    })
}

/// **Decision**: as SQL Server does, BACKUP of an unknown database says 911 and does not open the set. What else is wrong with the
/// database is found after that, and the client learns it.
pub(super) fn refuse_unknown(engine: &Engine, name: &str) -> Result<(), StorageError> {
    match engine.folder.catalog().find(name) {
        Ok(None) => Err(StorageError::NotFound { name: name.to_owned() }),
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Threads that read files: more than one keeps the disk busy while another checks its bytes.
fn readers() -> usize {
    cpus().min(4)
}

/// CPUs that this process has.
fn cpus() -> usize {
    // To find out, files are read each time.
    static CPUS: OnceLock<usize> = OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}
