//! The honest parts: server, primary and secondary, each with what it holds.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vdi_client::media::{Media, MediaError};
use vdi_client::workers::serve;
use vdi_client::{
    BufferHandle, ClientVirtualDevice, ClientVirtualDeviceSet, Command, CommandCode, Completion, CompletionCode, Error,
    Features, MappedBuffer, Options, VdConfig, VdError,
};
use vdi_proto::config::ServerTerms;
use vdi_proto::wire::layout::{ClientWord, ServerWord};
use vdi_server_sim::vds::{ServerVirtualDevice, ServerVirtualDeviceSet, VdsCommand, VdsError};
use vdi_shm::set::session::Session;

use super::Seen;
use super::intruder::Intruder;
use super::ledger::{Ledger, fill, is_pattern};

/// How long another thread of this process has for what takes it moments.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);
const NAME: &str = "s";
const BUFFER: u32 = 4096;
/// As clients ask for them: pipe-like, with and without Complete; disk-like; tape-like.
const KINDS: [u32; 4] = [0, 0x2000, 0x2200, 0x173 | 0x2c80];

/// The calls by which a set comes to its work, in their order.
const BEGINNING: [u8; 8] = [CREATE, SERVER_OPEN, BEGIN, REQUEST, END, CONFIGURATION, SERVER_DEVICE, DEVICE];

pub(crate) const SEND: u8 = 0;
pub(crate) const HANDLE: u8 = 1;
pub(crate) const GET: u8 = 2;
pub(crate) const COMPLETE: u8 = 3;
pub(crate) const DROP_COMMAND: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const UNMAP: u8 = 6;
pub(crate) const CLOSE_DEVICE: u8 = 7;
pub(crate) const DROP_DEVICE: u8 = 8;
pub(crate) const CLOSE: u8 = 9;
pub(crate) const ABORT: u8 = 10;
pub(crate) const CREATE: u8 = 11;
pub(crate) const SERVER_OPEN: u8 = 12;
pub(crate) const BEGIN: u8 = 13;
pub(crate) const REQUEST: u8 = 14;
pub(crate) const END: u8 = 15;
pub(crate) const CONFIGURATION: u8 = 16;
pub(crate) const SERVER_DEVICE: u8 = 17;
pub(crate) const DEVICE: u8 = 18;
pub(crate) const JOIN: u8 = 19;
pub(crate) const WORKER: u8 = 20;
/// From here on it is the intruder's.
pub(crate) const INTRUDER: u8 = 21;

fn device_name(device: usize) -> String {
    format!("{NAME}{device}")
}

/// One of the two clients, with what it holds.
#[derive(Default)]
struct Client {
    set: ClientVirtualDeviceSet,
    devices: Vec<ClientVirtualDevice>,
    commands: Vec<Command>,
    mapped: Vec<MappedBuffer>,
}

impl Client {
    /// Law 3.
    fn assert_apart(&mut self) {
        let range = |address: usize, prefix: usize, len: usize| address - prefix..address + len;
        let mut held: Vec<Range<usize>> = Vec::new();
        for command in &mut self.commands {
            let prefix = command.prefix_mut().len();
            held.extend(command.buffer_address().map(|address| range(address.addr(), prefix, command.data().len())));
        }
        for mapped in &mut self.mapped {
            let prefix = mapped.prefix_mut().len();
            held.push(range(mapped.address().addr().get(), prefix, mapped.data().len()));
        }
        held.sort_by_key(|range| range.start);
        assert!(held.windows(2).all(|pair| pair[0].end <= pair[1].start), "buffers overlap: {held:x?}");
    }
}

/// What the first four bytes choose.
pub(crate) struct Shape {
    devices: usize,
    kind: Features,
    prefix: u32,
    buffers: u32,
}

pub(super) struct World {
    options: Options,
    shape: Shape,
    server: ServerVirtualDeviceSet,
    server_devices: Vec<ServerVirtualDevice>,
    session: Option<Arc<Session>>,
    /// The primary and a secondary.
    clients: [Client; 2],
    intruder: Option<Intruder>,
    ledger: Ledger,
    seen: Seen,
}

