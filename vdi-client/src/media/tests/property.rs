//! Whatever happens in whatever order: the target holds the old bytes or all of the new, and nothing else is left.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Op {
    Write(usize),
    Flush,
    Complete,
    ClearError,
    Close,
    Other,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..5000).prop_map(Op::Write),
        4 => Just(Op::Flush),
        1 => Just(Op::Complete),
        1 => Just(Op::ClearError),
        2 => Just(Op::Close),
        1 => Just(Op::Other),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Write),
        Just(Step::SyncFile),
        Just(Step::Link),
        Just(Step::Rename),
        Just(Step::SyncDirectory)
    ]
}

/// What the target has to hold, by the rules of the module's documentation, written down once more.
struct Model {
    agreed: bool,
    written: Vec<u8>,
    covered: bool,
    failed: bool,
    committed: bool,
    naming: Naming,
}

impl Model {
    /// Whether the operation has to succeed; what it changes is done.
    fn apply(&mut self, op: Op, data: &[u8], fails: Option<Step>) -> bool {
        let running = !self.failed && !self.committed;
        let met = |steps: &[Step]| fails.is_some_and(|step| steps.contains(&step));
        match op {
            Op::Other => return false,
            Op::ClearError => return !self.failed,
            _ if self.failed => return false,
            Op::Write(_) if self.committed => return false,
            _ if self.committed => return true,
            Op::Write(_) => {
                self.failed = met(&[Step::Write]);
                self.covered = false;
                if !self.failed {
                    self.written.extend_from_slice(data);
                }
            }
            Op::Flush => {
                self.failed = met(&[Step::SyncFile]);
                self.covered = true;
            }
            Op::Close if self.agreed || !self.covered => self.failed = true,
            Op::Close | Op::Complete => {
                let before =
                    met(&[Step::SyncFile, Step::Rename]) || self.naming == Naming::Unnamed && met(&[Step::Link]);
                self.committed = !before;
                self.failed = before || met(&[Step::SyncDirectory]);
            }
        }
        running && !self.failed
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn old_or_new_and_never_else(
        hidden in any::<bool>(),
        agreed in any::<bool>(),
        old in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
        ops in proptest::collection::vec((op(), proptest::option::weighted(0.1, step())), 0..12),
    ) {
        let place = Place::new(old.as_deref());
        let naming = if hidden { Naming::Hidden } else { Naming::Unnamed };
        let mut media = FileMedia::create_as(&place.target, naming).unwrap();
        media.begin(&backup(if agreed { Features::COMPLETE_ENABLED } else { Features::NONE })).unwrap();
        let mut model = Model { agreed, written: Vec::new(), covered: false, failed: false, committed: false, naming };

        for (number, (op, fails)) in ops.into_iter().enumerate() {
            let data = match op {
                Op::Write(length) => vec![number as u8 + 1; length],
                _ => Vec::new(),
            };
            FAIL.set(fails);
            let done = match op {
                Op::Write(_) => media.write(0, &data),
                Op::Flush => media.flush(),
                Op::Complete => media.complete(),
                Op::ClearError => media.clear_error(),
                Op::Close => media.close(),
                Op::Other => media.other(vdi_proto::command::CommandCode::LOAD, 1, 0).map(drop),
            };
            FAIL.set(None);
            prop_assert_eq!(done.is_ok(), model.apply(op, &data, fails), "{:?}: {:?}", op, done);

            let expected = if model.committed { Some(&model.written) } else { old.as_ref() };
            prop_assert_eq!(&place.content(), &expected.cloned());
        }
        drop(media);
        let expected = if model.committed { Some(&model.written) } else { old.as_ref() };
        prop_assert_eq!(&place.content(), &expected.cloned());
        let names = place.names();
        prop_assert_eq!(names.len(), usize::from(expected.is_some()), "{:?}", names);
    }
}
