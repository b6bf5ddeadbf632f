//! Derives the words of a key from a secret.

/// Word number `step` derived from `state`: one step of splitmix64.
pub(crate) const fn spread(state: u64, step: u64) -> u64 {
    let mut z = state.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
