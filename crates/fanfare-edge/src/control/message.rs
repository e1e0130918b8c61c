//! Messages between nodes, as text. Versions N and N+1 run side by side: what this version doesn't know is left alone,
//! fields that it doesn't know too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_auth::Reach;
use fanfare_backbone::{Block, NodeId};
use fanfare_protocol::{Channel, UserId};
use serde::{Deserialize, Serialize};

use crate::client_id::ClientId;
use crate::patch::{Order, Outcome, Renewal};

const VERSION: u32 = 1;
const PATCH: &str = "patch";
const ANSWER: &str = "answer";

/// What another node says.
#[derive(Debug)]
pub(super) enum Message {
    /// A user was disconnected.
    Disconnect(Block),
    /// A PATCH came to that edge, under this number, for a connection here.
    Patch(u64, NodeId, Order),
    /// What came of the PATCH of this number.
    Answer(u64, Outcome),
}

/// How each message begins.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    kind: String,
    #[serde(flatten)]
    rest: T,
}

#[derive(Deserialize)]
struct Anything {}

#[derive(Serialize, Deserialize)]
struct WrittenPatch {
    request: u64,
    from: String,
    client: String,
    user: Option<String>,
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
    renewal: Option<WrittenRenewal>,
}

/// Times are milliseconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRenewal {
    expires_at: Option<u64>,
    issued_at: Option<u64>,
    reach: Reach,
}

#[derive(Serialize, Deserialize)]
struct WrittenAnswer {
    request: u64,
    outcome: WrittenOutcome,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WrittenOutcome {
    Done(Vec<String>),
    NotFound,
    OtherUser,
    NothingLeft,
    TooMany(usize),
    TooLong(usize),
}

/// The text of a PATCH.
pub(super) fn patch(request: u64, from: NodeId, order: &Order) -> String {
    let Order { client, user, subscribe, unsubscribe, renewal } = order;
    let names = |channels: &[Channel]| channels.iter().map(Channel::to_string).collect();
    let renewal = renewal.as_ref().map(|renewal| WrittenRenewal {
        expires_at: renewal.expires_at.map(millis),
        issued_at: renewal.issued_at.map(millis),
        reach: renewal.reach.clone(),
    });
    write(
        PATCH,
        WrittenPatch {
            request,
            from: from.to_string(),
            client: client.encode(),
            user: user.as_ref().map(UserId::to_string),
            subscribe: names(subscribe),
            unsubscribe: names(unsubscribe),
            renewal,
        },
    )
}

/// The text of an answer.
pub(super) fn answer(request: u64, outcome: Outcome) -> String {
    let outcome = match outcome {
        Outcome::Done(channels) => WrittenOutcome::Done(channels.iter().map(Channel::to_string).collect()),
        Outcome::NotFound => WrittenOutcome::NotFound,
        Outcome::OtherUser => WrittenOutcome::OtherUser,
        Outcome::NothingLeft => WrittenOutcome::NothingLeft,
        Outcome::TooMany(count) => WrittenOutcome::TooMany(count),
        Outcome::TooLong(bytes) => WrittenOutcome::TooLong(bytes),
    };
    write(ANSWER, WrittenAnswer { request, outcome })
}

fn write(kind: &str, rest: impl Serialize) -> String {
    let envelope = Envelope { v: VERSION, kind: kind.to_owned(), rest };
    serde_json::to_string(&envelope).expect("plain structs become JSON")
}

impl Message {
    /// Reads a message. None: it is none, or of a version to come.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let Envelope { v, kind, rest: Anything {} } = serde_json::from_str(text).ok()?;
        match kind.as_str() {
            _ if v != VERSION => None,
            Block::KIND => Block::decode(text).map(Self::Disconnect),
            PATCH => {
                let written: Envelope<WrittenPatch> = serde_json::from_str(text).ok()?;
                let (request, from) = (written.rest.request, NodeId::parse(&written.rest.from)?);
                Some(Self::Patch(request, from, order(written.rest)?))
            }
            ANSWER => {
                let written: Envelope<WrittenAnswer> = serde_json::from_str(text).ok()?;
                Some(Self::Answer(written.rest.request, outcome(written.rest.outcome)?))
            }
            _ => None,
        }
    }
}