/// Law 1, for a client's call.
fn told<T>(answer: Result<T, Error>, codes: &[VdError]) -> Option<T> {
    answer.map_err(|error| assert!(codes.contains(&error.code()) && !error.to_string().is_empty(), "{error:?}")).ok()
}

/// Law 1, for a server's call.
fn served<T>(answer: Result<T, VdsError>, codes: &[VdError]) -> Option<T> {
    answer.map_err(|error| assert!(codes.contains(&error.code) && !error.to_string().is_empty(), "{error:?}")).ok()
}

impl World {
    pub(super) fn new(folder: &Path, shape: [u8; 4]) -> World {
        let [a, b, c, d] = shape;
        let options = Options { runtime_dir: Some(folder.to_owned()), ..Options::default() };
        let mut world = World {
            shape: Shape {
                devices: 1 + usize::from(a % 3),
                kind: Features::from_bits_retain(KINDS[usize::from(b % 4)]),
                prefix: [0, 16, 512][usize::from(d % 3)],
                buffers: 1 + u32::from(d / 3 % 5),
            },
            server: ServerVirtualDeviceSet::with_options(options.clone()),
            server_devices: Vec::new(),
            session: None,
            clients: Default::default(),
            intruder: None,
            ledger: Ledger::default(),
            seen: Seen::default(),
            options,
        };
        for client in &mut world.clients {
            client.set = ClientVirtualDeviceSet::with_options(world.options.clone());
        }
        // Most runs begin where the work does; the others have to find their way.
        let calls = if c < 192 { BEGINNING.len() } else { usize::from(c) % BEGINNING.len() };
        for call in &BEGINNING[..calls] {
            for device in 0..if matches!(*call, SERVER_DEVICE | DEVICE) { world.shape.devices } else { 1 } {
                world.step([*call, 0, device as u8, 0]);
            }
        }
        if c & 1 != 0 {
            world.step([JOIN, 0, 0, 0]);
        }
        if c & 2 != 0 {
            world.step([INTRUDER, 0, 0, 0]);
        }
        world
    }

