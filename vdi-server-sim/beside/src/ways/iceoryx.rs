//! iceoryx2, carrying the same records: by publish and subscribe or by request and response where both sides poll, and with
//! events where they sleep.

use std::hint::spin_loop;
use std::path::Path;
use std::time::Duration;

use iceoryx2::active_request::ActiveRequest;
use iceoryx2::port::client::Client;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::server::Server;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use vdi_beside::processes::{Fallible, Start};

use super::{Answer, AnswerMany, Ask, AskMany, Words};

type Ipc = ipc::Service;

/// A node whose files are in this directory, and whose memory has a name made of it.
fn node(dir: &Path) -> Fallible<Node<Ipc>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    let folder = dir.to_str().ok_or("the directory's name is not in UTF-8")?;
    config.global.set_root_path(&iceoryx2::prelude::Path::new(folder.as_bytes())?);
    config.global.prefix = FileName::new(prefix(dir).as_bytes())?;
    let builder = NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled);
    Ok(builder.create::<Ipc>()?)
}

/// What the names of its shared memory begin with.
fn prefix(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("beside_{}_", name.trim_matches('.'))
}

/// Removes what processes that were killed have left of it.
pub(crate) fn clean_up(dir: &Path) {
    let prefix = prefix(dir);
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

// --- publish and subscribe --------------------------------------------------------------------------------------------

/// A publisher and a subscriber, of services that carry records one way each.
struct Topics {
    publisher: Publisher<Ipc, Words, ()>,
    subscriber: Subscriber<Ipc, Words, ()>,
}

impl Topics {
    fn new(node: &Node<Ipc>, out: &str, back: &str) -> Fallible<Topics> {
        let service = |name: &str| -> Fallible<_> {
            let builder = node.service_builder(&name.try_into()?).publish_subscribe::<Words>();
            Ok(builder.max_publishers(1).max_subscribers(1).history_size(0).open_or_create()?)
        };
        let publisher = service(out)?.publisher_builder().create()?;
        let subscriber = service(back)?.subscriber_builder().create()?;
        Ok(Topics { publisher, subscriber })
    }

    #[inline]
    fn send(&self, record: Words) {
        let sample = self.publisher.loan_uninit().expect("a sample is free");
        sample.write_payload(record).send().expect("the other side listens");
    }

    #[inline]
    fn receive(&self) -> Option<Words> {
        self.subscriber.receive().expect("the connection holds").map(|sample| *sample)
    }
}

impl Ask for Topics {
    #[inline]
    fn ask(&mut self, record: Words) -> Words {
        self.send(record);
        loop {
            if let Some(answer) = self.receive() {
                return answer;
            }
            spin_loop();
        }
    }
}

impl Answer for Topics {
    #[inline]
    fn answer(&mut self) -> Words {
        loop {
            if let Some(record) = self.receive() {
                self.send(record);
                return record;
            }
            spin_loop();
        }
    }
}

// --- request and response ---------------------------------------------------------------------------------------------

struct Requests(Client<Ipc, Words, (), Words, ()>);

impl Ask for Requests {
    #[inline]
    fn ask(&mut self, record: Words) -> Words {
        let request = self.0.loan_uninit().expect("a request is free");
        let pending = request.write_payload(record).send().expect("the server is there");
        loop {
            if let Some(response) = pending.receive().expect("the connection holds") {
                return *response;
            }
            spin_loop();
        }
    }
}

struct Responses(Server<Ipc, Words, (), Words, ()>);

impl Answer for Responses {
    #[inline]
    fn answer(&mut self) -> Words {
        loop {
            if let Some(request) = self.0.receive().expect("the connection holds") {
                let request: ActiveRequest<Ipc, Words, (), Words, ()> = request;
                let record = *request;
                let response = request.loan_uninit().expect("a response is free");
                response.write_payload(record).send().expect("the client is there");
                return record;
            }
            spin_loop();
        }
    }
}

// --- events -----------------------------------------------------------------------------------------------------------

/// Topics whose other side sleeps until it is notified.
struct Events {
    topics: Topics,
    notifier: Notifier<Ipc>,
    listener: Listener<Ipc>,
}

impl Events {
    fn new(node: &Node<Ipc>, out: &str, back: &str) -> Fallible<Events> {
        let event =
            |name: &str| -> Fallible<_> { Ok(node.service_builder(&name.try_into()?).event().open_or_create()?) };
        let notifier = event(&format!("{out}-event"))?.notifier_builder().create()?;
        let listener = event(&format!("{back}-event"))?.listener_builder().create()?;
        Ok(Events { topics: Topics::new(node, out, back)?, notifier, listener })
    }

    fn send(&self, record: Words) {
        self.topics.send(record);
        self.notifier.notify().expect("the other side listens");
    }

    fn receive(&self) -> Words {
        loop {
            self.listener.blocking_wait(|_| {}).expect("the listener lives");
            if let Some(record) = self.topics.receive() {
                return record;
            }
        }
    }
}

impl Ask for Events {
    fn ask(&mut self, record: Words) -> Words {
        self.send(record);
        self.receive()
    }
}

impl Answer for Events {
    fn answer(&mut self) -> Words {
        let record = self.receive();
        self.send(record);
        record
    }
}

// --- roles ------------------------------------------------------------------------------------------------------------

/// Which of its patterns.
#[derive(Clone, Copy)]
pub(crate) enum Pattern {
    Topics,
    Requests,
    Events,
}

impl Pattern {
    pub(crate) fn parse(word: &str) -> Fallible<Pattern> {
        match word {
            "topics" => Ok(Pattern::Topics),
            "requests" => Ok(Pattern::Requests),
            "events" => Ok(Pattern::Events),
            other => Err(format!("iceoryx2 has no {other}").into()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Pattern::Topics => "topics",
            Pattern::Requests => "requests",
            Pattern::Events => "events",
        }
    }
}

pub(crate) fn drive_records(dir: &Path, pattern: Pattern, pause: Duration) -> Fallible<()> {
    let node = node(dir)?;
    let start = Start::new("iceoryx-peer", dir).with(pattern.word());
    match pattern {
        Pattern::Topics => {
            let topics = Topics::new(&node, "there", "back")?;
            super::drive_records(topics, start.start()?, pause)
        }
        Pattern::Requests => {
            let service =
                node.service_builder(&"both".try_into()?).request_response::<Words, Words>().open_or_create()?;
            let client = service.client_builder().create()?;
            super::drive_records(Requests(client), start.start()?, pause)
        }
        Pattern::Events => {
            let events = Events::new(&node, "there", "back")?;
            super::drive_records(events, start.start()?, pause)
        }
    }
}

pub(crate) fn records_peer(dir: &Path, pattern: Pattern) -> Fallible<()> {
    let node = node(dir)?;
    match pattern {
        Pattern::Topics => super::answer_records(Topics::new(&node, "back", "there")?),
        Pattern::Requests => {
            let service =
                node.service_builder(&"both".try_into()?).request_response::<Words, Words>().open_or_create()?;
            super::answer_records(Responses(service.server_builder().create()?))
        }
        Pattern::Events => super::answer_records(Events::new(&node, "back", "there")?),
    }
}

/// Several ways, a pair of topics each.
struct Many(Vec<Topics>);

impl AskMany for Many {
    #[inline]
    fn send(&mut self, way: usize, record: Words) {
        self.0[way].send(record);
    }

    #[inline]
    fn receive(&mut self, way: usize) -> Option<Words> {
        self.0[way].receive()
    }
}

impl AnswerMany for Many {
    #[inline]
    fn look(&mut self) -> bool {
        let mut any = false;
        for topics in &self.0 {
            if let Some(record) = topics.receive() {
                topics.send(record);
                any = true;
            }
        }
        any
    }
}

pub(crate) fn drive_many(dir: &Path, ways: usize, threads: usize) -> Fallible<()> {
    let node = node(dir)?;
    let topics = |way| Topics::new(&node, &format!("there-{way}"), &format!("back-{way}"));
    let many = Many((0..ways).map(topics).collect::<Result<_, _>>()?);
    let start = Start::new("iceoryx-many-peer", dir).with(ways.to_string());
    super::drive_many(many, start.with(threads.to_string()).start()?, ways)
}

pub(crate) fn many_peer(dir: &Path, ways: usize, threads: usize) -> Fallible<()> {
    let dir = dir.to_owned();
    super::answer_many(threads, move |thread| {
        let node = node(&dir)?;
        let topics = |way| Topics::new(&node, &format!("back-{way}"), &format!("there-{way}"));
        Ok(Many((thread..ways).step_by(threads).map(topics).collect::<Result<_, _>>()?))
    })
}
