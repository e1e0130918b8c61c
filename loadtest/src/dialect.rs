//! How a server is spoken to: the request that subscribes and those that publish, as templates, so that the same
//! clients can be sent to Fanfare, to the floor and to other servers.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::stamp::To;

/// How a server is spoken to. In all templates `{host}` and `{path}` stand for the parts of its URL.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dialect {
    /// The whole head that subscribes: `{user}` is the client's number, `{channel}` that of its channel, `{others}`
    /// parameters that name channels which nobody else follows (or nothing),
    /// `{authorization}` a header line (or nothing), `{resume}` what [`Dialect::resume`] makes (or nothing).
    pub subscribe: String,
    /// The header line with which a client comes back, with its last id for `{id}`.
    pub resume: String,
    /// The event type with which the server says that the subscription stands; `None`: the response's head says it.
    pub ready: Option<String>,
    /// Publishes to one user.
    pub to_user: Post,
    /// Publishes to a channel.
    pub to_channel: Post,
    /// Publishes to everybody.
    pub to_all: Post,
    /// Publishes many events with one request; `None`: the server can't.
    pub bulk: Option<Bulk>,
}

/// A request that publishes one event. In the templates `{user}` and `{channel}` are numbers, and `{once}` is a text that
/// no other event has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Post {
    /// The path, after the URL's own.
    pub path: String,
    /// Header lines of its own, each with its CRLF: `Content-Type`, and credentials.
    pub headers: String,
    /// The body up to the payload.
    pub before: String,
    /// The body after the payload.
    pub after: String,
}

/// A request that publishes many events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bulk {
    /// The path, after the URL's own.
    pub path: String,
    /// Header lines of its own.
    pub headers: String,
    /// What each event's part ends with, such as a line end.
    pub separator: String,
    /// What stands in the answer once for each event that was published.
    pub success: String,
    /// Body of an event to one user, with its payload between the two, as in [`Post`].
    pub to_user: (String, String),
    /// Body of an event to a channel.
    pub to_channel: (String, String),
    /// Body of an event to everybody.
    pub to_all: (String, String),
}

