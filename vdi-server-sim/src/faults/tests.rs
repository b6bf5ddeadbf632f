use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use proptest::prelude::*;

use super::running::CommandFault;
use super::*;

fn running(seed: u64, faults: &[&str]) -> Running {
    let add = |all: Faults, text: &&str| all.with(text.parse().unwrap());
    Running::new(&faults.iter().fold(Faults::seeded(seed), add))
}

fn any_fault() -> impl Strategy<Value = Fault> {
    let ordinal = 1..=u64::MAX;
    let ms = 0..=u32::MAX;
    let call = prop::sample::select(&ServerCall::ALL[..]);
    let code = prop::sample::select(&VdError::ALL[..]);
    prop_oneof![
        ms.clone().prop_map(|up_to| Fault::Delay { up_to }),
        (ordinal.clone(), ms.clone()).prop_map(|(command, wait)| Fault::DelayAt { command, wait }),
        ordinal.clone().prop_map(|command| Fault::AbortAt { command }),
        ordinal.clone().prop_map(|command| Fault::DieAt { command }),
        ordinal.clone().prop_map(|read| Fault::ReadError { read }),
        Just(Fault::ShortReads),
        Just(Fault::QueueFull),
        Just(Fault::SmallTransfers),
        Just(Fault::ReadSizes),
        ordinal.clone().prop_map(|writes| Fault::Flushes { writes }),
        (1..=u32::MAX).prop_map(|interval| Fault::ServerTimeOut { interval }),
        ms.prop_map(|wait| Fault::SlowConfiguration { wait }),
        (call, code).prop_map(|(call, code)| Fault::Refuse { call, code }),
        ordinal.prop_map(|completion| Fault::IgnoreCompletion { completion }),
        Just(Fault::FailAfterClose),
    ]
}

/// A fault of every name, with a value that the table's syntax allows.
fn one_of_each() -> Vec<Fault> {
    let text = |help: &FaultHelp| match help.value {
        "" => help.name.to_owned(),
        "CALL:CODE" => format!("{}=Open:VD_E_OPEN", help.name),
        syntax => format!("{}={}", help.name, syntax.replace("MS", "3").replace('N', "4")),
    };
    TABLE.iter().map(|help| text(help).parse().unwrap()).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(fault in any_fault()) {
        prop_assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
    }

    #[test]
    fn any_text_is_a_fault_or_an_error(text in "(delay|delay-at|refuse|flushes|queue-full|x)?=?[0-9:A-Z_a-z]{0,12}") {
        if let Ok(fault) = text.parse::<Fault>() {
            prop_assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
    }

    #[test]
    fn sizes_are_multiples_that_fit(seed: u64, blocks in 1u32..200, block in (9u32..17).prop_map(|bits| 1 << bits)) {
        let running = running(seed, &["small-transfers", "read-sizes"]);
        let full = blocks * block;
        for _ in 0..20 {
            for size in [running.payload_capacity(full, block), running.read_size(3, full, block)] {
                prop_assert!(size > 0 && size <= full && size.is_multiple_of(block));
            }
        }
    }
}

#[test]
fn the_table_holds_every_fault_once() {
    let faults = one_of_each();
    let kinds: HashSet<_> = faults.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), TABLE.len());
    for (fault, help) in faults.iter().zip(TABLE) {
        assert_eq!(fault.name(), help.name);
        assert!(!help.effect.is_empty());
    }
}

