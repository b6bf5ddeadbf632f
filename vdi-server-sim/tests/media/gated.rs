//! A file whose device stops at a command until the test lets it go on.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use vdi_client::media::{FileMedia, Media, MediaError};
use vdi_client::{CommandCode, VdConfig};

use crate::common::TEST_TIMEOUT;

/// The test's side.
pub(crate) struct Gate {
    reached: Receiver<()>,
    go: Sender<()>,
}

/// The device's side.
pub(crate) struct Held {
    call: u32,
    reached: Sender<()>,
    go: Receiver<()>,
}

impl Gate {
    /// A gate at a device's Read or Write of this number, from 1.
    pub(crate) fn at_call(call: u32) -> (Gate, Arc<Mutex<Held>>) {
        let (tell, reached) = channel();
        let (go, may_go) = channel();
        (Gate { reached, go }, Arc::new(Mutex::new(Held { call, reached: tell, go: may_go })))
    }

    /// Waits until the device has come to the gate.
    #[track_caller]
    pub(crate) fn wait(&self) {
        self.reached.recv_timeout(TEST_TIMEOUT).unwrap();
    }

    /// Lets the device go on.
    pub(crate) fn open(&self) {
        self.go.send(()).unwrap();
    }
}

pub(crate) struct GatedFile {
    file: FileMedia,
    held: Arc<Mutex<Held>>,
    calls: u32,
}

impl GatedFile {
    pub(crate) fn new(file: FileMedia, held: &Arc<Mutex<Held>>) -> GatedFile {
        GatedFile { file, held: Arc::clone(held), calls: 0 }
    }

    fn pass(&mut self) {
        self.calls += 1;
        let held = self.held.lock().unwrap();
        if self.calls == held.call {
            held.reached.send(()).unwrap();
            // A test that failed does not open it.
            let _ = held.go.recv_timeout(TEST_TIMEOUT);
        }
    }
}

impl Media for GatedFile {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.file.begin(config)
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.pass();
        self.file.write(position, data)
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.pass();
        self.file.read(position, buffer)
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        self.file.flush()
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        self.file.complete()
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.file.clear_error()
    }

    fn other(&mut self, code: CommandCode, parameter: i32, position: u64) -> Result<u64, MediaError> {
        self.file.other(code, parameter, position)
    }

    fn close(&mut self) -> Result<(), MediaError> {
        self.file.close()
    }
}