    pub(super) fn step(&mut self, [act, who, a, b]: [u8; 4]) {
        use VdError::{Abort, Invalid, Memory, NotSupported, Open, Protocol, Timeout, Unexpected};
        let which = usize::from(who % 2);
        let mine = usize::from(a);
        match act % 40 {
            SEND => self.send(usize::from(who), a, b),
            HANDLE => drop(served(self.server.handle_completions(), &[Abort, Protocol])),
            GET => self.get(which, mine),
            COMPLETE => self.complete(which, mine, b),
            DROP_COMMAND => drop(take(&mut self.clients[which].commands, mine)),
            MAP => self.map(which, mine, b),
            UNMAP => drop(take(&mut self.clients[which].mapped, mine)),
            CLOSE_DEVICE => {
                if let Some(device) = at(&mut self.server_devices, mine) {
                    served(device.close_device(), &[VdError::Close, Abort, Protocol]);
                }
            }
            DROP_DEVICE if b % 2 == 0 => drop(take(&mut self.clients[which].devices, mine)),
            DROP_DEVICE => drop(take(&mut self.server_devices, mine)),
            CLOSE if a % 2 == 0 => drop(told(self.clients[which].set.close(), &[Open, Protocol, Abort])),
            CLOSE => drop(served(self.server.close(), &[Protocol])),
            ABORT if a % 2 == 0 => drop(told(self.clients[which].set.signal_abort(), &[Protocol])),
            ABORT => drop(served(self.server.signal_abort(), &[Protocol])),
            CREATE => {
                let config = VdConfig {
                    device_count: self.shape.devices as u32,
                    features: self.shape.kind,
                    prefix_zone_size: self.shape.prefix,
                    ..VdConfig::default()
                };
                told(self.clients[which].set.create(NAME, &config), &[Protocol, NotSupported]);
            }
            SERVER_OPEN => {
                served(self.server.open("", NAME), &[Invalid, Abort, Protocol]);
                if self.session.is_none() {
                    self.session = self.server.session();
                }
            }
            BEGIN => {
                let terms = ServerTerms {
                    features: Features::from_bits_retain(0x3_0000),
                    block_size: 512,
                    ..ServerTerms::default()
                };
                served(
                    self.server.begin_configuration(&terms, TEST_TIMEOUT),
                    &[Protocol, Abort, Invalid, NotSupported],
                );
            }
            REQUEST => {
                let count = if a == 0 { self.shape.buffers } else { u32::from(a % 16) };
                let size = [BUFFER, 512, 0, 65536, u32::MAX][usize::from(b % 5)];
                // What does not fit costs no memory.
                let count = if size > BUFFER { count.min(4) } else { count };
                served(self.server.request_buffers(size, 0, count), &[Memory, Protocol, Abort, Invalid]);
                served(self.server.query_available_buffers(size, u32::from(a)), &[Protocol, Abort, Invalid]);
            }
            END => drop(served(self.server.end_configuration(), &[Memory, Protocol, Abort])),
            CONFIGURATION => {
                told(self.clients[which].set.get_configuration(Duration::ZERO), &[Timeout, Abort, Protocol]);
                served(self.server.get_configuration(), &[Abort, Protocol]);
            }
            SERVER_DEVICE => {
                let device = served(self.server.open_device(&device_name(mine % 4)), &[Open, Invalid, Protocol, Abort]);
                self.server_devices.extend(device);
            }
            DEVICE if self.would_wait(&device_name(mine % 4)) => {}
            DEVICE => {
                let codes = [Open, Protocol, Invalid, Abort];
                let device = told(self.clients[which].set.open_device(&device_name(mine % 4)), &codes);
                self.clients[which].devices.extend(device);
            }
            JOIN => {
                let joined = self.clients[1].set.open_in_secondary(NAME);
                told(joined, &[Protocol, Abort, Memory, NotSupported, Unexpected]);
            }
            WORKER => self.worker(a, b),
            act => self.intrude(act - INTRUDER, [who, a, b]),
        }
        for client in &mut self.clients {
            client.assert_apart();
        }
    }

    /// Whether opening a device would wait for the server to announce its devices, which it may never do here.
    fn would_wait(&self, name: &str) -> bool {
        let Some(session) = &self.session else { return false };
        let control = session.control();
        let devices = || control.devices();
        let names: Vec<_> = devices().map(|device| control.device_name(device)).collect();
        let decided = session.abort_reason().is_some()
            || devices().all(|device| !matches!(control.client_word(device), Ok(ClientWord::Unopened)))
            || devices().any(|device| control.client_word(device).is_err())
            || names.iter().any(|found| found.is_err() || matches!(found, Ok(Some(found)) if found == name))
            || names.iter().all(|found| matches!(found, Ok(Some(_))));
        !decided
    }

    fn send(&mut self, device: usize, a: u8, b: u8) {
        use VdError::{Abort, Invalid, IoError, Memory, NotSupported, Protocol, QueueFull};
        let count = self.server_devices.len();
        let Some(index) = device.checked_rem(count) else { return };
        let code = match a % 8 {
            0..3 => CommandCode::WRITE,
            3..5 => CommandCode::READ,
            _ => CommandCode::ALL[usize::from(b) % CommandCode::ALL.len()],
        };
        let mut buffer = None;
        let mut size = i32::from(b);
        if code.is_transfer() {
            size = [512, 1024, BUFFER as i32, 2048][usize::from(b % 4)];
            let allocated = served(self.server.allocate_buffer(BUFFER, 0), &[Memory, Invalid, Protocol, Abort]);
            let Some(allocated) = allocated else { return };
            buffer = Some(allocated);
        }
        let device = &self.server_devices[index];
        let number = self.ledger.enter(device.index() as usize, code, size);
        if let Some(buffer) = buffer.as_mut().filter(|_| code == CommandCode::WRITE) {
            fill(number, buffer.data_mut());
        }
        let routine = Arc::new(self.ledger.clone());
        let command = VdsCommand { code, size, position: number, buffer, routine, context: number };
        served(device.send_command(command), &[QueueFull, IoError, Protocol, Abort, NotSupported, Invalid]);
    }

