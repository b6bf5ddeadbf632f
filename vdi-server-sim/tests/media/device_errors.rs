//! Errors of devices: what a client reports, and what `vdi-sim sql`, in a process of its own, makes of it.

use crate::common;

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement};
use common::databases::set_len;
use common::processes::Outcome;
use vdi_client::{
    ClientVirtualDevice, Command, CommandCode, Completion, CompletionCode, Error, Features, VdConfig, VdError,
};

/// Something that goes wrong with a command: its code, and how many of its bytes are transferred all the same.
type Wrong = Option<(CompletionCode, usize)>;

/// What a device was told, in short: `W65536`, `Flush`, `Load 2`.
fn short(command: &Command) -> String {
    match command.code() {
        CommandCode::WRITE => format!("W{}", command.size()),
        CommandCode::READ => format!("R{}", command.size()),
        CommandCode::LOAD => format!("Load {}", command.size()),
        code => code.to_string().trim_start_matches("VDC_").to_owned(),
    }
}

/// A device in memory: the bytes of each medium, and the story of what happened.
#[derive(Debug, Default, Clone)]
struct Memory {
    media: Vec<Vec<u8>>,
    medium: usize,
    at: usize,
    story: Vec<String>,
}

impl Memory {
    fn holding(media: Vec<Vec<u8>>) -> Memory {
        Memory { media, ..Memory::default() }
    }

    fn stored(&self) -> Vec<u8> {
        self.media.concat()
    }

    /// How often the story has this.
    fn count(&self, what: &str) -> usize {
        self.story.iter().filter(|line| *line == what).count()
    }

    /// Carries a command out, as far as `wrong` lets it.
    fn carry_out(&mut self, mut command: Command, wrong: Wrong) -> Result<(), Error> {
        self.story.push(short(&command));
        if self.media.is_empty() {
            self.media.push(Vec::new());
        }
        let size = command.data().len();
        let wanted = wrong.map_or(size, |(_, bytes)| bytes);
        let moved = match command.code() {
            CommandCode::WRITE => {
                let medium = &mut self.media[self.medium];
                medium.extend_from_slice(&command.data()[..wanted]);
                wanted
            }
            CommandCode::READ => {
                let rest = &self.media[self.medium][self.at..];
                let moved = wanted.min(rest.len());
                command.data_mut()[..moved].copy_from_slice(&rest[..moved]);
                self.at += moved;
                moved
            }
            CommandCode::LOAD if wrong.is_none() => {
                self.medium = command.size() as usize - 1;
                self.at = 0;
                if self.media.len() == self.medium {
                    self.media.push(Vec::new());
                }
                0
            }
            _ => 0,
        };
        let completion = match wrong {
            Some((code, _)) if code.is_success() => unreachable!("no error"),
            Some((code, _)) => Completion::failed_after(code, moved),
            None if command.code().is_transfer() => Completion::transferred(moved),
            None if command.code() == CommandCode::SET_POSITION => Completion::at(command.position()),
            None => Completion::done(),
        };
        command.complete(completion).map_err(Error::from)
    }
}

/// Serves a device to its end; `wrong` says what goes wrong with each command.
fn serve(
    mut device: ClientVirtualDevice,
    mut memory: Memory,
    mut wrong: impl FnMut(&Memory, &Command) -> Wrong,
) -> (Memory, Error) {
    loop {
        match device.get_command(TEST_TIMEOUT) {
            Ok(command) => {
                let trouble = wrong(&memory, &command);
                if let Err(error) = memory.carry_out(command, trouble) {
                    return (memory, error);
                }
            }
            Err(end) => return (memory, end),
        }
    }
}

const REMOVABLE: Features = Features::REMOVABLE;

fn with(features: Features, eom_warning_size: u32) -> VdConfig {
    VdConfig { features: features | Features::REQUEST_COMPLETE, eom_warning_size, ..config(1) }
}

