//! Every setting, in the order in which they are printed. What is accepted, refused, printed and documented is made
//! from this table; its defaults are those of the structs.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use fanfare_protocol::{PARTITIONS_MAX, Partitions};
use tracing_subscriber::EnvFilter;

use super::units::{parse_address, parse_bytes, parse_count, parse_duration, show_bytes, show_duration};
use super::{Config, LogFormat};

/// One setting.
pub(super) struct Setting {
    /// The environment variable.
    pub(super) variable: &'static str,
    /// The TOML key, with its table.
    pub(super) key: &'static str,
    /// What it does, in a sentence or two.
    pub(super) meaning: &'static str,
    /// What a value looks like, as it follows "expected".
    pub(super) expected: &'static str,
    /// Takes a value; None: it is not one.
    pub(super) set: fn(&mut Config, &str) -> Option<()>,
    /// The value, as it would be written.
    pub(super) get: fn(&Config) -> String,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A batch is read whole into at most 1 MiB, and one event must fit into it.
const PAYLOAD_BYTES: RangeInclusive<u64> = 1..=1024 * 1024;

/// More than one machine has sockets for.
const CONNECTIONS: RangeInclusive<u64> = 1..=10_000_000;

/// A connection is matched against its channels when it joins, all at once.
const CHANNELS: RangeInclusive<u64> = 1..=10_000;

/// A history is read page by page, and what one channel holds in memory has a bound.
const HISTORY_EVENTS: RangeInclusive<u64> = 1..=100_000;

const RETENTION: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
const HEARTBEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 60);
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);

pub(super) static SETTINGS: [Setting; 14] = [
    Setting {
        variable: "FANFARE_EDGE_LISTEN",
        key: "edge.listen",
        meaning: "Where the edge listens (in `dev` everything). Port 0 takes a free one.",
        expected: "an address and a port, such as 127.0.0.1:8080",
        set: |config, text| set(&mut config.listen, parse_address(text)),
        get: |config| config.listen.to_string(),
    },
    Setting {
        variable: "FANFARE_REDIS_PARTITIONS",
        key: "redis.partitions",
        meaning: "Slices of all channels, each with an order of its own; of the in-process backbone too. \
                  Fixed per deployment.",
        expected: "a whole number from 1 to 64",
        set: |config, text| set(&mut config.partitions, parse_partitions(text)),
        get: |config| config.partitions.count().to_string(),
    },
    Setting {
        variable: "FANFARE_MAX_PAYLOAD",
        key: "max_payload",
        meaning: "Bytes of one event's data at most.",
        expected: "a size up to 1MiB, such as 65536, 64KiB or \"64 kB\"",
        set: |config, text| set(&mut config.publish.payload_bytes_max, parse_payload(text)),
        get: |config| show_bytes(config.publish.payload_bytes_max.get() as u64),
    },
    Setting {
        variable: "FANFARE_MAX_CONNECTIONS",
        key: "max_connections",
        meaning: "Connections of one edge at most; auto is what the limit of open files allows.",
        expected: "auto or a whole number from 1 to 10000000",
        set: |config, text| set(&mut config.edge.connections_max, parse_connections(text)),
        get: |config| config.edge.connections_max.map_or("auto".to_owned(), |count| count.to_string()),
    },
    Setting {
        variable: "FANFARE_MAX_CONNECTIONS_PER_USER",
        key: "max_connections_per_user",
        meaning: "Connections of one user on one edge at most.",
        expected: "a whole number from 1 to 10000000",
        set: |config, text| set_count(&mut config.edge.connections_per_user_max, parse_count(text, &CONNECTIONS)),
        get: |config| config.edge.connections_per_user_max.to_string(),
    },
    Setting {
        variable: "FANFARE_MAX_CHANNELS",
        key: "max_channels",
        meaning: "Channels that one connection may follow.",
        expected: "a whole number from 1 to 10000",
        set: |config, text| set_count(&mut config.edge.channels_max, parse_count(text, &CHANNELS)),
        get: |config| config.edge.channels_max.to_string(),
    },
    Setting {
        variable: "FANFARE_HISTORY_SIZE",
        key: "history_size",
        meaning: "Events of a channel that are retained at most. Who comes back after more is told of a gap.",
        expected: "a whole number from 1 to 100000",
        set: |config, text| set_count(&mut config.retention.history_size, parse_count(text, &HISTORY_EVENTS)),
        get: |config| config.retention.history_size.to_string(),
    },
    Setting {
        variable: "FANFARE_HISTORY_AGE",
        key: "history_age",
        meaning: "Age at which a retained event may go.",
        expected: "a duration from 1s to 1day, such as 5m",
        set: |config, text| set(&mut config.retention.history_age, parse_duration(text, &RETENTION)),
        get: |config| show_duration(config.retention.history_age),
    },
    Setting {
        variable: "FANFARE_IDEMPOTENCY_WINDOW",
        key: "idempotency_window",
        meaning: "How long an idempotency key is remembered.",
        expected: "a duration from 1s to 1day, such as 5m",
        set: |config, text| set(&mut config.retention.idempotency_window, parse_duration(text, &RETENTION)),
        get: |config| show_duration(config.retention.idempotency_window),
    },
    Setting {
        variable: "FANFARE_HEARTBEAT_INTERVAL",
        key: "heartbeat_interval",
        meaning: "Pause after which a quiet connection gets a heartbeat. Keep it well under the idle timeout of what \
                  stands between (60s for most load balancers).",
        expected: "a duration from 1s to 10m, such as 15s",
        set: |config, text| set(&mut config.edge.heartbeat_interval, parse_duration(text, &HEARTBEAT)),
        get: |config| show_duration(config.edge.heartbeat_interval),
    },
    Setting {
        variable: "FANFARE_DRAIN_DELAY",
        key: "drain_delay",
        meaning: "After SIGTERM: time between turning unready and the first goodbye, in which load balancers notice.",
        expected: "a duration up to 1h, such as 5s",
        set: |config, text| set(&mut config.drain_delay, parse_duration(text, &DRAIN)),
        get: |config| show_duration(config.drain_delay),
    },
    Setting {
        variable: "FANFARE_DRAIN_TIMEOUT",
        key: "drain_timeout",
        meaning: "Time over which the goodbyes are spread, so that a rollout is a ripple and not a storm.",
        expected: "a duration up to 1h, such as 20s",
        set: |config, text| set(&mut config.drain_timeout, parse_duration(text, &DRAIN)),
        get: |config| show_duration(config.drain_timeout),
    },
    Setting {
        variable: "FANFARE_LOG",
        key: "log",
        meaning: "Which log lines are written: a level, or directives such as info,fanfare_edge=debug.",
        expected: "off, error, warn, info, debug, trace, or directives such as info,fanfare_edge=debug",
        set: |config, text| set(&mut config.log, parse_log(text)),
        get: |config| config.log.clone(),
    },
    Setting {
        variable: "FANFARE_LOG_FORMAT",
        key: "log_format",
        meaning: "How they are written: auto is text on a terminal and JSON otherwise.",
        expected: "auto, text or json",
        set: |config, text| set(&mut config.log_format, parse_log_format(text)),
        get: |config| show_log_format(config.log_format).to_owned(),
    },
];