    fn get(&mut self, which: usize, a: usize) {
        use VdError::{Abort, Close, Protocol, Timeout};
        let client = &mut self.clients[which];
        let Some(device) = at(&mut client.devices, a) else { return };
        let name = device.name().to_owned();
        let Some(command) = told(device.get_command(Duration::ZERO), &[Close, Timeout, Abort, Protocol]) else {
            return;
        };
        self.seen.delivered += 1;
        let mut book = self.ledger.book();
        if !book.touched {
            let number = command.position();
            let sent = &book.sent[number as usize];
            assert_eq!((sent.code, sent.size, device_name(sent.device)), (command.code(), command.size(), name));
            let later = book.sent.iter().skip(number as usize);
            assert!(later.filter(|later| later.device == sent.device).all(|later| !later.delivered), "out of order");
            assert!(sent.code != CommandCode::WRITE || is_pattern(number, command.data()));
            assert_eq!(command.data().len(), if sent.code.is_transfer() { sent.size as usize } else { 0 });
            book.sent[number as usize].delivered = true;
        }
        drop(book);
        client.commands.push(command);
    }

    fn complete(&mut self, which: usize, a: usize, b: u8) {
        use VdError::{Abort, Busy, Invalid, Protocol};
        let client = &mut self.clients[which];
        let Some(mut command) = take(&mut client.commands, a) else { return };
        let (size, transfer, number) = (command.data().len(), command.code().is_transfer(), command.position());
        let (code, bytes, completion) = match (b % 6, transfer) {
            (0..3, true) => (CompletionCode::SUCCESS, size, Completion::transferred(size)),
            (0..3, false) => (CompletionCode::SUCCESS, 0, Completion::done()),
            (3, _) => (CompletionCode::IO_DEVICE, 0, Completion::failed(CompletionCode::IO_DEVICE)),
            (4, true) => {
                (CompletionCode::DISK_FULL, size / 2, Completion::failed_after(CompletionCode::DISK_FULL, size / 2))
            }
            (4, false) => (CompletionCode::SUCCESS, 0, Completion::at(7)),
            // None that fits.
            (_, true) => (CompletionCode::SUCCESS, 0, Completion::done()),
            (_, false) => (CompletionCode::SUCCESS, 0, Completion::transferred(1)),
        };
        if command.code() == CommandCode::READ {
            fill(number, command.data_mut());
        }
        let before =
            self.ledger.book().sent.get_mut(number as usize).map(|sent| sent.completed.replace((code, bytes as u32)));
        if let Err(refused) = command.complete(completion) {
            told::<()>(Err(refused.error), &[Invalid, Busy, Abort, Protocol]);
            let mut book = self.ledger.book();
            if let (Some(before), Some(sent)) = (before, book.sent.get_mut(number as usize)) {
                sent.completed = before;
            }
            drop(book);
            client.commands.extend(refused.command);
        } else {
            assert!(b % 6 != 5, "a completion that does not fit was taken");
        }
    }

    /// The handle of a command of either client, or, where there is none, any number.
    fn handle(&self, a: usize, b: u8) -> BufferHandle {
        let commands: Vec<_> = self.clients.iter().flat_map(|client| &client.commands).collect();
        let handle = match a.checked_rem(commands.len()) {
            Some(index) if b % 4 != 3 => commands[index].buffer_handle().ok(),
            _ => None,
        };
        handle.unwrap_or(BufferHandle::from_number(u32::from_le_bytes([a as u8, b, 0, b])))
    }