/// A backup of the database `sales` to a device of which `wrong` says what goes wrong.
#[track_caller]
fn backup(
    bench: &Bench,
    asked: &VdConfig,
    options: &str,
    wrong: impl FnMut(&Memory, &Command) -> Wrong + Clone + Send + Sync + 'static,
) -> (Outcome, Memory, Error) {
    let script = bench.scripted("nightly", asked, move |device, _| serve(device, Memory::default(), wrong.clone()));
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, options)).outcome();
    let (memory, end) = script.result().remove(0);
    (outcome, memory, end)
}

/// A restore as `copy` from these media.
#[track_caller]
fn restore(
    bench: &Bench,
    asked: &VdConfig,
    media: Vec<Vec<u8>>,
    wrong: impl FnMut(&Memory, &Command) -> Wrong + Clone + Send + Sync + 'static,
) -> (Outcome, Memory, Error) {
    let script =
        bench.scripted("nightly", asked, move |device, _| serve(device, Memory::holding(media.clone()), wrong.clone()));
    let outcome = bench.sql(&copy_statement("sales", "copy", "nightly", 1, "REPLACE")).outcome();
    let (memory, end) = script.result().remove(0);
    (outcome, memory, end)
}

fn nothing(_: &Memory, _: &Command) -> Wrong {
    None
}

/// Bytes of a Write of data: the extents that fit into MAXTRANSFERSIZE, one here.
const FULL: usize = 65536;

/// A bench with the database `sales`, whose backup is some 20 Writes.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("sales", 1_000_000);
    bench
}

/// The backup succeeded, both sides say so, and it restores to identical bytes.
#[track_caller]
fn assert_good(bench: &Bench, asked: &VdConfig, (outcome, memory, end): (Outcome, Memory, Error)) -> Memory {
    outcome.assert_success();
    assert!(end.is_close(), "{end}");
    let (outcome, _, end) = restore(bench, asked, memory.media.clone(), nothing);
    outcome.assert_success();
    assert!(end.is_close(), "{end}");
    bench.assert_identical("sales", "copy");
    memory
}

/// The statement failed with these texts, and the client got VD_E_ABORT.
#[track_caller]
fn assert_failed((outcome, memory, end): (Outcome, Memory, Error), texts: &[&str]) -> Memory {
    outcome.assert_failure(texts);
    assert_eq!(end.code(), VdError::Abort, "{end}");
    memory
}

/// Whether this is the n-th Write from 1 that was not tried before: retries of it come with the same story length.
fn is_write(memory: &Memory, command: &Command, n: usize) -> bool {
    let before = memory.story.iter().filter(|line| line.starts_with('W')).count();
    command.code() == CommandCode::WRITE && before + 1 == n
}

#[test]
fn a_write_that_failed_is_sent_again_after_clear_error() {
    let bench = bench();
    for code in [CompletionCode::IO_DEVICE, CompletionCode::NO_SYSTEM_RESOURCES] {
        let wrong = move |memory: &Memory, command: &Command| is_write(memory, command, 4).then_some((code, 0));
        let memory = assert_good(&bench, &config(1), backup(&bench, &config(1), "", wrong));
        let failed = memory.story[3].clone();
        assert_eq!(memory.story[4..6], ["ClearError".to_owned(), failed], "{:?}", memory.story);
        assert_eq!(memory.count("ClearError"), 1);
    }
}

#[test]
fn of_a_write_that_was_stored_in_part_only_the_rest_is_sent_again() {
    let bench = bench();
    // Three attempts with progress each time, then the rest.
    let half = |size: usize| size / 2 / 512 * 512;
    let wrong = move |memory: &Memory, command: &Command| {
        let attempt = [8, 9, 10].iter().any(|n| is_write(memory, command, *n));
        attempt.then_some((CompletionCode::IO_DEVICE, half(command.data().len())))
    };
    let memory = assert_good(&bench, &config(1), backup(&bench, &config(1), "", wrong));
    assert_eq!(memory.count("ClearError"), 3);
    let mut size = FULL;
    let mut expected = vec![format!("W{size}")];
    for _ in 0..3 {
        size -= half(size);
        expected.extend(["ClearError".to_owned(), format!("W{size}")]);
    }
    expected.push(format!("W{FULL}"));
    assert_eq!(memory.story[7..7 + expected.len()], expected);
}

