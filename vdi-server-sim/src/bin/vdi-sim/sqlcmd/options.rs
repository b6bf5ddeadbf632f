//! The options of `sqlcmd`.
//!
//! clap parses them as sqlcmd does: letters are case-sensitive, values are attached or separate. There are no long names. Of two
//! equal options the last one counts. Every error ends with exit status 1.
//!
//! # Invariants
//!
//! 1. No message contains a value: it may be the password, or a part of a password without quotes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser};
use vdi_proto::name::check_instance;

/// Runs T-SQL against the simulated server, as sqlcmd does against SQL Server.
#[derive(Parser)]
#[command(
    name = "sqlcmd",
    no_binary_name = true,
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    after_help = "The data folder is named by VDI_SIM_DATA; VDI_SIM_FAULTS, VDI_SIM_SEED, VDI_SIM_WAIT and VDI_SIM_TRANSCRIPT are the options \
                  of `vdi-sim sql`.\nWithout -Q, -q and -i the statements come from the standard input.",
    override_usage = "sqlcmd [-S SERVER[\\INSTANCE]] [-U USER -P PASSWORD | -E] [-d DATABASE] [-Q STATEMENTS | -i FILE] [-b] ..."
)]
pub(crate) struct Options {
    /// SERVER, SERVER\INSTANCE or PROTOCOL:SERVER,PORT; only the instance counts. Default: SQLCMDSERVER
    #[arg(short = 'S', value_name = "SERVER", value_parser = instance)]
    pub(crate) instance: Option<String>,
    /// The initial database; it must exist. Default: SQLCMDDBNAME
    #[arg(short = 'd', value_name = "DATABASE")]
    pub(crate) database: Option<String>,
    /// Run these statements, then end
    #[arg(short = 'Q', value_name = "STATEMENTS", allow_hyphen_values = true, conflicts_with = "files")]
    pub(crate) query: Option<String>,
    /// Run these statements, then those of the standard input
    #[arg(short = 'q', value_name = "STATEMENTS", allow_hyphen_values = true, conflicts_with = "files")]
    pub(crate) first_query: Option<String>,
    /// Run the statements of these files, then end
    #[arg(short = 'i', value_name = "FILE", value_delimiter = ',', action = ArgAction::Append)]
    pub(crate) files: Vec<PathBuf>,
    /// Write the output into this file
    #[arg(short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Stop after a batch with an error, with exit status 1
    #[arg(short = 'b')]
    pub(crate) stop_on_error: bool,
    /// Errors from this severity on count for the exit status, which is then their severity
    #[arg(short = 'V', value_name = "SEVERITY", allow_hyphen_values = true)]
    pub(crate) error_severity: Option<i32>,
    /// Print only messages from this severity on
    #[arg(
        short = 'm',
        value_name = "SEVERITY",
        allow_hyphen_values = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) message_severity: i32,
    /// Print errors (-r, -r0) or all messages (-r1) on the standard error
    #[arg(short = 'r', value_name = "0|1", num_args = 0..=1, default_missing_value = "0", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) to_stderr: Option<u8>,
    /// Lines between headers of a result; -1 prints none
    #[arg(
        short = 'h',
        value_name = "LINES",
        allow_hyphen_values = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) headers: i32,
    /// What stands between the columns of a result; a space by default
    #[arg(
        short = 's',
        value_name = "CHARACTER",
        default_value_t = ' ',
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) separator: char,
    /// Do not fill columns up with spaces
    #[arg(short = 'W')]
    pub(crate) trim: bool,
    /// Print the statements before they run
    #[arg(short = 'e')]
    pub(crate) echo: bool,
    /// The value of $(NAME) in the statements
    #[arg(short = 'v', value_name = "NAME=VALUE", num_args = 1.., action = ArgAction::Append, value_parser = scripting_variable)]
    pub(crate) variables: Vec<(String, String)>,
    /// Do not replace $(NAME)
    #[arg(short = 'x')]
    pub(crate) no_variables: bool,
    /// Do not replace $(NAME) by environment variables
    #[arg(short = 'X', value_name = "1", num_args = 0..=1, default_missing_value = "0")]
    pub(crate) no_environment: Option<u8>,
    /// The word that ends a batch, instead of GO
    #[arg(short = 'c', value_name = "WORD", default_value = "GO", hide_default_value = true)]
    pub(crate) batch_end: String,
    #[command(flatten)]
    _ignored: Ignored,
    /// Show this help
    #[arg(short = '?', action = ArgAction::Help)]
    _help: Option<bool>,
}

