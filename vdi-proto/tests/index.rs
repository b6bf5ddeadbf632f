//! Indices are bounded; generations wrap.

use vdi_proto::index::{
    ClassIndex, DeviceIndex, Generation, MAX_CLASSES, MAX_DEVICES, MAX_MEMBERS, MAX_SLOTS, MemberIndex, SlotIndex,
};

#[test]
fn limits_are_the_documented_ones() {
    assert_eq!((MAX_DEVICES, MAX_SLOTS, MAX_CLASSES, MAX_MEMBERS), (64, 4096, 64, 128));
    assert_eq!((MemberIndex::SERVER.get(), MemberIndex::PRIMARY.get()), (0, 1));
}

macro_rules! bounded {
    ($name:ident, $limit:expr) => {
        assert_eq!($name::new(0).map(|index| (index.get(), index.as_usize())), Some((0, 0)));
        let last = $name::new($limit - 1).expect("below the limit");
        assert_eq!((last.get(), last.as_usize()), ($limit - 1, $limit as usize - 1));
        assert_eq!(last.to_string(), ($limit - 1).to_string());
        assert_eq!(($name::new($limit), $name::new(u32::MAX)), (None, None));
        for count in [0, 1, $limit, $limit + 1, u32::MAX] {
            let all: Vec<u32> = $name::all(count).map($name::get).collect();
            assert_eq!(all, (0..count.min($limit)).collect::<Vec<_>>());
        }
    };
}

#[test]
fn indices_are_bounded() {
    bounded!(DeviceIndex, 64);
    bounded!(SlotIndex, 4096);
    bounded!(ClassIndex, 64);
    bounded!(MemberIndex, 128);
}

#[test]
fn generations_wrap_after_20_bits() {
    assert_eq!(Generation::BITS, 20);
    assert_eq!(Generation::default().get(), 0);
    for (bits, kept) in [(0, 0), (1, 1), (0xf_ffff, 0xf_ffff), (0x10_0000, 0), (u32::MAX, 0xf_ffff)] {
        assert_eq!(Generation::from_bits(bits).get(), kept);
    }
    assert_eq!(Generation::from_bits(7).next(), Generation::from_bits(8));
    assert_eq!(Generation::from_bits(0xf_ffff).next(), Generation::from_bits(0));
    assert_eq!(Generation::from_bits(41).to_string(), "41");
}
