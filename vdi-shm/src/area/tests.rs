//! A server, the process that gets the commands, and a third one that maps handles: each with mappings of its own, all in
//! this process.

use core::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::layout::slot_offset;
use vdi_proto::seal::Seals;

use super::*;
use crate::allocator::{BufferPool, ServerBuffer};
use crate::segment::{Segment, Shared, SharedLayout};

const AREA_LEN: u64 = 64 * 1024;
const RULES: BufferRules = BufferRules { alignment: 512, prefix: 32 };
const PRIMARY: u32 = 1;
const SECONDARY: u32 = 2;

/// A slot as plain words: word, leases, place.
#[repr(C)]
struct RawSlot([AtomicU64; 8]);

// SAFETY: `repr(C)` and made of atomics.
unsafe impl SharedLayout for RawSlot {}

fn seals() -> Seals {
    Seals::new(7)
}

struct House {
    control: Arc<Control>,
    segment: Segment,
    area: Segment,
    server: Arc<BufferPool>,
    primary: Arc<ClientBuffers>,
    secondary: Arc<ClientBuffers>,
}

impl House {
    fn new() -> House {
        let (control, segment) = Control::create(1, seals()).expect("memory");
        let area = Segment::create("vdi-test-area", AREA_LEN, false).expect("memory");
        let areas = || {
            let areas = Arc::new(Areas::default());
            assert!(areas.add(0, Arc::new(area.map().expect("a mapping"))));
            areas
        };
        let attach = || Arc::new(Control::attach(&segment, seals()).expect("a control segment"));
        let client = |member| ClientBuffers::new(attach(), areas(), RULES, HandleCodec::new(7, 6), member);
        let server_areas = areas();
        let server = BufferPool::new(attach(), Arc::clone(&server_areas), RULES, 6);
        server.add_area(server_areas.get(0).expect("the area"));
        let (primary, secondary) = (client(PRIMARY), client(SECONDARY));
        House { control: Arc::new(control), segment, area, server, primary, secondary }
    }

    fn lent(&self, len: u32) -> (ServerBuffer, Loan) {
        let mut buffer = self.server.allocate(len, 0).expect("room");
        let loan = buffer.lend();
        (buffer, loan)
    }

    fn raw(&self, slot: u32) -> Shared<RawSlot> {
        Arc::new(self.segment.map().expect("a mapping")).place(slot_offset(1, slot)).expect("a slot")
    }

    /// What a hostile server does: lends whatever place it likes.
    fn lend_place(&self, slot: u32, area: u32, offset: u64, len: u32) -> Loan {
        self.control.set_place(slot, RawPlace { area, len, offset });
        self.control.slot(slot).expect("a slot").lend(1);
        Loan { slot, generation: 1 }
    }
}

#[test]
fn a_buffer_goes_round() {
    let house = House::new();
    let (mut buffer, loan) = house.lent(4096);
    buffer.data_mut().fill(1);
    let mut command = house.primary.take(loan, 4096).expect("a loan");
    assert_eq!(command.data(), [1; 4096]);
    assert_ne!(command.address(), buffer.address(), "two processes, two addresses");
    command.prefix_mut().fill(9);
    let handle = command.handle();
    assert_eq!(house.primary.get_handle(View::Open, command.address().as_ptr()), Ok(handle));

    let mut mapped = house.secondary.map(View::Open, handle).expect("a good handle");
    assert_eq!(mapped.handle(), handle);
    assert_eq!(mapped.data(), [1; 4096]);
    assert_eq!(mapped.prefix_mut(), [9; 32]);
    mapped.data_mut().fill(2);

    // While it is mapped the command cannot be completed, and nothing is lost by trying.
    let (error, command) = command.give_back().expect_err("a lease");
    assert_eq!(error, TakeBackError::Leased { leases: 1 << SECONDARY });
    assert_eq!(house.primary.get_handle(View::Open, command.address().as_ptr()), Ok(handle));
    drop(mapped);
    let address = command.address();
    assert!(command.give_back().is_ok());
    assert_eq!(buffer.data(), [2; 4096]);

    // The handle died with the command, and so did the address.
    let stale = |result: Result<MappedBuffer, BufferError>| {
        assert_eq!(result.expect_err("a dead handle"), BufferError::InvalidHandle { handle });
    };
    stale(house.secondary.map(View::Open, handle));
    let not_a_buffer = BufferError::NotABuffer { address: address.as_ptr() as usize };
    assert_eq!(house.primary.get_handle(View::Open, address.as_ptr()), Err(not_a_buffer));
    // Also when the same bytes are lent again.
    let loan = buffer.lend();
    let command = house.primary.take(loan, 4096).expect("a loan");
    assert_eq!(command.address(), address);
    assert_ne!(command.handle(), handle);
    stale(house.secondary.map(View::Open, handle));
    assert!(house.secondary.map(View::Open, command.handle()).is_ok());
    assert!(command.give_back().is_ok());
}