#[test]
fn texts_that_name_nothing_are_told_what_exists() {
    let unknown = "delays=3".parse::<Fault>().unwrap_err().to_string();
    assert!(unknown.starts_with("there is no fault \"delays\"; there are delay=MS, delay-at=N:MS, "), "{unknown}");
    assert!(unknown.ends_with("ignore-completion=N, fail-after-close"), "{unknown}");
    for (text, told) in [
        ("delay", "\"delay\": delay needs a value; write delay=MS"),
        ("queue-full=1", "\"queue-full=1\": queue-full takes no value; write queue-full"),
        ("abort-at=0", "\"abort-at=0\": abort-at counts from 1; write abort-at=N"),
        ("abort-at=-1", "\"abort-at=-1\": abort-at needs a number, not \"-1\"; write abort-at=N"),
        ("delay=x", "\"delay=x\": delay needs milliseconds, 0 to 4294967295, not \"x\"; write delay=MS"),
        (
            "delay-at=3",
            "\"delay-at=3\": delay-at needs two parts with a colon between them, not \"3\"; write delay-at=N:MS",
        ),
        ("server-timeout=0", "\"server-timeout=0\": server-timeout has to be at least 1 ms; write server-timeout=MS"),
    ] {
        assert_eq!(text.parse::<Fault>().unwrap_err().to_string(), told);
    }
    let call = "refuse=Close:VD_E_OPEN".parse::<Fault>().unwrap_err().to_string();
    assert!(call.contains("knows no function \"Close\", only Open, BeginConfiguration"), "{call}");
    let code = "refuse=Open:5".parse::<Fault>().unwrap_err().to_string();
    assert!(code.contains("knows no status \"5\", only VD_E_NOTOPEN, VD_E_TIMEOUT"), "{code}");
}

#[test]
fn without_faults_nothing_happens() {
    let running = Running::new(&Faults::seeded(7));
    assert_eq!(running.configuration("EndConfiguration"), (Duration::ZERO, None));
    assert_eq!(running.before_command(0), CommandFault { delay: Duration::ZERO, act: Act::Send });
    assert_eq!(running.payload_capacity(1000, 512), 1000);
    assert_eq!(running.read_size(0, 65536, 512), 65536);
    assert!(!running.flush_after(1) && !running.queue_full_burst(0, 1));
    assert_eq!(running.final_flushes(), 1);
    assert_eq!((running.server_time_out(), running.ignored_completion()), (None, None));
}

#[test]
fn the_same_seed_gives_the_same_whatever_the_order_of_devices() {
    let faults = ["delay=1000", "read-sizes"];
    let ask = |running: &Running, device| {
        let delay = running.before_command(device).delay;
        (delay, running.read_size(device, 4 << 20, 512))
    };
    let (one, other) = (running(5, &faults), running(5, &faults));
    let first: Vec<_> = (0..100).map(|turn| ask(&one, turn % 2)).collect();
    let second: Vec<_> = [0, 1].into_iter().flat_map(|device| [device; 50]).map(|device| ask(&other, device)).collect();
    let of_device = |device: usize| first.iter().skip(device).step_by(2).copied().collect::<Vec<_>>();
    assert_eq!([of_device(0), of_device(1)].concat(), second);
    assert_ne!(of_device(0), of_device(1));
    let another = running(6, &faults);
    assert_ne!(first, (0..100).map(|turn| ask(&another, turn % 2)).collect::<Vec<_>>());
}

#[test]
fn delays_keep_their_bound_and_use_it() {
    let running = running(1, &["delay=10"]);
    let delays: Vec<_> = (0..1000).map(|_| running.before_command(0).delay).collect();
    assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(10)));
    assert!(delays.iter().any(|delay| *delay < Duration::from_millis(1)));
    assert!(delays.iter().any(|delay| *delay > Duration::from_millis(9)));
}

#[test]
fn commands_count_over_all_devices() {
    let running = running(1, &["delay-at=2:7", "delay-at=2:1", "abort-at=3", "die-at=4"]);
    let mut device = 0;
    let mut act = || {
        device += 1;
        let CommandFault { delay, act } = running.before_command(device);
        (delay.as_millis(), act)
    };
    assert_eq!(
        [act(), act(), act(), act(), act()],
        [(0, Act::Send), (8, Act::Send), (0, Act::Abort), (0, Act::Die), (0, Act::Send)]
    );
}

#[test]
fn the_graver_act_comes_first() {
    let refuse = "refuse=SendCommand:VD_E_MEMORY";
    let act = |faults: &[&str]| running(1, faults).before_command(0).act;
    assert_eq!(act(&[refuse, "refuse=SendCommand:VD_E_BUSY"]), Act::Refuse(VdError::Memory));
    assert_eq!(act(&[refuse, "abort-at=1"]), Act::Abort);
    assert_eq!(act(&["die-at=1", "abort-at=1", refuse]), Act::Die);
}