impl Dialect {
    /// Fanfare's. Clients have an inbox and the broadcast, and a channel where `channel` says so; without a secret they
    /// are named in the URL, as `fanfare dev` takes it.
    pub fn fanfare(key: Option<&str>, channel: bool) -> Self {
        let channel = if channel { "&channel=load:{channel}" } else { "" };
        let authorization = key.map_or(String::new(), |key| format!("Authorization: Bearer {key}\r\n"));
        let post = |path: &str, before: &str| Post {
            path: path.to_owned(),
            headers: format!("Content-Type: application/json\r\n{authorization}"),
            before: before.to_owned(),
            after: "\"}".to_owned(),
        };
        let line = |channel: &str| (format!(r#"{{"channel":"{channel}","data":""#), "\"}".to_owned());
        Self {
            subscribe: format!(
                "GET {{path}}/events?user=u{{user}}{channel} HTTP/1.1\r\nHost: {{host}}\r\n\
                 Accept: text/event-stream\r\n{{authorization}}{{resume}}\r\n"
            ),
            resume: "Last-Event-ID: {id}\r\n".to_owned(),
            ready: Some("connected".to_owned()),
            to_user: post("/notify", r#"{"userId":"u{user}","message":""#),
            to_channel: post("/publish", r#"{"channel":"load:{channel}","data":""#),
            to_all: post("/broadcast", r#"{"message":""#),
            bulk: Some(Bulk {
                path: "/publish".to_owned(),
                headers: format!("Content-Type: application/x-ndjson\r\n{authorization}"),
                separator: "\n".to_owned(),
                success: r#""success":true"#.to_owned(),
                to_user: line("user:u{user}"),
                to_channel: line("load:{channel}"),
                to_all: line("broadcast"),
            }),
        }
    }

    /// The same where each event to a user has an idempotency key, as Fanfare takes it.
    pub(crate) fn idempotent(mut self) -> Self {
        let after = r#"","idempotencyKey":"{once}"}"#;
        self.to_user.after = after.to_owned();
        if let Some(bulk) = &mut self.bulk {
            bulk.to_user.1 = after.to_owned();
        }
        self
    }

    /// The request with which a client subscribes.
    pub(crate) fn subscription(&self, endpoint: &Endpoint, who: Who<'_>) -> Vec<u8> {
        let Who { user, channel, others, token, last_id } = who;
        let resume = last_id.map_or(String::new(), |id| self.resume.replace("{id}", id));
        let authorization = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        fill(&self.subscribe, |name| match name {
            "host" => Some(endpoint.authority().to_owned()),
            "path" => Some(endpoint.path().to_owned()),
            "user" => Some(user.to_string()),
            "channel" => Some(channel.to_string()),
            "others" => Some((0..others).map(|number| format!("&channel=load:own:{user}:{number}")).collect()),
            "authorization" => Some(authorization.clone()),
            "resume" => Some(resume.clone()),
            _ => None,
        })
        .into_bytes()
    }

    /// What publishes an event to somebody.
    pub(crate) fn post(&self, to: To) -> &Post {
        match to {
            To::All => &self.to_all,
            To::Channel(_) => &self.to_channel,
            To::User(_) => &self.to_user,
        }
    }
}

impl Bulk {
    /// The parts around an event's payload.
    pub(crate) fn parts(&self, to: To) -> &(String, String) {
        match to {
            To::All => &self.to_all,
            To::Channel(_) => &self.to_channel,
            To::User(_) => &self.to_user,
        }
    }
}

/// Who subscribes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) user: u32,
    pub(crate) channel: u32,
    /// How many channels it follows that nobody else does.
    pub(crate) others: u32,
    pub(crate) token: Option<&'a str>,
    pub(crate) last_id: Option<&'a str>,
}

/// Puts the number of a user or channel into a template, and what only this event of this run has.
pub(crate) fn fill_to(template: &str, to: To, run: u32, seq: u32) -> String {
    fill(template, |name| match (name, to) {
        ("user", To::User(number)) | ("channel", To::Channel(number)) => Some(number.to_string()),
        ("once", _) => Some(format!("{run:x}-{seq}")),
        _ => None,
    })
}

/// Puts values in the places of `{name}`; braces around anything else stay, as JSON needs them.
fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let (mut filled, mut rest) = (String::with_capacity(template.len() + 64), template);
    while let Some(start) = rest.find('{') {
        let (before, after) = rest.split_at(start);
        filled.push_str(before);
        let named = after[1..].split_once('}').and_then(|(name, rest)| Some((value(name)?, rest)));
        match named {
            Some((value, after)) => {
                filled.push_str(&value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &after[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_asks_for_its_channel_with_its_token_and_its_last_id() {
        let endpoint = "http://127.0.0.1:8080/sse".parse::<Endpoint>().expect("valid");
        let who = Who { user: 7, channel: 3, others: 0, token: Some("t.t.t"), last_id: Some("k3f9x2-1@load:3") };
        let request = Dialect::fanfare(None, true).subscription(&endpoint, who);
        let expected = "GET /sse/events?user=u7&channel=load:3 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
                        Accept: text/event-stream\r\nAuthorization: Bearer t.t.t\r\nLast-Event-ID: k3f9x2-1@load:3\r\n\r\n";
        assert_eq!(String::from_utf8(request).expect("ASCII"), expected);
        let shared_only = Who { token: None, last_id: None, ..who };
        let request = Dialect::fanfare(None, false).subscription(&endpoint, shared_only);
        assert!(request.starts_with(b"GET /sse/events?user=u7 HTTP/1.1\r\n") && request.ends_with(b"stream\r\n\r\n"));
    }

    #[test]
    fn braces_of_json_stay_where_they_are() {
        assert_eq!(
            fill_to(r#"{"userId":"u{user}","x":{"{channel}":1}}"#, To::User(9), 1, 2),
            r#"{"userId":"u9","x":{"{channel}":1}}"#
        );
    }

    #[test]
    fn no_two_events_have_the_same_idempotency_key() {
        let dialect = Dialect::fanfare(None, false).idempotent();
        let after = |run, seq| fill_to(&dialect.post(To::User(9)).after, To::User(9), run, seq);
        assert_eq!(after(0x1a, 2), r#"","idempotencyKey":"1a-2"}"#);
        assert_eq!(dialect.bulk.as_ref().map(|bulk| &bulk.to_user.1), Some(&dialect.to_user.after));
    }
}
