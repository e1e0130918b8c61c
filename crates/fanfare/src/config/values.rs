//! How the values of settings are read and shown, where `units` isn't enough.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use fanfare_auth::SettingError;
use fanfare_backbone::Secret as RedisSecret;
use fanfare_edge::{AddressLimit, AtUserLimit};
use fanfare_http::{Cors, TrustedProxies};
use fanfare_protocol::{PARTITIONS_MAX, Partitions};
use tracing_subscriber::EnvFilter;

use super::units::{parse_bytes, parse_count, parse_duration, show_duration};
use super::{Config, LogFormat};

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not what was expected.
    Value,
    /// These parts of it are wrong: one sentence each, which repeats no secret.
    Parts(Vec<String>),
}

/// What a setting shows that isn't set and has no default. As a value it leaves it unset.
pub(super) const NONE: &str = "none";

/// What a limit shows that is off. As a value it turns it off.
pub(super) const OFF: &str = "off";

/// What a setting shows that follows from others.
pub(super) const AUTO: &str = "auto";

/// What a secret shows.
pub(super) const HIDDEN: &str = "***";

/// A batch is read whole into at most 1 MiB, and one event must fit into it.
const PAYLOAD_BYTES: RangeInclusive<u64> = 1..=1024 * 1024;

/// Nobody has more of them.
const REPLICAS: RangeInclusive<u64> = 0..=64;

/// More than one machine has sockets for.
pub(super) const CONNECTIONS: RangeInclusive<u64> = 1..=10_000_000;

pub(super) fn set<T>(field: &mut T, value: Option<T>) -> Result<(), Wrong> {
    *field = value.ok_or(Wrong::Value)?;
    Ok(())
}

pub(super) fn set_count(field: &mut usize, value: Option<u64>) -> Result<(), Wrong> {
    set(field, value.and_then(|count| usize::try_from(count).ok()))
}

pub(super) fn set_parsed<T>(field: &mut T, value: Result<T, SettingError>) -> Result<(), Wrong> {
    *field = value.map_err(|error| Wrong::Parts(error.mistakes().to_vec()))?;
    Ok(())
}

/// A setting of the authentication, which may be left unset.
pub(super) fn set_auth<T: Default>(
    field: &mut T,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, SettingError>,
) -> Result<(), Wrong> {
    set_parsed(field, if is_none(text) { Ok(T::default()) } else { parse(text) })
}

pub(super) fn is_none(text: &str) -> bool {
    text.trim() == NONE
}

pub(super) fn show_secret(is_set: bool) -> String {
    if is_set { HIDDEN } else { NONE }.to_owned()
}

pub(super) fn show_list(list: &impl ToString) -> String {
    match list.to_string() {
        empty if empty.is_empty() => NONE.to_owned(),
        list => list,
    }
}

/// What else is wrong with it is said by the backbone, which knows what it can use.
pub(super) fn set_redis_url(config: &mut Config, text: &str) -> Result<(), Wrong> {
    let text = text.trim();
    let plausible = text.contains("://") && !text.contains(char::is_whitespace);
    let url = if is_none(text) { Some("") } else { plausible.then_some(text) };
    set(&mut config.redis.url, url.map(RedisSecret::new))
}

/// Without the name and the password that may stand before its host.
pub(super) fn show_redis_url(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        _ if url.is_empty() => NONE.to_owned(),
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{HIDDEN}@{host}"),
        _ => url.to_owned(),
    }
}

pub(super) fn set_origins(config: &mut Config, text: &str) -> Result<(), Wrong> {
    config.cors_origins = parts(text, |origin| Cors::exactly([origin]).map(|_| origin.to_owned()))?;
    Ok(())
}

pub(super) fn set_proxies(config: &mut Config, text: &str) -> Result<(), Wrong> {
    let networks = parts(text, |network| TrustedProxies::of([network]).map(|_| network))?;
    config.edge.trusted_proxies = TrustedProxies::of(networks).expect("each is one");
    Ok(())
}

