//! What can be typed: every command and its flags.

use std::fmt;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0    done; a service: drained and stopped
  1    failed while running, or answered with an error
  2    wrong usage or configuration; nothing was started
  130  stopped at once by a second SIGINT (143: by a second SIGTERM)";

/// Publish/subscribe broadcast over Server-Sent Events: nothing is lost silently.
///
/// Backend services POST, every listening client hears it in milliseconds, and one that drops off comes back to
/// exactly what it missed.
#[derive(Debug, Parser)]
#[command(name = "fanfare", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in this process, without Redis: edge, publish API and a demo page
    Dev(DevOptions),
    /// Publish from the shell
    Send(SendOptions),
    /// Follow channels in the terminal, resuming over breaks
    Tail(TailOptions),
    /// Show every setting: variable, TOML key, default, meaning
    Config(ConfigOptions),
    /// Ask the local /healthz; for container health checks
    Health(HealthOptions),
    #[command(hide = true)]
    Edge {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _words: Vec<String>,
    },
    #[command(hide = true)]
    Publish {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Run everything in this process, without Redis: edge, publish API and a demo page.
///
/// No token is needed, `?user=` names the user. It takes requests from pages of any loopback origin (a Vite or Next
/// server), and refuses every other `Host` and `Origin`. Events live in memory and go with the process.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DevOptions {
    /// Configuration file (TOML); `fanfare config --format toml` prints one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// Another name under which requests may come, as `Host` and as `Origin`; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
}

/// Publish from the shell.
///
/// Prints the event's id. With `-` for DATA, every line of standard input is the JSON data of one event; with `-`
/// alone, every line is an entry of its own, such as {"channel":"server:7","data":"hi"}.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "fanfare send [OPTIONS] CHANNEL DATA\n       fanfare send [OPTIONS] --user USER DATA\n       \
                      fanfare send [OPTIONS] --broadcast DATA\n       fanfare send [OPTIONS] [CHANNEL] -",
    after_help = EXIT_CODES,
)]
pub(crate) struct SendOptions {
    /// The channel; with --user or --broadcast the data
    #[arg(value_name = "CHANNEL", allow_negative_numbers = true)]
    pub(crate) first: String,

    /// The data; - for standard input
    #[arg(value_name = "DATA", allow_negative_numbers = true)]
    pub(crate) second: Option<String>,

    /// To one user
    #[arg(long, short, value_name = "USER", conflicts_with = "broadcast")]
    pub(crate) user: Option<String>,

    /// To everybody
    #[arg(long, short)]
    pub(crate) broadcast: bool,

    /// The event's type
    #[arg(long, short, value_name = "NAME")]
    pub(crate) event: Option<String>,

    /// DATA is JSON; else it is sent as a string
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) server: ServerOptions,

    /// Publisher key
    #[arg(long, env = "FANFARE_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
}

/// Follow channels in the terminal, resuming over breaks.
///
/// One line per event; what Fanfare says about the stream (gaps, goodbyes, breaks) goes to standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct TailOptions {
    /// Channels; none: the user's inbox and the broadcast
    #[arg(value_name = "CHANNEL")]
    pub(crate) channels: Vec<String>,

    /// As this user (where no token is needed)
    #[arg(long, short, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// First the last N retained events of each channel
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) replay: Option<u32>,

    /// One JSON object per line: id, event, channel, data, timestamp
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) server: ServerOptions,

    /// Subscriber token
    #[arg(long, env = "FANFARE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// Which server the tools speak to.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerOptions {
    /// Where the server is
    #[arg(long, env = "FANFARE_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(crate) url: String,
}

/// Show every setting: variable, TOML key, default, meaning.
#[derive(Debug, clap::Args)]
pub(crate) struct ConfigOptions {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Configuration file (TOML) whose values are shown
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Every setting with the value that it has here
    Text,
    /// The reference table
    Markdown,
    /// A configuration file with every default, commented out
    Toml,
}

/// Ask the local /healthz; for container health checks.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct HealthOptions {
    /// Where the server is [default: where the configuration makes it listen]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// Configuration file (TOML) that the server was started with
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    pub(crate) config: Option<PathBuf>,
}

/// What was typed makes no sense, in one or two sentences.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    pub(crate) fn not_yet(role: &str) -> Self {
        Self(format!("`fanfare {role}` needs Redis, which this version can't use yet; run `fanfare dev`"))
    }

    /// `fanfare publish server:7 hi` is what one tries first; the role of that name is something else.
    pub(crate) fn publish(words: &[String]) -> Self {
        match words {
            [first, ..] if !first.starts_with('-') => {
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                Self(format!(
                    "to publish from the shell: fanfare send {}\n`fanfare publish` is the publish API's own process",
                    words.join(" ")
                ))
            }
            _ => Self::not_yet("publish"),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A word as it can be typed into a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/~%+=@,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_suggested_command_can_be_pasted() {
        assert_eq!(quoted("server:7"), "server:7");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
