//! A program of nothing but `core` and `vdi-proto`. It negotiates a configuration, goes through the states of a set, sends
//! a command as words through both machines of a device, makes and maps a handle, lays out a class and decodes a join
//! message. The exit status is 0 for success, else the number of the failed step.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::hint::black_box;

use vdi_proto::command::{CommandCode, CommandRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::{ServerTerms, VdConfig};
use vdi_proto::device::{ClientDevice, Limits, Receipt, ServerDevice};
use vdi_proto::handle::{self, HandleCodec, SlotState};
use vdi_proto::index::{DeviceIndex, Generation, SlotIndex};
use vdi_proto::set::client::{self, Call, State};
use vdi_proto::status::VdError;
use vdi_proto::wire::checksum::{Checksums, Ring};
use vdi_proto::wire::class::ClassSpec;
use vdi_proto::wire::join::{JoinRole, Message};
use vdi_proto::wire::layout::{RawIdentity, control_len};
use vdi_proto::wire::record::{decode_command, encode_command};

/// The exit status of a panic.
const PANICKED: i32 = 101;

// The kernel enters with the stack aligned to 16 bytes; the call makes it what a function expects.
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "call {main}", "ud2", main = sym main);

extern "C" fn main() -> ! {
    exit(match run() {
        Ok(()) => 0,
        Err(step) => step,
    })
}

fn exit(status: i32) -> ! {
    // SAFETY: exit_group(2), number 231 on x86-64 Linux, takes a status, touches no memory and does not return.
    unsafe { asm!("syscall", in("rax") 231, in("edi") status, options(noreturn, nostack)) }
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(PANICKED)
}

/// Fails with the number of the step unless it holds.
fn hold(step: i32, holds: bool) -> Result<(), i32> {
    if holds { Ok(()) } else { Err(step) }
}

fn run() -> Result<(), i32> {
    // black_box: the compiler must not compute the results.
    let requested = black_box(VdConfig { device_count: 2, ..VdConfig::default() });
    let negotiated = black_box(ServerTerms::default()).negotiate(&requested).map_err(|_| 1)?;
    hold(2, negotiated.validate_answer(&requested).is_ok())?;

    let created = client::step(black_box(State::DoesNotExist), Call::Create);
    hold(3, created.next == State::Configurable && created.answer.is_ok())?;
    let refused = client::step(created.next, black_box(Call::CompleteCommand));
    hold(4, refused.answer == Err(VdError::Protocol))?;

    let mut server = ServerDevice::new();
    let mut device = ClientDevice::new(Limits::new(&negotiated));
    let id = server.send(CommandCode::WRITE, black_box(65536)).map_err(|_| 5)?;
    let slot = SlotIndex::new(black_box(3)).ok_or(17)?;
    let loan = Loan { slot, generation: Generation::from_bits(black_box(1)) };
    let record = CommandRecord { code: CommandCode::WRITE, id, size: 65536, position: 0, loan: Some(loan) };
    let secret = black_box(0x0123_4567_89ab_cdef);
    let ring = Checksums::new(secret).ring(DeviceIndex::new(0).ok_or(18)?, Ring::Submission);
    let words = black_box(encode_command(&ring, 0, &record));
    hold(19, decode_command(&ring, 1, words).is_err())?;
    let received = device.received(decode_command(&ring, 0, words).map_err(|_| 20)?);
    hold(6, received == Ok(Receipt::Deliver(record)))?;
    let completion = device.complete(id, CompletionCode::SUCCESS, 65536, 0).map_err(|_| 7)?;
    let finished = server.completed(completion).map_err(|_| 8)?;
    hold(9, finished.bytes == 65536 && server.outstanding() == 0)?;

    let codec = HandleCodec::new(secret);
    let handle = handle::get(State::Active.phase(), Some(codec.encode(loan))).map_err(|_| 10)?;
    let lent = Some(SlotState::Lent(loan.generation));
    hold(11, handle::map(State::Active.phase(), codec.decode(handle), lent) == Ok(()))?;
    hold(12, handle::map(State::Abort.phase(), codec.decode(handle), lent) == Err(VdError::Protocol))?;

    let geometry = black_box(RawIdentity::new(2)).check(control_len(2)).map_err(|_| 13)?;
    hold(14, geometry.device_count() == 2)?;
    let spec = black_box(ClassSpec { buffer_len: 65536, alignment: negotiated.alignment, count: 10 });
    let class = spec.lay_out(negotiated.prefix_zone_size, 0).map_err(|_| 15)?;
    hold(21, class.data_start(slot).is_some_and(|start| class.slot_at(start) == Some(slot)))?;

    let hello = Message::Hello { role: JoinRole::Server, instance: "", set: black_box("nightly") };
    let encoded = hello.encode();
    hold(16, Message::decode(encoded.bytes()) == Ok(hello))
}

/// The functions that the compiler needs of a C library.
mod memory {
    use core::ffi::{c_int, c_void};

    /// # Safety
    /// As C's: both are good for `len` bytes and do not overlap.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        // SAFETY: the caller's promise; `rep movsb` copies `len` bytes upwards and is never turned into a call.
        unsafe {
            core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        to
    }

    /// # Safety
    /// As C's: both are good for `len` bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        if (to as usize).wrapping_sub(from as usize) >= len {
            // SAFETY: the caller's promise; copying upwards reads each byte before it is written over.
            return unsafe { memcpy(to, from, len) };
        }
        // SAFETY: the caller's promise; copying downwards from the last byte, and the flag is put back as it must be.
        unsafe {
            core::arch::asm!("std", "rep movsb", "cld",
                inout("rcx") len => _,
                inout("rdi") to.cast::<u8>().wrapping_add(len).wrapping_sub(1) => _,
                inout("rsi") from.cast::<u8>().wrapping_add(len).wrapping_sub(1) => _,
                options(nostack));
        }
        to
    }

    /// # Safety
    /// As C's: `to` is good for `len` bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut c_void, value: c_int, len: usize) -> *mut c_void {
        // SAFETY: the caller's promise; `rep stosb` writes `len` bytes upwards.
        unsafe {
            core::arch::asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") value as u8,
                options(nostack, preserves_flags));
        }
        to
    }

    /// # Safety
    /// As C's: both are good for `len` bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const c_void, other: *const c_void, len: usize) -> c_int {
        for at in 0..len {
            // SAFETY: the caller's promise, and `at` is below `len`. Volatile: the loop must not become a call to itself.
            let (a, b) = unsafe { (read(one, at), read(other, at)) };
            if a != b {
                return c_int::from(a) - c_int::from(b);
            }
        }
        0
    }

    /// # Safety
    /// `from` is good for `at + 1` bytes.
    unsafe fn read(from: *const c_void, at: usize) -> u8 {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<u8>().wrapping_add(at).read_volatile() }
    }

    /// # Safety
    /// As for `memcmp`, whose result it is.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const c_void, other: *const c_void, len: usize) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { memcmp(one, other, len) }
    }
}
