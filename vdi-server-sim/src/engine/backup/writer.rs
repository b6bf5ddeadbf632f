//! Writers, one a device: they send all but the pages, and what readers could not send; they see to errors and media.

use crossbeam::channel::{Receiver, select};
use vdi_proto::command::CommandCode;
use vdi_proto::features::Features;

use super::ordered::Ordered;
use super::output::{Filled, Output};
use crate::engine::driver::Ended;
use crate::engine::operation::{Gate, Operation, Stopped};
use crate::engine::pages::Pages;
use crate::engine::plan::Plan;

/// One device's writer.
pub(super) struct Writer<'a, 'b> {
    pub(super) operation: &'a Operation,
    pub(super) plan: &'a Plan,
    pub(super) pages: &'a Pages<'a>,
    pub(super) ordered: &'a Ordered<Filled, Output<'b>>,
    /// Writes of the device that failed.
    pub(super) failed: Receiver<Ended>,
    /// Disconnected once all readers are through.
    pub(super) all_read: Receiver<()>,
    pub(super) flushed: &'a Gate,
    pub(super) done: &'a Gate,
}

impl Writer<'_, '_> {
    pub(super) fn run(&self) {
        // The thread that met the failure has recorded it.
        let _ = self.write();
    }

    fn write(&self) -> Result<(), Stopped> {
        let mut output = self.ordered.lock();
        output.writes.driver.rewind()?;
        output.headers(self.plan)?;
        drop(output);
        self.write_pages()?;
        let mut output = self.ordered.lock();
        output.log(self.plan, self.pages)?;
        // The summary is the same in all families: it has the time when all pages were read, and whether any of them is damaged.
        output.writes.wait_for(&self.all_read)?;
        output.end(self.plan, self.pages.has_damage())?;
        for _ in 0..self.operation.faults.final_flushes() {
            output.writes.flush()?;
        }
        self.flushed.pass(self.operation)?;
        if output.writes.driver.has(Features::COMPLETE_ENABLED) {
            output.writes.command(CommandCode::COMPLETE)?;
        }
        self.done.pass(self.operation)?;
        output.writes.driver.close()
    }

    /// Sends what readers could not, and sees to what fails, until all pages were sent.
    fn write_pages(&self) -> Result<(), Stopped> {
        loop {
            self.ordered.drain()?;
            if self.ordered.is_complete() {
                return Ok(());
            }
            select! {
                recv(self.failed) -> ended => self.ordered.lock().writes.note_failed(ended.map_err(|_| Stopped)?)?,
                recv(self.ordered.woken()) -> _ => {}
                recv(self.operation.over()) -> _ => return Err(Stopped),
            }
        }
    }
}