#[test]
fn addresses_are_exact_and_states_are_looked_at() {
    let house = House::new();
    let (_buffer, loan) = house.lent(4096);
    let command = house.primary.take(loan, 4096).expect("a loan");
    let start = command.address().as_ptr();
    for wrong in [start.wrapping_add(1), start.wrapping_add(512), start.wrapping_sub(32), core::ptr::null_mut()] {
        let expected = BufferError::NotABuffer { address: wrong as usize };
        assert_eq!(house.primary.get_handle(View::Open, wrong), Err(expected));
        assert_eq!(expected.code(), VdError::Invalid);
    }
    for view in [View::Closed, View::Aborted] {
        assert_eq!(house.primary.get_handle(view, start), Err(BufferError::NotOpen));
        assert_eq!(house.secondary.map(view, command.handle()).expect_err("not open"), BufferError::NotOpen);
        assert_eq!(house.secondary.map_address(view, command.handle()), Err(BufferError::NotOpen));
    }
    assert_eq!(BufferError::NotOpen.code(), VdError::Protocol);
    // What a process has by a handle is not its own to name.
    let mapped = house.secondary.map(View::Open, command.handle()).expect("a good handle");
    assert!(house.secondary.get_handle(View::Open, mapped.address().as_ptr()).is_err());
    assert_eq!(house.secondary.map_address(View::Open, command.handle()), Ok(mapped.address()));
}

/// The slot of a buffer that went back may stand for another place: the old place's address must not name it.
#[test]
fn an_address_does_not_outlive_its_buffer() {
    let house = House::new();
    let (first, loan) = house.lent(4096);
    let command = house.primary.take(loan, 4096).expect("a loan");
    let old = command.address();
    assert!(command.give_back().is_ok());
    // Keep the first place occupied, so that its slot alone is reused.
    let slot = loan.slot;
    let Place { .. } =
        RawPlace { area: 0, len: 1024, offset: 32 * 1024 }.check(Some(AREA_LEN), &RULES).expect("a place");
    house.control.set_place(slot, RawPlace { area: 0, len: 1024, offset: 32 * 1024 });
    house.control.slot(slot).expect("a slot").lend(loan.generation + 1);
    let other = house.primary.take(Loan { slot, generation: loan.generation + 1 }, 1024).expect("a loan");
    assert_ne!(other.address(), old);
    assert!(house.primary.get_handle(View::Open, old.as_ptr()).is_err(), "an address of a buffer that went back");
    assert_eq!(house.primary.get_handle(View::Open, other.address().as_ptr()), Ok(other.handle()));
    drop(first);
}

#[test]
fn nobody_gets_a_buffer_twice() {
    let house = House::new();
    let (_buffer, loan) = house.lent(4096);
    let command = house.primary.take(loan, 4096).expect("a loan");
    let handle = command.handle();
    let twice = house.primary.take(loan, 4096).expect_err("held already");
    assert_eq!((twice, twice.code()), (BufferError::LentTwice { slot: loan.slot }, VdError::Abort));
    // What leases of other buffers keep would not keep these: nothing is leased.
    let others = Arc::new(Keep::new(None));
    let refused =
        house.secondary.map_kept(&others, View::Open, handle, |error| error).expect_err("a keep of no buffers");
    assert_eq!((refused, Arc::strong_count(&others)), (BufferError::NotOpen, 1));
    let own = house.primary.map(View::Open, handle).expect_err("the holder itself");
    assert_eq!((own, own.code()), (BufferError::AlreadyHere { handle }, VdError::Busy));
    let mapped = house.secondary.map(View::Open, handle).expect("a good handle");
    let again = house.secondary.map(View::Open, handle).expect_err("mapped already");
    assert_eq!(again, BufferError::AlreadyHere { handle });
    // The refusals took nothing from those who have it.
    assert!(matches!(command.give_back(), Err((TakeBackError::Leased { .. }, _))));
    drop(mapped);
    drop(house.secondary.map(View::Open, handle).expect("free again"));
}

