//! Completion processing by readers and by the agent.

use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, ThreadId, current, spawn};
use std::time::Instant;

use tempfile::TempDir;
use vdi_client::{ClientVirtualDeviceSet, Completion, INFINITE};
use vdi_proto::abort::Cause;
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_shm::ipc::runtime::Options;

use super::*;
use crate::vds::{Completed, ServerVirtualDevice, ServerVirtualDeviceSet, VdsCommand};

const TIMEOUT: Duration = Duration::from_secs(60);
const NAME: &str = "read";

/// A set with a client that completes commands, and with a running agent.
struct Pair {
    set: Arc<ServerVirtualDeviceSet>,
    device: ServerVirtualDevice,
    agent: JoinHandle<bool>,
    client: JoinHandle<()>,
    _dir: TempDir,
}

impl Pair {
    fn open() -> Pair {
        Pair::with(&VdConfig::default(), false)
    }

    /// The client completes every command. With `hold_first` it holds the first command until the set ends.
    fn with(config: &VdConfig, hold_first: bool) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { runtime_dir: Some(dir.path().to_owned()), ..Options::default() };
        let client = ClientVirtualDeviceSet::with_options(options.clone());
        client.create(NAME, config).unwrap();
        let client = spawn(move || {
            client.get_configuration(INFINITE).unwrap();
            let mut device = client.open_device(NAME).unwrap();
            let mut held = None;
            while let Ok(command) = device.get_command(INFINITE) {
                if hold_first && held.is_none() {
                    held = Some(command);
                } else if command.complete(Completion::done()).is_err() {
                    return;
                }
            }
        });
        let set = Arc::new(ServerVirtualDeviceSet::with_options(options));
        set.open("", NAME).unwrap();
        set.begin_configuration(&ServerTerms::default(), TIMEOUT).unwrap();
        set.end_configuration().unwrap();
        let device = set.open_device(NAME).unwrap();
        let agent = Arc::clone(&set);
        let agent = spawn(move || agent.execute_completion_agent().is_ok());
        Pair { set, device, agent, client, _dir: dir }
    }

    /// Sends a Flush. Returns the thread that ran its routine.
    fn flush(&self) -> Receiver<ThreadId> {
        let (sender, ended) = channel();
        let waker = self.set.reader_waker().unwrap();
        let routine = Arc::new(move |completed: Completed| {
            assert!(completed.code.is_success(), "{}", completed.code);
            let _ = sender.send(current().id());
            waker.wake();
        });
        self.device.send_command(VdsCommand::plain(CommandCode::FLUSH, routine)).unwrap();
        ended
    }

    /// Sends a Flush that the client holds. Returns its completion code.
    fn flush_that_is_held(&self) -> Receiver<CompletionCode> {
        let (sender, ended) = channel();
        let routine = Arc::new(move |completed: Completed| sender.send(completed.code).unwrap_or_default());
        self.device.send_command(VdsCommand::plain(CommandCode::FLUSH, routine)).unwrap();
        ended
    }

    /// Closes the set in order.
    fn close(self) {
        // There is no reader, so the agent processes this completion: it has begun.
        self.flush().recv_timeout(TIMEOUT).expect("the agent");
        self.device.close_device().unwrap();
        self.set.close().unwrap();
        assert!(self.agent.join().unwrap(), "the agent ends in order");
        self.client.join().unwrap();
    }
}

#[test]
fn reader_processes_the_completion_it_waits_for() {
    let pair = Pair::open();
    let reader = pair.set.completion_reader().unwrap();
    let by_itself = |_: &u32| {
        let ended = pair.flush();
        reader.wait(|| ended.try_recv().ok()) == Some(current().id())
    };
    // The agent processes completions that arrive before it stands by.
    assert_eq!((0..1000).filter(by_itself).take(10).count(), 10);
    drop(reader);
    pair.close();
}

#[test]
fn agent_processes_completions_while_readers_are_busy() {
    let pair = Pair::open();
    let reader = pair.set.completion_reader().unwrap();
    for _ in 0..20 {
        assert_ne!(pair.flush().recv_timeout(TIMEOUT), Ok(current().id()));
    }
    drop(reader);
    pair.close();
}

#[test]
fn completion_is_processed_once_by_several_readers() {
    let pair = Pair::open();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let reader = pair.set.completion_reader().unwrap();
                for _ in 0..500 {
                    let ended = pair.flush();
                    assert!(reader.wait(|| ended.try_recv().ok()).is_some());
                    assert!(ended.recv_timeout(TIMEOUT).is_err(), "the routine runs once, and is dropped");
                }
            });
        }
    });
    assert_eq!(pair.device.outstanding(), 0);
    pair.close();
}

/// The agent watches the time-out while it stands by.
#[test]
fn reader_returns_when_the_time_out_aborts() {
    let pair = Pair::with(&VdConfig { server_time_out: 50, ..VdConfig::default() }, true);
    let reader = pair.set.completion_reader().unwrap();
    let ended = pair.flush_that_is_held();
    assert_eq!(reader.wait(|| None::<()>), None);
    let session = pair.set.session().unwrap();
    assert_eq!(session.abort_reason().map(|reason| reason.cause), Some(Cause::TimedOut));
    assert_eq!(ended.recv_timeout(TIMEOUT), Ok(CompletionCode::OPERATION_ABORTED));
    assert!(!pair.agent.join().unwrap(), "the agent ends with it");
    pair.client.join().unwrap();
}

/// A completion that a reader processes counts for the time-out.
#[test]
fn completions_processed_by_readers_count_for_the_time_out() {
    let time_out = Duration::from_millis(400);
    let requested = VdConfig { server_time_out: time_out.as_millis() as u32, ..VdConfig::default() };
    let pair = Pair::with(&requested, true);
    let held = pair.flush_that_is_held();
    let reader = pair.set.completion_reader().unwrap();
    let mut by_the_reader = 0;
    let until = Instant::now() + time_out * 3;
    while Instant::now() < until {
        let ended = pair.flush();
        let by = reader.wait(|| ended.try_recv().ok());
        by_the_reader += u32::from(by == Some(current().id()));
        assert!(by.is_some(), "{:?}", pair.set.session().unwrap().abort_reason());
    }
    assert!(by_the_reader > 0, "the reader processed none");
    pair.set.signal_abort().unwrap();
    assert_eq!(held.recv_timeout(TIMEOUT), Ok(CompletionCode::OPERATION_ABORTED));
    assert!(!pair.agent.join().unwrap());
    pair.client.join().unwrap();
}

#[test]
fn reader_returns_on_an_abort() {
    let pair = Pair::open();
    let reader = pair.set.completion_reader().unwrap();
    // The client has opened its device.
    assert!(pair.flush().recv_timeout(TIMEOUT).is_ok());
    let (sender, ended) = channel();
    let reading = spawn(move || sender.send(reader.wait(|| None::<()>)));
    pair.set.signal_abort().unwrap();
    assert_eq!(ended.recv_timeout(TIMEOUT), Ok(None));
    reading.join().unwrap().unwrap();
    assert!(!pair.agent.join().unwrap(), "the agent ends with it");
    pair.client.join().unwrap();
}
