//! A set without processes, for unit tests: its control segment, and its buffers as three roles see them.

use std::sync::Arc;

use vdi_proto::handle::HandleCodec;
use vdi_proto::index::{ClassIndex, MemberIndex};
use vdi_proto::wire::checksum::Checksums;
use vdi_proto::wire::class::ClassSpec;

use super::buffers::ClientBuffers;
use super::claim::Claim;
use super::class_table::{AddClassError, ClassTable};
use super::control::Control;
use super::pool::BufferPool;
use crate::ipc::segment::Segment;

pub(super) const SECRET: u64 = 7;
pub(super) const PREFIX: u32 = 32;

pub(super) struct Fixture {
    pub(super) control: Arc<Control>,
    pub(super) segment: Segment,
    pub(super) server: Arc<BufferPool>,
    pub(super) primary: Arc<ClientBuffers>,
    pub(super) secondary: Arc<ClientBuffers>,
    /// The class tables of the server, the primary and the secondary.
    tables: [Arc<ClassTable>; 3],
}

pub(super) fn secondary() -> MemberIndex {
    MemberIndex::new(2).expect("a member")
}

impl Fixture {
    /// A set without classes.
    pub(super) fn new() -> Fixture {
        let (control, segment) = Control::create(1, Checksums::new(SECRET)).expect("memory");
        let control = Arc::new(control);
        let tables = [(); 3]
            .map(|()| Arc::new(ClassTable::new(PREFIX, Claim::control(segment.identity()).expect("new memory"))));
        let client = |table: &Arc<ClassTable>, member| {
            // Each role has the control segment mapped at an address of its own.
            let control = Control::attach(&segment, Checksums::new(SECRET)).expect("a control segment");
            ClientBuffers::new(Arc::new(control), Arc::clone(table), HandleCodec::new(SECRET), member)
        };
        let (primary, secondary) = (client(&tables[1], MemberIndex::PRIMARY), client(&tables[2], secondary()));
        let server = BufferPool::new(Arc::clone(&control), Arc::clone(&tables[0]));
        Fixture { control, segment, server, primary, secondary, tables }
    }

    /// A set with one class.
    pub(super) fn with_class(buffer_len: u32, count: u32) -> Fixture {
        let fixture = Fixture::new();
        fixture.add_class(ClassSpec { buffer_len, alignment: 512, count }).expect("a class");
        fixture
    }

    /// Adds a class in every role, as RequestBuffers does.
    pub(super) fn add_class(&self, spec: ClassSpec) -> Result<(), AddClassError> {
        let index = ClassIndex::new(self.tables[0].iter().count() as u32).expect("room for a class");
        let segment = Segment::create("vdi-area", self.tables[0].lay_out(index, spec)?.area_len())?;
        for table in &self.tables {
            table.push(table.map(index, spec, &segment)?)?;
        }
        self.server.add_new_classes();
        Ok(())
    }

    /// The class table of the secondary.
    pub(super) fn table(&self) -> &ClassTable {
        &self.tables[2]
    }
}
