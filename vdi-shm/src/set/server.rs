//! The server's side of joining: Open, RequestBuffers, EndConfiguration.

use std::sync::Arc;
use std::time::Duration;

use vdi_proto::config::VdConfig;
use vdi_proto::index::{ClassIndex, MAX_CLASSES};
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::JoinRole;

use super::class_table::AddClassError;
use super::control::ServerControl;
use super::error::{ConfigureError, JoinError, RequestError};
use super::membership::{Membership, Request};
use super::pool::BufferPool;
use super::session::Session;
use crate::ipc::runtime::Options;
use crate::ipc::segment::Segment;

/// A set, in the server's process. Dropping it leaves the set.
#[derive(Debug)]
pub struct Server {
    membership: Membership,
    control: Arc<ServerControl>,
    pool: Arc<BufferPool>,
}

impl Server {
    /// Open: joins a set by its name.
    ///
    /// # Errors
    /// [`JoinError`]: VD_E_INVALID when there is no such set or it has a server, VD_E_SECURITY, VD_E_ABORT, VD_E_MEMORY,
    /// VD_E_TIMEOUT, VD_E_UNEXPECTED.
    pub fn join(options: &Options, instance: &str, set: &str) -> Result<Server, JoinError> {
        let membership = Membership::join(options, JoinRole::Server, instance, set)?;
        let session = membership.session();
        let control = Arc::new(ServerControl::new(Arc::clone(session.control())));
        let pool = BufferPool::new(Arc::clone(session.control()), Arc::clone(session.classes()));
        Ok(Server { membership, control, pool })
    }

    /// What this process knows of the set.
    #[must_use]
    pub fn session(&self) -> &Arc<Session> {
        self.membership.session()
    }

    /// The control segment, as the server uses it.
    #[must_use]
    pub fn control(&self) -> &Arc<ServerControl> {
        &self.control
    }

    /// The set's buffers.
    #[must_use]
    pub fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    /// RequestBuffers: adds a class of buffers. Returns when every process of the set has mapped it.
    ///
    /// # Errors
    /// [`RequestError`]: VD_E_INVALID for numbers that describe no class, VD_E_MEMORY when the memory cannot be had on either
    /// side, VD_E_ABORT, VD_E_TIMEOUT. The pool stays as it was. A class that the client accepts after the time-out is there
    /// with the next class.
    pub fn add_class(&self, spec: ClassSpec, timeout: Duration) -> Result<(), RequestError> {
        self.add_classes(&[spec], timeout)
    }

    /// Adds several classes. Takes the memory of all of them before it announces the first, so a lack of memory on this side
    /// adds none. Each class has `timeout` to be mapped.
    ///
    /// # Errors
    /// As [`Server::add_class`]. The classes before the one that failed stay.
    pub fn add_classes(&self, specs: &[ClassSpec], timeout: Duration) -> Result<(), RequestError> {
        let classes = self.session().classes();
        let mut first_slot = classes.slot_count();
        let mut segments = Vec::with_capacity(specs.len());
        for spec in specs {
            let class = spec.lay_out(classes.prefix(), first_slot).map_err(AddClassError::from)?;
            first_slot = class.slots().end;
            segments.push(Segment::create("vdi-area", class.area_len()).map_err(AddClassError::from)?);
        }
        for (spec, segment) in specs.iter().zip(&segments) {
            let turn = self.membership.begin_request(timeout)?;
            let limit = u64::from(MAX_CLASSES);
            let exhausted = RequestError::Exhausted { what: "buffer classes", limit };
            let index = ClassIndex::new(classes.iter().count() as u32).ok_or(exhausted)?;
            turn.request(Request::Class(classes.map(index, *spec, segment)?), Some(segment))?;
            self.pool.add_new_classes();
        }
        Ok(())
    }

    /// EndConfiguration: sends the negotiated configuration. Returns when the client has taken it.
    ///
    /// # Errors
    /// [`RequestError`]: the client's refusal, VD_E_ABORT, VD_E_TIMEOUT.
    pub fn configure(&self, config: VdConfig, timeout: Duration) -> Result<(), RequestError> {
        let turn = self.membership.begin_request(timeout)?;
        let session = self.session();
        if session.negotiated().is_some() {
            return Err(ConfigureError::Twice.into());
        }
        config.validate_answer(session.requested()).map_err(ConfigureError::from)?;
        turn.request(Request::Configure(config), None)
    }
}
