//! The worker's half: requests are carried out on the media of the stripes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::time::Duration;

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::handle::BufferHandle;
use vdi_proto::status::VdError;

use super::ended::wait_for_end_of_set;
use super::wire::{Answer, CLOSE, FINAL, FailureText, Request, read_record};
use crate::INFINITE;
use crate::completion::Outcome;
use crate::error::{Error, ErrorKind};
use crate::media::{Media, MediaError};
use crate::set::ClientVirtualDeviceSet;
use crate::work::{self, Performed};

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Served {
    /// Requests answered.
    pub requests: u64,
    /// Buffers mapped by their handles.
    pub handles_mapped: u64,
    /// Bytes moved between buffers and media.
    pub bytes: u64,
}

/// A worker's life: answers requests from `input` on `output` until `input` ends. `open` opens the medium of a stripe when
/// its first request comes.
///
/// `set` has joined the primary's set ([`ClientVirtualDeviceSet::open_in_secondary`]).
///
/// # Errors
/// VD_E_UNEXPECTED when a pipe fails; errors of GetConfiguration, which are also the reason where the set ended with the pipe.
/// Failures of the media are answered, not returned: [`WorkerPool::drive`](super::WorkerPool::drive) returns them.
pub fn serve(
    set: &ClientVirtualDeviceSet,
    mut input: impl Read,
    mut output: impl Write,
    open: impl FnMut(u32) -> Result<Box<dyn Media>, MediaError>,
) -> Result<Served, Error> {
    let pipe_failed = |error: io::Error| {
        // A pipe breaks when the primary dies. The set's reason is better then.
        wait_for_end_of_set(|| set.get_configuration(Duration::ZERO).err()).unwrap_or_else(|| {
            let what = format!("a pipe to the primary failed: {error}");
            let name = set.name().unwrap_or_default();
            Error::new(ErrorKind::System, VdError::Unexpected, "serve", &name, what).because(error)
        })
    };
    let config = set.get_configuration(INFINITE)?;
    let mut stripes = Stripes { set, config, open, stripes: HashMap::new(), served: Served::default() };
    while let Some(record) = read_record::<32>(&mut input).map_err(pipe_failed)? {
        let answer = stripes.answer(&Request::from_bytes(&record));
        output.write_all(&answer).and_then(|()| output.flush()).map_err(pipe_failed)?;
    }
    Ok(stripes.served)
}

/// A stripe's medium, or its first final failure.
type Stripe = Result<Box<dyn Media>, Failed>;

/// How every request for a stripe is answered after its first final failure.
struct Failed {
    code: CompletionCode,
    /// `None` where the set had ended: that is no failure of the medium.
    text: Option<FailureText>,
}

impl Failed {
    fn medium(error: MediaError) -> Failed {
        let error = work::never_success(error);
        let text = FailureText { what: error.cause(), remedy: error.remedy.into_owned() };
        Failed { code: error.code, text: Some(text) }
    }
}

struct Stripes<'a, F> {
    set: &'a ClientVirtualDeviceSet,
    config: VdConfig,
    open: F,
    stripes: HashMap<u32, Stripe>,
    served: Served,
}

impl<F: FnMut(u32) -> Result<Box<dyn Media>, MediaError>> Stripes<'_, F> {
    /// Carries a request out; the bytes of its answer.
    fn answer(&mut self, request: &Request) -> Vec<u8> {
        let Stripes { set, config, open, stripes, served } = self;
        let stripe = stripes.entry(request.stripe).or_insert_with(|| {
            let opened = open(request.stripe).and_then(|mut media| media.begin(config).map(|()| media));
            opened.map_err(Failed::medium)
        });
        served.requests += 1;
        let mut outcome = Outcome::failed(CompletionCode::SUCCESS);
        if let Ok(media) = stripe {
            match carry_out(set, request, media.as_mut(), served) {
                Ok((done, None)) => outcome = done,
                Ok((done, Some(error))) => {
                    outcome = done;
                    *stripe = Err(Failed::medium(error));
                }
                Err(failed) => *stripe = Err(failed),
            }
        }
        let Outcome { mut code, bytes, mut position } = outcome;
        let mut text = None;
        if let Err(failed) = stripe {
            (code, text) = (failed.code, failed.text.as_ref());
            position = if text.is_some() { FINAL } else { 0 };
        }
        let answer = Answer { tag: request.tag, code: code.number(), bytes, position };
        let mut answer = answer.to_bytes().to_vec();
        answer.extend(text.into_iter().flat_map(FailureText::to_bytes));
        answer
    }
}

/// Carries one request out. The lease on the buffer ends with this function, before the answer goes out.
fn carry_out(
    set: &ClientVirtualDeviceSet,
    request: &Request,
    media: &mut dyn Media,
    served: &mut Served,
) -> Result<Performed, Failed> {
    let Request { position, bytes, .. } = *request;
    let code = CommandCode::new(request.code);
    if request.code == CLOSE {
        return Ok(work::close(media));
    }
    if !code.is_transfer() {
        return Ok(work::perform(media, code, bytes as i32, position, &mut []));
    }
    let handle = BufferHandle::from_number(request.handle);
    let mut buffer = set.map_buffer_handle_sized(handle, bytes as usize).map_err(|error| {
        // Where the set has ended, that is the reason, and the primary knows it.
        let ended = set.get_configuration(Duration::ZERO).is_err();
        let what = format!("the worker cannot map the buffer: {error}");
        let failed = Failed::medium(MediaError::new(CompletionCode::IO_DEVICE, what));
        Failed { text: failed.text.filter(|_| !ended), ..failed }
    })?;
    served.handles_mapped += 1;
    let (outcome, failure) = work::perform(media, code, bytes as i32, position, buffer.data_mut());
    served.bytes += u64::from(outcome.bytes);
    Ok((outcome, failure))
}
