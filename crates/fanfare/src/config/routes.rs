//! `[[routes]]`: paths of an application's own. What can be wrong with them is known to the edge; here they are read,
//! and each mistake gets its place in the file.

use fanfare_edge::{HeartbeatConfig, RouteConfig, Routes};
use serde::Deserialize;

use super::Config;
use super::mistakes::Mistakes;
use super::parts::{Doc, Field, Given, Part, read_fields, show_fields};
use super::settings::Wrong;

pub(super) const PART: Part = Part {
    key: "routes",
    header: "[[routes]]",
    meaning: "A path of an application's own, for edges and `dev`: front ends that were made for another server \
              connect unchanged. Credentials, checks and query parameters are those of /events; the channels are \
              exactly those that are named. One table for each path.",
    docs: || FIELDS.iter().map(|field| &field.doc).collect(),
    read,
    show: |config| config.routes.iter().map(|route| ("[[routes]]".to_owned(), show_fields(&FIELDS, route))).collect(),
};

static FIELDS: [Field<RouteConfig>; 6] = [
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
            default: "[\"GET\"]",
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
            default: "0",
        },
        set: |route, given| set(&mut route.replay, given.text().and_then(|text| text.parse().ok())),
        get: |route| (route.replay > 0).then(|| route.replay.to_string()),
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
];

fn set<T>(field: &mut T, value: Option<T>) -> Result<(), Wrong> {
    *field = value.ok_or(Wrong::Value)?;
    Ok(())
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
            for mistake in wrong {
                let place = tables[mistake.route].place_of(mistake.key);
                // What could not even be read looks as if it were not there.
                if !mistakes.has(&place) {
                    mistakes.add(place, mistake.problem);
                }
            }
        }
    }
}
