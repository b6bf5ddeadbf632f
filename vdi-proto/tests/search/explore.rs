//! Breadth-first search over all reachable states of a [`World`].
//!
//! A transition is *progress* if its role makes it sooner or later; all others are choices: an error, an abort, a death.
//! The search checks every state, and two rules of progress:
//!
//! 1. If no progress is possible, every live role has ended. So no live role waits for something that cannot come.
//! 2. Progress has no cycles. So every role that can end does end, without the choices of others.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};

use super::world::{Action, Setup, Shared, Successors, World};

/// What a search has found in the reachable states.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    /// The number of transitions to the farthest state.
    pub(crate) depth: u32,
    /// The number of states in which every live role has ended, by how they ended.
    pub(crate) ends: BTreeMap<String, usize>,
}

/// A state that breaks a rule, and the shortest way to it.
pub(crate) struct Failure {
    pub(crate) rule: String,
    pub(crate) actions: Vec<Action>,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} after", self.rule)?;
        self.actions.iter().try_for_each(|action| writeln!(f, "    {action}"))
    }
}

/// A state's number, in the order of discovery.
type Number = u32;

/// More states than any setup has: a set whose states have no end.
const MOST_STATES: usize = 50_000_000;

#[derive(Default)]
struct Search {
    /// By a 64-bit hash of the state. Two states with one hash would be taken for one.
    numbers: HashMap<u64, Number>,
    /// How each state was reached first.
    parents: Vec<(Number, Action)>,
    /// The states to visit, with their depth.
    frontier: VecDeque<(Number, u32, World)>,
    /// The transitions that are progress.
    progress: Vec<(Number, Number)>,
    shared: Shared,
}

impl Search {
    fn add(&mut self, mut world: World, parent: Number, action: Action, depth: u32) -> Number {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        match self.numbers.entry(hasher.finish()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let number = self.parents.len() as Number;
                new.insert(number);
                self.parents.push((parent, action));
                world.share(&mut self.shared);
                self.frontier.push_back((number, depth, world));
                number
            }
        }
    }

    fn failure(&self, rule: String, at: Number) -> Failure {
        let mut actions = Vec::new();
        let mut number = at;
        while number != 0 {
            let (parent, action) = self.parents[number as usize];
            actions.push(action);
            number = parent;
        }
        actions.reverse();
        Failure { rule, actions }
    }

    /// A state from which progress may never end. All others are removed one after the other: states without progress,
    /// then states whose progress leads to removed states only.
    fn endless(&mut self) -> Option<Number> {
        self.progress.sort_unstable_by_key(|(_, to)| *to);
        let mut left = vec![0u32; self.parents.len()];
        self.progress.iter().for_each(|(from, _)| left[*from as usize] += 1);
        let mut removed: Vec<Number> = (0..left.len()).filter(|n| left[*n] == 0).map(|n| n as Number).collect();
        while let Some(number) = removed.pop() {
            let first = self.progress.partition_point(|(_, to)| *to < number);
            for (before, _) in self.progress[first..].iter().take_while(|(_, to)| *to == number) {
                left[*before as usize] -= 1;
                if left[*before as usize] == 0 {
                    removed.push(*before);
                }
            }
        }
        left.iter().position(|count| *count > 0).map(|number| number as Number)
    }
}

/// Visits every state that is reachable in the setup.
pub(crate) fn explore(setup: &Setup) -> Result<Report, Failure> {
    let mut search = Search::default();
    let mut report = Report::default();
    search.add(World::new(setup), 0, Action::START, 0);
    while let Some((number, depth, world)) = search.frontier.pop_front() {
        world.check().map_err(|rule| search.failure(rule, number))?;
        report.depth = depth;
        let mut can_progress = false;
        for successor in Successors::of(&world, setup) {
            report.transitions += 1;
            let next = search.add(successor.world, number, successor.action, depth + 1);
            if successor.progress {
                can_progress = true;
                search.progress.push((number, next));
            }
        }
        if !can_progress {
            let end = world.check_end().map_err(|rule| search.failure(rule, number))?;
            *report.ends.entry(end).or_default() += 1;
        }
        assert!(search.parents.len() < MOST_STATES, "the states have no end");
    }
    report.states = search.parents.len();
    match search.endless() {
        Some(number) => Err(search.failure("progress has no end".to_owned(), number)),
        None => Ok(report),
    }
}
