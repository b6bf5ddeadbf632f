//! Laws of the two state tables over sequences of calls.

use vdi_proto::set::{SetPhase, client, server};
use vdi_proto::status::VdError;

/// One call of a client, or one observation; the state afterwards.
pub(crate) fn client_call(state: client::State, call: client::Call) -> client::State {
    use client::{Call, CommandPoll, State};
    let step = client::step(state, call);
    let closes = matches!(call, Call::Close { .. });
    match step.answer {
        Err(VdError::Open) if closes => {
            assert_eq!((state, step.next), (State::Active, State::DoesNotExist), "{call:?}");
        }
        Err(VdError::Close) if call == Call::GetCommand(CommandPoll::LastClosed) => {
            assert_eq!((state, step.next), (State::Active, State::NormallyTerminated), "{call:?}");
        }
        Err(status) => {
            assert_eq!(step.next, state, "{call:?} was refused, and moved the set");
            assert_eq!(status == VdError::Abort, state == State::Abort && status != VdError::Protocol, "{call:?}");
        }
        Ok(()) => {}
    }
    // In DNE only Create and OpenInSecondary succeed.
    if state == State::DoesNotExist {
        assert_eq!(step.answer.is_ok(), matches!(call, Call::Create | Call::OpenInSecondary), "{call:?}");
    }
    // Only Close leaves Abort. Close leads to DNE from every other state, with any answer.
    if state == State::Abort && !closes {
        assert_eq!(step.next, State::Abort, "{call:?}");
    }
    assert_eq!(step.next == State::DoesNotExist, closes || (state == State::DoesNotExist && step.answer.is_err()));
    if closes && state != State::DoesNotExist {
        assert!(matches!(step.answer, Ok(()) | Err(VdError::Open)));
    }
    // SignalAbort succeeds in every state but DNE.
    if call == Call::SignalAbort && state != State::DoesNotExist {
        assert_eq!((step.next, step.answer), (State::Abort, Ok(())));
    }
    phase(step.next);
    step.next
}

fn phase(state: client::State) {
    let open = matches!(state, client::State::Initializing | client::State::Active);
    assert_eq!(state.phase().handles_allowed(), if open { Ok(()) } else { Err(VdError::Protocol) });
    assert_eq!(state.phase() == SetPhase::Aborted, state == client::State::Abort);
}

/// The observations, so that a number can choose one.
pub(crate) const OBSERVATIONS: [client::Observation; 3] =
    [client::Observation::Aborted, client::Observation::DeviceOpened, client::Observation::AllClosed];

/// An observation does not create a set, does not leave Abort, and is idempotent.
pub(crate) fn client_observes(state: client::State, seen: client::Observation) -> client::State {
    use client::{Observation, State};
    let next = client::observe(state, seen);
    assert_eq!(next == State::DoesNotExist, state == State::DoesNotExist);
    assert!(state != State::Abort || next == State::Abort);
    assert_eq!(
        next == State::Abort,
        state != State::DoesNotExist && (state == State::Abort || seen == Observation::Aborted)
    );
    assert_eq!(client::observe(next, seen), next);
    phase(next);
    next
}

/// One call of a server; the state afterwards.
pub(crate) fn server_call(state: server::State, call: server::Call) -> server::State {
    use server::{Call, State};
    let step = server::step(state, call);
    match step.answer {
        Err(status) if call == Call::Close => {
            assert_eq!((step.next, status), (State::DoesNotExist, VdError::Protocol));
            assert!(matches!(state, State::Active | State::DoesNotExist));
        }
        Err(status) => {
            assert_eq!(step.next, state, "{call:?} was refused, and moved the set");
            assert!(status != VdError::Abort || state == State::AbnormallyTerminated, "{call:?}");
        }
        Ok(()) => {}
    }
    if state == State::DoesNotExist {
        assert_eq!(step.answer.is_ok(), call == Call::Open, "{call:?}");
    }
    if state == State::AbnormallyTerminated && call != Call::Close {
        assert_eq!(step.next, state, "{call:?}");
    }
    if call == Call::Close {
        assert_eq!(step.next, State::DoesNotExist);
    } else {
        assert_eq!(step.next == State::DoesNotExist, state == State::DoesNotExist && step.answer.is_err(), "{call:?}");
    }
    if call == Call::SignalAbort && state != State::DoesNotExist {
        assert_eq!((step.next, step.answer), (State::AbnormallyTerminated, Ok(())));
    }
    // Commands and new buffers need a configured set whose work has not ended.
    if call == Call::SendCommand {
        assert_eq!(step.answer.is_ok(), state == State::Active);
    }
    if call == Call::AllocateBuffer {
        assert_eq!(step.answer.is_ok(), matches!(state, State::Initializing | State::Active));
    }
    step.next
}
