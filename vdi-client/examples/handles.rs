//! Buffer handles between processes: `handles SET WORKERS`, then back a database up to SET.
//!
//! The primary gets the commands and sends only handles and sizes to worker processes. Each worker has joined the set, maps
//! the handle, works on the very bytes that the server wrote (here it sums them), and answers. Nothing is copied.
use std::io::{BufRead, BufReader, Write, stderr, stdin, stdout};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::{env, fmt::Display, time::Duration};

use vdi_client::{BackEnd, BufferHandle, ClientVirtualDeviceSet, CommandCode, Completion, ErrorReport, VdConfig};

/// Prints to standard error. A standard error that is closed is no failure.
fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// How long the server may be silent.
const TIMEOUT: Duration = Duration::from_secs(600);

fn main() -> Result<(), ErrorReport> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [role, set] if role == "worker" => worker(set),
        [set, workers] => primary(set, workers.parse()?),
        _ => Err("usage: handles SET WORKERS".into()),
    }
}

/// Gets the commands, hands the buffers out by their handles, and completes.
fn primary(name: &str, workers: usize) -> Result<(), ErrorReport> {
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    set.create(name, &VdConfig::default())?;
    say(format_args!("ready for BACKUP DATABASE ... TO VIRTUAL_DEVICE='{name}'"));
    set.get_configuration(TIMEOUT)?;
    // From here on others may join.
    let mut workers = (0..workers.max(1)).map(|_| start_worker(name)).collect::<Result<Vec<_>, _>>()?;
    let mut device = set.open_device(name)?;
    let (mut handles, mut total) = (0, 0u64);
    loop {
        let command = match device.get_command(TIMEOUT) {
            Ok(command) => command,
            Err(end) if end.is_close() => break,
            Err(error) => return Err(error.into()),
        };
        let completion = match (command.code(), command.buffer_address()) {
            (CommandCode::WRITE, Some(address)) => {
                let handle = set.get_buffer_handle(address)?;
                let turn = handles % workers.len();
                let (requests, answers) = &mut workers[turn];
                writeln!(requests, "{} {}", handle.number(), command.size())?;
                let mut answer = String::new();
                if answers.read_line(&mut answer)? == 0 {
                    return Err("a worker ended early; its own message says why".into());
                }
                total = total.wrapping_add(answer.trim().parse::<u64>()?);
                handles += 1;
                Completion::transferred(command.data().len())
            }
            _ => Completion::done(),
        };
        command.complete(completion)?;
    }
    set.close()?;
    say(format_args!("{handles} buffers summed by workers: {total}"));
    Ok(())
}

fn start_worker(set: &str) -> Result<(ChildStdin, BufReader<ChildStdout>), ErrorReport> {
    let mut worker = Command::new(env::current_exe()?);
    let mut worker = worker.args(["worker", set]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let requests = worker.stdin.take().ok_or("no pipe to the worker")?;
    Ok((requests, BufReader::new(worker.stdout.take().ok_or("no pipe from the worker")?)))
}

/// Maps what it is told, sums it, and answers. Ends with its input.
fn worker(name: &str) -> Result<(), ErrorReport> {
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    set.open_in_secondary(name)?;
    for line in stdin().lines() {
        let line = line?;
        let (handle, size) = line.split_once(' ').ok_or("a handle and a size are expected")?;
        let buffer = set.map_buffer_handle_sized(BufferHandle::from_number(handle.parse()?), size.parse()?)?;
        let sum: u64 = buffer.data().iter().map(|byte| u64::from(*byte)).sum();
        // The lease has to end before the primary completes the command.
        drop(buffer);
        writeln!(stdout(), "{sum}")?;
    }
    Ok(set.close()?)
}
