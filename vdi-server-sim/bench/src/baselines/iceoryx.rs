//! iceoryx2: records by publish and subscribe, with both sides polling. That is the fastest of its patterns.

use std::hint::spin_loop;
use std::path::Path;

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use super::{Answer, Ask, Words};
use crate::processes::{Fallible, Start};

type Ipc = ipc::Service;

/// A node whose files are in this directory. The names of its shared memory begin with [`prefix`].
fn node(dir: &Path) -> Fallible<Node<Ipc>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    let folder = dir.to_str().ok_or("the directory's name is not in UTF-8")?;
    config.global.set_root_path(&iceoryx2::prelude::Path::new(folder.as_bytes())?);
    config.global.prefix = FileName::new(prefix(dir).as_bytes())?;
    let builder = NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled);
    Ok(builder.create::<Ipc>()?)
}

fn prefix(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    format!("bench_{}_", name.trim_matches('.'))
}

/// Removes the shared memory of processes that were killed.
pub(crate) fn clean_up(dir: &Path) {
    let prefix = prefix(dir);
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

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
    fn receive(&self) -> Words {
        loop {
            if let Some(sample) = self.subscriber.receive().expect("the connection holds") {
                return *sample;
            }
            spin_loop();
        }
    }
}

impl Ask for Topics {
    #[inline]
    fn ask(&mut self, record: Words) -> Words {
        self.send(record);
        self.receive()
    }
}

impl Answer for Topics {
    #[inline]
    fn answer(&mut self) -> Words {
        let record = self.receive();
        self.send(record);
        record
    }
}

pub(crate) fn drive(dir: &Path) -> Fallible<()> {
    let node = node(dir)?;
    let topics = Topics::new(&node, "there", "back")?;
    let peer = Start::new("iceoryx-peer", dir).start()?;
    super::drive_records(topics, peer)
}

pub(crate) fn peer(dir: &Path) -> Fallible<()> {
    let node = node(dir)?;
    super::answer_records(Topics::new(&node, "back", "there")?)
}
