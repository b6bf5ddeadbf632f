//! Faults as text: `name` or `name=value`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use vdi_proto::status::VdError;

use super::{Fault, FaultHelp, ServerCall, TABLE};

/// Why a text is not a fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FaultError {
    /// No fault has this name.
    #[error("there is no fault {name:?}; there are {}", all())]
    Unknown {
        /// The name in the text.
        name: String,
    },
    /// The value is missing, superfluous or out of range.
    #[error("{text:?}: {name} {what}; write {}", usage(name))]
    Value {
        /// The whole text.
        text: String,
        /// The name of the fault.
        name: &'static str,
        /// The problem: the rest of a sentence that begins with the fault's name.
        what: String,
    },
}

fn usage(name: &str) -> String {
    TABLE.iter().find(|help| help.name == name).map(FaultHelp::to_string).unwrap_or_default()
}

fn all() -> String {
    TABLE.iter().map(FaultHelp::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for FaultHelp {
    /// The syntax, `delay-at=N:MS` for example.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.value.is_empty() { Ok(()) } else { write!(f, "={}", self.value) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Fault::ShortReads | Fault::QueueFull | Fault::SmallTransfers | Fault::ReadSizes | Fault::FailAfterClose => {
                f.write_str(name)
            }
            Fault::Delay { up_to: ms }
            | Fault::ServerTimeOut { interval: ms }
            | Fault::SlowConfiguration { wait: ms } => write!(f, "{name}={ms}"),
            Fault::AbortAt { command: n }
            | Fault::DieAt { command: n }
            | Fault::ReadError { read: n }
            | Fault::Flushes { writes: n }
            | Fault::IgnoreCompletion { completion: n } => write!(f, "{name}={n}"),
            Fault::DelayAt { command, wait } => write!(f, "{name}={command}:{wait}"),
            Fault::Refuse { call, code } => write!(f, "{name}={}:{}", call.name(), code.name()),
        }
    }
}

impl Fault {
    /// The name, as in [`TABLE`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Fault::Delay { .. } => "delay",
            Fault::DelayAt { .. } => "delay-at",
            Fault::AbortAt { .. } => "abort-at",
            Fault::DieAt { .. } => "die-at",
            Fault::ReadError { .. } => "read-error",
            Fault::ShortReads => "short-reads",
            Fault::QueueFull => "queue-full",
            Fault::SmallTransfers => "small-transfers",
            Fault::ReadSizes => "read-sizes",
            Fault::Flushes { .. } => "flushes",
            Fault::ServerTimeOut { .. } => "server-timeout",
            Fault::SlowConfiguration { .. } => "slow-configuration",
            Fault::Refuse { .. } => "refuse",
            Fault::IgnoreCompletion { .. } => "ignore-completion",
            Fault::FailAfterClose => "fail-after-close",
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Fault, FaultError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let help = TABLE.iter().find(|help| help.name == name);
        let help = help.ok_or_else(|| FaultError::Unknown { name: name.to_owned() })?;
        let fault = match (help.value.is_empty(), value) {
            (true, None) => without_value(name),
            (true, Some(_)) => Err("takes no value".to_owned()),
            (false, None) => Err("needs a value".to_owned()),
            (false, Some(value)) => with_value(name, value),
        };
        fault.map_err(|what| FaultError::Value { text: text.to_owned(), name: help.name, what })
    }
}

/// For a name of [`TABLE`] without a parser. A test parses every name of the table.
const NOT_PARSED: &str = "cannot be parsed";

fn without_value(name: &str) -> Result<Fault, String> {
    match name {
        "short-reads" => Ok(Fault::ShortReads),
        "queue-full" => Ok(Fault::QueueFull),
        "small-transfers" => Ok(Fault::SmallTransfers),
        "read-sizes" => Ok(Fault::ReadSizes),
        "fail-after-close" => Ok(Fault::FailAfterClose),
        _ => Err(NOT_PARSED.to_owned()),
    }
}

fn with_value(name: &str, value: &str) -> Result<Fault, String> {
    match name {
        "delay" => Ok(Fault::Delay { up_to: milliseconds(value)? }),
        "delay-at" => {
            let (command, wait) = pair(value)?;
            Ok(Fault::DelayAt { command: ordinal(command)?, wait: milliseconds(wait)? })
        }
        "abort-at" => Ok(Fault::AbortAt { command: ordinal(value)? }),
        "die-at" => Ok(Fault::DieAt { command: ordinal(value)? }),
        "read-error" => Ok(Fault::ReadError { read: ordinal(value)? }),
        "flushes" => Ok(Fault::Flushes { writes: ordinal(value)? }),
        // 0 is no time-out in the interface.
        "server-timeout" => match milliseconds(value)? {
            0 => Err("has to be at least 1 ms".to_owned()),
            interval => Ok(Fault::ServerTimeOut { interval }),
        },
        "slow-configuration" => Ok(Fault::SlowConfiguration { wait: milliseconds(value)? }),
        "refuse" => {
            let (call, code) = pair(value)?;
            Ok(Fault::Refuse { call: function(call)?, code: status(code)? })
        }
        "ignore-completion" => Ok(Fault::IgnoreCompletion { completion: ordinal(value)? }),
        _ => Err(NOT_PARSED.to_owned()),
    }
}

fn pair(value: &str) -> Result<(&str, &str), String> {
    value.split_once(':').ok_or_else(|| format!("needs two parts with a colon between them, not {value:?}"))
}

fn ordinal(value: &str) -> Result<u64, String> {
    match value.parse() {
        Ok(0) => Err("counts from 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err(format!("needs a number, not {value:?}")),
    }
}

fn milliseconds(value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("needs milliseconds, 0 to {}, not {value:?}", u32::MAX))
}

fn function(value: &str) -> Result<ServerCall, String> {
    ServerCall::ALL.into_iter().find(|call| call.name() == value).ok_or_else(|| {
        let all = ServerCall::ALL.map(ServerCall::name).join(", ");
        format!("knows no function {value:?}, only {all}")
    })
}

fn status(value: &str) -> Result<VdError, String> {
    VdError::ALL.into_iter().find(|code| code.name() == value).ok_or_else(|| {
        let all = VdError::ALL.map(VdError::name).join(", ");
        format!("knows no status {value:?}, only {all}")
    })
}