/// Slots with overlapping places would give two owners to the same bytes.
#[test]
fn bytes_have_one_owner_whatever_the_slots_say() {
    let house = House::new();
    let first = house.lend_place(0, 0, 8192, 1024);
    let held = house.primary.take(first, 1024).expect("a loan");
    // The same place, its middle, its first byte with what is before it, its last, all around; and its prefix zone.
    for (offset, len) in [(8192, 1024), (8704, 512), (4096, 4097), (9216 - 512, 4096), (512, 32768), (7680, 481)] {
        let loan = house.lend_place(1, 0, offset, len);
        let error = house.primary.take(loan, len).expect_err("bytes that are held");
        assert_eq!((error, error.code()), (BufferError::Overlap { slot: 1, held: 0 }, VdError::Abort));
        let other = house.secondary.take(loan, len).expect("another process has nothing of it");
        drop(other);
    }
    // By a handle as by a loan, and without a lease left behind.
    let loan = house.lend_place(1, 0, 8192, 64);
    let handle = HandleCodec::new(7, 6).encode(loan);
    let error = house.primary.map(View::Open, handle).expect_err("bytes that are held");
    assert_eq!(error, BufferError::Overlap { slot: 1, held: 0 });
    assert!(house.control.slot(1).is_some_and(|slot| !slot.is_leased_by(PRIMARY)));
    // Neighbours are no overlap: one that ends where the prefix zone begins, one whose prefix zone begins at the end.
    let before = house.primary.take(house.lend_place(2, 0, 7680, 480), 480).expect("a neighbour");
    let after = house.primary.take(house.lend_place(3, 0, 9728, 512), 512).expect("a neighbour");
    drop((before, held, after));
    assert!(house.primary.take(house.lend_place(4, 0, 512, 32768), 512).is_ok(), "all are back");
}

#[test]
fn places_are_judged() {
    let house = House::new();
    for (offset, len) in [(0, 512), (512, 0), (513, 1), (AREA_LEN, 1), (AREA_LEN - 512, 513), (u64::MAX - 511, 512)] {
        let loan = house.lend_place(0, 0, offset, len);
        let error = house.primary.take(loan, 0).expect_err("no place");
        assert!(matches!(error, BufferError::Place(_)), "{offset} {len}: {error}");
        let mapped = house.secondary.map(View::Open, HandleCodec::new(7, 6).encode(loan));
        assert!(matches!(mapped, Err(BufferError::Place(_))), "{offset} {len}");
        let leased = house.control.slot(0).is_some_and(|slot| slot.is_leased_by(SECONDARY));
        assert!(!leased, "a refused mapping left its lease");
    }
    let loan = house.lend_place(0, 0, 512, 100);
    let short = house.primary.take(loan, 101).expect_err("too short");
    assert_eq!(short, BufferError::TooShort { size: 101, len: 100 });
    let arealess = house.lend_place(1, MAX_AREAS, 512, 100);
    assert!(matches!(house.primary.take(arealess, 100), Err(BufferError::Place(_))));
    // Slots beyond the set's table, and beyond any.
    for slot in [64, 4095, 4096, u32::MAX] {
        assert!(house.primary.take(Loan { slot, generation: 1 }, 0).is_err(), "slot {slot}");
    }
}

/// An area that is not there yet is waited for, since its announcement may be on the way; an abort ends that wait.
#[test]
fn an_announcement_is_waited_for() {
    let house = House::new();
    let loan = house.lend_place(0, 1, 512, 100);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| house.primary.take(loan, 100).map(drop));
        let mapping = Arc::new(house.area.map().expect("a mapping"));
        assert!(house.primary.book.areas().add(1, mapping));
        wait::ring(house.control.set_doorbell());
        assert_eq!(waiting.join().expect("no panic"), Ok(()));
    });
    let loan = house.lend_place(0, 2, 512, 100);
    house.control.abort(AbortReason { party: Party::Server, cause: Cause::Died });
    let begun = std::time::Instant::now();
    assert!(matches!(house.primary.take(loan, 100), Err(BufferError::Place(_))));
    assert!(begun.elapsed() < AREA_PATIENCE, "an aborted set was waited for");
}

/// A slot's buffer may move, and another one take its place, while a handle of the first is being mapped.
#[test]
fn where_a_buffer_was_is_free_for_others() {
    let house = House::new();
    let secondary = &house.secondary;
    drop(secondary.take(house.lend_place(5, 0, 8192, 1024), 1024).expect("a loan"));
    // Slot 5 is in an area now that is still being announced, and slot 6 where slot 5 was.
    let moved = HandleCodec::new(7, 6).encode(house.lend_place(5, 1, 8192, 1024));
    std::thread::scope(|scope| {
        let mapping = scope.spawn(|| secondary.map(View::Open, moved).map(drop));
        while !house.control.slot(5).is_some_and(|slot| slot.is_leased_by(SECONDARY)) {
            std::thread::yield_now();
        }
        let other = secondary.take(house.lend_place(6, 0, 8192, 1024), 1024);
        assert!(secondary.book.areas().add(1, Arc::new(house.area.map().expect("a mapping"))));
        wait::ring(house.control.set_doorbell());
        assert_eq!(other.map(drop), Ok(()), "nobody is there any more");
        assert_eq!(mapping.join().expect("no panic"), Ok(()));
    });
}

