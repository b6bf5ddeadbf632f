//! Runs for the target to begin with.

use super::world::{
    ABORT, CLOSE, CLOSE_DEVICE, COMPLETE, DROP_COMMAND, GET, HANDLE, INTRUDER, JOIN, MAP, REQUEST, SEND, UNMAP, WORKER,
};

type Steps = Vec<[u8; 4]>;

/// The first four bytes of a run that begins where the work does: devices, kind, and who has joined.
const NOBODY: u8 = 0;
const SECONDARY: u8 = 1;
const BOTH: u8 = 3;

fn run(devices: u8, kind: u8, joined: u8, steps: &[[u8; 4]]) -> Vec<u8> {
    [&[devices - 1, kind, joined, 13][..], &steps.concat()].concat()
}

/// A Write (or, with `what` 3, a Read) comes and goes.
fn transfer(device: u8, what: u8) -> Steps {
    vec![[SEND, device, what, 2], [GET, 0, device, 0], [COMPLETE, 0, 0, 0], [HANDLE, 0, 0, 0]]
}

fn ending(devices: u8) -> Steps {
    let mut steps: Steps = (0..devices).map(|device| [CLOSE_DEVICE, 0, device, 0]).collect();
    steps.extend((0..devices).map(|device| [GET, 0, device, 0]));
    steps.extend([[CLOSE, 0, 0, 0], [CLOSE, 0, 1, 0]]);
    steps
}

/// A name, the input.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for devices in 1..=3 {
        let mut steps: Steps =
            (0..devices).flat_map(|device| [transfer(device, 0), transfer(device, 3)].concat()).collect();
        // By their places in `CommandCode::ALL`: Flush and, where it is negotiated, Complete.
        for code in [11, 18] {
            steps.extend([[SEND, 0, 7, code], [GET, 0, 0, 0], [COMPLETE, 0, 0, 0], [HANDLE, 0, 0, 0]]);
        }
        steps.extend(ending(devices));
        seeds.push((format!("honest-{devices}"), run(devices, devices, NOBODY, &steps)));
    }
    let mut handles = vec![[SEND, 0, 0, 2], [SEND, 0, 3, 2], [GET, 0, 0, 0], [GET, 0, 0, 0]];
    handles.extend([
        [MAP, 1, 0, 0],
        [MAP, 1, 1, 1],
        [MAP, 1, 0, 2],
        [COMPLETE, 0, 0, 0],
        [UNMAP, 1, 0, 0],
        [WORKER, 0, 0, 2],
    ]);
    handles.extend([
        [COMPLETE, 0, 0, 0],
        [UNMAP, 1, 0, 0],
        [COMPLETE, 0, 0, 0],
        [COMPLETE, 0, 0, 0],
        [HANDLE, 0, 0, 0],
    ]);
    seeds.push(("handles".to_owned(), run(1, 0, SECONDARY, &[handles, ending(1)].concat())));
    let failed =
        [[SEND, 0, 0, 2], [SEND, 0, 0, 2], [GET, 0, 0, 0], [COMPLETE, 0, 0, 3], [GET, 0, 0, 0], [HANDLE, 0, 0, 0]];
    let cleared = [[SEND, 0, 7, 2], [GET, 0, 0, 0], [COMPLETE, 0, 0, 0], [HANDLE, 0, 0, 0]];
    seeds.push(("device-error".to_owned(), run(1, 0, NOBODY, &[&failed[..], &cleared, &ending(1)].concat())));
    let aborted = [transfer(0, 0), vec![[SEND, 0, 0, 2], [GET, 0, 0, 0], [ABORT, 0, 0, 0], [HANDLE, 0, 0, 0]]].concat();
    seeds.push(("aborted".to_owned(), run(1, 0, SECONDARY, &aborted)));
    let dropped = vec![[SEND, 0, 0, 2], [GET, 0, 0, 0], [DROP_COMMAND, 0, 0, 0], [HANDLE, 0, 0, 0]];
    seeds.push(("dropped".to_owned(), run(2, 1, NOBODY, &dropped)));
    let grown = [vec![[REQUEST, 0, 2, 0], [JOIN, 0, 0, 0]], transfer(0, 0), ending(1)].concat();
    seeds.push(("grown".to_owned(), run(1, 0, NOBODY, &grown)));
    // Each of the intruder's acts in the middle of the work.
    for act in 1..19 {
        let before = [transfer(0, 0), vec![[SEND, 0, 0, 2], [SEND, 1, 3, 2], [GET, 0, 0, 0]]].concat();
        let after = [vec![[GET, 0, 0, 0], [MAP, 1, 0, 0], [COMPLETE, 0, 0, 0], [HANDLE, 0, 0, 0]], ending(2)].concat();
        let tampered = vec![[INTRUDER + act, act * 7, act * 5 + 1, act * 3], [INTRUDER + act, act, act * 2, act]];
        seeds.push((format!("intruder-{act:02}"), run(2, 0, BOTH, &[before, tampered, after].concat())));
    }
    seeds
}
