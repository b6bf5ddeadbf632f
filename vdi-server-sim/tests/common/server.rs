//! A server in this process that sends the commands of a test.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use vdi_client::{ClientVirtualDevice, ClientVirtualDeviceSet, CommandCode, CompletionCode};
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_server_sim::vds::{
    Completed, CompletionRoutine, ServerBuffer, ServerVirtualDevice, ServerVirtualDeviceSet, VdsCommand,
};

use super::TEST_TIMEOUT;
use super::bench::Bench;
use super::client::{config, device_name};
use super::tasks::{Task, task};

/// Bytes of a buffer of this server.
pub(crate) const BUFFER: u32 = 65536;

/// A server with a configured set of four buffers, open devices and a running completion agent.
pub(crate) struct Server {
    pub(crate) set: Arc<ServerVirtualDeviceSet>,
    pub(crate) devices: Vec<ServerVirtualDevice>,
    pub(crate) completions: Receiver<Completed>,
    pub(crate) routine: Arc<dyn CompletionRoutine>,
    agent: Option<Task<bool>>,
}

impl Server {
    /// A server with READ_MEDIA.
    pub(crate) fn open(bench: &Bench, name: &str, devices: u32) -> Server {
        Server::with_features(bench, name, devices, Features::READ_MEDIA)
    }

    pub(crate) fn with_features(bench: &Bench, name: &str, devices: u32, features: Features) -> Server {
        let set = Arc::new(ServerVirtualDeviceSet::with_options(bench.options()));
        set.open("", name).unwrap();
        let terms = ServerTerms { features, ..ServerTerms::default() };
        set.begin_configuration(&terms, TEST_TIMEOUT).unwrap();
        set.request_buffers(BUFFER, 0, 4).unwrap();
        set.end_configuration().unwrap();
        let devices = (0..devices).map(|index| set.open_device(&device_name(name, index)).unwrap()).collect();
        Server::run(set, devices)
    }

    /// Starts the completion agent of a set that is configured.
    pub(crate) fn run(set: Arc<ServerVirtualDeviceSet>, devices: Vec<ServerVirtualDevice>) -> Server {
        let (sender, completions) = channel();
        let sender = Mutex::new(sender);
        let routine = Arc::new(move |completed: Completed| drop(sender.lock().unwrap().send(completed)));
        let agent = task("the completion agent", {
            let set = Arc::clone(&set);
            move || set.execute_completion_agent().is_ok()
        });
        // The agent must run before a command is sent.
        agent.wait_until_asleep();
        Server { set, devices, completions, routine, agent: Some(agent) }
    }

    /// Sends a Read into a new buffer.
    #[track_caller]
    pub(crate) fn read(&self, device: usize) {
        let buffer = self.set.allocate_buffer(BUFFER, 0).unwrap();
        self.transfer(device, CommandCode::READ, buffer);
    }

    /// Sends a Write of a new buffer filled with `byte`.
    #[track_caller]
    pub(crate) fn write(&self, device: usize, byte: u8) {
        let mut buffer = self.set.allocate_buffer(BUFFER, 0).unwrap();
        buffer.data_mut().fill(byte);
        self.transfer(device, CommandCode::WRITE, buffer);
    }

    #[track_caller]
    pub(crate) fn transfer(&self, device: usize, code: CommandCode, buffer: ServerBuffer) {
        let bytes = buffer.len() as u32;
        let command = VdsCommand::transfer(code, buffer, bytes, Arc::clone(&self.routine));
        self.devices[device].send_command(command).unwrap();
    }

    #[track_caller]
    pub(crate) fn plain(&self, device: usize, code: CommandCode) {
        self.devices[device].send_command(VdsCommand::plain(code, Arc::clone(&self.routine))).unwrap();
    }

    /// The next command that has ended.
    #[track_caller]
    pub(crate) fn ended(&self) -> Completed {
        self.completions.recv_timeout(TEST_TIMEOUT).unwrap()
    }

    /// Code and bytes of the next command that has ended.
    #[track_caller]
    pub(crate) fn completed(&self) -> (CompletionCode, u32) {
        let ended = self.ended();
        (ended.code, ended.bytes)
    }

    /// Waits until the completion agent sleeps.
    #[track_caller]
    pub(crate) fn agent_sleeps(&self) {
        self.agent.as_ref().unwrap().wait_until_asleep();
    }

    /// Waits for the completion agent. Returns whether the set was closed in order.
    #[track_caller]
    pub(crate) fn agent_ended(&mut self) -> bool {
        self.agent.take().unwrap().result()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.set.close();
        // A second panic would abort the process.
        if let Some(agent) = self.agent.take().filter(|_| !std::thread::panicking()) {
            agent.result();
        }
    }
}

/// A set with one device: the client, the server and the client's device, in this process.
#[track_caller]
pub(crate) fn pair(bench: &Bench) -> (Arc<ClientVirtualDeviceSet>, Server, ClientVirtualDevice) {
    let set = bench.create("nightly", &config(1));
    let server = Server::open(bench, "nightly", 1);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let device = set.open_device("nightly").unwrap();
    (set, server, device)
}
