//! `[namespaces.<name>]`: what the channels of one namespace have of their own. What isn't set there is as elsewhere.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use fanfare_edge::REPLAY_MAX;
use fanfare_protocol::{Channel, Keep};

use super::Config;
use super::mistakes::Mistakes;
use super::parts::{Doc, Field, Given, Part, read_fields, show_fields};
use super::settings::{HISTORY_EVENTS, PAYLOAD_EXPECTED, RETENTION};
use super::units::{parse_count, parse_duration, show_bytes, show_duration};
use super::values::{Wrong, parse_payload, parse_truth};

pub(super) const PART: Part = Part {
    key: "namespaces",
    header: "[namespaces.NAME]",
    meaning: "What the channels of one namespace have of their own: NAME is what stands before the first : of their \
              names, or all of it. One table for each; edges and publish APIs need the same.",
    docs: || FIELDS.iter().map(|field| &field.doc).collect(),
    read,
    show: |config| {
        let header = |name| format!("[namespaces.{}]", quoted(name));
        config.namespaces.iter().map(|(name, own)| (header(name), show_fields(&FIELDS, own))).collect()
    },
};

/// What one namespace sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// Events of a channel that are retained at most.
    history_size: Option<usize>,
    history_age: Option<HistoryAge>,
    /// Newest events of each channel that a fresh connection gets without asking.
    replay: Option<u16>,
    /// Bytes of one event's data at most.
    payload_bytes_max: Option<NonZeroUsize>,
    /// Whether it is told who follows a channel.
    presence: Option<bool>,
}

/// How long a retained event stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HistoryAge {
    Limited(Duration),
    /// Until it is pushed out.
    Off,
}

impl Namespace {
    /// What is kept of its channels, where this is kept elsewhere.
    pub(super) fn keep(&self, elsewhere: Keep) -> Keep {
        let age = match self.history_age {
            None => elsewhere.age,
            Some(HistoryAge::Limited(age)) => Some(age),
            Some(HistoryAge::Off) => None,
        };
        Keep { events_max: self.history_size.unwrap_or(elsewhere.events_max), age }
    }

    /// Tells the rest to those whom it concerns.
    fn apply(&self, name: &str, config: &mut Config) {
        if let Some(replay) = self.replay {
            Arc::make_mut(&mut config.edge.replay).own.insert(name.into(), replay);
        }
        if let Some(bytes) = self.payload_bytes_max {
            config.publish.payload_bytes_max.own.insert(name.into(), bytes);
        }
        if let Some(presence) = self.presence {
            config.edge.presence.own.insert(name.into(), presence);
            config.publish.presence.own.insert(name.into(), presence);
        }
    }
}

static FIELDS: [Field<Namespace>; 5] = [
    Field {
        doc: Doc {
            key: "history_size",
            meaning: "Events of a channel that are retained at most.",
            expected: "a whole number from 1 to 100000",
            example: "1",
            default: "FANFARE_HISTORY_SIZE",
        },
        set: |namespace, given| set(&mut namespace.history_size, given, parse_size),
        get: |namespace| namespace.history_size.map(|size| size.to_string()),
    },
    Field {
        doc: Doc {
            key: "history_age",
            meaning: "Age at which a retained event may go; off keeps it until newer ones push it out, and takes memory \
                      for every channel that ever had one.",
            expected: "off, or a duration from 1s to 1day, such as 5m",
            example: "\"off\"",
            default: "FANFARE_HISTORY_AGE",
        },
        set: |namespace, given| set(&mut namespace.history_age, given, parse_age),
        get: |namespace| {
            namespace.history_age.map(|age| match age {
                HistoryAge::Limited(age) => show_duration(age),
                HistoryAge::Off => OFF.to_owned(),
            })
        },
    },
    Field {
        doc: Doc {
            key: "replay",
            meaning: "Newest retained events of each channel that a fresh connection gets without asking. One that asks \
                      (replay=n, 0 too) gets what it asks for.",
            expected: "a whole number from 0 to 1000",
            example: "1",
            default: "0",
        },
        set: |namespace, given| set(&mut namespace.replay, given, parse_replay),
        get: |namespace| namespace.replay.map(|replay| replay.to_string()),
    },
    Field {
        doc: Doc {
            key: "max_payload",
            meaning: "Bytes of one event's data at most.",
            expected: PAYLOAD_EXPECTED,
            example: "\"64KiB\"",
            default: "FANFARE_MAX_PAYLOAD",
        },
        set: |namespace, given| set(&mut namespace.payload_bytes_max, given, parse_payload),
        get: |namespace| namespace.payload_bytes_max.map(|bytes| show_bytes(bytes.get() as u64)),
    },
    Field {
        doc: Doc {
            key: "presence",
            meaning: "Whether GET /channels/{c}/presence tells who listens; of `broadcast` only how many, in any case.",
            expected: "true or false",
            example: "true",
            default: "false",
        },
        set: |namespace, given| set(&mut namespace.presence, given, parse_truth),
        get: |namespace| namespace.presence.map(|presence| presence.to_string()),
    },
];

const OFF: &str = "off";

fn parse_size(text: &str) -> Option<usize> {
    usize::try_from(parse_count(text, &HISTORY_EVENTS)?).ok()
}

fn parse_age(text: &str) -> Option<HistoryAge> {
    match text.trim() {
        OFF => Some(HistoryAge::Off),
        text => parse_duration(text, &RETENTION).map(HistoryAge::Limited),
    }
}

fn parse_replay(text: &str) -> Option<u16> {
    u16::try_from(parse_count(text, &(0..=u64::from(REPLAY_MAX)))?).ok()
}

fn set<T>(field: &mut Option<T>, given: &Given<'_>, parse: impl FnOnce(&str) -> Option<T>) -> Result<(), Wrong> {
    *field = Some(given.text().as_deref().and_then(parse).ok_or(Wrong::Value)?);
    Ok(())
}

fn read(config: &mut Config, given: &Given<'_>, mistakes: &mut Mistakes) {
    for table in given.entries(mistakes) {
        let name = table.name();
        // `[namespaces.a.b]` is TOML for a `b` inside of `a`; no name of a namespace has a dot unless it is quoted.
        match Channel::parse(name) {
            Ok(channel) if channel.is_internal() => {
                mistakes.add(table.place(), "can't be configured: Fanfare's own channels are as they are");
                continue;
            }
            Ok(_) if !name.contains(':') => {}
            Ok(_) => {
                let problem = format!("has a colon, expected a namespace: {:?}", name.split(':').next().unwrap_or(""));
                mistakes.add(table.place(), problem);
                continue;
            }
            Err(error) => {
                mistakes.add(table.place(), format!("is no namespace: {error}"));
                continue;
            }
        }
        let mut namespace = Namespace::default();
        read_fields(&FIELDS, &mut namespace, &table, mistakes);
        namespace.apply(name, config);
        config.namespaces.insert(name.to_owned(), namespace);
    }
}

/// A name as a key of TOML.
fn quoted(name: &str) -> String {
    let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if bare { name.to_owned() } else { format!("{name:?}") }
}
