//! The state tables over sequences of calls: laws that hold for every sequence.

mod laws;

use laws::set::{OBSERVATIONS, client_call, client_observes, server_call};
use proptest::prelude::*;
use std::collections::BTreeSet;
use vdi_proto::set::{client, server};

proptest! {
    #[test]
    fn any_calls_of_a_client(calls in prop::collection::vec((0usize..18, any::<u8>()), 0..200)) {
        let mut state = client::State::DoesNotExist;
        for (number, _) in calls {
            state = match client::Call::ALL.get(number) {
                Some(call) => client_call(state, *call),
                None => client_observes(state, OBSERVATIONS[number - client::Call::ALL.len()]),
            };
        }
        let closed = client_call(state, client::Call::Close { devices_open: true });
        prop_assert_eq!(closed, client::State::DoesNotExist);
        prop_assert_eq!(client_call(closed, client::Call::Create), client::State::Configurable);
    }

    #[test]
    fn any_calls_of_a_server(calls in prop::collection::vec(0..server::Call::ALL.len(), 0..200)) {
        let mut state = server::State::DoesNotExist;
        for number in calls {
            state = server_call(state, server::Call::ALL[number]);
        }
        let closed = server_call(state, server::Call::Close);
        prop_assert_eq!(closed, server::State::DoesNotExist);
        prop_assert_eq!(server_call(closed, server::Call::Open), server::State::Connected);
    }
}

/// Calls alone reach every state, and the laws hold for every pair of state and call.
#[test]
fn every_state_is_reached_and_every_pair_keeps_the_laws() {
    let mut pairs = 0;
    let mut reached = BTreeSet::from([client::State::DoesNotExist as u8]);
    for _ in 0..client::State::ALL.len() {
        for state in
            client::State::ALL.into_iter().filter(|state| reached.contains(&(*state as u8))).collect::<Vec<_>>()
        {
            for call in client::Call::ALL {
                reached.insert(client_call(state, call) as u8);
            }
        }
    }
    assert_eq!(reached.len(), client::State::ALL.len());
    for state in client::State::ALL {
        for call in client::Call::ALL {
            client_call(state, call);
            pairs += 1;
        }
        for seen in OBSERVATIONS {
            client_observes(state, seen);
            pairs += 1;
        }
    }

    let mut reached = BTreeSet::from([server::State::DoesNotExist as u8]);
    for _ in 0..server::State::ALL.len() {
        for state in
            server::State::ALL.into_iter().filter(|state| reached.contains(&(*state as u8))).collect::<Vec<_>>()
        {
            for call in server::Call::ALL {
                reached.insert(server_call(state, call) as u8);
            }
        }
    }
    assert_eq!(reached.len(), server::State::ALL.len());
    for state in server::State::ALL {
        for call in server::Call::ALL {
            server_call(state, call);
            pairs += 1;
        }
    }
    assert_eq!(pairs, 6 * (15 + 3) + 7 * 20);
}

/// The documented sequence of calls, on both sides.
#[test]
fn usual_sequence() {
    use client::{Call, CommandPoll, State};
    use vdi_proto::set::Opening;
    let way = [
        (Call::Create, State::Configurable),
        (Call::GetConfiguration, State::Initializing),
        (Call::OpenDevice(Opening::Unopened), State::Active),
        (Call::OpenDevice(Opening::Unopened), State::Active),
        (Call::GetCommand(CommandPoll::Command), State::Active),
        (Call::CompleteCommand, State::Active),
        (Call::GetCommand(CommandPoll::Closed), State::Active),
        (Call::GetCommand(CommandPoll::LastClosed), State::NormallyTerminated),
        (Call::Close { devices_open: false }, State::DoesNotExist),
    ];
    let mut state = State::DoesNotExist;
    for (call, next) in way {
        state = client_call(state, call);
        assert_eq!(state, next, "{call:?}");
    }

    use server::{Call as S, Closing, State as T};
    let way = [
        (S::Open, T::Connected),
        (S::GetConfiguration, T::Connected),
        (S::BeginConfiguration, T::Configurable),
        (S::RequestBuffers, T::Configurable),
        (S::EndConfiguration { memory: false }, T::Configurable),
        (S::RequestBuffers, T::Configurable),
        (S::EndConfiguration { memory: true }, T::Initializing),
        (S::OpenDevice(Opening::Unopened), T::Active),
        (S::OpenDevice(Opening::Unopened), T::Active),
        (S::ExecuteCompletionAgent, T::Active),
        (S::AllocateBuffer, T::Active),
        (S::SendCommand, T::Active),
        (S::FreeBuffer, T::Active),
        (S::CloseDevice(Closing::One), T::Active),
        (S::CloseDevice(Closing::Last), T::NormallyTerminated),
        (S::Close, T::DoesNotExist),
    ];
    let mut state = T::DoesNotExist;
    for (call, next) in way {
        state = server_call(state, call);
        assert_eq!(state, next, "{call:?}");
    }
}