/// Two slots whose buffers changed places while both were home, had by two threads of a process at a time. One found the other's
/// lease at the place that it had before, and accused the server of having lent the same bytes twice.
#[test]
fn buffers_that_changed_places_do_not_overlap() {
    let house = House::new();
    let codec = HandleCodec::new(7, 6);
    for takes in [false, true] {
        let rounds = if takes { 10_001..=20_000 } else { 1..=10_000 };
        let barrier = std::sync::Barrier::new(3);
        let failed = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for slot in 0..2 {
                let (house, rounds, barrier, failed) = (&house, rounds.clone(), &barrier, &failed);
                scope.spawn(move || {
                    for generation in rounds {
                        barrier.wait();
                        let loan = Loan { slot, generation };
                        let had = match takes && slot == 0 {
                            true => house.secondary.take(loan, 16).map(drop),
                            false => house.secondary.map(View::Open, codec.encode(loan)).map(drop),
                        };
                        if let Err(error) = had {
                            failed.lock().expect("no thread panics").push((loan, error));
                        }
                        barrier.wait();
                    }
                });
            }
            for generation in rounds {
                for slot in 0..2 {
                    let offset = if (slot + generation) % 2 == 0 { 512 } else { 8192 };
                    house.control.set_place(slot, RawPlace { area: 0, len: 4096, offset });
                    house.control.slot(slot).expect("a slot").lend(generation);
                }
                barrier.wait();
                barrier.wait();
                for slot in 0..2 {
                    house.control.slot(slot).expect("a slot").take_back(generation).expect("nobody has it");
                }
            }
        });
        assert_eq!(failed.into_inner().expect("no thread panics"), [], "taken: {takes}");
    }
}

#[test]
fn a_slot_that_is_being_returned_is_not_lent() {
    let house = House::new();
    let (_buffer, loan) = house.lent(512);
    let command = house.primary.take(loan, 512).expect("a loan");
    let raw = house.raw(loan.slot);
    let lent = raw.0[0].swap(u64::from(loan.generation) << 32 | 2, Ordering::Relaxed);
    assert!(house.secondary.map(View::Open, command.handle()).is_err());
    let slot = house.control.slot(loan.slot).expect("a slot");
    assert!(slot.lease(loan, SECONDARY).is_err(), "it was being returned all the time");
    assert!(!slot.is_leased_by(SECONDARY));
    // Tampered with under its holder: the return says what it found.
    let (error, command) = command.give_back().expect_err("not lent");
    let word = u64::from(loan.generation) << 32 | 2;
    assert_eq!(error, TakeBackError::NotLent { generation: loan.generation, word });
    raw.0[0].store(lent, Ordering::Relaxed);
    assert!(command.give_back().is_ok());
    // A word that nobody writes, for any handle.
    raw.0[0].store(u64::MAX, Ordering::Relaxed);
    assert_eq!(slot.look(), None);
}

#[test]
fn areas_have_one_user() {
    let house = House::new();
    let areas = Arc::clone(&house.primary.book.0);
    let control = Arc::clone(&house.control);
    let second = move || ClientBuffers::new(control, areas, RULES, HandleCodec::new(7, 6), PRIMARY);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(second)).is_err());
}

/// Whoever maps, and whoever gets the buffer with the next command of its own, may be threads of one process: neither may
/// find the other's trace.
#[test]
fn a_lease_ends_at_once_for_its_own_process() {
    let house = House::new();
    let mut buffer = house.server.allocate(512, 0).expect("room");
    for _ in 0..500 {
        let loan = buffer.lend();
        let command = house.primary.take(loan, 512).expect("a loan");
        let mapped = house.secondary.map(View::Open, command.handle()).expect("a good handle");
        std::thread::scope(|scope| {
            scope.spawn(move || drop(mapped));
            let mut command = command;
            while let Err((error, again)) = command.give_back() {
                assert!(matches!(error, TakeBackError::Leased { .. }));
                command = again;
            }
            // The server lends it to a device of the process that had it mapped.
            let loan = buffer.lend();
            let command = house.secondary.take(loan, 512).expect("nobody has it");
            assert!(command.give_back().is_ok());
        });
    }
}

proptest! {
    /// A number that is no handle of a buffer that is lent maps nothing, and leaves no lease.
    #[test]
    fn forged_handles(numbers in prop::collection::vec(any::<u32>(), 1..50), secret in any::<u64>()) {
        let house = House::new();
        let (_buffer, loan) = house.lent(512);
        let command = house.primary.take(loan, 512).expect("a loan");
        let foreign = HandleCodec::new(secret, 6).encode(loan);
        for handle in numbers.into_iter().map(BufferHandle::from_number).chain([foreign]) {
            if handle != command.handle() {
                let error = house.secondary.map(View::Open, handle).expect_err("a forged handle");
                prop_assert_eq!(error, BufferError::InvalidHandle { handle });
            }
        }
        prop_assert!(command.give_back().is_ok());
    }
}