/// Options that are accepted because agents use them, and that have no effect.
#[derive(Args)]
#[command(next_help_heading = "Accepted, without effect")]
struct Ignored {
    /// The user. Default: SQLCMDUSER
    #[arg(short = 'U', value_name = "USER")]
    user: Option<OsString>,
    /// The password; neither read nor printed. Default: SQLCMDPASSWORD
    #[arg(short = 'P', value_name = "PASSWORD", allow_hyphen_values = true)]
    password: Option<OsString>,
    /// Log in as the user of the operating system
    #[arg(short = 'E', conflicts_with_all = ["user", "password"])]
    trusted: bool,
    /// Encrypt
    #[arg(short = 'N', value_name = "MODE", num_args = 0..=1, default_missing_value = "")]
    encrypt: Option<OsString>,
    /// Trust the server's certificate
    #[arg(short = 'C')]
    trust: bool,
    /// Log in through Azure
    #[arg(short = 'G')]
    azure: bool,
    /// Dedicated connection of administrators
    #[arg(short = 'A')]
    administrator: bool,
    /// Intent of the application
    #[arg(short = 'K', value_name = "INTENT")]
    intent: Option<OsString>,
    /// Multi-subnet failover
    #[arg(short = 'M')]
    failover: bool,
    /// Name of the workstation
    #[arg(short = 'H', value_name = "NAME")]
    workstation: Option<OsString>,
    /// Time-out of the login; there is none
    #[arg(short = 'l', value_name = "SECONDS", allow_hyphen_values = true)]
    login_time_out: Option<i32>,
    /// Time-out of statements; there is none
    #[arg(short = 't', value_name = "SECONDS", allow_hyphen_values = true)]
    query_time_out: Option<i32>,
    /// Size of a packet
    #[arg(short = 'a', value_name = "BYTES")]
    packet: Option<i32>,
    /// Quoted identifiers; they are always on
    #[arg(short = 'I')]
    quoted_identifiers: bool,
    /// Width of the screen
    #[arg(short = 'w', value_name = "COLUMNS")]
    width: Option<i32>,
    /// Width of columns of variable length
    #[arg(short = 'y', value_name = "COLUMNS")]
    variable_width: Option<i32>,
    /// Width of columns of fixed length
    #[arg(short = 'Y', value_name = "COLUMNS")]
    fixed_width: Option<i32>,
    /// Statistics
    #[arg(short = 'p', value_name = "1", num_args = 0..=1, default_missing_value = "0")]
    statistics: Option<u8>,
    /// Control characters in the output
    #[arg(short = 'k', value_name = "1|2", num_args = 0..=1, default_missing_value = "0")]
    control: Option<u8>,
    /// Regional settings
    #[arg(short = 'R')]
    regional: bool,
    /// Code page; it is UTF-8
    #[arg(short = 'f', value_name = "CODEPAGE")]
    code_page: Option<OsString>,
    /// Column encryption
    #[arg(short = 'g')]
    column_encryption: bool,
}

/// Why the program ends before it runs a statement.
#[derive(Debug)]
pub(crate) enum Stop {
    /// `-?`: the help.
    Help(String),
    /// An error of the options, and the usage.
    Usage(String),
}

impl Options {
    /// Parses the arguments after the program's name.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, Stop> {
        let mut command = Options::command();
        let read = command.try_get_matches_from_mut(arguments).and_then(|found| Options::from_arg_matches(&found));
        read.map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp => Stop::Help(error.to_string()),
            _ => Stop::Usage(format!("{}\n{}", describe(&error), command.render_usage())),
        })
    }
}

