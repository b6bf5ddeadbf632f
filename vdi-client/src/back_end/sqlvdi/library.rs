//! The library and its objects, as values that can be used without `unsafe`.
//!
//! # Invariants
//!
//! 1. A library stays loaded until the process ends: nothing here can outlive its code, and no destructor of it runs under
//!    the feet of threads that it started.
//! 2. A set object is constructed before its first call and destroyed after its last. `gate` orders calls: Close waits until
//!    no other call is inside, and from then on none begins. So no pointer to a device, to a command or to a buffer is
//!    passed to the library, or followed, after the Close that ended it.
//! 3. A device is in one call at a time (`turn`). The set may be in several.
//! 4. An exception that the library lets out ends the process, with a message that names the call: it never passes through
//!    frames of this crate.
//!
//! # Trust
//!
//! Nothing can check these: a library which has the interface's symbols has its functions, with the layouts that were published
//! for x86_64. Each device that it gives is a new one. A command's block and its buffer are where it says, and stay there until
//! the command is completed, or the set closed. A buffer is none of the memory that Rust code of this process owns.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::mem::ManuallyDrop;
use core::ptr::{NonNull, null_mut};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use libloading::os::unix;
use vdi_proto::config::VdConfig;

use super::loading::{self, LoadError};

/// `RTLD_DEEPBIND` of glibc: the library's own calls go to itself, also where the process has another library with these
/// names in its global scope.
const RTLD_DEEPBIND: c_int = 8;

type This = *mut c_void;

/// Declares the functions that are used: `this` is first, then the arguments of the mangled name.
macro_rules! functions {
    ($($name:ident($($argument:ty),*) -> $answer:ty = $symbol:literal;)*) => {
        #[derive(Debug)]
        struct Functions {
            $($name: unsafe extern "C-unwind" fn(This $(, $argument)*) -> $answer,)*
        }

        impl Functions {
            fn find(library: &unix::Library, path: &Path) -> Result<Functions, LoadError> {
                Ok(Functions { $($name: function(library, path, $symbol)?,)* })
            }
        }
    };
}

functions! {
    construct() -> () = "_ZN22ClientVirtualDeviceSetC1Ev";
    destroy() -> () = "_ZN22ClientVirtualDeviceSetD1Ev";
    create(*mut c_char, *mut ConfigBlock) -> c_int = "_ZN22ClientVirtualDeviceSet6CreateEPcP8VDConfig";
    get_configuration(c_long, *mut ConfigBlock) -> c_int
        = "_ZN22ClientVirtualDeviceSet16GetConfigurationElP8VDConfig";
    open_device(*mut c_char, *mut This) -> c_int
        = "_ZN22ClientVirtualDeviceSet10OpenDeviceEPcPP19ClientVirtualDevice";
    close() -> c_int = "_ZN22ClientVirtualDeviceSet5CloseEv";
    signal_abort() -> c_int = "_ZN22ClientVirtualDeviceSet11SignalAbortEv";
    open_in_secondary(*mut c_char) -> c_int = "_ZN22ClientVirtualDeviceSet15OpenInSecondaryEPc";
    get_buffer_handle(*mut u8, *mut c_uint) -> c_int = "_ZN22ClientVirtualDeviceSet15GetBufferHandleEPhPj";
    map_buffer_handle(c_int, *mut *mut u8) -> c_int = "_ZN22ClientVirtualDeviceSet15MapBufferHandleEiPPh";
    get_command(c_long, *mut *mut Block) -> c_int = "_ZN19ClientVirtualDevice10GetCommandElPP11VDC_Command";
    complete_command(*mut Block, c_int, c_ulong, c_long) -> c_int
        = "_ZN19ClientVirtualDevice15CompleteCommandEP11VDC_Commandiml";
}

/// VDConfig, with room behind it for a library that knows more fields.
#[repr(C, align(16))]
struct ConfigBlock {
    words: [u32; 11],
    spare: [u32; 53],
}

impl ConfigBlock {
    fn new(config: &VdConfig) -> Self {
        ConfigBlock { words: config.to_words(), spare: [0; 53] }
    }
}

/// VDC_Command.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) code: i32,
    pub(super) size: i32,
    pub(super) position: i64,
    pub(super) buffer: *mut u8,
}

