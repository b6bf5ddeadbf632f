//! Laws over sequences of calls and events: what the fuzz targets `client_calls` and `server_calls` run.

use vdi_proto::set::{client, server};

use super::device::{
    Client, ClientEvent, Op, Pair, Seen, Server, ServerEvent, hostile_to_client, hostile_to_server, limits,
};
use super::set::{OBSERVATIONS, client_call, client_observes, server_call};

/// A step of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum ClientStep {
    /// A call, by its number in `Call::ALL`.
    Call(u8),
    /// A change that another process made.
    Observe(u8),
    /// An event of a device with any server.
    Device(ClientEvent),
}

/// Runs the steps of a client. Returns the number of successful calls, and of events after which its program held a command.
pub(crate) fn client_calls(steps: &[ClientStep]) -> (usize, usize) {
    let mut state = client::State::DoesNotExist;
    let mut device = Client::new(limits());
    let (mut calls, mut held) = (0, 0);
    for step in steps {
        match step {
            ClientStep::Call(number) => {
                let call = client::Call::ALL[usize::from(*number) % client::Call::ALL.len()];
                calls += usize::from(client::step(state, call).answer.is_ok());
                state = client_call(state, call);
            }
            ClientStep::Observe(number) => {
                state = client_observes(state, OBSERVATIONS[usize::from(*number) % OBSERVATIONS.len()]);
            }
            ClientStep::Device(event) => {
                hostile_to_client(&mut device, event);
                held += usize::from(device.held_id(0).is_some());
            }
        }
    }
    // From every state Close leads to DNE, and Create then to a new set.
    for call in [client::Call::Close { devices_open: true }, client::Call::Create] {
        state = client_call(state, call);
    }
    assert_eq!(state, client::State::Configurable);
    (calls, held)
}

/// A step of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum ServerStep {
    /// A call, by its number in `Call::ALL`.
    Call(u8),
    /// An event of a device with any client.
    Device(ServerEvent),
    /// A step of a device with an honest machine on each side.
    Pair(Op),
}

/// Runs the steps of a server. Returns the number of successful calls, and what the honest pair did.
pub(crate) fn server_calls(steps: &[ServerStep]) -> (usize, Seen) {
    let mut state = server::State::DoesNotExist;
    let mut device = Server::new();
    let mut pair = Pair::new();
    let mut calls = 0;
    for step in steps {
        match step {
            ServerStep::Call(number) => {
                let call = server::Call::ALL[usize::from(*number) % server::Call::ALL.len()];
                calls += usize::from(server::step(state, call).answer.is_ok());
                state = server_call(state, call);
            }
            ServerStep::Device(event) => hostile_to_server(&mut device, event),
            ServerStep::Pair(op) => pair.step(op),
        }
    }
    for call in [server::Call::Close, server::Call::Open] {
        state = server_call(state, call);
    }
    assert_eq!(state, server::State::Connected);
    device.abort();
    assert_eq!(device.sent, device.finished, "every command ends exactly once");
    (calls, pair.finish())
}