fn set<T>(field: &mut T, value: Option<T>) -> Option<()> {
    *field = value?;
    Some(())
}

fn set_count(field: &mut usize, value: Option<u64>) -> Option<()> {
    set(field, value.and_then(|count| usize::try_from(count).ok()))
}

fn parse_payload(text: &str) -> Option<NonZeroUsize> {
    NonZeroUsize::new(usize::try_from(parse_bytes(text, &PAYLOAD_BYTES)?).ok()?)
}

/// As many as the file limit allows, or so many.
fn parse_connections(text: &str) -> Option<Option<usize>> {
    if text.trim().eq_ignore_ascii_case("auto") {
        return Some(None);
    }
    Some(Some(usize::try_from(parse_count(text, &CONNECTIONS)?).ok()?))
}

fn parse_partitions(text: &str) -> Option<Partitions> {
    let count = parse_count(text, &(1..=u64::from(PARTITIONS_MAX)))?;
    Partitions::new(u16::try_from(count).ok()?)
}

/// A word that is no level would be taken for the name of a crate, and nothing would be logged.
fn parse_log(text: &str) -> Option<String> {
    let directives = || text.split(',').map(str::trim);
    let level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| level.eq_ignore_ascii_case(word))
    };
    let plausible = directives().all(|directive| match directive.rsplit_once('=') {
        Some((target, word)) => !target.is_empty() && level(word),
        None => level(directive),
    });
    (plausible && EnvFilter::try_new(text).is_ok()).then(|| text.trim().to_owned())
}

fn parse_log_format(text: &str) -> Option<LogFormat> {
    [LogFormat::Auto, LogFormat::Text, LogFormat::Json]
        .into_iter()
        .find(|format| show_log_format(*format) == text.trim().to_ascii_lowercase())
}

fn show_log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    #[test]
    fn what_a_setting_shows_it_takes_back() {
        for role in [Role::Service, Role::Dev] {
            for setting in &SETTINGS {
                let mut config = Config::default_for(role);
                let shown = (setting.get)(&config);
                assert_eq!((setting.set)(&mut config, &shown), Some(()), "{} = {shown}", setting.variable);
                assert_eq!((setting.get)(&config), shown, "{}", setting.variable);
            }
        }
    }

    #[test]
    fn every_setting_refuses_nonsense() {
        for setting in &SETTINGS {
            for nonsense in ["", " ", "64 parsecs", "-1"] {
                let mut config = Config::default_for(Role::Dev);
                assert_eq!((setting.set)(&mut config, nonsense), None, "{} = {nonsense:?}", setting.variable);
            }
        }
    }

    #[test]
    fn a_variables_name_follows_from_its_key() {
        for setting in &SETTINGS {
            let name = format!("FANFARE_{}", setting.key.replace('.', "_").to_uppercase());
            assert_eq!(setting.variable, name);
        }
    }
}