const _: () = assert!(size_of::<Block>() == 24 && core::mem::offset_of!(Block, buffer) == 16);

/// A loaded library.
#[derive(Debug)]
pub(super) struct Library {
    path: PathBuf,
    functions: Functions,
}

impl Library {
    /// Loads a library, for as long as the process lives.
    pub(super) fn load(path: &Path) -> Result<Arc<Library>, LoadError> {
        let path = loading::find(path)?;
        let flags = unix::RTLD_NOW | unix::RTLD_LOCAL | RTLD_DEEPBIND;
        // SAFETY: loading runs the library's initialisers. The caller asks for that by naming the library; nothing can check
        // what they do.
        let library = unsafe { unix::Library::open(Some(&path), flags) };
        // Never to be unloaded (invariant 1), also where it turns out to lack something: its initialisers have run.
        let library = ManuallyDrop::new(library.map_err(|error| loading::refused(&path, &error))?);
        let functions = Functions::find(&library, &path)?;
        Ok(Arc::new(Library { path, functions }))
    }

    /// Where it was loaded from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A function by its symbol. `T` is one of the types of [`Functions`].
fn function<T: Copy>(library: &unix::Library, path: &Path, symbol: &'static str) -> Result<T, LoadError> {
    let lacking = || LoadError::Symbol { path: path.to_owned(), symbol };
    // SAFETY: any symbol's value is an address, which is not followed here.
    let address = unsafe { library.get::<*mut c_void>(symbol) }.map_err(|_| lacking())?;
    // A symbol may be there and have no address; that would be no function pointer.
    if address.is_null() {
        return Err(lacking());
    }
    // SAFETY: the symbol's mangled name has the types of its arguments, and `T` was written from it; that a function of
    // this name is the interface's is taken on trust (module documentation). It is not null.
    let found = unsafe { library.get::<T>(symbol) };
    found.map(|found| *found).map_err(|_| lacking())
}

/// Makes a call whose exceptions end the process (invariant 4).
fn call<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    struct Thrown(&'static str);
    impl Drop for Thrown {
        #[cold]
        fn drop(&mut self) {
            eprintln!(
                "vdi-client: {} of SQL Server's library ended with a C++ exception, which cannot be handled; the process \
                 is aborted",
                self.0
            );
            std::process::abort();
        }
    }
    let thrown = Thrown(name);
    let answer = work();
    core::mem::forget(thrown);
    answer
}

/// The memory of a C++ object: its known size is 8, with room for a library whose objects are larger.
#[repr(C, align(16))]
struct Storage(UnsafeCell<[u8; 64]>);

/// Whether calls of a set object may begin.
#[derive(Debug, PartialEq, Eq)]
enum Gate {
    /// Neither created nor joined: there is nothing to close.
    New,
    Open,
    Closed,
}

/// A ClientVirtualDeviceSet of the library. Calls return `None` once it is closed.
#[derive(Debug)]
pub(super) struct SetObject {
    library: Arc<Library>,
    this: NonNull<Storage>,
    gate: RwLock<Gate>,
}

// SAFETY: the interface lets a set object be used from any thread; the storage is owned by this value alone.
unsafe impl Send for SetObject {}
// SAFETY: as above; what must not run side by side is ordered by `gate` and `turn`.
unsafe impl Sync for SetObject {}

/// A text as the library takes it: with a terminator, and not constant.
fn terminated(text: &str) -> Option<Vec<u8>> {
    CString::new(text).ok().map(CString::into_bytes_with_nul)
}

impl SetObject {
    pub(super) fn new(library: &Arc<Library>) -> SetObject {
        let storage = Box::new(Storage(UnsafeCell::new([0; 64])));
        let this = NonNull::from(Box::leak(storage));
        let construct = library.functions.construct;
        // SAFETY: the storage is zeroed, aligned, larger than the object, and owned here alone.
        call("the constructor", || unsafe { construct(this.as_ptr().cast()) });
        SetObject { library: Arc::clone(library), this, gate: RwLock::new(Gate::New) }
    }

    pub(super) fn library(&self) -> &Library {
        &self.library
    }