fn order(written: WrittenPatch) -> Option<Order> {
    let user = written.user.as_deref().map(UserId::parse).transpose().ok()?;
    let renewal = written.renewal.map(|renewal| Renewal {
        expires_at: renewal.expires_at.map(at),
        issued_at: renewal.issued_at.map(at),
        reach: renewal.reach,
    });
    Some(Order {
        client: ClientId::parse(&written.client)?,
        user,
        subscribe: channels(&written.subscribe)?,
        unsubscribe: channels(&written.unsubscribe)?,
        renewal,
    })
}

fn outcome(written: WrittenOutcome) -> Option<Outcome> {
    Some(match written {
        WrittenOutcome::Done(names) => Outcome::Done(channels(&names)?),
        WrittenOutcome::NotFound => Outcome::NotFound,
        WrittenOutcome::OtherUser => Outcome::OtherUser,
        WrittenOutcome::NothingLeft => Outcome::NothingLeft,
        WrittenOutcome::TooMany(count) => Outcome::TooMany(count),
        WrittenOutcome::TooLong(bytes) => Outcome::TooLong(bytes),
    })
}

fn channels(names: &[String]) -> Option<Vec<Channel>> {
    names.iter().map(|name| Channel::parse(name).ok()).collect()
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_order() -> Order {
        let reach = r#"{"everything":false,"anonymous":["news"],"own":["server:*"],"limit":null}"#;
        Order {
            client: ClientId { node: NodeId::random(), shard: 3, key: 7, secret: crate::random_secret() },
            user: Some(UserId::parse("alice@example.com").expect("valid")),
            subscribe: vec![Channel::parse("server:7").expect("valid")],
            unsubscribe: vec![Channel::broadcast()],
            renewal: Some(Renewal {
                expires_at: Some(at(1_795_229_238_111)),
                issued_at: None,
                reach: serde_json::from_str(reach).expect("a reach"),
            }),
        }
    }

    #[test]
    fn what_is_said_is_heard() {
        let (from, order) = (NodeId::random(), an_order());
        let text = patch(u64::MAX, from, &order);
        let Some(Message::Patch(request, heard_from, heard)) = Message::decode(&text) else { panic!("{text}") };
        assert_eq!((request, heard_from, heard.client, &heard.user), (u64::MAX, from, order.client, &order.user));
        assert_eq!((&heard.subscribe, &heard.unsubscribe), (&order.subscribe, &order.unsubscribe));
        let renewal = heard.renewal.expect("there was one");
        assert_eq!((renewal.expires_at, renewal.issued_at), (Some(at(1_795_229_238_111)), None));
        assert!(renewal.reach.opens(&order.subscribe[0]) && !renewal.reach.opens(&Channel::broadcast()));

        for outcome in [
            Outcome::Done(vec![Channel::broadcast()]),
            Outcome::NotFound,
            Outcome::OtherUser,
            Outcome::NothingLeft,
            Outcome::TooMany(101),
            Outcome::TooLong(1025),
        ] {
            let text = answer(7, outcome.clone());
            let Some(Message::Answer(7, heard)) = Message::decode(&text) else { panic!("{text}") };
            assert_eq!(heard, outcome);
        }
    }

    #[test]
    fn what_a_later_version_says_is_ignored_and_what_it_adds_is_skipped() {
        let text = patch(7, NodeId::random(), &an_order());
        assert!(Message::decode(&text.replace("{\"v\":1", "{\"v\":1,\"why\":{\"a\":[1]}")).is_some());
        for text in [
            text.replace("{\"v\":1", "{\"v\":2"),
            text.replace("\"patch\"", "\"polish\""),
            text.replace("server:7", "server 7"),
            answer(7, Outcome::NotFound).replace("not-found", "moved-on"),
            String::new(),
            "7".to_owned(),
            "[]".to_owned(),
        ] {
            assert!(Message::decode(&text).is_none(), "{text}");
        }
    }
}
