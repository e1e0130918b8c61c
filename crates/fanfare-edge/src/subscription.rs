//! What a subscriber asks for: read from path, query, header and body, and checked here, once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use fanfare_auth::{Access, Subscriber};
use fanfare_http::{Code, Problem, Query, Request, accept_json, from_json_object, path_segments, read_body};
use fanfare_protocol::sse::Naming;
use fanfare_protocol::{ByNamespace, Channel, Cursor, Start, TypePattern, UserId, encode_changes};
use http::{HeaderMap, Method};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::changes;
use crate::config::EdgeConfig;
use crate::routes::Defaults;
use crate::shard::Heartbeat;

/// Bytes of a request target at most. What is longer may be cut by some proxy, so it is refused by us, too.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Bytes of the body of `POST /events` at most, and of a body that is ignored.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Events that `replay` may ask for, for each channel.
pub const REPLAY_MAX: u16 = 1_000;

/// Type filters of one connection at most.
const TYPES_MAX: usize = 100;

const LAST_EVENT_ID: &str = "last-event-id";

/// A subscription that may be opened.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) user: Option<UserId>,
    /// When its token was issued.
    pub(crate) issued_at: Option<SystemTime>,
    /// When its token ends, and the stream with it.
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) types: Vec<TypePattern>,
    pub(crate) naming: Naming,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) start: Start,
    /// Channels changed since the URL was opened, in the cursor's spelling.
    pub(crate) changes: Option<Box<str>>,
}

/// The body of `POST /events`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    channels: Vec<String>,
    types: Vec<String>,
    last_event_id: Option<String>,
    #[serde(deserialize_with = "replay_in_body")]
    replay: Option<u16>,
    unnamed: Option<bool>,
    heartbeat: Option<String>,
}

impl Body {
    /// What a route sets stands where a body would: below the query.
    fn of(defaults: &Defaults) -> Self {
        Self { replay: defaults.replay, unnamed: Some(defaults.unnamed), ..Self::default() }
    }
}

impl Subscription {
    /// Reads a request for `/events`, `/events/{channel}` or a configured route.
    ///
    /// # Errors
    /// Says what is wrong with it, and where.
    pub(crate) async fn read(request: Request, access: &Access, config: &EdgeConfig) -> Result<Self, Problem> {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        if target.len() > TARGET_BYTES_MAX {
            let detail = format!("the URL has {} bytes, at most {TARGET_BYTES_MAX} are taken", target.len());
            return Err(
                Problem::new(Code::UriTooLong, detail).hint("send the channels in the body of POST /events instead")
            );
        }
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query())?;
        let subscriber = access.authorise(&parts.headers, &query, SystemTime::now())?.subscriber;
        let routed = config.routes.at(parts.uri.path());
        let is_post = parts.method == Method::POST;
        let body = match &routed {
            Some(routed) => {
                if is_post {
                    read_body(body, BODY_BYTES_MAX).await?; // It is another server's, and means nothing here.
                }
                Body::of(routed.defaults())
            }
            None if is_post => {
                accept_json(&parts.headers)?;
                from_json_object(&read_body(body, BODY_BYTES_MAX).await?)?
            }
            None => Body::default(),
        };
        let mut channels = match (&routed, path_segments(parts.uri.path())?.get(1)) {
            (Some(routed), _) => routed.channels()?,
            (None, Some(name)) => vec![channel(name, "the path")?],
            (None, None) => asked_for(&query, &body, &subscriber)?,
        };
        let last_event_id = last_event_id(&parts.headers, &query, &body)?;
        let replay = match (query.once("replay")?, body.replay) {
            (None, replay) => replay,
            (Some(text), _) => Some(replay(text)?),
        };
        let start = match last_event_id.as_deref().map(Cursor::parse) {
            None => Start::Fresh {
                replay: match replay {
                    Some(asked) => Arc::new(ByNamespace::everywhere(asked.min(REPLAY_MAX))),
                    None => config.replay.clone(),
                },
            },
            Some(Ok(cursor)) => Start::Cursor(cursor),
            Some(Err(_)) => Start::Unknown,
        };
        let mut known = BTreeSet::new();
        channels.retain(|channel| known.insert(channel.clone()));
        let mut changes = None;
        if let Start::Cursor(cursor) = &start
            && !cursor.changes().is_empty()
        {
            let changed = changes::apply(&channels, cursor.changes());
            let differences = encode_changes(&changes::between(&channels, &changed)).ok();
            changes = differences.filter(|differences| !differences.is_empty()).map(String::into_boxed_str);
            channels = changed;
        }
        if channels.len() > config.channels_max {
            let (asked, max) = (channels.len(), config.channels_max);
            let detail = format!("{asked} channels are asked for, a connection may follow {max}");
            return Err(Problem::invalid(detail).hint("the inbox and the broadcast count as well"));
        }
        subscriber.check(&channels)?;
        if channels.is_empty() {
            return Err(Problem::invalid("there is nothing to follow").hint("name a channel: /events?channel=server:7"));
        }
        Ok(Self {
            user: subscriber.user().cloned(),
            issued_at: subscriber.issued_at(),
            expires_at: subscriber.expires_at(),
            channels,
            types: types(&query, &body)?,
            naming: naming(query.once("unnamed")?, body.unnamed)?,
            heartbeat: match query.once("heartbeat")?.or(body.heartbeat.as_deref()) {
                None => routed.map_or(Heartbeat::Comment, |routed| routed.defaults().heartbeat.clone()),
                Some(asked) => heartbeat(asked)?,
            },
            start,
            changes,
        })
    }
}