#[test]
fn a_device_may_fail_again_and_again_as_long_as_it_makes_progress() {
    let bench = bench();
    // Every Write fails once, three times in a row at most.
    let wrong = |memory: &Memory, command: &Command| {
        let transfers = memory.story.iter().filter(|line| line.starts_with('W')).count();
        (command.code() == CommandCode::WRITE && transfers % 4 != 3).then_some((CompletionCode::IO_DEVICE, 0))
    };
    let memory = assert_good(&bench, &config(1), backup(&bench, &config(1), "", wrong));
    assert!(memory.count("ClearError") >= 3 * 15, "{:?}", memory.story);
}

#[test]
fn a_device_that_makes_no_progress_is_given_up_after_three_retries() {
    let bench = bench();
    let wrong = |_: &Memory, command: &Command| {
        (command.code() == CommandCode::WRITE).then_some((CompletionCode::IO_DEVICE, 0))
    };
    let memory = assert_failed(backup(&bench, &config(1), "", wrong), &["Msg 3202,", "failed: 1117("]);
    assert_eq!(memory.count("ClearError"), 3, "{:?}", memory.story);
}

#[test]
fn an_error_that_is_not_cleared_is_the_failure_of_the_statement() {
    let bench = bench();
    let wrong = |memory: &Memory, command: &Command| match command.code() {
        CommandCode::CLEAR_ERROR => Some((CompletionCode::NOT_SUPPORTED, 0)),
        _ => is_write(memory, command, 4).then_some((CompletionCode::IO_DEVICE, 0)),
    };
    let memory = assert_failed(backup(&bench, &config(1), "", wrong), &["Msg 3202,", "failed: 1117("]);
    assert_eq!(memory.count("ClearError"), 1);
}

#[test]
fn every_other_code_of_a_write_fails_the_backup_at_once() {
    let bench = bench();
    let mut tried = 0;
    for code in CompletionCode::NAMED.iter().copied().chain([CompletionCode::new(4711)]) {
        let recoverable = [CompletionCode::SUCCESS, CompletionCode::IO_DEVICE, CompletionCode::NO_SYSTEM_RESOURCES];
        if recoverable.contains(&code) {
            continue;
        }
        let wrong = move |memory: &Memory, command: &Command| is_write(memory, command, 2).then_some((code, 0));
        let number = format!("failed: {}(", code.number());
        // No medium can be changed here, so its end is an error like any other.
        let memory = assert_failed(backup(&bench, &config(1), "", wrong), &["Msg 3202,", &number]);
        assert_eq!(memory.count("ClearError"), 0, "{code}");
        tried += 1;
    }
    assert_eq!(tried, CompletionCode::NAMED.len() - 3 + 1);
}

#[test]
fn bytes_that_are_no_multiple_of_the_block_make_no_sense() {
    let bench = bench();
    let wrong =
        |memory: &Memory, command: &Command| is_write(memory, command, 3).then_some((CompletionCode::IO_DEVICE, 700));
    assert_failed(backup(&bench, &config(1), "", wrong), &["makes no sense", "no multiple of BLOCKSIZE 512"]);
}

