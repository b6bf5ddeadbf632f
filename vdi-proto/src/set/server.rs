//! The server's state table.
//!
//! Source: VDI specification, "State transitions of the server"; rows marked **D** are decisions.

use super::{Opening, Step};
use crate::status::VdError;

/// The states of a server's virtual device set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No set is open (DNE).
    DoesNotExist,
    /// The set is open; its configuration can be read.
    Connected,
    /// BeginConfiguration was called.
    Configurable,
    /// EndConfiguration was called: the client can open devices.
    Initializing,
    /// A device is open, or the completion agent runs.
    Active,
    /// Every device was closed.
    NormallyTerminated,
    /// The set was aborted.
    AbnormallyTerminated,
}

impl State {
    /// All states, in the order of the table's columns.
    pub const ALL: [State; 7] = [
        State::DoesNotExist,
        State::Connected,
        State::Configurable,
        State::Initializing,
        State::Active,
        State::NormallyTerminated,
        State::AbnormallyTerminated,
    ];
}

/// The circumstances of CloseDevice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// The device is open; others are too.
    One,
    /// The device is open; all others are closed.
    Last,
    /// The device is already closed.
    AlreadyClosed,
}

/// The server's calls, with the circumstances on which the answer depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Open; the set exists and is accessible.
    Open,
    /// GetConfiguration.
    GetConfiguration,
    /// BeginConfiguration with valid terms.
    BeginConfiguration,
    /// RequestBuffers for which there is enough memory.
    RequestBuffers,
    /// QueryAvailableBuffers.
    QueryAvailableBuffers,
    /// EndConfiguration.
    EndConfiguration {
        /// Whether the memory for the buffers could be allocated.
        memory: bool,
    },
    /// OpenDevice.
    OpenDevice(Opening),
    /// ExecuteCompletionAgent.
    ExecuteCompletionAgent,
    /// AllocateBuffer.
    AllocateBuffer,
    /// FreeBuffer.
    FreeBuffer,
    /// SendCommand to a device that accepts the command.
    SendCommand,
    /// CloseDevice.
    CloseDevice(Closing),
    /// SignalAbort.
    SignalAbort,
    /// Close.
    Close,
}

impl Call {
    /// Every call under every circumstance.
    pub const ALL: [Call; 20] = [
        Call::Open,
        Call::GetConfiguration,
        Call::BeginConfiguration,
        Call::RequestBuffers,
        Call::QueryAvailableBuffers,
        Call::EndConfiguration { memory: true },
        Call::EndConfiguration { memory: false },
        Call::OpenDevice(Opening::Unopened),
        Call::OpenDevice(Opening::AlreadyOpen),
        Call::OpenDevice(Opening::AllOpen),
        Call::OpenDevice(Opening::NoSuchDevice),
        Call::ExecuteCompletionAgent,
        Call::AllocateBuffer,
        Call::FreeBuffer,
        Call::SendCommand,
        Call::CloseDevice(Closing::One),
        Call::CloseDevice(Closing::Last),
        Call::CloseDevice(Closing::AlreadyClosed),
        Call::SignalAbort,
        Call::Close,
    ];
}