/// The hyphen and letter of an option, from clap's description (`-Q <STATEMENTS>` for example).
fn letter(error: &clap::Error, kind: ContextKind) -> Option<String> {
    let text = match error.get(kind)? {
        ContextValue::String(text) => text,
        ContextValue::Strings(texts) => texts.first()?,
        _ => return None,
    };
    text.starts_with('-').then(|| text.chars().take(2).collect())
}

fn describe(error: &clap::Error) -> String {
    let option = letter(error, ContextKind::InvalidArg);
    match (error.kind(), option) {
        (ErrorKind::UnknownArgument, Some(option)) => format!("'{option}': there is no such option; -? lists them"),
        (ErrorKind::UnknownArgument, None) => {
            "there is an argument that belongs to no option; is a value with spaces not quoted?".to_owned()
        }
        (ErrorKind::ArgumentConflict, Some(option)) => match letter(error, ContextKind::PriorArg) {
            Some(other) => format!("'{option}' and '{other}' exclude each other; leave one out"),
            None => format!("'{option}' and another option exclude each other; leave one out"),
        },
        (ErrorKind::InvalidValue, Some(option)) if is_empty(error) => format!("'{option}': a value is missing"),
        // Only the errors of this file's parsers are known not to contain the value.
        (ErrorKind::ValueValidation, Some(option)) => match std::error::Error::source(error) {
            Some(source) if source.is::<InvalidValue>() => format!("'{option}': {source}"),
            _ => format!("'{option}': its value is no number, or out of range"),
        },
        (ErrorKind::InvalidUtf8, _) => "an argument is not UTF-8".to_owned(),
        (_, Some(option)) => format!("'{option}' cannot be understood"),
        (kind, None) => format!("the options cannot be understood ({kind})"),
    }
}

fn is_empty(error: &clap::Error) -> bool {
    matches!(error.get(ContextKind::InvalidValue), None | Some(ContextValue::None))
        || matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value)) if value.is_empty())
}

/// Why a value is invalid. The text does not contain the value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidValue(&'static str);

/// The instance in `[PROTOCOL:]SERVER[\INSTANCE][,PORT]`; empty for the default instance.
///
/// # Errors
/// The protocol is `np`, there are two backslashes, or the name is not valid for an instance.
pub(crate) fn instance(server: &str) -> Result<String, InvalidValue> {
    let is = |prefix: &str| server.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if is("np:") {
        return Err(InvalidValue("named pipes are not there; name the server without 'np:'"));
    }
    let address = server.split(',').next().unwrap_or_default();
    let name = address.split_once('\\').map_or("", |(_, name)| name).trim();
    if name.contains('\\') {
        return Err(InvalidValue("it is SERVER or SERVER\\INSTANCE, with one backslash"));
    }
    // The name by which SQL Server's services know the default instance.
    if name.is_empty() || name.eq_ignore_ascii_case("MSSQLSERVER") {
        return Ok(String::new());
    }
    match check_instance(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(_) => Err(InvalidValue("what follows the backslash cannot be the name of an instance")),
    }
}