/// The parts between commas, or all mistakes in them.
pub(super) fn parts<'a, T, E: ToString>(
    text: &'a str,
    parse: impl Fn(&'a str) -> Result<T, E>,
) -> Result<Vec<T>, Wrong> {
    if is_none(text) {
        return Ok(Vec::new());
    }
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        match parse(part.trim()) {
            Ok(part) => good.push(part),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if wrong.is_empty() { Ok(good) } else { Err(Wrong::Parts(wrong)) }
}

/// Any text, or none.
pub(super) fn parse_text(text: &str) -> Option<Option<String>> {
    match text.trim() {
        "" => None,
        NONE => Some(None),
        _ => Some(Some(text.to_owned())),
    }
}

pub(super) fn parse_prefix(text: &str) -> Option<String> {
    let fit = |c: char| c.is_ascii_graphic() && !"{}".contains(c);
    let text = text.trim();
    (!text.is_empty() && text.chars().all(fit)).then(|| text.to_owned())
}

pub(super) fn parse_truth(text: &str) -> Option<bool> {
    text.trim().to_ascii_lowercase().parse().ok()
}

pub(super) fn parse_payload(text: &str) -> Option<NonZeroUsize> {
    NonZeroUsize::new(usize::try_from(parse_bytes(text, &PAYLOAD_BYTES)?).ok()?)
}

/// As many as the file limit allows, or so many.
pub(super) fn parse_connections(text: &str) -> Option<Option<usize>> {
    if text.trim().eq_ignore_ascii_case(AUTO) {
        return Some(None);
    }
    Some(Some(usize::try_from(parse_count(text, &CONNECTIONS)?).ok()?))
}

pub(super) fn parse_at_user_limit(text: &str) -> Option<AtUserLimit> {
    let actions = [AtUserLimit::Reject, AtUserLimit::ReplaceOldest];
    actions.into_iter().find(|action| show_at_user_limit(*action) == text.trim().to_ascii_lowercase())
}

pub(super) fn show_at_user_limit(action: AtUserLimit) -> &'static str {
    match action {
        AtUserLimit::Reject => "reject",
        AtUserLimit::ReplaceOldest => "replace-oldest",
    }
}

pub(super) fn parse_address_limit(text: &str) -> Option<AddressLimit> {
    match &*text.trim().to_ascii_lowercase() {
        AUTO => Some(AddressLimit::Auto),
        OFF => Some(AddressLimit::Off),
        count => Some(AddressLimit::Max(usize::try_from(parse_count(count, &CONNECTIONS)?).ok()?)),
    }
}

pub(super) fn show_address_limit(limit: AddressLimit) -> String {
    match limit {
        AddressLimit::Auto => AUTO.to_owned(),
        AddressLimit::Off => OFF.to_owned(),
        AddressLimit::Max(count) => count.to_string(),
    }
}

/// A duration, or off.
pub(super) fn parse_lifetime(text: &str, range: &RangeInclusive<Duration>) -> Option<Option<Duration>> {
    if text.trim().eq_ignore_ascii_case(OFF) {
        return Some(None);
    }
    parse_duration(text, range).map(Some)
}

pub(super) fn show_lifetime(lifetime: Option<Duration>) -> String {
    lifetime.map_or_else(|| OFF.to_owned(), show_duration)
}

pub(super) fn parse_partitions(text: &str) -> Option<Partitions> {
    let count = parse_count(text, &(1..=u64::from(PARTITIONS_MAX)))?;
    Partitions::new(u16::try_from(count).ok()?)
}

pub(super) fn parse_replicas(text: &str) -> Option<u16> {
    u16::try_from(parse_count(text, &REPLICAS)?).ok()
}

/// A word that is no level would be taken for the name of a crate, and nothing would be logged.
pub(super) fn parse_log(text: &str) -> Option<String> {
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

pub(super) fn parse_log_format(text: &str) -> Option<LogFormat> {
    [LogFormat::Auto, LogFormat::Text, LogFormat::Json]
        .into_iter()
        .find(|format| show_log_format(*format) == text.trim().to_ascii_lowercase())
}

pub(super) fn show_log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}