/// ClearError comes only when the client holds nothing any more, and what is queued behind the error is never seen.
#[test]
fn clear_error_is_held_back_and_queued_commands_stay_unseen() {
    let bench = bench();
    let script = bench.scripted("nightly", &config(1), |mut device, _| {
        let mut memory = Memory::default();
        // The headers, then data.
        for _ in 0..2 {
            let command = device.get_command(TEST_TIMEOUT).unwrap();
            memory.carry_out(command, None).unwrap();
        }
        let (first, second) = (device.get_command(TEST_TIMEOUT).unwrap(), device.get_command(TEST_TIMEOUT).unwrap());
        memory.carry_out(first, Some((CompletionCode::IO_DEVICE, 0))).unwrap();
        // Nothing comes while the second is held, although the server has sent more.
        assert_eq!(device.get_command(std::time::Duration::from_millis(100)).unwrap_err().code(), VdError::Timeout);
        memory.carry_out(second, Some((CompletionCode::IO_DEVICE, 0))).unwrap();
        let clear = device.get_command(TEST_TIMEOUT).unwrap();
        assert_eq!(clear.code(), CommandCode::CLEAR_ERROR);
        memory.carry_out(clear, None).unwrap();
        serve(device, memory, nothing)
    });
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
    let (memory, end) = script.result().remove(0);
    assert_good(&bench, &config(1), (outcome, memory, end));
}

#[test]
fn what_was_stored_out_of_order_fails_the_backup() {
    let bench = bench();
    let script = bench.scripted("nightly", &config(1), |mut device, _| {
        let mut memory = Memory::default();
        let (first, second) = (device.get_command(TEST_TIMEOUT).unwrap(), device.get_command(TEST_TIMEOUT).unwrap());
        memory.carry_out(first, Some((CompletionCode::IO_DEVICE, 0))).unwrap();
        memory.carry_out(second, None).unwrap();
        serve(device, memory, nothing)
    });
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
    let (memory, end) = script.result().remove(0);
    assert_failed((outcome, memory, end), &["makes no sense", "after an earlier one was not"]);
}

/// A backup of `sales`, on one medium.
fn good_backup(bench: &Bench) -> Vec<u8> {
    let (outcome, memory, _) = backup(bench, &config(1), "", nothing);
    outcome.assert_success();
    memory.stored()
}

#[test]
fn a_read_that_failed_is_repeated_and_its_bytes_count() {
    let bench = bench();
    let data = good_backup(&bench);
    for bytes in [0, 1000] {
        let wrong = move |memory: &Memory, command: &Command| {
            let reads = memory.story.iter().filter(|line| line.starts_with('R')).count();
            (command.code() == CommandCode::READ && reads % 3 == 1).then_some((CompletionCode::IO_DEVICE, bytes))
        };
        let (outcome, memory, end) = restore(&bench, &config(1), vec![data.clone()], wrong);
        outcome.assert_success();
        assert!(end.is_close(), "{end}");
        assert!(memory.count("ClearError") > 3, "{:?}", memory.story);
        bench.assert_identical("sales", "copy");
    }
}

#[test]
fn a_device_that_cannot_be_read_is_given_up_after_three_retries() {
    let bench = bench();
    let data = good_backup(&bench);
    let wrong = |memory: &Memory, command: &Command| {
        (command.code() == CommandCode::READ && memory.story.len() > 3).then_some((CompletionCode::IO_DEVICE, 0))
    };
    let failed = assert_failed(
        restore(&bench, &config(1), vec![data], wrong),
        &["Msg 3203,", "Read on \"nightly\" failed: 1117("],
    );
    assert_eq!(failed.count("ClearError"), 3, "{:?}", failed.story);
    bench.assert_databases(&["sales"]);
}

#[test]
fn codes_that_no_read_can_end_with_fail_the_restore() {
    let bench = bench();
    let data = good_backup(&bench);
    for code in [
        CompletionCode::FILEMARK_DETECTED,
        CompletionCode::END_OF_MEDIA,
        CompletionCode::BEGINNING_OF_MEDIA,
        CompletionCode::DISK_FULL,
        CompletionCode::NOT_SUPPORTED,
        CompletionCode::new(4711),
    ] {
        let wrong = move |_: &Memory, command: &Command| (command.code() == CommandCode::READ).then_some((code, 512));
        let number = format!("failed: {}(", code.number());
        assert_failed(restore(&bench, &config(1), vec![data.clone()], wrong), &["Msg 3203,", &number]);
    }
}

