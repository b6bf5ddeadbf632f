//! Proof that the models can fail: each ordering, each fence and each order of steps is weakened, one at a time, and a model
//! has to notice.
//!
//! A weakened model panics, often while it unwinds already, or leaves threads behind. So each runs in a process of its own:
//! this binary with one test, and [`VDI_WEAKEN`] in its environment.

use std::collections::BTreeSet;
use std::panic::PanicHookInfo;
use std::process::Command;
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

/// Names the site that is weakened, and how.
const VDI_WEAKEN: &str = "VDI_WEAKEN";

/// What a process weakens that must find nothing.
const NOTHING: &str = "nothing";

/// An ordering is weakened to this.
const RELAXED: &str = "Relaxed";
/// A fence is weakened to this.
const ACQ_REL: &str = "AcqRel";
/// A fence or a step is left out.
const LEFT_OUT: &str = "left out";
/// Two steps are taken in the other order.
const SWAPPED: &str = "swapped";

/// The site, its weakening, and the model that notices. Sites that begin with `caller.` stand in the models: they are what
/// this crate's callers have to do in that order.
const WEAKENINGS: &[(&str, &str, &str)] = &[
    ("ring.push.lap", RELAXED, "ring::loom_ring_two_entries_two_laps"),
    ("ring.pop.lap", RELAXED, "ring::loom_ring_two_entries_two_laps"),
    ("ring.push.cursor", RELAXED, "ring::loom_ring_two_entries_two_laps"),
    ("ring.pop.cursor", RELAXED, "ring::loom_ring_two_entries_two_laps"),
    ("ring.push.words-lap", SWAPPED, "ring::loom_ring_two_entries_two_laps"),
    ("ring.pop.words-cursor", SWAPPED, "ring::loom_ring_two_entries_two_laps"),
    ("caller.push-ring", SWAPPED, "ring::loom_ring_no_record_is_slept_through"),
    ("doorbell.ring", ACQ_REL, "ring::loom_ring_no_record_is_slept_through"),
    ("doorbell.ring", LEFT_OUT, "doorbell::loom_doorbell_one_ringer_one_sleeper"),
    ("doorbell.arm", ACQ_REL, "ring::loom_ring_no_record_is_slept_through"),
    ("doorbell.arm", LEFT_OUT, "doorbell::loom_doorbell_one_ringer_one_sleeper"),
    ("doorbell.wait.arm-look", SWAPPED, "doorbell::loom_doorbell_one_ringer_one_sleeper"),
    ("doorbell.answer.change-wake", SWAPPED, "doorbell::loom_doorbell_one_ringer_one_sleeper"),
    ("doorbell.answer.change", LEFT_OUT, "doorbell::loom_doorbell_one_ringer_one_sleeper"),
    ("doorbell.answer.wake", LEFT_OUT, "doorbell::loom_doorbell_one_ringer_one_sleeper"),
    ("caller.publish-ring", SWAPPED, "doorbell::loom_doorbell_one_ringer_one_sleeper"),
    ("doorbell.alarm", ACQ_REL, "announcements::loom_abort_wakes_everybody"),
    ("doorbell.alarm", LEFT_OUT, "announcements::loom_abort_wakes_everybody"),
    ("doorbell.alarm.change-wake", SWAPPED, "announcements::loom_abort_wakes_everybody"),
    ("doorbell.alarm.change", LEFT_OUT, "announcements::loom_abort_wakes_everybody"),
    ("doorbell.alarm.wake", LEFT_OUT, "doorbell::loom_doorbell_alarm_after_an_interrupted_ring"),
    ("slot.lend", RELAXED, "slots::loom_slot_place_is_visible_to_the_lessee"),
    ("slot.lease", ACQ_REL, "slots::loom_slot_lease_and_return_exclude_each_other"),
    ("slot.lease", LEFT_OUT, "slots::loom_slot_lease_and_return_exclude_each_other"),
    ("slot.lease.look", RELAXED, "slots::loom_slot_place_is_visible_to_the_lessee"),
    ("slot.lease.set-look", SWAPPED, "slots::loom_slot_lease_and_return_exclude_each_other"),
    ("slot.lease.refused", LEFT_OUT, "slots::loom_slot_lease_and_return_exclude_each_other"),
    ("slot.release", RELAXED, "slots::loom_slot_lessees_bytes_are_visible_after_release"),
    ("slot.take-back", ACQ_REL, "slots::loom_slot_two_members"),
    ("slot.take-back", LEFT_OUT, "slots::loom_slot_place_is_visible_also_after_a_refused_return"),
    ("slot.take-back.look", RELAXED, "slots::loom_slot_lessees_bytes_are_visible_after_release"),
    ("slot.take-back.say-look", SWAPPED, "slots::loom_slot_stale_handle_against_the_next_loan"),
    ("slot.take-back.kept", LEFT_OUT, "slots::loom_slot_lease_and_return_exclude_each_other"),
    ("slot.home", RELAXED, "slots::loom_slot_seen_home_means_that_the_bytes_are_back"),
    ("slot.look", RELAXED, "slots::loom_slot_seen_home_means_that_the_bytes_are_back"),
    ("caller.write-release", SWAPPED, "slots::loom_slot_lessees_bytes_are_visible_after_release"),
    ("caller.place-lend", SWAPPED, "slots::loom_slot_place_is_visible_to_the_lessee"),
    ("caller.lend-command", SWAPPED, "slots::loom_slot_goes_out_and_home_with_its_command"),
    ("caller.return-complete", SWAPPED, "slots::loom_slot_goes_out_and_home_with_its_command"),
    ("caller.death-void", SWAPPED, "slots::loom_slot_lease_of_the_dead_is_voided"),
    ("holding.claim", RELAXED, "holding::loom_holding_has_one_holder_at_a_time"),
    ("holding.free", RELAXED, "holding::loom_holding_has_one_holder_at_a_time"),
    ("holding.lease.claim-release", SWAPPED, "holding::loom_holding_of_a_lease_ends_with_it"),
    ("holding.lease.release-free", SWAPPED, "holding::loom_holding_of_a_lease_is_followed_by_another"),
    ("holding.hold", RELAXED, "holding::loom_holding_found_by_its_address_is_the_commands"),
    ("holding.command", RELAXED, "holding::loom_holding_found_by_its_address_is_the_commands"),
    ("holding.start", RELAXED, "holding::loom_holding_found_by_its_address_is_the_commands"),
    ("holding.start.look", RELAXED, "holding::loom_holding_found_by_its_address_is_the_commands"),
    ("abort.write", RELAXED, "announcements::loom_abort_comes_after_what_the_aborter_did"),
    ("abort.look", RELAXED, "announcements::loom_abort_comes_after_what_the_aborter_did"),
    ("abort.stands", RELAXED, "announcements::loom_abort_comes_after_what_the_aborter_did"),
    ("abort.write-alarm", SWAPPED, "announcements::loom_abort_wakes_everybody"),
    ("name.word", RELAXED, "announcements::loom_name_is_whole_once_it_is_announced"),
    ("name.look", RELAXED, "announcements::loom_name_is_whole_once_it_is_announced"),
    ("name.name-word", SWAPPED, "announcements::loom_name_is_whole_once_it_is_announced"),
    ("caller.send-close", SWAPPED, "announcements::loom_closed_comes_after_the_commands"),
    ("caller.closed-look", SWAPPED, "announcements::loom_closed_comes_after_the_commands"),
    ("name.word", RELAXED, "announcements::loom_closed_comes_after_the_commands"),
    ("name.look", RELAXED, "announcements::loom_closed_comes_after_the_commands"),
];

