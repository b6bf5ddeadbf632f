//! Proof that the models can fail: each ordering and each fence is weakened, one at a time, and a model has to fail.
//!
//! A weakened model panics, often while it unwinds already, or leaves threads behind. So each runs in a process of its own:
//! this binary with one test, and [`VDI_WEAKEN`] in its environment.

use std::collections::BTreeSet;
use std::panic::PanicHookInfo;
use std::process::Command;
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};

use super::{announcements, event_count, ring, slots};

/// Names the site that is weakened, and how.
const VDI_WEAKEN: &str = "VDI_WEAKEN";

/// The site that a process weakens which must find nothing.
const NOTHING: &str = "nothing";

/// An ordering is weakened to this.
pub(super) const RELAXED: &str = "Relaxed";
/// A fence is weakened to this.
pub(super) const ACQ_REL: &str = "AcqRel";
/// A fence is left out.
pub(super) const LEFT_OUT: &str = "left out";

/// The site, its weakening, and the model that fails.
pub(super) type Weakening = (&'static str, &'static str, &'static str);

/// The text of a file with sites.
pub(super) type Source = &'static str;

/// The weakenings of all models.
const WEAKENINGS: &[&[Weakening]] =
    &[ring::WEAKENINGS, event_count::WEAKENINGS, slots::WEAKENINGS, announcements::WEAKENINGS];

/// The files with sites.
const SOURCES: &[Source] =
    &[ring::SOURCE, event_count::SOURCE, slots::SOURCE, announcements::SOURCES[0], announcements::SOURCES[1]];

/// The table of weakenings for readers.
const TABLE: &str = include_str!("../../docs/orderings.md");

fn weakenings() -> Vec<Weakening> {
    WEAKENINGS.concat()
}

/// Whether this process weakens a site, or runs for comparison.
pub(super) fn is_weakened() -> bool {
    std::env::var_os(VDI_WEAKEN).is_some()
}

/// Prepares the run of a model; its most executions. A weakened one ends at the first panic and prints after how many
/// executions that was. One that runs for comparison ends after a few thousand executions.
pub(super) fn max_executions(executions: &StdArc<AtomicUsize>) -> Option<usize> {
    let weakening = std::env::var(VDI_WEAKEN).ok()?;
    let executions = StdArc::clone(executions);
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let why = info.payload_as_str().unwrap_or("?").lines().find(|line| !line.is_empty()).unwrap_or("?");
        println!("caught after {} executions: {why}", executions.load(StdOrdering::Relaxed));
        std::process::exit(1);
    }));
    weakening.starts_with(NOTHING).then_some(3000)
}

/// Runs one model with a site weakened; after how many executions it failed, and why.
fn caught((site, how, model): Weakening) -> Option<(usize, String)> {
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
        panic!("{model} ended by {} without a failed check: {said}", output.status);
    };
    Some((executions.parse().expect("a number"), why.to_owned()))
}

/// The result of [`caught`] for each, on as many threads as there are CPUs.
fn all_caught(weakenings: &[Weakening]) -> Vec<Option<(usize, String)>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, StdOrdering::Relaxed);
            let Some(weakening) = weakenings.get(index) else { return done };
            done.push((index, caught(*weakening)));
        }
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn loom_weakened_each_is_caught() {
    let weakenings = weakenings();
    let caught = all_caught(&weakenings);
    println!("| site | weakened to | caught by | after executions |\n|---|---|---|---:|");
    for (weakening, caught) in weakenings.iter().zip(&caught) {
        let executions = caught.as_ref().map_or("NOT CAUGHT".into(), |(executions, _)| executions.to_string());
        println!("{} {executions} |", row(weakening));
    }
    for ((site, how, _), caught) in weakenings.iter().zip(&caught) {
        println!("{site}, {how}: {}", caught.as_ref().map_or("-", |(_, why)| why));
    }
    let missed: Vec<_> = weakenings.iter().zip(&caught).filter(|(_, caught)| caught.is_none()).collect();
    assert!(missed.is_empty(), "models that do not fail: {missed:#?}");
}

/// What runs the weakened models does not itself make them fail.
#[test]
fn loom_weakened_nothing_is_caught_where_nothing_is_weakened() {
    let models: BTreeSet<&str> = weakenings().iter().map(|(.., model)| *model).collect();
    let runs: Vec<Weakening> = models.into_iter().map(|model| (NOTHING, NOTHING, model)).collect();
    for (run, caught) in runs.iter().zip(all_caught(&runs)) {
        assert_eq!(caught, None, "{run:?} fails");
    }
}

fn row((site, how, model): &Weakening) -> String {
    let (_, model) = model.split_once("::").expect("a module and a name");
    format!("| `{site}` | {how} | `{model}` |")
}

/// Each ordering that is stronger than relaxed has a name, and each name is weakened and in the table for readers.
#[test]
fn loom_weakened_list_is_complete() {
    let mut sites = BTreeSet::new();
    for source in SOURCES {
        // Without line breaks, so that formatting does not matter; without tests of other kinds.
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
        let named = [named("ordering(\""), named("fence(\"")].concat();
        let strong: usize = ["Acquire", "Release", "AcqRel", "SeqCst"]
            .iter()
            .map(|name| code.matches(&format!("Ordering::{name}")).count())
            .sum();
        assert_eq!(strong, named.len(), "an ordering without a name, beside {named:?}");
        sites.extend(named);
    }
    let weakenings = weakenings();
    let listed: BTreeSet<String> = weakenings.iter().map(|(site, ..)| (*site).to_owned()).collect();
    assert_eq!(listed, sites, "the list and the sources differ");
    for weakening in &weakenings {
        assert!(TABLE.contains(&row(weakening)), "docs/orderings.md has no row {}", row(weakening));
    }
}
