//! Every setting, in the order in which they are printed. What is accepted, refused, printed and documented is made
//! from this table; its defaults are those of the structs.

use std::ops::RangeInclusive;
use std::time::Duration;

use fanfare_auth::{AdminKey, CookieName, Grants, Patterns, PublishKeys, Secrets};
use fanfare_backbone::Secret as RedisSecret;

use super::Config;
use super::units::{parse_address, parse_count, parse_duration, show_bytes, show_duration};
use super::values::*;

/// One setting.
pub(super) struct Setting {
    /// The environment variable.
    pub(super) variable: &'static str,
    /// The TOML key, with its table.
    pub(super) key: &'static str,
    /// What it does, in a sentence or two.
    pub(super) meaning: &'static str,
    /// How its values are treated.
    pub(super) kind: Kind,
    /// What a value looks like, as it follows "expected".
    pub(super) expected: &'static str,
    /// Takes a value.
    pub(super) set: fn(&mut Config, &str) -> Result<(), Wrong>,
    /// The value, as it would be written, but for secrets.
    pub(super) get: fn(&Config) -> String,
}

/// How a setting's values are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Shown, also where it is wrong.
    Value,
    /// The same; nearly every text is one.
    Text,
    /// Never shown. Can also be given as a file, under the name with `_FILE`.
    Secret,
}

/// Settings whose text is several values, separated by commas: in a file a list will do, too.
pub(super) const LISTS: [&str; 5] =
    ["auth.secret", "auth.grants", "publish.keys", "anonymous_channels", "cors.origins"];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const PAYLOAD_EXPECTED: &str = "a size up to 1MiB, such as 65536, 64KiB or \"64 kB\"";

/// A connection is matched against its channels when it joins, all at once.
const CHANNELS: RangeInclusive<u64> = 1..=10_000;

/// A history is read page by page, and what one channel holds in memory has a bound.
pub(super) const HISTORY_EVENTS: RangeInclusive<u64> = 1..=100_000;

pub(super) const RETENTION: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
const HEARTBEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10 * 60);
/// A connection that is closed has been of use for a while.
const LIFETIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
/// Redis is asked every 2 s or so.
const UNREADY: RangeInclusive<Duration> = Duration::from_secs(5)..=DAY;
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);

