//! The client's state table.
//!
//! Source: VDI specification, "State transitions of the client"; rows marked **D** are decisions.
//!
//! A state belongs to one process's set object. A secondary's object enters [`State::Initializing`] by OpenInSecondary.
//! Changes that other processes make to the set arrive through [`observe`].

use super::{Opening, SetPhase, Step};
use crate::status::VdError;

/// The states of a client's virtual device set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// There is no set (DNE).
    DoesNotExist,
    /// Created; the client does not have the configuration yet.
    Configurable,
    /// The client has the configuration; no device is open.
    Initializing,
    /// A device is open.
    Active,
    /// Every device returned VD_E_CLOSE.
    NormallyTerminated,
    /// The set was aborted.
    Abort,
}

impl State {
    /// All states, in the order of the table's columns.
    pub const ALL: [State; 6] = [
        State::DoesNotExist,
        State::Configurable,
        State::Initializing,
        State::Active,
        State::NormallyTerminated,
        State::Abort,
    ];

    /// The phase, for the rules of buffer handles.
    #[must_use]
    #[inline]
    pub const fn phase(self) -> SetPhase {
        match self {
            State::Initializing | State::Active => SetPhase::Open,
            State::DoesNotExist | State::Configurable | State::NormallyTerminated => SetPhase::Closed,
            State::Abort => SetPhase::Aborted,
        }
    }
}

/// The circumstances of GetCommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandPoll {
    /// A command is there.
    Command,
    /// The time-out passed without one.
    Nothing,
    /// The server closed this device, and others are still open.
    Closed,
    /// The server closed this device, the last of the set.
    LastClosed,
}

/// The client's calls, with the circumstances on which the answer depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Create or CreateEx.
    Create,
    /// OpenInSecondary or OpenInSecondaryEx.
    OpenInSecondary,
    /// GetConfiguration; the server's configuration is there.
    GetConfiguration,
    /// OpenDevice.
    OpenDevice(Opening),
    /// GetCommand.
    GetCommand(CommandPoll),
    /// CompleteCommand of an active command.
    CompleteCommand,
    /// SignalAbort.
    SignalAbort,
    /// Close.
    Close {
        /// Whether a device has not yet returned VD_E_CLOSE: any device for the primary; for a secondary, a device that this
        /// process has opened.
        devices_open: bool,
    },
}

impl Call {
    /// Every call under every circumstance.
    pub const ALL: [Call; 15] = [
        Call::Create,
        Call::OpenInSecondary,
        Call::GetConfiguration,
        Call::OpenDevice(Opening::Unopened),
        Call::OpenDevice(Opening::AlreadyOpen),
        Call::OpenDevice(Opening::AllOpen),
        Call::OpenDevice(Opening::NoSuchDevice),
        Call::GetCommand(CommandPoll::Command),
        Call::GetCommand(CommandPoll::Nothing),
        Call::GetCommand(CommandPoll::Closed),
        Call::GetCommand(CommandPoll::LastClosed),
        Call::CompleteCommand,
        Call::SignalAbort,
        Call::Close { devices_open: false },
        Call::Close { devices_open: true },
    ];
}