#[test]
fn the_configuration_is_slow_and_refused() {
    let running = running(1, &["slow-configuration=5", "refuse=Open:VD_E_SECURITY", "refuse=OpenDevice:VD_E_OPEN"]);
    let slow = Duration::from_millis(5);
    assert_eq!(running.configuration("Open"), (Duration::ZERO, Some(VdError::Security)));
    assert_eq!(running.configuration("BeginConfiguration"), (slow, None));
    assert_eq!(running.configuration("OpenDevice"), (slow, Some(VdError::Open)));
    assert_eq!(running.before_command(0).act, Act::Send);
}

#[test]
fn every_call_can_be_refused_with_every_code() {
    for call in ServerCall::ALL {
        for code in VdError::ALL {
            let running = running(1, &[&Fault::Refuse { call, code }.to_string()]);
            let (refused, act) = (running.configuration(call.name()).1, running.before_command(0).act);
            assert_eq!(refused, Some(code));
            let sent = call != ServerCall::SendCommand;
            assert_eq!(act, if sent { Act::Send } else { Act::Refuse(code) });
        }
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn short_reads_read_on_until_all_is_there() {
    let bytes: Vec<u8> = (0..5000_u32).map(|number| number as u8).collect();
    let file = file(&bytes);
    for seed in 0..50 {
        let running = running(seed, &["short-reads"]);
        let mut read = vec![0; 4000];
        running.read_exact_at(&file, &mut read, 1000).unwrap();
        assert_eq!(read, bytes[1000..]);
        let error = running.read_exact_at(&file, &mut read, 1001).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        running.read_exact_at(&file, &mut [], 9999).unwrap();
    }
    // With this one it takes more than one read.
    let counted = running(1, &["short-reads", "read-error=2"]);
    assert_eq!(counted.read_exact_at(&file, &mut [0; 4000], 0).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn one_read_fails_and_the_others_do_not() {
    let file = file(b"hello");
    let running = running(1, &["read-error=2"]);
    let read = || running.read_exact_at(&file, &mut [0; 5], 0).map_err(|error| error.raw_os_error());
    assert_eq!([read(), read(), read()], [Ok(()), Err(Some(rustix::io::Errno::IO.raw_os_error())), Ok(())]);
}

#[test]
fn sizes_vary_and_reach_the_largest() {
    let running = running(1, &["small-transfers"]);
    let sizes: HashSet<_> = (0..200).map(|_| running.payload_capacity(4096, 512)).collect();
    assert_eq!(sizes.len(), 8);
    // The one fault leaves the other's sizes alone, and what is no whole block is left as it is.
    assert_eq!(running.read_size(0, 4096, 512), 4096);
    assert_eq!(running.payload_capacity(511, 512), 511);
}

#[test]
fn flushes_come_after_every_so_many_writes() {
    let running = running(1, &["flushes=3"]);
    let after: Vec<_> = (0..8).filter(|writes| running.flush_after(*writes)).collect();
    assert_eq!(after, [3, 6]);
    assert_eq!(running.final_flushes(), 2);
}

#[test]
fn every_device_has_one_burst_at_the_third_write_at_the_latest() {
    let mut moments = HashSet::new();
    for seed in 0..50 {
        let running = running(seed, &["queue-full"]);
        for device in 0..4 {
            let bursts: Vec<_> = (0..10).filter(|writes| running.queue_full_burst(device, *writes)).collect();
            assert!(bursts.len() == 1 && bursts[0] <= LATEST, "{bursts:?}");
            moments.insert(bursts[0]);
        }
    }
    assert_eq!(moments.len() as u64, LATEST);
}

/// A backup's device gets a Catalog's header, its payload, and the End.
const LATEST: u64 = 3;

#[test]
fn the_least_of_several_time_outs_counts() {
    let running = running(1, &["server-timeout=30", "server-timeout=20", "ignore-completion=9", "ignore-completion=2"]);
    assert_eq!(running.server_time_out(), Some(20));
    assert_eq!(running.ignored_completion(), Some(2));
}
