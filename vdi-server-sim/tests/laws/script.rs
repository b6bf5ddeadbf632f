//! Texts for `sqlcmd`, and the batches in them.

// It belongs to the program, so it is not the library's to give.
#[path = "../../src/bin/vdi-sim/sqlcmd/script.rs"]
mod program;

use program::{Directive, directive, is_open, substitute};
use vdi_server_sim::tsql::{Action, Step, parse, parse_batch};
use vdi_server_sim::types::{Parameter, Value};

/// Lines for sqlcmd itself, variables and batches are read totally; a batch of one statement is that statement, in its place;
/// whatever is refused is refused in a place of the batch.
pub(crate) fn script(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    for line in text.lines() {
        a_line(line);
    }
    let lines = text.matches('\n').count() as u32 + 1;
    let alone = parse(text);
    match parse_batch(text, &[]) {
        Ok(steps) => {
            assert!(!is_open(text));
            assert!(
                steps.is_sorted_by_key(|step| step.line) && steps.iter().all(|step| (1..=lines).contains(&step.line))
            );
            if let Ok(alone) = alone {
                let [Step { action: Action::Statement(statement), .. }] = &steps[..] else {
                    panic!("{text:?} is one statement: {steps:?}")
                };
                assert_eq!(**statement, alone);
            }
            // A variable that is not used changes nothing.
            let unused = [Parameter::new("@", Value::Null)];
            assert_eq!(parse_batch(text, &unused).as_ref(), Ok(&steps));
            // A line before the batch moves its statements and nothing else.
            let moved = parse_batch(&format!("\n{text}"), &[]);
            let down = |step: &Step| Step { line: step.line + 1, action: step.action.clone() };
            assert_eq!(moved, Ok(steps.iter().map(down).collect()));
            !steps.is_empty()
        }
        Err(refusal) => {
            assert!(alone.is_err(), "{text:?} is a statement: {refusal:?}");
            let messages = refusal.messages();
            assert!(messages.first().is_some_and(|message| message.is_error()), "{messages:?}");
            for message in &messages {
                assert!(!message.text.is_empty());
                assert!((1..=lines).contains(&message.line), "{message:?} of {text:?}");
            }
            false
        }
    }
}

fn a_line(line: &str) {
    match directive(line, "GO") {
        Some(Directive::Go(count)) => {
            assert!(line.trim_start().get(..2).is_some_and(|go| go.eq_ignore_ascii_case("go")));
            assert!(count == 1 || line.contains(char::is_numeric));
            // Another word ends batches where one was given.
            assert!(!matches!(directive(line, "END"), Some(Directive::Go(_))));
        }
        Some(Directive::Quit) => assert!(line.to_ascii_uppercase().contains("IT")),
        Some(Directive::Unknown) => assert!(line.trim_start().starts_with([':', '!'])),
        None => {}
    }
    // Putting a variable's own form in its place changes nothing.
    let names = std::cell::Cell::new(0);
    let same = substitute(line, |name| {
        assert!(!name.is_empty());
        names.set(names.get() + 1);
        Some(format!("$({name})"))
    });
    assert_eq!(same.as_deref(), Ok(line));
    let none = substitute(line, |_| None);
    assert_eq!(none.is_err(), names.get() > 0, "{line:?}");
    if let Err(name) = none {
        assert!(line.contains(&format!("$({name})")), "{line:?}: {name:?}");
    }
}