pub(super) static SETTINGS: [Setting; 36] = [
    Setting {
        variable: "FANFARE_EDGE_LISTEN",
        key: "edge.listen",
        kind: Kind::Value,
        meaning: "Where the edge listens (in `dev` everything). Port 0 takes a free one.",
        expected: "an address and a port, such as 127.0.0.1:8080",
        set: |config, text| set(&mut config.listen, parse_address(text)),
        get: |config| config.listen.to_string(),
    },
    Setting {
        variable: "FANFARE_PUBLISH_LISTEN",
        key: "publish.listen",
        kind: Kind::Value,
        meaning: "Where the publish API listens, as a process of its own.",
        expected: "an address and a port, such as 127.0.0.1:8081",
        set: |config, text| set(&mut config.publish_listen, parse_address(text)),
        get: |config| config.publish_listen.to_string(),
    },
    Setting {
        variable: "FANFARE_ADMIN_LISTEN",
        key: "admin.listen",
        kind: Kind::Value,
        meaning: "Where an edge or a publish API answers /healthz, /readyz, /metrics, /version and /stats. Not for the outside; in `dev` they are on the one address.",
        expected: "an address and a port, such as 127.0.0.1:9091",
        set: |config, text| set(&mut config.admin_listen, parse_address(text)),
        get: |config| config.admin_listen.to_string(),
    },
    Setting {
        variable: "FANFARE_ADMIN_KEY",
        key: "admin.key",
        kind: Kind::Secret,
        meaning: "What operators show (Authorization: Bearer …) for what /stats has of users. Without one that is off.",
        expected: "16 or more printable ASCII characters without spaces, or none",
        set: |config, text| set_auth(&mut config.auth.admin_key, text, |text| AdminKey::parse(text).map(Some)),
        get: |config| show_secret(config.auth.admin_key.is_some()),
    },
    Setting {
        variable: "FANFARE_REDIS_URL",
        key: "redis.url",
        kind: Kind::Secret,
        meaning: "The Redis that edges and publish APIs share. `dev` needs none.",
        expected: "an address such as redis://127.0.0.1:6379, or none",
        set: |config, text| set_redis_url(config, text),
        get: |config| show_redis_url(config.redis.url.reveal()),
    },
    Setting {
        variable: "FANFARE_REDIS_USERNAME",
        key: "redis.username",
        kind: Kind::Text,
        meaning: "The ACL user there.",
        expected: "a name, or none",
        set: |config, text| set(&mut config.redis.username, parse_text(text)),
        get: |config| config.redis.username.clone().unwrap_or_else(|| NONE.to_owned()),
    },
    Setting {
        variable: "FANFARE_REDIS_PASSWORD",
        key: "redis.password",
        kind: Kind::Secret,
        meaning: "The password there.",
        expected: "a password, or none",
        set: |config, text| set(&mut config.redis.password, parse_text(text).map(|text| text.map(RedisSecret::new))),
        get: |config| show_secret(config.redis.password.is_some()),
    },
    Setting {
        variable: "FANFARE_REDIS_PREFIX",
        key: "redis.prefix",
        kind: Kind::Text,
        meaning: "Begins every key and every Pub/Sub name there: what keeps two deployments on one Redis apart.",
        expected: "1 or more printable ASCII characters, without braces",
        set: |config, text| set(&mut config.redis.prefix, parse_prefix(text)),
        get: |config| config.redis.prefix.clone(),
    },
    Setting {
        variable: "FANFARE_REDIS_PARTITIONS",
        key: "redis.partitions",
        kind: Kind::Value,
        meaning: "Slices of all channels, each with an order of its own; of the in-process backbone too. \
                  Fixed per deployment.",
        expected: "a whole number from 1 to 64",
        set: |config, text| set(&mut config.partitions, parse_partitions(text)),
        get: |config| config.partitions.count().to_string(),
    },
    Setting {
        variable: "FANFARE_REDIS_MIN_REPLICAS",
        key: "redis.min_replicas",
        kind: Kind::Value,
        meaning: "Replicas that must have an event before its publish is answered; where fewer confirm it within a second, the answer is 503. A majority of them survives a failover.",
        expected: "a whole number from 0 to 64",
        set: |config, text| set(&mut config.redis.min_replicas, parse_replicas(text)),
        get: |config| config.redis.min_replicas.to_string(),
    },
    Setting {
        variable: "FANFARE_AUTH_SECRET",
        key: "auth.secret",
        kind: Kind::Secret,
        meaning: "Secrets of subscriber tokens (HS256), separated by commas: the first signs, all verify. An edge needs one, and so do `fanfare token` and a publish API's /tokens, which is off without.",
        expected: "secrets, best of 32 bytes or more, or none",
        set: |config, text| set_auth(&mut config.auth.secret, text, |text| Secrets::parse(text).map(Some)),
        get: |config| show_secret(config.auth.secret.is_some()),
    },
    Setting {
        variable: "FANFARE_AUTH_GRANTS",
        key: "auth.grants",
        kind: Kind::Text,
        meaning: "Patterns that every token gets, filled from its claims.",
        expected: "patterns such as org:{org}:*, separated by commas, or none",
        set: |config, text| set_auth(&mut config.auth.grants, text, Grants::parse),
        get: |config| show_list(&config.auth.grants),
    },
    Setting {
        variable: "FANFARE_AUTH_COOKIE",
        key: "auth.cookie",
        kind: Kind::Text,
        meaning: "The cookie that may hold a token.",
        expected: "a cookie's name",
        set: |config, text| set_parsed(&mut config.auth.cookie, CookieName::parse(text.trim())),
        get: |config| config.auth.cookie.to_string(),
    },
    Setting {
        variable: "FANFARE_AUTH_QUERY_TOKEN",
        key: "auth.query_token",
        kind: Kind::Value,
        meaning: "Whether ?token= and ?auth= are taken. URLs end up in the logs of every proxy on the way.",
        expected: "true or false",
        set: |config, text| set(&mut config.auth.query_token, parse_truth(text)),
        get: |config| config.auth.query_token.to_string(),
    },
    Setting {
        variable: "FANFARE_PUBLISH_KEYS",
        key: "publish.keys",
        kind: Kind::Secret,
        meaning: "Keys of those who publish, separated by commas: name=KEY or name=sha256:HEX, then optionally ;channels=server:*|broadcast and ;rights=publish|read|mint|disconnect. A publish API needs one.",
        expected: "name=KEY or name=sha256:HEX, or none",
        set: |config, text| set_auth(&mut config.auth.publish_keys, text, PublishKeys::parse),
        get: |config| show_secret(!config.auth.publish_keys.is_empty()),
    },
    Setting {
        variable: "FANFARE_ANONYMOUS_CHANNELS",
        key: "anonymous_channels",
        kind: Kind::Text,
        meaning: "Patterns of channels that are open without a token.",
        expected: "patterns such as news,prices:*, or none",
        set: |config, text| set_auth(&mut config.auth.anonymous_channels, text, Patterns::parse),
        get: |config| show_list(&config.auth.anonymous_channels),
    },
    Setting {
        variable: "FANFARE_CORS_ORIGINS",
        key: "cors.origins",
        kind: Kind::Value,
        meaning: "Origins whose pages may read answers, separated by commas. `dev` allows those of this machine.",
        expected: "origins such as https://app.example.com, or none",
        set: |config, text| set_origins(config, text),
        get: |config| show_list(&config.cors_origins.join(",")),
    },
    Setting {
        variable: "FANFARE_MAX_PAYLOAD",
        key: "max_payload",
        kind: Kind::Value,
        meaning: "Bytes of one event's data at most.",
        expected: PAYLOAD_EXPECTED,
        set: |config, text| set(&mut config.publish.payload_bytes_max.elsewhere, parse_payload(text)),
        get: |config| show_bytes(config.publish.payload_bytes_max.elsewhere.get() as u64),
    },
    Setting {
        variable: "FANFARE_MAX_CONNECTIONS",
        key: "max_connections",
        kind: Kind::Value,
        meaning: "Connections of one edge at most; auto is what the limit of open files allows.",
        expected: "auto or a whole number from 1 to 10000000",
        set: |config, text| set(&mut config.edge.connections_max, parse_connections(text)),
        get: |config| config.edge.connections_max.map_or(AUTO.to_owned(), |count| count.to_string()),
    },
    Setting {
        variable: "FANFARE_MAX_CONNECTIONS_PER_USER",
        key: "max_connections_per_user",
        kind: Kind::Value,
        meaning: "Connections of one user on one edge at most.",
        expected: "a whole number from 1 to 10000000",
        set: |config, text| set_count(&mut config.edge.connections_per_user_max, parse_count(text, &CONNECTIONS)),
        get: |config| config.edge.connections_per_user_max.to_string(),
    },
    Setting {
        variable: "FANFARE_MAX_CONNECTIONS_PER_USER_ACTION",
        key: "max_connections_per_user_action",
        kind: Kind::Value,
        meaning: "What happens to the one too many: reject refuses it, replace-oldest closes the oldest for it.",
        expected: "reject or replace-oldest",
        set: |config, text| set(&mut config.edge.at_user_limit, parse_at_user_limit(text)),
        get: |config| show_at_user_limit(config.edge.at_user_limit).to_owned(),
    },
    Setting {
        variable: "FANFARE_MAX_CONNECTIONS_PER_ADDRESS",
        key: "max_connections_per_address",
        kind: Kind::Value,
        meaning: "Connections of one client address on one edge at most (of IPv6, one /64); auto is 200 where \
                  FANFARE_TRUSTED_PROXIES is set, and off otherwise.",
        expected: "auto, off or a whole number from 1 to 10000000",
        set: |config, text| set(&mut config.edge.connections_per_address_max, parse_address_limit(text)),
        get: |config| show_address_limit(config.edge.connections_per_address_max),
    },
    Setting {
        variable: "FANFARE_TRUSTED_PROXIES",
        key: "trusted_proxies",
        kind: Kind::Value,
        meaning: "Networks of proxies whose X-Forwarded-For counts: the client is the rightmost address in it that is \
                  none of theirs.",
        expected: "networks such as 10.0.0.0/8,192.168.1.7, or none",
        set: |config, text| set_proxies(config, text),
        get: |config| show_list(&config.edge.trusted_proxies),
    },
    Setting {
        variable: "FANFARE_MAX_CHANNELS",
        key: "max_channels",
        kind: Kind::Value,
        meaning: "Channels that one connection may follow.",
        expected: "a whole number from 1 to 10000",
        set: |config, text| set_count(&mut config.edge.channels_max, parse_count(text, &CHANNELS)),
        get: |config| config.edge.channels_max.to_string(),
    },
    Setting {
        variable: "FANFARE_HISTORY_SIZE",
        key: "history_size",
        kind: Kind::Value,
        meaning: "Events of a channel that are retained at most. Who comes back after more is told of a gap.",
        expected: "a whole number from 1 to 100000",
        set: |config, text| {
            set_count(&mut config.retention.history.elsewhere.events_max, parse_count(text, &HISTORY_EVENTS))
        },
        get: |config| config.retention.history.elsewhere.events_max.to_string(),
    },
    Setting {
        variable: "FANFARE_HISTORY_AGE",
        key: "history_age",
        kind: Kind::Value,
        meaning: "Age at which a retained event may go.",
        expected: "a duration from 1s to 1day, such as 5m",
        set: |config, text| {
            set(&mut config.retention.history.elsewhere.age, parse_duration(text, &RETENTION).map(Some))
        },
        get: |config| config.retention.history.elsewhere.age.map_or(NONE.to_owned(), show_duration),
    },
    Setting {
        variable: "FANFARE_IDEMPOTENCY_WINDOW",
        key: "idempotency_window",
        kind: Kind::Value,
        meaning: "How long an idempotency key is remembered.",
        expected: "a duration from 1s to 1day, such as 5m",
        set: |config, text| set(&mut config.retention.idempotency_window, parse_duration(text, &RETENTION)),
        get: |config| show_duration(config.retention.idempotency_window),
    },
    Setting {
        variable: "FANFARE_HEARTBEAT_INTERVAL",
        key: "heartbeat_interval",
        kind: Kind::Value,
        meaning: "Pause after which a quiet connection gets a heartbeat. Keep it well under the idle timeout of what \
                  stands between (60s for most load balancers).",
        expected: "a duration from 1s to 10m, such as 15s",
        set: |config, text| set(&mut config.edge.heartbeat_interval, parse_duration(text, &HEARTBEAT)),
        get: |config| show_duration(config.edge.heartbeat_interval),
    },
    Setting {
        variable: "FANFARE_IDLE_TIMEOUT",
        key: "idle_timeout",
        kind: Kind::Value,
        meaning: "Time without an event after which a connection is closed; heartbeats are none.",
        expected: "off or a duration from 1s to 30days, such as 2h",
        set: |config, text| set(&mut config.edge.idle_timeout, parse_lifetime(text, &LIFETIME)),
        get: |config| show_lifetime(config.edge.idle_timeout),
    },
    Setting {
        variable: "FANFARE_MAX_AGE",
        key: "max_age",
        kind: Kind::Value,
        meaning: "Time after which any connection is closed, or up to a fifth earlier, so that those who came together \
                  don't leave together.",
        expected: "off or a duration from 1s to 30days, such as 12h",
        set: |config, text| set(&mut config.edge.max_age, parse_lifetime(text, &LIFETIME)),
        get: |config| show_lifetime(config.edge.max_age),
    },
    Setting {
        variable: "FANFARE_COALESCE",
        key: "coalesce",
        kind: Kind::Value,
        meaning: "Events that wait for a connection leave in one write. Without it each is written alone, for measuring.",
        expected: "true or false",
        set: |config, text| set(&mut config.edge.coalesce, parse_truth(text)),
        get: |config| config.edge.coalesce.to_string(),
    },
    Setting {
        variable: "FANFARE_DRAIN_DELAY",
        key: "drain_delay",
        kind: Kind::Value,
        meaning: "After SIGTERM: time between turning unready and the first goodbye, in which load balancers notice.",
        expected: "a duration up to 1h, such as 5s",
        set: |config, text| set(&mut config.drain_delay, parse_duration(text, &DRAIN)),
        get: |config| show_duration(config.drain_delay),
    },
    Setting {
        variable: "FANFARE_DRAIN_TIMEOUT",
        key: "drain_timeout",
        kind: Kind::Value,
        meaning: "Time over which the goodbyes are spread, so that a rollout is a ripple and not a storm.",
        expected: "a duration up to 1h, such as 20s",
        set: |config, text| set(&mut config.drain_timeout, parse_duration(text, &DRAIN)),
        get: |config| show_duration(config.drain_timeout),
    },
    Setting {
        variable: "FANFARE_UNREADY_AFTER",
        key: "unready_after",
        kind: Kind::Value,
        meaning: "Time without Redis after which an edge turns unready. With it an outage of Redis takes away every client.",
        expected: "off or a duration from 5s to 1day, such as 5m",
        set: |config, text| set(&mut config.unready_after, parse_lifetime(text, &UNREADY)),
        get: |config| show_lifetime(config.unready_after),
    },
    Setting {
        variable: "FANFARE_LOG",
        key: "log",
        kind: Kind::Value,
        meaning: "Which log lines are written: a level, or directives such as info,fanfare_edge=debug; with fanfare::access=off the line of each connection is left out.",
        expected: "off, error, warn, info, debug, trace, or directives such as info,fanfare_edge=debug",
        set: |config, text| set(&mut config.log, parse_log(text)),
        get: |config| config.log.clone(),
    },
    Setting {
        variable: "FANFARE_LOG_FORMAT",
        key: "log_format",
        kind: Kind::Value,
        meaning: "How they are written: auto is text on a terminal and JSON otherwise.",
        expected: "auto, text or json",
        set: |config, text| set(&mut config.log_format, parse_log_format(text)),
        get: |config| show_log_format(config.log_format).to_owned(),
    },
];

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
                assert_eq!((setting.set)(&mut config, &shown), Ok(()), "{} = {shown}", setting.variable);
                assert_eq!((setting.get)(&config), shown, "{}", setting.variable);
            }
        }
    }

    #[test]
    fn the_defaults_are_those_that_users_were_told() {
        let shown = |role, variable: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.variable == variable).expect(variable);
            (setting.get)(&Config::default_for(role))
        };
        for (variable, default) in [
            ("FANFARE_EDGE_LISTEN", "0.0.0.0:8080"),
            ("FANFARE_PUBLISH_LISTEN", "0.0.0.0:8081"),
            ("FANFARE_ADMIN_LISTEN", "0.0.0.0:9091"),
            ("FANFARE_REDIS_URL", NONE),
            ("FANFARE_REDIS_USERNAME", NONE),
            ("FANFARE_REDIS_PASSWORD", NONE),
            ("FANFARE_REDIS_PREFIX", "fanfare"),
            ("FANFARE_REDIS_PARTITIONS", "1"),
            ("FANFARE_REDIS_MIN_REPLICAS", "0"),
            ("FANFARE_ADMIN_KEY", NONE),
            ("FANFARE_AUTH_SECRET", NONE),
            ("FANFARE_AUTH_GRANTS", NONE),
            ("FANFARE_AUTH_COOKIE", "fanfare_token"),
            ("FANFARE_AUTH_QUERY_TOKEN", "false"),
            ("FANFARE_PUBLISH_KEYS", NONE),
            ("FANFARE_ANONYMOUS_CHANNELS", NONE),
            ("FANFARE_CORS_ORIGINS", NONE),
            ("FANFARE_TRUSTED_PROXIES", NONE),
            ("FANFARE_MAX_CONNECTIONS", AUTO),
            ("FANFARE_MAX_CONNECTIONS_PER_USER", "20"),
            ("FANFARE_MAX_CONNECTIONS_PER_USER_ACTION", "reject"),
            ("FANFARE_MAX_CONNECTIONS_PER_ADDRESS", AUTO),
            ("FANFARE_MAX_PAYLOAD", "64KiB"),
            ("FANFARE_MAX_CHANNELS", "100"),
            ("FANFARE_HISTORY_SIZE", "100"),
            ("FANFARE_HISTORY_AGE", "5m"),
            ("FANFARE_IDEMPOTENCY_WINDOW", "5m"),
            ("FANFARE_HEARTBEAT_INTERVAL", "15s"),
            ("FANFARE_IDLE_TIMEOUT", OFF),
            ("FANFARE_MAX_AGE", OFF),
            ("FANFARE_COALESCE", "true"),
            ("FANFARE_DRAIN_DELAY", "5s"),
            ("FANFARE_DRAIN_TIMEOUT", "20s"),
            ("FANFARE_UNREADY_AFTER", OFF),
        ] {
            assert_eq!(shown(Role::Service, variable), default, "{variable}");
        }
        assert_eq!(shown(Role::Dev, "FANFARE_EDGE_LISTEN"), "127.0.0.1:8080", "there are no tokens");
        let edge = Config::default_for(Role::Service).edge;
        assert_eq!((edge.join_timeout.as_secs(), edge.refusal_pause.start().as_secs()), (30, 15));
        assert_eq!(edge.refusal_pause.end().as_secs(), 60);
    }

    #[test]
    fn limits_and_networks_are_taken_as_people_write_them() {
        let mut config = Config::default_for(Role::Service);
        for (variable, text, shown) in [
            ("FANFARE_MAX_CONNECTIONS_PER_USER_ACTION", " Replace-Oldest", "replace-oldest"),
            ("FANFARE_MAX_CONNECTIONS_PER_ADDRESS", "OFF", "off"),
            ("FANFARE_MAX_CONNECTIONS_PER_ADDRESS", "50", "50"),
            ("FANFARE_TRUSTED_PROXIES", "10.0.0.0/8, ::1", "10.0.0.0/8,::1/128"),
            ("FANFARE_TRUSTED_PROXIES", "none", "none"),
            ("FANFARE_IDLE_TIMEOUT", "90m", "1h 30m"),
            ("FANFARE_MAX_AGE", "12h", "12h"),
            ("FANFARE_MAX_AGE", "off", "off"),
        ] {
            let setting = SETTINGS.iter().find(|setting| setting.variable == variable).expect("a setting");
            assert_eq!((setting.set)(&mut config, text), Ok(()), "{variable} = {text}");
            assert_eq!((setting.get)(&config), shown, "{variable} = {text}");
        }
        let proxies = SETTINGS.iter().find(|setting| setting.variable == "FANFARE_TRUSTED_PROXIES");
        let Err(Wrong::Parts(wrong)) = (proxies.expect("a setting").set)(&mut config, "10.0.0.0/8,a,10.0.0.0/99")
        else {
            panic!("two of them are wrong")
        };
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }

    #[test]
    fn every_setting_refuses_nonsense() {
        for setting in &SETTINGS {
            let nonsense: &[&str] = match setting.kind {
                Kind::Value => &["", " ", "64 parsecs", "-1"],
                Kind::Text | Kind::Secret => &["", " "],
            };
            for nonsense in nonsense {
                let mut config = Config::default_for(Role::Dev);
                assert!((setting.set)(&mut config, nonsense).is_err(), "{} = {nonsense:?}", setting.variable);
            }
        }
    }

    #[test]
    fn a_prefix_has_no_braces_and_partitions_are_1_to_64() {
        let takes = |variable: &str, value: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.variable == variable).expect(variable);
            (setting.set)(&mut Config::default_for(Role::Service), value).is_ok()
        };
        assert!(takes("FANFARE_REDIS_PREFIX", "app:live") && takes("FANFARE_REDIS_PARTITIONS", "64"));
        for (variable, value) in [("PREFIX", "a{b"), ("PREFIX", "a}b"), ("PARTITIONS", "0"), ("PARTITIONS", "65")] {
            assert!(!takes(&format!("FANFARE_REDIS_{variable}"), value), "{variable} {value}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        for (variable, value) in [
            ("FANFARE_AUTH_SECRET", "hunter2-hunter2,hunter2-other"),
            ("FANFARE_PUBLISH_KEYS", "a=hunter2-hunter2"),
            ("FANFARE_REDIS_PASSWORD", "hunter2"),
            ("FANFARE_REDIS_URL", "redis://me:hunter2@redis:6379"),
        ] {
            let setting = SETTINGS.iter().find(|setting| setting.variable == variable).expect("a setting");
            assert_eq!(setting.kind, Kind::Secret);
            let mut config = Config::default_for(Role::Service);
            assert_eq!((setting.set)(&mut config, value), Ok(()), "{variable}");
            let shown = (setting.get)(&config);
            assert!(shown.contains(HIDDEN) && !shown.contains("hunter2"), "{variable}: {shown}");
            assert!(!format!("{config:?}").contains("hunter2"), "{variable}");
        }
    }

    #[test]
    fn a_list_is_a_setting() {
        for key in LISTS {
            assert!(SETTINGS.iter().any(|setting| setting.key == key), "{key}");
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