/// A medium has room for so many bytes before its warning zone begins; what comes behind that is stored and answered
/// with the warning.
fn warned_after(room: usize) -> impl FnMut(&Memory, &Command) -> Wrong + Clone {
    move |memory, command| {
        let full = memory.media.get(memory.medium).map_or(0, Vec::len) + command.data().len() > room;
        let write = command.code() == CommandCode::WRITE;
        (write && full).then(|| (CompletionCode::END_OF_MEDIA, command.data().len()))
    }
}

#[test]
fn a_backup_goes_on_on_the_next_medium_after_the_warning() {
    let bench = bench();
    let asked = with(REMOVABLE, 128 * 1024);
    let memory = assert_good(&bench, &asked, backup(&bench, &asked, "", warned_after(300_000)));
    assert!((3..=6).contains(&memory.media.len()), "{} media", memory.media.len());
    for (number, medium) in memory.media.iter().enumerate().take(memory.media.len() - 1) {
        // What was pending at the warning had room in the zone.
        assert!(
            (300_000 - 65536..=300_000 + 2 * 128 * 1024).contains(&medium.len()),
            "medium {number}: {}",
            medium.len()
        );
    }
    // A medium that leaves is durable.
    for load in (2..=memory.media.len()).map(|number| format!("Load {number}")) {
        let at = memory.story.iter().position(|line| *line == load).unwrap();
        assert_eq!(memory.story[at - 1], "Flush", "{:?}", memory.story);
    }
}

#[test]
fn no_medium_is_loaded_for_nothing() {
    let bench = bench();
    let asked = with(REMOVABLE, 128 * 1024);
    let (_, undisturbed, _) = backup(&bench, &asked, "", nothing);
    let writes = undisturbed.story.iter().filter(|line| line.starts_with('W')).count();
    // The last Write is the end of the stream.
    let wrong = move |memory: &Memory, command: &Command| {
        is_write(memory, command, writes).then_some((CompletionCode::END_OF_MEDIA, command.data().len()))
    };
    let memory = assert_good(&bench, &asked, backup(&bench, &asked, "", wrong));
    assert_eq!(memory.story[memory.story.len() - 3..], ["ClearError", "Flush", "Complete"]);
    assert_eq!(memory.media.len(), 1);
}

#[test]
fn writes_that_fall_short_at_the_warning_are_sent_again_before_the_next_medium() {
    let bench = bench();
    let asked = with(REMOVABLE, 128 * 1024);
    // The first Write beyond the limit is stored in part, its rest of 32768 bytes in full.
    let wrong = |memory: &Memory, command: &Command| {
        let size = command.data().len();
        let medium = memory.media.get(memory.medium).map_or(0, Vec::len);
        let write = command.code() == CommandCode::WRITE && memory.medium == 0;
        match (write, medium) {
            (true, 300_000..) if size == FULL => Some((CompletionCode::END_OF_MEDIA, FULL - 32768)),
            (true, 300_000..) => Some((CompletionCode::END_OF_MEDIA, size)),
            _ => None,
        }
    };
    let memory = assert_good(&bench, &asked, backup(&bench, &asked, "", wrong));
    assert_eq!(memory.media.len(), 2, "{:?}", memory.story);
    let load = memory.story.iter().position(|line| line == "Load 2").unwrap();
    assert!(memory.story[..load].contains(&"W32768".to_owned()), "{:?}", memory.story);
    assert!(!memory.story[load..].contains(&"W32768".to_owned()), "{:?}", memory.story);
}