/// The state table: what `call` returns in `state`, and the state after it.
///
/// ```
/// use vdi_proto::set::server::{step, Call, State};
/// use vdi_proto::status::VdError;
///
/// // Too little memory does not change the state: the server may request less.
/// let step = step(State::Configurable, Call::EndConfiguration { memory: false });
/// assert_eq!((step.next, step.answer), (State::Configurable, Err(VdError::Memory)));
/// ```
#[must_use]
pub const fn step(state: State, call: Call) -> Step<State> {
    use State::{
        AbnormallyTerminated, Active, Configurable, Connected, DoesNotExist, Initializing, NormallyTerminated,
    };
    let protocol = Step::fail(state, VdError::Protocol);
    let aborted = Step::fail(state, VdError::Abort);
    let stay = Step::ok(state);
    match (call, state) {
        // Open.
        (Call::Open, DoesNotExist) => Step::ok(Connected),
        (Call::Open, Connected | Configurable | Initializing | Active | NormallyTerminated | AbnormallyTerminated) => {
            protocol
        }

        // GetConfiguration.
        (Call::GetConfiguration, DoesNotExist) => protocol,
        (Call::GetConfiguration, Connected | Configurable | Initializing | Active | NormallyTerminated) => stay,
        (Call::GetConfiguration, AbnormallyTerminated) => aborted,

        // BeginConfiguration.
        (Call::BeginConfiguration, Connected) => Step::ok(Configurable),
        (
            Call::BeginConfiguration,
            DoesNotExist | Configurable | Initializing | Active | NormallyTerminated | AbnormallyTerminated,
        ) => protocol,

        // RequestBuffers, QueryAvailableBuffers: also after the configuration. D: not in Connected.
        (Call::RequestBuffers | Call::QueryAvailableBuffers, Configurable | Initializing | Active) => stay,
        (
            Call::RequestBuffers | Call::QueryAvailableBuffers,
            DoesNotExist | Connected | NormallyTerminated | AbnormallyTerminated,
        ) => protocol,

        // EndConfiguration. D: not in Connected.
        (Call::EndConfiguration { memory: true }, Configurable) => Step::ok(Initializing),
        (Call::EndConfiguration { memory: false }, Configurable) => Step::fail(Configurable, VdError::Memory),
        (
            Call::EndConfiguration { .. },
            DoesNotExist | Connected | Initializing | Active | NormallyTerminated | AbnormallyTerminated,
        ) => protocol,

        // OpenDevice: each call gives the next unopened device. D: in Active, until all are open.
        (Call::OpenDevice(Opening::Unopened), Initializing | Active) => Step::ok(Active),
        (Call::OpenDevice(Opening::AllOpen), Initializing | Active) => Step::fail(state, VdError::Open),
        // D: another device of the set has this name.
        (Call::OpenDevice(Opening::AlreadyOpen), Initializing | Active) => Step::fail(state, VdError::Invalid),
        // D: not a valid name.
        (Call::OpenDevice(Opening::NoSuchDevice), Initializing | Active) => Step::fail(state, VdError::Invalid),
        (Call::OpenDevice(_), DoesNotExist | Connected | Configurable | NormallyTerminated | AbnormallyTerminated) => {
            protocol
        }

        // ExecuteCompletionAgent. D: in Active too, since OpenDevice may come first.
        (Call::ExecuteCompletionAgent, Initializing | Active) => Step::ok(Active),
        (
            Call::ExecuteCompletionAgent,
            DoesNotExist | Connected | Configurable | NormallyTerminated | AbnormallyTerminated,
        ) => protocol,

        // AllocateBuffer. D: in Active, where buffers are used; none after the end.
        (Call::AllocateBuffer, Initializing | Active) => stay,
        (Call::AllocateBuffer, DoesNotExist | Connected | Configurable | NormallyTerminated) => protocol,
        (Call::AllocateBuffer, AbnormallyTerminated) => aborted,

        // FreeBuffer. D: also after the end, normal or not.
        (Call::FreeBuffer, Initializing | Active | NormallyTerminated | AbnormallyTerminated) => stay,
        (Call::FreeBuffer, DoesNotExist | Connected | Configurable) => protocol,

        // SendCommand. D: in Active only.
        (Call::SendCommand, Active) => stay,
        (Call::SendCommand, DoesNotExist | Connected | Configurable | Initializing | NormallyTerminated) => protocol,
        (Call::SendCommand, AbnormallyTerminated) => aborted,

        // CloseDevice. D: the last one ends the set; after that VD_E_CLOSE.
        (Call::CloseDevice(Closing::One), Active) => stay,
        (Call::CloseDevice(Closing::Last), Active) => Step::ok(NormallyTerminated),
        (Call::CloseDevice(Closing::AlreadyClosed), Active) => Step::fail(Active, VdError::Close),
        (Call::CloseDevice(_), NormallyTerminated) => Step::fail(state, VdError::Close),
        (Call::CloseDevice(_), DoesNotExist | Connected | Configurable | Initializing) => protocol,
        (Call::CloseDevice(_), AbnormallyTerminated) => aborted,

        // SignalAbort. D: from every state but DNE.
        (Call::SignalAbort, DoesNotExist) => protocol,
        (
            Call::SignalAbort,
            Connected | Configurable | Initializing | Active | NormallyTerminated | AbnormallyTerminated,
        ) => Step::ok(AbnormallyTerminated),

        // Close. With devices open VD_E_PROTOCOL, and the set is closed. D: elsewhere ok.
        (Call::Close, DoesNotExist) => protocol,
        (Call::Close, Active) => Step::fail(DoesNotExist, VdError::Protocol),
        (Call::Close, Connected | Configurable | Initializing | NormallyTerminated | AbnormallyTerminated) => {
            Step::ok(DoesNotExist)
        }
    }
}