fn scripting_variable(text: &str) -> Result<(String, String), InvalidValue> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            // Quotes that no shell has removed.
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            Ok((name.to_owned(), unquoted.unwrap_or(value).to_owned()))
        }
        _ => Err(InvalidValue("it is NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Options, Stop> {
        Options::read(arguments.iter().map(OsString::from))
    }

    fn usage_error(arguments: &[&str]) -> String {
        match read(arguments) {
            Err(Stop::Usage(text)) => text,
            Err(Stop::Help(text)) => panic!("help: {text}"),
            Ok(_) => panic!("{arguments:?} was accepted"),
        }
    }

    #[test]
    fn declaration_is_valid() {
        Options::command().debug_assert();
    }

    #[test]
    fn values_are_attached_or_separate() {
        for arguments in [
            &["-S", r".\PROD", "-Usa", "-Pp", "-QBACKUP x", "-b", "-h-1", "-m-1", "-V", "16", "-r1", "-va=1", "-t0"][..],
            &[r"-Stcp:host\PROD,1433", "-U", "sa", "-P", "-p", "-b", "-Q", "BACKUP x", "-h", "-1", "-m", "-1", "-V16"],
        ] {
            let options = read(arguments).unwrap_or_else(|stop| panic!("{stop:?}"));
            assert_eq!(options.instance.as_deref(), Some("PROD"));
            assert_eq!(options.query.as_deref(), Some("BACKUP x"));
            assert!(options.stop_on_error);
            assert_eq!((options.headers, options.message_severity, options.error_severity), (-1, -1, Some(16)));
        }
        let options = read(&["-r", "-N", "-C", "-v", "a=1", "b=\"2 3\"", "-p", "-i", "one,two", "-k1", "-X"]);
        let options = options.unwrap_or_else(|stop| panic!("{stop:?}"));
        assert_eq!((options.to_stderr, options.no_environment), (Some(0), Some(0)));
        assert_eq!(options.variables, [("a", "1"), ("b", "2 3")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(options.files, [PathBuf::from("one"), PathBuf::from("two")]);
    }

    #[test]
    fn usual_options_of_sqlcmd_are_accepted() {
        let all = "-U u -P p -S . -d d -q x -b -C -N -l 5 -t 5 -h 1 -W -s , -r 1 -m 1 -V 1 -v a=b -o f -e -x -X -I -w 80 -y 1 \
                   -Y 1 -p -a 512 -A -K ReadOnly -M -G -R -f 65001 -g -H h -k -c GO";
        assert!(read(&all.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>()).is_ok());
        assert!(read(&["-E"]).is_ok());
        assert!(matches!(read(&["-?"]), Err(Stop::Help(text)) if text.contains("VDI_SIM_DATA") && text.contains("-Q")));
    }

    #[test]
    fn errors_do_not_contain_values() {
        for (arguments, expected) in [
            (&["-Z", "secret"][..], "'-Z': there is no such option"),
            (&["-Zsecret"], "'-Z': there is no such option"),
            (&["--secret"], "'--': there is no such option"),
            (&["-P", "my", "secret"], "belongs to no option"),
            (&["-Q"], "'-Q': a value is missing"),
            (&["-S"], "'-S': a value is missing"),
            (&["-S", "-b"], "'-S': a value is missing"),
            (&["-t", "secret"], "'-t': its value is no number"),
            (&["-r2"], "'-r': its value is no number, or out of range"),
            (&["-v", "secret"], "'-v': it is NAME=VALUE"),
            (&["-S", r"np:\\.\pipe\secret"], "'-S': named pipes"),
            (&["-S", r".\a secret"], "'-S': what follows the backslash"),
            (&["-S", r"a\b\secret"], "'-S': it is SERVER or"),
        ] {
            let text = usage_error(arguments);
            assert!(text.contains(expected) && text.contains("Usage: sqlcmd"), "{arguments:?}: {text}");
            assert!(!text.contains("secret"), "{arguments:?}: {text}");
        }
        let text = usage_error(&["-E", "-U", "secret"]);
        assert!(text.contains("'-E' and '-U' exclude each other") || text.contains("'-U' and '-E' exclude"), "{text}");
        let text = usage_error(&["-Q", "secret", "-i", "secret"]);
        assert!(text.contains("'-Q' and '-i' exclude each other") || text.contains("'-i' and '-Q' exclude"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn instance_follows_the_backslash() {
        for (server, expected) in [
            (".", ""),
            ("", ""),
            ("localhost", ""),
            (".\\", ""),
            ("(local)", ""),
            (r"host\PROD", "PROD"),
            (r".\PROD", "PROD"),
            ("tcp:host,1433", ""),
            (r"tcp:host\PROD,1433", "PROD"),
            (r"lpc:.\PROD", "PROD"),
            (r".\MSSQLServer", ""),
            ("日本", ""),
        ] {
            assert_eq!(instance(server).ok().as_deref(), Some(expected), "{server}");
        }
    }
}