/// The state table: what `call` returns in `state`, and the state after it.
///
/// ```
/// use vdi_proto::set::client::{step, Call, State};
/// use vdi_proto::status::VdError;
///
/// let step = step(State::Active, Call::Close { devices_open: true });
/// assert_eq!((step.next, step.answer), (State::DoesNotExist, Err(VdError::Open)));
/// ```
#[must_use]
pub const fn step(state: State, call: Call) -> Step<State> {
    use State::{Abort, Active, Configurable, DoesNotExist, Initializing, NormallyTerminated};
    let protocol = Step::fail(state, VdError::Protocol);
    let aborted = Step::fail(state, VdError::Abort);
    match (call, state) {
        // Create, CreateEx: once; again after Close.
        (Call::Create, DoesNotExist) => Step::ok(Configurable),
        (Call::Create, Configurable | Initializing | Active | NormallyTerminated | Abort) => protocol,

        // OpenInSecondary: D, not a row of the table; its page says VD_E_PROTOCOL if already open here.
        (Call::OpenInSecondary, DoesNotExist) => Step::ok(Initializing),
        (Call::OpenInSecondary, Configurable | Initializing | Active | NormallyTerminated | Abort) => protocol,

        // GetConfiguration: repeatable.
        (Call::GetConfiguration, DoesNotExist) => protocol,
        (Call::GetConfiguration, Configurable) => Step::ok(Initializing),
        (Call::GetConfiguration, Initializing | Active | NormallyTerminated) => Step::ok(state),
        (Call::GetConfiguration, Abort) => aborted,

        // OpenDevice. D: the table says PROTOCOL in Active, yet a set of n devices needs n opens.
        (Call::OpenDevice(_), DoesNotExist | Configurable | NormallyTerminated) => protocol,
        (Call::OpenDevice(Opening::Unopened), Initializing | Active) => Step::ok(Active),
        (Call::OpenDevice(Opening::AlreadyOpen), Initializing | Active) => protocol,
        (Call::OpenDevice(Opening::AllOpen), Initializing | Active) => Step::fail(state, VdError::Open),
        (Call::OpenDevice(Opening::NoSuchDevice), Initializing | Active) => Step::fail(state, VdError::Invalid),
        (Call::OpenDevice(_), Abort) => aborted,

        // GetCommand.
        (Call::GetCommand(_), DoesNotExist | Configurable | Initializing | NormallyTerminated) => protocol,
        (Call::GetCommand(CommandPoll::Command), Active) => Step::ok(Active),
        (Call::GetCommand(CommandPoll::Nothing), Active) => Step::fail(Active, VdError::Timeout),
        (Call::GetCommand(CommandPoll::Closed), Active) => Step::fail(Active, VdError::Close),
        (Call::GetCommand(CommandPoll::LastClosed), Active) => Step::fail(NormallyTerminated, VdError::Close),
        (Call::GetCommand(_), Abort) => aborted,

        // CompleteCommand.
        (Call::CompleteCommand, DoesNotExist | Configurable | Initializing | NormallyTerminated) => protocol,
        (Call::CompleteCommand, Active) => Step::ok(Active),
        (Call::CompleteCommand, Abort) => aborted,

        // SignalAbort: from every state but DNE.
        (Call::SignalAbort, DoesNotExist) => protocol,
        (Call::SignalAbort, Configurable | Initializing | Active | NormallyTerminated | Abort) => Step::ok(Abort),

        // Close. D: in Active with open devices VD_E_OPEN, and the set is closed (the function's page; the table says ok).
        // In Initializing no device of this process is open, but a secondary's may be.
        (Call::Close { .. }, DoesNotExist) => protocol,
        (Call::Close { devices_open: true }, Active) => Step::fail(DoesNotExist, VdError::Open),
        (Call::Close { devices_open: false }, Active) => Step::ok(DoesNotExist),
        (Call::Close { .. }, Configurable | Initializing | NormallyTerminated | Abort) => Step::ok(DoesNotExist),
    }
}

/// A change that another process made to the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Observation {
    /// The set was aborted.
    Aborted,
    /// A process opened a device.
    DeviceOpened,
    /// Every device has returned VD_E_CLOSE.
    AllClosed,
}

/// The state of this process's object after the observation.
#[must_use]
pub const fn observe(state: State, observation: Observation) -> State {
    match (observation, state) {
        (_, State::DoesNotExist) => State::DoesNotExist,
        (Observation::Aborted, _) | (_, State::Abort) => State::Abort,
        (Observation::DeviceOpened, State::Initializing) => State::Active,
        (Observation::AllClosed, State::Initializing | State::Active) => State::NormallyTerminated,
        (
            Observation::DeviceOpened | Observation::AllClosed,
            State::Configurable | State::Active | State::NormallyTerminated,
        ) => state,
    }
}
