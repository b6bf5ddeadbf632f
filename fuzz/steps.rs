//! Sequences of derived steps.

use arbitrary::{Arbitrary, Unstructured};

/// The most steps of one run.
const MOST: usize = 2000;

/// Steps until the bytes run out: unlike a `Vec`'s own decoder, this spends no byte on going on.
pub(crate) fn decoded<'a, T: Arbitrary<'a>>(bytes: &'a [u8]) -> Vec<T> {
    let mut bytes = Unstructured::new(bytes);
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < MOST {
        match T::arbitrary(&mut bytes) {
            Ok(step) => steps.push(step),
            Err(_) => break,
        }
    }
    steps
}