    /// Makes a call on the open set.
    fn inside<T>(&self, name: &'static str, work: impl FnOnce(&Functions, This) -> T) -> Option<T> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        (*gate == Gate::Open).then(|| call(name, || work(&self.library.functions, self.this.as_ptr().cast())))
    }

    /// Makes the call that gives the object its set.
    fn begin(&self, name: &'static str, work: impl FnOnce(&Functions, This) -> c_int) -> Option<i32> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if *gate != Gate::New {
            return None;
        }
        let answer = call(name, || work(&self.library.functions, self.this.as_ptr().cast()));
        if answer == 0 {
            *gate = Gate::Open;
        }
        Some(answer)
    }

    pub(super) fn create(&self, name: &str, config: &VdConfig) -> Option<i32> {
        let mut name = terminated(name)?;
        let mut config = ConfigBlock::new(config);
        self.begin("Create", |functions, this| {
            // SAFETY: the object is constructed; name and configuration live during the call and may be written to.
            unsafe { (functions.create)(this, name.as_mut_ptr().cast(), &raw mut config) }
        })
    }

    pub(super) fn open_in_secondary(&self, name: &str) -> Option<i32> {
        let mut name = terminated(name)?;
        self.begin("OpenInSecondary", |functions, this| {
            // SAFETY: as in `create`.
            unsafe { (functions.open_in_secondary)(this, name.as_mut_ptr().cast()) }
        })
    }

    pub(super) fn get_configuration(&self, timeout: i64) -> Option<(i32, VdConfig)> {
        let mut config = ConfigBlock::new(&VdConfig::from_words([0; 11]));
        self.inside("GetConfiguration", |functions, this| {
            // SAFETY: the object is constructed and not closed (`inside`); the configuration lives during the call.
            let answer = unsafe { (functions.get_configuration)(this, timeout, &raw mut config) };
            (answer, VdConfig::from_words(config.words))
        })
    }

    /// The device is `Ok(None)` where the library says that it opened one, and gives none.
    pub(super) fn open_device(self: &Arc<Self>, name: &str) -> Option<Result<Option<DeviceObject>, i32>> {
        let mut name = terminated(name)?;
        let mut device: This = null_mut();
        self.inside("OpenDevice", |functions, this| {
            // SAFETY: as in `get_configuration`.
            let answer = unsafe { (functions.open_device)(this, name.as_mut_ptr().cast(), &raw mut device) };
            if answer != 0 {
                return Err(answer);
            }
            let object = |this| DeviceObject { set: Arc::clone(self), this, turn: Mutex::default(), wanting: 0.into() };
            Ok(NonNull::new(device).map(object))
        })
    }

    pub(super) fn signal_abort(&self) -> Option<i32> {
        // SAFETY: the object is constructed and not closed (`inside`).
        self.inside("SignalAbort", |functions, this| unsafe { (functions.signal_abort)(this) })
    }

    pub(super) fn get_buffer_handle(&self, buffer: *mut u8) -> Option<(i32, u32)> {
        let mut handle: c_uint = 0;
        self.inside("GetBufferHandle", |functions, this| {
            // SAFETY: as in `get_configuration`; the caller has the buffer of an outstanding command there.
            let answer = unsafe { (functions.get_buffer_handle)(this, buffer, &raw mut handle) };
            (answer, handle)
        })
    }

    pub(super) fn map_buffer_handle(&self, handle: u32) -> Option<(i32, *mut u8)> {
        let mut buffer: *mut u8 = null_mut();
        self.inside("MapBufferHandle", |functions, this| {
            // SAFETY: as in `get_configuration`; the library checks the handle.
            let answer = unsafe { (functions.map_buffer_handle)(this, handle.cast_signed(), &raw mut buffer) };
            (answer, buffer)
        })
    }

    /// Ends the set, once no other call is inside. `None` where there is nothing to close.
    pub(super) fn close(&self) -> Option<i32> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let open = core::mem::replace(&mut *gate, Gate::Closed) == Gate::Open;
        let close = self.library.functions.close;
        // SAFETY: the object is constructed; `gate` is held alone, so no other call is inside and none follows.
        open.then(|| call("Close", || unsafe { close(self.this.as_ptr().cast()) }))
    }
}