#[test]
fn no_more_is_pending_than_the_warning_zone_has_room_for() {
    let bench = bench();
    for (zone, most) in [(128 * 1024, 2), (65536, 1), (1, 1)] {
        let script = bench.scripted("nightly", &with(REMOVABLE, zone), move |mut device, _| {
            let mut held = Vec::new();
            for _ in 0..most {
                held.push(device.get_command(TEST_TIMEOUT).unwrap());
                let bytes: usize = held.iter().map(|command| command.data().len()).sum();
                assert!(bytes <= (zone as usize).max(held[0].data().len()), "{bytes} bytes in a zone of {zone}");
            }
            // No other comes before one of these is completed, unless there is room for it.
            let mut memory = Memory::default();
            for command in held {
                memory.carry_out(command, None).unwrap();
            }
            let mut most_bytes = 0;
            loop {
                // As much as there is, and at least one.
                let mut held = Vec::new();
                let end = loop {
                    let patience = if held.is_empty() { TEST_TIMEOUT } else { std::time::Duration::from_millis(5) };
                    match device.get_command(patience) {
                        Ok(command) => held.push(command),
                        Err(end) => break end,
                    }
                };
                let bytes = held.iter().map(|command| command.data().len()).sum();
                most_bytes = most_bytes.max(bytes);
                for command in held {
                    memory.carry_out(command, None).unwrap();
                }
                if end.code() != VdError::Timeout {
                    return (most_bytes, end.is_close());
                }
            }
        });
        bench.sql(&backup_statement("sales", "nightly", 1, "BUFFERCOUNT = 16")).outcome().assert_success();
        let (most_bytes, closed) = script.result()[0];
        assert!(closed);
        assert!(most_bytes <= (zone as usize).max(65536), "{most_bytes} bytes in a zone of {zone}");
    }
}

#[test]
fn a_device_that_cannot_store_what_was_pending_fails_the_backup() {
    let bench = bench();
    let asked = with(REMOVABLE, 128 * 1024);
    let wrong = |memory: &Memory, command: &Command| {
        let full = memory.media.first().map_or(0, Vec::len) > 300_000;
        (command.code() == CommandCode::WRITE && full).then_some((CompletionCode::END_OF_MEDIA, 0))
    };
    let memory = assert_failed(backup(&bench, &asked, "", wrong), &["Msg 3202,", "failed: 1100("]);
    assert_eq!(memory.count("Load 2"), 0);
}

#[test]
fn a_medium_that_does_not_exist_fails_backup_and_restore() {
    let bench = bench();
    let asked = with(REMOVABLE, 128 * 1024);
    let mut warned = warned_after(300_000);
    let no_more = move |memory: &Memory, command: &Command| match command.code() {
        CommandCode::LOAD => Some((CompletionCode::new(21), 0)),
        _ => warned(memory, command),
    };
    assert_failed(backup(&bench, &asked, "", no_more), &["Msg 3271,", "load on device", "21("]);

    let memory = assert_good(&bench, &asked, backup(&bench, &asked, "", warned_after(300_000)));
    let wrong = |_: &Memory, command: &Command| {
        (command.code() == CommandCode::LOAD && command.size() == 3).then_some((CompletionCode::new(21), 0))
    };
    let failed = restore(&bench, &asked, memory.media.clone(), wrong);
    assert_failed(failed, &["Msg 3271,", "load on device", "21("]);
}

#[test]
fn media_in_another_order_fail_the_restore() {
    let bench = bench();
    let asked = with(REMOVABLE, 128 * 1024);
    let memory = assert_good(&bench, &asked, backup(&bench, &asked, "", warned_after(300_000)));
    let mut media = memory.media.clone();
    media.swap(0, 1);
    assert_failed(restore(&bench, &asked, media, nothing), &["Msg 3241,"]);
    // Where media that change places hold nothing but whole extents, each page finds its own place. Whatever is called good is good.
    let mut media = memory.media.clone();
    media.swap(1, 2);
    let (outcome, ..) = restore(&bench, &asked, media, nothing);
    if outcome.status.success() {
        bench.assert_identical("sales", "copy");
    } else {
        outcome.assert_failure(&[]);
    }
    // And a medium without a byte does not keep the restore going for ever.
    let mut media = memory.media;
    media[1].clear();
    assert_failed(restore(&bench, &asked, media, nothing), &["Msg 3203,", "38("]);
}

