//! `[[routes]]`: paths of an application's own. What can be wrong with them is known to the edge; here they are read,
//! and each mistake gets its place in the file.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use fanfare_auth::Secret;
use fanfare_edge::{HeartbeatConfig, RouteConfig, Routes};
use serde::Deserialize;

use super::Config;
use super::mistakes::Mistakes;
use super::parts::{Doc, Field, Given, Part, read_fields, show_fields};
use super::units::{parse_duration, show_duration};
use super::values::Wrong;

pub(super) const PART: Part = Part {
    key: "routes",
    header: "[[routes]]",
    meaning: "A path of an application's own, for edges and `dev`: front ends that were made for another server \
              connect unchanged. Credentials, checks and query parameters are those of /events; the channels are \
              exactly those that are named. One table for each path.",
    docs: || FIELDS[..OF_ALL].iter().map(|field| &field.doc).collect(),
    read,
    show: |config| config.routes.iter().map(|route| ("[[routes]]".to_owned(), show_fields(&FIELDS, route))).collect(),
};

/// What is said of calls. They are read with the other routes.
pub(super) const CALLS: Part = Part {
    key: PART.key,
    header: PART.header,
    meaning: "With a forward, a route is a call: the body of a POST goes to a backend, and what the backend publishes \
              for it comes back as the stream. Beside these keys it may have methods, unnamed and heartbeat.",
    docs: || std::iter::once(&PATH_OF_CALL).chain(FIELDS[OF_ALL..].iter().map(|field| &field.doc)).collect(),
    read,
    show: |_| Vec::new(),
};

static PATH_OF_CALL: Doc = Doc {
    key: "path",
    meaning: "The path, without parameters: the backend would not get them.",
    expected: "a path such as /sse",
    example: "\"/sse\"",
    default: "required",
};

/// How long a call may take. A day is longer than anybody waits for an answer.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// So many of the fields are not about calls.
const OF_ALL: usize = 6;

static FIELDS: [Field<RouteConfig>; 10] = [
    Field {
        doc: Doc {
            key: "path",
            meaning: "The path, with parameters in braces; none of Fanfare's own, and none that another route has.",
            expected: "a path such as /api/servers/{id}/events",
            example: "\"/api/servers/{id}/events\"",
            default: "required",
        },
        set: |route, given| set(&mut route.path, given.text()),
        get: |route| Some(format!("{:?}", route.path)),
    },
    Field {
        doc: Doc {
            key: "methods",
            meaning: "How it is asked for. The body of a POST is ignored, whatever it is.",
            expected: "a list of GET and POST",
            example: "[\"GET\", \"POST\"]",
            default: "[\"GET\"], of calls [\"POST\"]",
        },
        set: |route, given| set(&mut route.methods, list(given)),
        get: |route| shown_list(&route.methods),
    },
    Field {
        doc: Doc {
            key: "channels",
            meaning: "The channels that a stream follows, with the path's parameters.",
            expected: "a list of channels such as [\"server:{id}\"]",
            example: "[\"server:{id}\"]",
            default: "required",
        },
        set: |route, given| set(&mut route.channels, list(given)),
        get: |route| shown_list(&route.channels),
    },
    Field {
        doc: Doc {
            key: "replay",
            meaning: "Newest retained events of each channel that a connection without a cursor gets first: for \
                      clients that make a new EventSource on every error, and so never resume.",
            expected: "a number from 0 to 1000",
            example: "20",
            default: "replay of its channels' namespaces",
        },
        set: |route, given| set(&mut route.replay, given.text().and_then(|text| text.parse().ok()).map(Some)),
        get: |route| route.replay.map(|replay| replay.to_string()),
    },
    Field {
        doc: Doc {
            key: "unnamed",
            meaning: "Whether `event:` lines are left out, so that onmessage hears everything.",
            expected: "true or false",
            example: "true",
            default: "false",
        },
        set: |route, given| set(&mut route.unnamed, given.text().and_then(|text| text.parse().ok())),
        get: |route| route.unnamed.then(|| "true".to_owned()),
    },
    Field {
        doc: Doc {
            key: "heartbeat",
            meaning: "How streams are kept alive: by comments where nothing else was sent, by `event: heartbeat` \
                      every interval, or by an event of the application's own.",
            expected: "\"comment\", \"event\", or an event with its data such as \
                       { event = \"message\", data = '{\"trigger\":\"ping\"}' }",
            example: "{ event = \"message\", data = '{\"trigger\":\"ping\"}' }",
            default: "\"comment\"",
        },
        set: |route, given| set(&mut route.heartbeat, heartbeat(given)),
        get: |route| match &route.heartbeat {
            HeartbeatConfig::Comment => None,
            HeartbeatConfig::Event => Some("\"event\"".to_owned()),
            HeartbeatConfig::Own { event, data } => Some(format!("{{ event = {event:?}, data = {data:?} }}")),
        },
    },
    Field {
        doc: Doc {
            key: "forward",
            meaning: "The backend.",
            expected: "an address such as http://tasks.internal/run",
            example: "\"http://tasks.internal/run\"",
            default: "none",
        },
        set: |route, given| set(&mut route.forward, given.text().map(Some)),
        get: |route| route.forward.as_ref().map(|address| format!("{address:?}")),
    },
    Field {
        doc: Doc {
            key: "forward_headers",
            meaning: "Headers that the backend is sent with each call, a secret that only it and Fanfare know for \
                      instance. They are never shown. A value may be { file = \"…\" }, a file that holds it.",
            expected: "a table such as { \"X-Fanfare-Secret\" = \"…\" }",
            example: "{ \"X-Fanfare-Secret\" = \"…\" }",
            default: "none",
        },
        set: |route, given| forward_headers(&mut route.forward_headers, given),
        get: |route| {
            let names: Vec<_> = route.forward_headers.keys().map(|name| format!("{name:?} = \"***\"")).collect();
            (!names.is_empty()).then(|| format!("{{ {} }}", names.join(", ")))
        },
    },
    Field {
        doc: Doc {
            key: "end_on",
            meaning: "Event types after which a call's stream ends.",
            expected: "a list of event types",
            example: "[\"result\", \"error\"]",
            default: "[\"result\", \"error\"]",
        },
        set: |route, given| set(&mut route.end_on, list(given).map(Some)),
        get: |route| route.end_on.as_ref().map(|types| format!("{types:?}")),
    },
    Field {
        doc: Doc {
            key: "timeout",
            meaning: "How long a call may take, from the backend's being asked to the end.",
            expected: "a duration from 1s to 1day, such as 10m",
            example: "\"10m\"",
            default: "\"5m\"",
        },
        set: |route, given| {
            set(&mut route.timeout, given.text().and_then(|text| parse_duration(&text, &TIMEOUT)).map(Some))
        },
        get: |route| route.timeout.map(|timeout| format!("{:?}", show_duration(timeout))),
    },
];

