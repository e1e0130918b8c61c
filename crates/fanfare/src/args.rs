//! What can be typed: every command and its flags.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
    /// Hold subscribers' connections and deliver to them; any number of edges share a Redis
    Edge(RoleOptions),
    /// Take what backend services publish, over the same Redis
    Publish(PublishOptions),
    /// Publish from the shell
    Send(SendOptions),
    /// Follow channels in the terminal, resuming over breaks
    Tail(TailOptions),
    /// Mint a subscriber token
    Token(TokenOptions),
    /// Find out whether Fanfare will work: the configuration, and Redis as it is
    Check(CheckOptions),
    /// Show every setting: variable, TOML key, default, meaning
    Config(ConfigOptions),
    /// Ask the local /healthz; for container health checks
    Health(HealthOptions),
}

/// Run everything in this process, without Redis: edge, publish API and a demo page.
///
/// No token is needed, `?user=` names the user. It takes requests from pages of any loopback origin (a Vite or Next
/// server), and refuses every other `Host` and `Origin`. Events live in memory and go with the process, unless --redis
/// says where to keep them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DevOptions {
    /// Configuration file (TOML); `fanfare config --format toml` prints one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// Keep events in this Redis, such as redis://127.0.0.1:6379
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,

    /// Another name under which requests may come, as `Host` and as `Origin`; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
}

/// A role as a process of its own. Needs FANFARE_REDIS_URL, and who may use it: an edge FANFARE_AUTH_SECRET, a publish
/// API FANFARE_PUBLISH_KEYS. `fanfare config` lists every setting.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct RoleOptions {
    /// Configuration file (TOML); `fanfare config --format toml` prints one
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Address and port; port 0 takes a free one [default: port 8080 of an edge, 8081 of a publish API]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,

    /// Where operators ask: /healthz, /readyz, /metrics, /version [default: 0.0.0.0:9091]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<String>,

    /// The Redis that all roles share; a password is better kept in FANFARE_REDIS_PASSWORD
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PublishOptions {
    #[command(flatten)]
    pub(crate) role: RoleOptions,

    /// What `fanfare send` takes: it is pointed to.
    #[arg(hide = true, allow_negative_numbers = true)]
    pub(crate) words: Vec<String>,
}

/// Mint a subscriber token, signed with the first secret of FANFARE_AUTH_SECRET.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct TokenOptions {
    /// Whose it is: opens the user's inbox and the broadcast
    #[arg(long, short, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// A channel, or a pattern such as 'server:*', that it opens; may be given several times
    #[arg(long, short, value_name = "PATTERN")]
    pub(crate) channel: Vec<String>,

    /// A channel that its bearer follows without asking; may be given several times
    #[arg(long, value_name = "CHANNEL")]
    pub(crate) follow: Vec<String>,

    /// How long it is good
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Duration,

    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Find out whether Fanfare will work: the configuration, and Redis as it is.
///
/// Every mistake at once, one sentence each. Redis is asked with the real scripts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct CheckOptions {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The Redis to look at
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
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

    /// `fanfare publish server:7 hi` is what one tries first; the role of that name is something else.
    pub(crate) fn publish(words: &[String]) -> Self {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        Self(format!(
            "to publish from the shell: fanfare send {}\n`fanfare publish` is the publish API's own process",
            words.join(" ")
        ))
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