    fn map(&mut self, which: usize, a: usize, b: u8) {
        use VdError::{Abort, Busy, Invalid, Protocol};
        let handle = self.handle(a, b);
        let client = &mut self.clients[which];
        let codes = [Protocol, Invalid, Busy, Abort];
        let mapped = match b % 3 {
            0 => told(client.set.map_buffer_handle(handle), &codes),
            1 => told(client.set.map_buffer_handle_sized(handle, 512), &codes),
            _ => {
                told(client.set.map_buffer_address(handle), &codes);
                None
            }
        };
        if let Some(mut mapped) = mapped {
            self.seen.mapped += 1;
            assert!(mapped.data().len() <= BUFFER as usize || self.ledger.book().touched);
            // The same bytes once more: whoever looks at them afterwards finds what was there.
            let first = mapped.data()[0];
            mapped.data_mut()[0] = first;
            client.mapped.push(mapped);
        }
    }

    /// A worker of the secondary gets a request that nobody else knows of.
    fn worker(&mut self, a: u8, b: u8) {
        use VdError::{Abort, Protocol, Timeout};
        // It would wait for the configuration, which every secondary has but one that is none.
        let set = &self.clients[1].set;
        if told(set.get_configuration(Duration::ZERO), &[Abort, Protocol, Timeout]).is_none() {
            return;
        }
        let code = [2, 1, 0, 12, u32::from(b)][usize::from(a % 5)];
        let mut request = [0; 32];
        request[0] = b;
        for (place, number) in [(8, code), (16, self.handle(a.into(), b).number()), (20, 512 * u32::from(b % 3))] {
            request[place..place + 4].copy_from_slice(&number.to_le_bytes());
        }
        let mut answers = Vec::new();
        let served = serve(set, &request[..], &mut answers, |_| Ok(Box::new(Nowhere)));
        if let Some(served) = told(served, &[Abort, Protocol, VdError::Unexpected]) {
            assert_eq!(served.requests, 1);
            // A failure has a text after the answer.
            assert!(answers.len() >= 24, "{}", answers.len());
        }
    }

    fn intrude(&mut self, act: u8, numbers: [u8; 3]) {
        if self.intruder.is_none() {
            self.intruder = Intruder::join(&self.options, NAME);
        } else if act == 0 {
            self.ledger.book().touched = true;
            self.intruder = None;
        } else if let Some(intruder) = &mut self.intruder {
            self.ledger.book().touched = true;
            // Whether it could makes no difference: it tried.
            intruder.act(act, numbers);
            self.seen.tampered += 1;
        }
    }

    /// Drops everything, in an order that `last` chooses.
    pub(super) fn end(self, last: u8) -> Seen {
        let World { server, server_devices, session, clients, intruder, ledger, mut seen, .. } = self;
        seen.aborted = session.as_ref().is_some_and(|session| session.abort_reason().is_some());
        if let Some(session) = session.as_ref().filter(|session| session.work_has_ended()) {
            let control = session.control();
            assert!(control.devices().all(|device| control.server_word(device) == Ok(ServerWord::Closed)));
        }
        let mut server = Some((server, server_devices));
        let mut intruder = Some(intruder);
        if last & 1 != 0 {
            drop(server.take());
        }
        if last & 2 != 0 {
            drop(intruder.take());
        }
        let [primary, secondary] = clients;
        let (first, second) = if last & 4 != 0 { (secondary, primary) } else { (primary, secondary) };
        for client in [first, second] {
            let Client { set, devices, commands, mapped } = client;
            if last & 8 != 0 {
                drop(set);
                drop((devices, commands, mapped));
            } else {
                drop((commands, mapped, devices));
                drop(set);
            }
        }
        drop((intruder, server, session));
        ledger.assert_all_ended();
        seen.succeeded = ledger.book().succeeded;
        seen
    }
}

fn at<T>(list: &mut [T], index: usize) -> Option<&mut T> {
    let index = index.checked_rem(list.len())?;
    list.get_mut(index)
}

fn take<T>(list: &mut Vec<T>, index: usize) -> Option<T> {
    let index = index.checked_rem(list.len())?;
    Some(list.remove(index))
}

/// A medium that has room for everything and keeps nothing.
struct Nowhere;

impl Media for Nowhere {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), MediaError> {
        Ok(())
    }

    fn read(&mut self, _: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), MediaError> {
        Ok(())
    }
}