impl Drop for SetObject {
    fn drop(&mut self) {
        let _ = self.close();
        let destroy = self.library.functions.destroy;
        // SAFETY: the object was constructed and is destroyed once; its devices hold on to this value, so none is left.
        call("the destructor", || unsafe { destroy(self.this.as_ptr().cast()) });
        // SAFETY: the storage came from a box in `new`, and the object in it is no more.
        drop(unsafe { Box::from_raw(self.this.as_ptr()) });
    }
}

/// A ClientVirtualDevice of the library, which made it and frees it when the set is closed.
#[derive(Debug)]
pub(super) struct DeviceObject {
    set: Arc<SetObject>,
    this: NonNull<c_void>,
    turn: Mutex<()>,
    /// Threads that want to complete a command.
    wanting: AtomicU32,
}

// SAFETY: the library's device is used by one thread at a time (`turn`), which the interface allows.
unsafe impl Send for DeviceObject {}
// SAFETY: as above.
unsafe impl Sync for DeviceObject {}

/// A command in the library's memory, from the device that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockAddress(NonNull<Block>);

// SAFETY: it is followed only by the device's calls, which order themselves.
unsafe impl Send for BlockAddress {}
// SAFETY: as above.
unsafe impl Sync for BlockAddress {}

impl DeviceObject {
    /// GetCommand. The command is `Ok(None)` where the library says that there is one, and gives none.
    pub(super) fn get_command(&self, timeout: i64) -> Option<Result<Option<(BlockAddress, Block)>, i32>> {
        // A thread that completes a command goes first: the server may wait for it before it sends more.
        while self.wanting.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut block: *mut Block = null_mut();
        self.set.inside("GetCommand", |functions, _| {
            // SAFETY: the library made the device, and the set is not closed (`inside`); `turn` is held.
            let answer = unsafe { (functions.get_command)(self.this.as_ptr(), timeout, &raw mut block) };
            if answer != 0 {
                return Err(answer);
            }
            // SAFETY: it is not null; the library is trusted that it is a command's block (module documentation), which stays
            // as it is until it is completed. Any bytes are a `Block`, wherever they lie.
            Ok(NonNull::new(block).map(|block| (BlockAddress(block), unsafe { block.read_unaligned() })))
        })
    }

    /// CompleteCommand of a command that this device gave and that was not completed yet.
    pub(super) fn complete_command(&self, block: BlockAddress, code: u32, bytes: u64, position: u64) -> Option<i32> {
        self.wanting.fetch_add(1, Ordering::Relaxed);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.wanting.fetch_sub(1, Ordering::Relaxed);
        self.set.inside("CompleteCommand", |functions, _| {
            let (block, code, position) = (block.0.as_ptr(), code.cast_signed(), position.cast_signed());
            // SAFETY: as in `get_command`; the block is the library's own, of an outstanding command.
            unsafe { (functions.complete_command)(self.this.as_ptr(), block, code, bytes, position) }
        })
    }
}

/// Bytes of a buffer in the library's memory. The caller of `new` guarantees that nothing else in this process has them, that
/// they can be written to, prefix zone included, and that the set is not closed before the value is dropped.
#[derive(Debug)]
pub(super) struct Bytes {
    start: NonNull<u8>,
    len: usize,
    prefix: usize,
}

// SAFETY: the bytes belong to the holder of this value, in whatever thread.
unsafe impl Send for Bytes {}
// SAFETY: `&Bytes` gives out `&[u8]` only.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// # Safety
    /// As the type's documentation says.
    pub(super) const unsafe fn new(start: NonNull<u8>, len: usize, prefix: usize) -> Bytes {
        Bytes { start, len, prefix }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn data(&self) -> &[u8] {
        // SAFETY: the bytes can be used, by nothing else in this process (`new`), and `&self` keeps `data_mut` away; the
        // server and other processes keep to the ownership of buffers, as with the own back end.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(super) fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `&mut self` makes this the only slice.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    pub(super) fn prefix_mut(&mut self) -> &mut [u8] {
        // SAFETY: the prefix zone lies right before the data and can be used as they can (`new`).
        let start = unsafe { self.start.sub(self.prefix) };
        // SAFETY: as in `data_mut`; the zone does not overlap the data.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), self.prefix) }
    }
}
