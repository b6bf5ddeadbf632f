//! The seeds of the call sequences are written without the `arbitrary` crate; here its own decoders read them.

#[path = "../../vdi-proto/tests/laws/mod.rs"]
mod laws;
#[path = "../steps.rs"]
mod steps;

use laws::calls::{ClientStep, ServerStep};
use laws::seeds;

#[test]
fn the_derived_decoders_read_the_seeds() {
    let mut read = 0;
    for (name, seed) in seeds::client_calls() {
        assert_eq!(steps::decoded::<ClientStep>(&seeds::encoded(&seed)), seed, "{name}");
        read += seed.len();
    }
    for (name, seed) in seeds::server_calls() {
        assert_eq!(steps::decoded::<ServerStep>(&seeds::encoded(&seed)), seed, "{name}");
        read += seed.len();
    }
    assert!(read > 100, "{read} steps");
}