impl Subscription {
    /// The stream of a call: nothing but its channel, from its beginning.
    ///
    /// # Errors
    /// Says what is wrong with the query.
    pub(crate) fn of_call(
        caller: &Subscriber,
        query: &Query,
        defaults: &Defaults,
        channel: Channel,
    ) -> Result<Self, Problem> {
        Ok(Self {
            user: caller.user().cloned(),
            issued_at: caller.issued_at(),
            expires_at: caller.expires_at(),
            channels: vec![channel],
            types: Vec::new(),
            naming: naming(query.once("unnamed")?, Some(defaults.unnamed))?,
            heartbeat: query.once("heartbeat")?.map_or_else(|| Ok(defaults.heartbeat.clone()), heartbeat)?,
            start: Start::Fresh { replay: Arc::new(ByNamespace::everywhere(0)) },
            changes: None,
        })
    }
}

/// The channels that `/events` names, and those that come without asking.
fn asked_for(query: &Query, body: &Body, subscriber: &Subscriber) -> Result<Vec<Channel>, Problem> {
    let mut channels = subscriber.unasked();
    let listed = query.all("channels").flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    for name in query.all("channel").chain(listed) {
        channels.push(channel(name, "the query")?);
    }
    for name in &body.channels {
        channels.push(channel(name, "the body")?);
    }
    Ok(channels)
}

/// A channel that someone names.
pub(crate) fn channel(name: &str, place: &str) -> Result<Channel, Problem> {
    Channel::parse(name).map_err(|error| {
        let problem = Problem::invalid(error.to_string()).at(place);
        match name.contains('*') {
            true => problem.hint("wildcards can't be subscribed to: name each channel"),
            false => problem,
        }
    })
}

/// The header wins over what stands where a header can't be set.
fn last_event_id(headers: &HeaderMap, query: &Query, body: &Body) -> Result<Option<String>, Problem> {
    let header = headers.get(LAST_EVENT_ID).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let asked = query.once("last_event_id")?.or(query.once("lastEventId")?).map(str::to_owned);
    Ok(header.or(asked).or_else(|| body.last_event_id.clone()).filter(|id| !id.is_empty()))
}

/// In JSON `20.0` is a whole number, too.
fn replay_in_body<'de, D: Deserializer<'de>>(body: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(body)? else { return Ok(None) };
    match number.fract() == 0.0 && (0.0..=f64::from(REPLAY_MAX)).contains(&number) {
        true => Ok(Some(number as u16)),
        false => Err(D::Error::custom(format!("replay is a number from 0 to {REPLAY_MAX}, not {number}"))),
    }
}

fn replay(text: &str) -> Result<u16, Problem> {
    let detail = || Problem::invalid(format!("replay is a number from 0 to {REPLAY_MAX}, not {text:?}"));
    text.parse().ok().filter(|replay| *replay <= REPLAY_MAX).ok_or_else(detail)
}

fn types(query: &Query, body: &Body) -> Result<Vec<TypePattern>, Problem> {
    let listed = query.all("types").flat_map(|list| list.split(',')).filter(|pattern| !pattern.is_empty());
    let parse = |pattern: &str| TypePattern::parse(pattern).map_err(|e| Problem::invalid(e.to_string()).at("types"));
    let types = listed.chain(body.types.iter().map(String::as_str)).map(parse).collect::<Result<Vec<_>, _>>()?;
    match types.len() > TYPES_MAX {
        true => Err(Problem::invalid(format!("types names {} filters, at most {TYPES_MAX} are taken", types.len()))),
        false => Ok(types),
    }
}

fn naming(asked: Option<&str>, in_body: Option<bool>) -> Result<Naming, Problem> {
    let unnamed = match asked {
        None => in_body.unwrap_or(false),
        Some("true" | "1" | "") => true,
        Some("false" | "0") => false,
        Some(other) => return Err(Problem::invalid(format!("unnamed is true or false, not {other:?}"))),
    };
    Ok(if unnamed { Naming::Unnamed } else { Naming::Named })
}

fn heartbeat(asked: &str) -> Result<Heartbeat, Problem> {
    match asked {
        "comment" => Ok(Heartbeat::Comment),
        "event" => Ok(Heartbeat::Event),
        other => Err(Problem::invalid(format!("heartbeat is comment or event, not {other:?}"))),
    }
}