/// What must not matter. Relaxed accesses stand around this fence; they need no more of it than an acquire and a release, and
/// not what loom's sequentially consistent fences order beyond what the language promises.
const HARMLESS: &[(&str, &str, &str)] =
    &[("slot.take-back", ACQ_REL, "slots::loom_slot_place_is_visible_also_after_a_refused_return")];

/// Where the sites are, and whether they are this crate's own.
const SOURCES: &[(&str, bool)] = &[
    (include_str!("../ring.rs"), true),
    (include_str!("../doorbell.rs"), true),
    (include_str!("../slots.rs"), true),
    (include_str!("../holding.rs"), true),
    (include_str!("../abort_word.rs"), true),
    (include_str!("../device_name.rs"), true),
    (include_str!("ring.rs"), false),
    (include_str!("doorbell.rs"), false),
    (include_str!("slots.rs"), false),
    (include_str!("holding.rs"), false),
    (include_str!("announcements.rs"), false),
];

/// Whether this process weakens a site, or stands by for comparison.
pub(super) fn is_seeded() -> bool {
    std::env::var_os(VDI_WEAKEN).is_some()
}

/// Prepares a model's run: one that is weakened ends at the first panic, and says after how many executions that was. One that
/// stands by for comparison ends after a few thousand executions.
pub(super) fn most_executions(executions: &StdArc<AtomicUsize>) -> Option<usize> {
    let seed = std::env::var(VDI_WEAKEN).ok()?;
    let executions = StdArc::clone(executions);
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let why = info.payload_as_str().unwrap_or("?").lines().find(|line| !line.is_empty()).unwrap_or("?");
        println!("caught after {} executions: {why}", executions.load(StdOrdering::Relaxed));
        std::process::exit(1);
    }));
    seed.starts_with(NOTHING).then_some(3000)
}

