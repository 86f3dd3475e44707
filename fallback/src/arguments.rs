//! The command line of the fallback.

use std::ffi::OsString;
use std::path::PathBuf;

use everpoll_settings::Listen;
use lexopt::{Arg, Parser, ValueExt};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Answers Everpoll's requests as CGI or FastCGI while no daemon runs.

It answers at once from the same log as the daemon, and tells each page when to come back: nobody is held, nothing is
lost. It also takes POST /publish.

Usage:
  everpoll-fallback --listen ADDRESS [options]     FastCGI, at an address of its own
  everpoll-fallback [options]                      started by a web server: FastCGI if descriptor 0 is a listening
                                                   socket, otherwise one request as plain CGI. As CGI it takes no
                                                   options, since web servers let clients add some

Options:
  --listen ADDRESS     unix:/path/of/socket or host:port, such as unix:/run/everpoll/fallback.sock
  --workers N          threads that answer, each with one database connection, 1 to 16; default: the setting
                       fallback_workers, 8
  --socket-mode MODE   permissions of the unix socket, octal; default: the setting socket_mode, 0660. The web server
                       must be able to write to it: run both in one group, or give 0666
  --config FILE        settings file (TOML); default: the one that EVERPOLL_CONFIG names, if any
  --help, -h           this text
  --version, -V        the version

Settings come from the file and from EVERPOLL_* in the environment; \"everpoll help settings\" lists them. The most
important one is the database, the same as the daemon's:
  EVERPOLL_DATABASE_URL=postgres://everpoll@localhost/app EVERPOLL_ACCESS=open \\
      everpoll-fallback --listen unix:/run/everpoll/fallback.sock

Signals: SIGTERM and SIGINT finish the requests in hand, then end with 0; a second one ends at once. SIGHUP reads the
settings again.

Exit codes: 0 stopped, or answered; 1 the address cannot be used; 2 wrong arguments or settings.

A try without any web server:
  REQUEST_METHOD=GET REQUEST_URI=/e/cheese GATEWAY_INTERFACE=CGI/1.1 everpoll-fallback
";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Help,
    Version,
    Run(Arguments),
}

/// How to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) listen: Option<Listen>,
    pub(crate) workers: Option<u32>,
    pub(crate) socket_mode: Option<u32>,
    pub(crate) config: Option<PathBuf>,
}

/// Parses what follows the program's name.
///
/// # Errors
///
/// The first thing that is wrong, in a sentence.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let mut parser = Parser::from_args(arguments);
    let mut found = Arguments::default();
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Arg::Long("listen") => {
                let text = value(&mut parser, "--listen")?;
                found.listen =
                    Some(Listen::parse(&text).map_err(|wrong| format!("--listen {text:?} {wrong}"))?);
            }
            Arg::Long("workers") => {
                let text = value(&mut parser, "--workers")?;
                let workers = text.parse().ok().filter(|workers| (1..=16).contains(workers));
                found.workers = Some(workers.ok_or_else(|| {
                    format!("--workers {text:?} is no number from 1 to 16; give one such as 8")
                })?);
            }
            Arg::Long("socket-mode") => {
                let text = value(&mut parser, "--socket-mode")?;
                let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
                found.socket_mode = Some(mode.ok_or_else(|| {
                    format!("--socket-mode {text:?} is no octal file mode up to 0777; give one such as 0660")
                })?);
            }
            Arg::Long("config") => {
                found.config = Some(parser.value().map_err(|error| error.to_string())?.into());
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Asked::Help),
            Arg::Long("version") | Arg::Short('V') => return Ok(Asked::Version),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Asked::Run(found))
}

fn value(parser: &mut Parser, name: &str) -> Result<String, String> {
    let value = parser.value().map_err(|error| error.to_string())?;
    value.string().map_err(|_| format!("{name} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Asked, String> {
        super::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn arguments_are_understood_in_both_spellings() {
        let expected = Arguments {
            listen: Some(Listen::Unix("/run/x.sock".into())),
            workers: Some(3),
            socket_mode: Some(0o666),
            config: Some("x.toml".into()),
        };
        let spaced =
            ["--listen", "unix:/run/x.sock", "--workers", "3", "--socket-mode", "0666", "--config", "x.toml"];
        let joined = ["--listen=unix:/run/x.sock", "--workers=3", "--socket-mode=666", "--config=x.toml"];
        assert_eq!(parse(&spaced), Ok(Asked::Run(expected)));
        let Ok(Asked::Run(joined)) = parse(&joined) else { panic!() };
        assert_eq!(joined.socket_mode, Some(0o666));
        assert_eq!(parse(&["--listen", "x", "-h"]).unwrap_err(), parse(&["--listen", "x"]).unwrap_err());
        assert_eq!(parse(&["-V"]), Ok(Asked::Version));
    }

    #[test]
    fn wrong_arguments_are_answered_with_what_would_be_right() {
        for arguments in [
            &["--workers", "0"][..],
            &["--workers", "17"],
            &["--socket-mode", "888"],
            &["--listen", "nowhere"],
        ] {
            assert!(parse(arguments).unwrap_err().contains("give"), "{arguments:?}");
        }
        assert!(parse(&["--lisen", "x"]).unwrap_err().contains("--lisen"));
        assert!(parse(&["--workers"]).is_err());
        assert!(parse(&["extra"]).is_err());
    }
}
