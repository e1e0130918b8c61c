//! `[namespaces.<name>]`: what the channels of one namespace have of their own. What isn't set there is as elsewhere.

use std::num::NonZeroUsize;

use fanfare_protocol::Channel;

use super::Config;
use super::mistakes::Mistakes;
use super::parts::{Doc, Field, Given, Part, read_fields, show_fields};
use super::settings::{PAYLOAD_EXPECTED, Wrong, parse_payload, parse_truth};
use super::units::show_bytes;

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
    /// Bytes of one event's data at most.
    pub(crate) payload_bytes_max: Option<NonZeroUsize>,
    /// Whether it is told who follows a channel.
    pub(crate) presence: Option<bool>,
}

static FIELDS: [Field<Namespace>; 2] = [
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
        apply(name, &namespace, config);
        config.namespaces.insert(name.to_owned(), namespace);
    }
}

/// Tells those whom it concerns.
fn apply(name: &str, namespace: &Namespace, config: &mut Config) {
    if let Some(bytes) = namespace.payload_bytes_max {
        config.publish.payload_bytes_max.own.insert(name.into(), bytes);
    }
    if let Some(presence) = namespace.presence {
        config.edge.presence.own.insert(name.into(), presence);
        config.publish.presence.own.insert(name.into(), presence);
    }
}

/// A name as a key of TOML.
fn quoted(name: &str) -> String {
    let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if bare { name.to_owned() } else { format!("{name:?}") }
}