/// Runs one model with this weakened; the number of executions after which it noticed, and its words.
fn noticed(model: &str, site: &str, how: &str) -> Option<(usize, String)> {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args([&format!("loom_tests::{model}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(VDI_WEAKEN, format!("{site}:{how}"))
        .output()
        .expect("this binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test"), "there is no model {model}: {said}");
    if output.status.success() {
        return None;
    }
    let caught = said.split_once("caught after ").and_then(|(_, caught)| caught.lines().next());
    let Some((executions, why)) = caught.and_then(|caught| caught.split_once(" executions: ")) else {
        panic!("{model} ended by {} without having noticed anything: {said}", output.status);
    };
    Some((executions.parse().expect("a number"), why.to_owned()))
}

/// Does the work for each item, on as many threads as there are CPUs.
fn for_each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while let Some((n, item)) = {
            let n = next.fetch_add(1, StdOrdering::Relaxed);
            items.get(n).map(|item| (n, item))
        } {
            done.push((n, work(item)));
        }
        done
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(take)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn loom_weakened_each_is_caught() {
    let caught = for_each(WEAKENINGS, |(site, how, model)| noticed(model, site, how));
    println!("| site | weakened to | caught by | after executions |\n|---|---|---|---:|");
    for ((site, how, model), caught) in WEAKENINGS.iter().zip(&caught) {
        let executions = caught.as_ref().map_or("NOT CAUGHT".into(), |(executions, _)| executions.to_string());
        println!("{}{executions} |", row(site, how, model));
    }
    for ((site, how, _), caught) in WEAKENINGS.iter().zip(&caught) {
        println!("{site}, {how}: {}", caught.as_ref().map_or("-", |(_, why)| why));
    }
    let missed: Vec<_> = WEAKENINGS.iter().zip(&caught).filter(|(_, caught)| caught.is_none()).collect();
    assert!(missed.is_empty(), "models that notice nothing: {missed:#?}");
}

/// What runs the weakened models does not itself make them fail.
#[test]
fn loom_weakened_nothing_is_caught_where_nothing_is_weakened() {
    let models: BTreeSet<&str> = WEAKENINGS.iter().map(|(.., model)| *model).collect();
    let nothing = models.into_iter().map(|model| (NOTHING, NOTHING, model));
    let runs: Vec<_> = nothing.chain(HARMLESS.iter().copied()).collect();
    for (run, caught) in runs.iter().zip(for_each(&runs, |(site, how, model)| noticed(model, site, how))) {
        assert_eq!(caught, None, "{run:?} fails");
    }
}

fn row(site: &str, how: &str, model: &str) -> String {
    let (_, model) = model.split_once("::").expect("a module and a name");
    format!("| `{site}` | {how} | `{model}` | ")
}

#[test]
fn loom_weakened_list_is_complete() {
    let mut sites = BTreeSet::new();
    for (source, own) in SOURCES {
        // Without line breaks, so that it does not matter how a call is formatted; without tests of other kinds.
        let source = source.split("#[cfg(all(test, not(loom)))]").next().unwrap_or_default();
        let code: String = source
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("//"))
            .flat_map(str::chars)
            .filter(|letter| !letter.is_whitespace())
            .collect();
        let named = |call: &str| -> Vec<String> {
            code.match_indices(call)
                .filter_map(|(at, _)| code[at + call.len()..].split_once('"'))
                .map(|(site, _)| site.to_owned())
                .collect()
        };
        // These are sequentially consistent by their name.
        let behind = named("_fenced(\"");
        let orderings = [named("ordering(\""), named("fence(\"")].concat();
        let strong: usize = ["Acquire", "Release", "AcqRel", "SeqCst"]
            .iter()
            .map(|name| code.matches(&format!("Ordering::{name}")).count())
            .sum();
        assert!(!own || strong == orderings.len(), "an ordering without a name, beside {orderings:?}");
        // `try_in_order` ends like `in_order`.
        sites.extend([orderings, behind, named("in_order(\""), named("step(\"")].concat());
    }
    let listed: BTreeSet<String> = WEAKENINGS.iter().map(|(site, ..)| (*site).to_owned()).collect();
    assert_eq!(listed, sites, "the list and the sources differ");
    let readme = include_str!("../../README.md");
    for (site, how, model) in WEAKENINGS {
        assert!(readme.contains(&row(site, how, model)), "README.md has no row {}", row(site, how, model));
    }
}