/// Commands without data that are answered with what makes no sense for them.
#[test]
fn answers_that_make_no_sense_fail_the_statement() {
    let bench = bench();
    for (code, answer) in [
        (CommandCode::FLUSH, CompletionCode::FILEMARK_DETECTED),
        (CommandCode::FLUSH, CompletionCode::END_OF_MEDIA),
        (CommandCode::COMPLETE, CompletionCode::HANDLE_EOF),
        (CommandCode::SET_POSITION, CompletionCode::BEGINNING_OF_MEDIA),
        (CommandCode::SET_POSITION, CompletionCode::NOT_SUPPORTED),
    ] {
        let wrong = move |_: &Memory, command: &Command| (command.code() == code).then_some((answer, 0));
        let number = format!("{}(", answer.number());
        let disk = with(Features::RANDOM_ACCESS, 0);
        let memory = assert_failed(backup(&bench, &disk, "", wrong), &["Msg 3271,", &number]);
        assert!(memory.count("Complete") <= 1 && memory.count("Flush") <= 1, "{:?}", memory.story);
    }
}

#[test]
fn a_position_that_is_not_where_it_should_be_fails_the_statement() {
    let bench = bench();
    let disk = with(Features::RANDOM_ACCESS, 0);
    let script = bench.scripted("nightly", &disk, |mut device, _| {
        let command = device.get_command(TEST_TIMEOUT).unwrap();
        assert_eq!((command.code(), command.position(), command.size()), (CommandCode::SET_POSITION, 0, 0));
        command.complete(Completion::at(7)).unwrap();
        device.get_command(TEST_TIMEOUT).unwrap_err().code()
    });
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
    outcome.assert_failure(&["makes no sense", "is 0, the client says 7"]);
    assert_eq!(script.result(), [VdError::Abort]);
}

#[test]
fn a_positioning_command_that_failed_is_repeated() {
    let bench = bench();
    let disk = with(Features::RANDOM_ACCESS, 0);
    let wrong = |memory: &Memory, command: &Command| {
        let positioning = command.code() == CommandCode::SET_POSITION && memory.count("SetPosition") < 3;
        positioning.then_some((CompletionCode::IO_DEVICE, 0))
    };
    let (outcome, memory, end) = backup(&bench, &disk, "", wrong);
    outcome.assert_success();
    assert!(end.is_close(), "{end}");
    assert_eq!((memory.count("SetPosition"), memory.count("ClearError")), (4, 3));
}

/// What a client could not make durable once, it is not asked for again.
#[test]
fn a_flush_that_failed_is_never_repeated() {
    let bench = bench();
    let wrong = |_: &Memory, command: &Command| {
        (command.code() == CommandCode::FLUSH).then_some((CompletionCode::IO_DEVICE, 0))
    };
    let memory = assert_failed(backup(&bench, &config(1), "", wrong), &["flush on device", "1117("]);
    assert_eq!((memory.count("Flush"), memory.count("ClearError")), (1, 0));
}

/// A backup that fails for a reason of the server's own tells devices that can do it to discard what they have.
#[test]
fn discard_comes_when_the_server_fails_and_the_feature_is_there() {
    for features in [Features::DISCARD, Features::NONE] {
        let bench = bench();
        let asked = with(features, 0);
        let file = bench.databases().data_file("sales", 0);
        let length = file.metadata().unwrap().len();
        let script = bench.scripted("nightly", &asked, move |mut device, _| {
            // The file shrinks while the backup is on its way.
            let command = device.get_command(TEST_TIMEOUT).unwrap();
            set_len(&file, length / 2);
            let mut memory = Memory::default();
            memory.carry_out(command, None).unwrap();
            serve(device, memory, nothing)
        });
        let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "BUFFERCOUNT = 1")).outcome();
        let (memory, end) = script.result().remove(0);
        let memory = assert_failed((outcome, memory, end), &["Msg 3203,", "failed: 38("]);
        assert_eq!(memory.count("Discard"), usize::from(features == Features::DISCARD), "{:?}", memory.story);
    }
}
