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
    /// Something that another process did.
    Observe(u8),
    /// An event of a device whose server is not to be trusted.
    Device(ClientEvent),
}

/// Plays a client; tells how many calls were answered with success and how many commands its program got to hold.
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
    // From wherever it is, Close leads to nothing, and Create to a new set.
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
    /// An event of a device whose client is not to be trusted.
    Device(ServerEvent),
    /// A step of a device with an honest machine on either side.
    Pair(Op),
}

/// Plays a server; tells how many calls were answered with success, and what the honest pair came across.
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
    assert_eq!(device.sent, device.finished, "whatever the client does, every command ends exactly once");
    (calls, pair.finish())
}