fn set<T>(field: &mut T, value: Option<T>) -> Result<(), Wrong> {
    *field = value.ok_or(Wrong::Value)?;
    Ok(())
}

/// Takes headers, whose values nobody sees: neither what is wrong with one nor what stands in place of the table.
fn forward_headers(headers: &mut BTreeMap<String, Secret>, given: &Given<'_>) -> Result<(), Wrong> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Table(InFile),
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct InFile {
        file: String,
    }
    let Ok(table) = given.read::<BTreeMap<String, Value>>() else {
        return Err(Wrong::Parts(vec![
            "expected a table of texts, or of { file = \"…\" }, such as { \"X-Fanfare-Secret\" = \"…\" }".to_owned(),
        ]));
    };
    let mut mistakes = Vec::new();
    for (name, value) in table {
        let text = match value {
            Value::Text(text) => Ok(text),
            Value::Table(InFile { file }) => std::fs::read_to_string(&file)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| mistakes.push(format!("{name:?} is in {file:?}, which can't be read: {error}"))),
        };
        if let Ok(text) = text {
            headers.insert(name, text.into());
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Wrong::Parts(mistakes)) }
}

fn list(given: &Given<'_>) -> Option<Vec<String>> {
    given.read().ok()
}

fn shown_list(list: &[String]) -> Option<String> {
    (!list.is_empty()).then(|| format!("{list:?}"))
}

fn heartbeat(given: &Given<'_>) -> Option<HeartbeatConfig> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Own {
        event: String,
        data: String,
    }
    match given.text().as_deref() {
        Some("comment") => Some(HeartbeatConfig::Comment),
        Some("event") => Some(HeartbeatConfig::Event),
        Some(_) => None,
        None => given.read().ok().map(|Own { event, data }| HeartbeatConfig::Own { event, data }),
    }
}

fn read(config: &mut Config, given: &Given<'_>, mistakes: &mut Mistakes) {
    let tables = given.tables(mistakes);
    let mut routes = Vec::with_capacity(tables.len());
    for table in &tables {
        let mut route = RouteConfig::default();
        read_fields(&FIELDS, &mut route, table, mistakes);
        routes.push(route);
    }
    match Routes::new(&routes) {
        Ok(made) => (config.edge.routes, config.routes) = (made, routes),
        Err(wrong) => {
            let mut placed: Vec<_> = wrong.into_iter().map(|m| (tables[m.route].place_of(m.key), m.problem)).collect();
            // What could not even be read looks as if it were not there.
            placed.retain(|(place, _)| !mistakes.has(place));
            placed.into_iter().for_each(|(place, problem)| mistakes.add(place, problem));
        }
    }
}
