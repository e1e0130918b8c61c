//! What callers write: notifications, broadcasts and events, one or many, read and checked.
//!
//! Everything is checked before the first event is published, so a request that is answered with 4xx has published
//! nothing. Text goes through as it was written: messages and data are cut out of the body, never read and written
//! anew, so that numbers keep their digits and objects their order.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_auth::PublishKey;
use fanfare_http::{Code, Problem, Request, Response, accept_json, from_json, from_json_object, media_type, read_body};
use fanfare_protocol::{Channel, EventType, Key, UserId};
use serde::Deserialize;
use serde::de::value::{F64Deserializer, I64Deserializer, SeqAccessDeserializer, StrDeserializer, U64Deserializer};
use serde::de::{Deserializer, Error, IntoDeserializer, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use crate::config::{ARRAY_BYTES_MAX, EVENTS_MAX};
use crate::idempotency::RepeatKey;
use crate::order::{Order, Payload, Target};
use crate::outcome::respond_to_array;
use crate::{Inner, PublishApi, lines};

/// Seconds that may be asked for, at most: a year.
const TTL_SECONDS_MAX: u32 = 31_536_000;

/// Media types of NDJSON; the second one is what some tools call it.
const NDJSON: [&str; 2] = ["application/x-ndjson", "application/ndjson"];

/// `POST /notify`.
pub(crate) async fn notify(api: &PublishApi, request: Request, publisher: &PublishKey) -> Result<Response, Problem> {
    one(api, request, publisher, |body, header, now_ms| from_json_object::<Notification>(body)?.order(header, now_ms))
        .await
}

/// `POST /broadcast`.
pub(crate) async fn broadcast(api: &PublishApi, request: Request, publisher: &PublishKey) -> Result<Response, Problem> {
    one(api, request, publisher, |body, header, now_ms| from_json_object::<Announcement>(body)?.order(header, now_ms))
        .await
}

async fn one(
    api: &PublishApi,
    request: Request,
    publisher: &PublishKey,
    read: impl FnOnce(&[u8], Option<&str>, u64) -> Result<Order, Problem>,
) -> Result<Response, Problem> {
    let inner = &api.0;
    accept_json(request.headers())?;
    let header = RepeatKey::from_headers(request.headers())?;
    let body = read_body(request.into_body(), inner.config.body_bytes_max()).await?;
    let order = read(&body, header.as_deref(), now_ms())?;
    inner.check(&order, publisher)?;
    drop(body);
    inner.publish(&[order], publisher).await.remove(0).respond()
}

/// `POST /publish`: one, an array, or lines.
pub(crate) async fn publish(api: &PublishApi, request: Request, publisher: &PublishKey) -> Result<Response, Problem> {
    let header = RepeatKey::from_headers(request.headers())?;
    if NDJSON.contains(&media_type(request.headers()).as_str()) {
        return Ok(lines::publish(api.clone(), request.into_body(), publisher.clone(), header).await);
    }
    accept_json(request.headers()).map_err(|problem| match problem.code() {
        Code::UnsupportedMediaType => {
            problem.hint("it takes application/json, and lines of JSON as application/x-ndjson")
        }
        _ => problem,
    })?;
    let inner = &api.0;
    let body = read_body(request.into_body(), inner.config.body_bytes_max()).await?;
    if body.trim_ascii_start().first() != Some(&b'[') {
        let order = inner.order(&body, publisher, header.as_deref(), None)?;
        drop(body);
        return inner.publish(&[order], publisher).await.remove(0).respond();
    }
    let orders = inner.orders(&body, publisher, header.as_deref())?;
    drop(body);
    respond_to_array(&inner.publish(&orders, publisher).await)
}

impl Inner {
    /// Reads and checks one entry. The index is its place among several.
    pub(crate) fn order(
        &self,
        entry: &[u8],
        publisher: &PublishKey,
        header: Option<&str>,
        index: Option<u64>,
    ) -> Result<Order, Problem> {
        let order = from_json_object::<Entry>(entry)?.order(header, index)?;
        self.check(&order, publisher)?;
        Ok(order)
    }

    /// Whether the publisher may, and the data fits.
    fn check(&self, order: &Order, publisher: &PublishKey) -> Result<(), Problem> {
        for target in &order.targets {
            publisher.check_publish(&target.channel)?;
        }
        self.check_size(order)
    }

    fn orders(&self, body: &[u8], publisher: &PublishKey, header: Option<&str>) -> Result<Vec<Order>, Problem> {
        if body.len() > ARRAY_BYTES_MAX {
            let detail = format!("an array may have {ARRAY_BYTES_MAX} bytes, this one has {}", body.len());
            return Err(Problem::new(Code::PayloadTooLarge, detail).hint("send more requests, or application/x-ndjson"));
        }
        let entries = from_json::<Vec<&RawValue>>(body)?;
        if entries.is_empty() {
            return Err(Problem::invalid("the array is empty"));
        }
        if entries.len() > EVENTS_MAX {
            let detail = format!("an array may have {EVENTS_MAX} entries, this one has {}", entries.len());
            return Err(Problem::invalid(detail).hint("send more requests, or application/x-ndjson"));
        }
        let read = |(index, entry): (usize, &&RawValue)| {
            let order = self.order(entry.get().as_bytes(), publisher, header, Some(index as u64));
            order.map_err(|problem| problem.at(format_args!("entry {index}")))
        };
        let orders = entries.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        let events = orders.iter().map(|order| order.targets.len()).sum::<usize>();
        if events > EVENTS_MAX {
            let detail = format!("one request publishes {EVENTS_MAX} events at most, this one asks for {events}");
            return Err(Problem::invalid(detail).hint("send more requests, or application/x-ndjson"));
        }
        Ok(orders)
    }
}

/// A body of `/publish`, or a part of it.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    expecting = "an object such as {\"channel\":\"server:7\",\"data\":\"hi\"}"
)]
struct Entry<'a> {
    channel: OneOrMany<Name>,
    #[serde(borrow)]
    data: &'a RawValue,
    event: Option<String>,
    key: Option<String>,
    ttl: Option<Ttl>,
    idempotency_key: Option<String>,
}

/// A body of `/notify`.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    expecting = "an object such as {\"userId\":\"42\",\"message\":\"hi\"}"
)]
struct Notification<'a> {
    user_id: OneOrMany<NameOrNumber>,
    #[serde(borrow)]
    message: &'a RawValue,
    event: Option<String>,
    key: Option<String>,
    ttl: Option<Ttl>,
    idempotency_key: Option<String>,
}

/// A body of `/broadcast`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", expecting = "an object such as {\"message\":\"hi\"}")]
struct Announcement<'a> {
    #[serde(borrow)]
    message: &'a RawValue,
    event: Option<String>,
    key: Option<String>,
    ttl: Option<Ttl>,
    idempotency_key: Option<String>,
}

impl Entry<'_> {
    fn order(self, header: Option<&str>, index: Option<u64>) -> Result<Order, Problem> {
        let (channels, several) = self.channel.into_parts("channel")?;
        let mut targets = Vec::with_capacity(channels.len());
        for (place, Name(name)) in channels.iter().enumerate() {
            let channel = Channel::parse(name).map_err(|error| {
                let place = if several { format!("channel[{place}]") } else { "channel".to_owned() };
                Problem::invalid(error.to_string()).at(place).details(serde_json::json!({ "channel": shortened(name) }))
            })?;
            targets.push(Target { channel, user: None });
        }
        Ok(Order {
            targets: each_once(targets),
            several,
            name: self.event.as_deref().map(event_type).transpose()?,
            key: self.key.as_deref().map(key).transpose()?,
            ttl: self.ttl.map(Ttl::check).transpose()?,
            payload: Payload::Data(text_of(self.data)?),
            repeat: RepeatKey::of_entry(self.idempotency_key, header, index)?,
        })
    }
}

impl Notification<'_> {
    fn order(self, header: Option<&str>, now_ms: u64) -> Result<Order, Problem> {
        let (users, several) = self.user_id.into_parts("userId")?;
        let mut targets = Vec::with_capacity(users.len());
        for (place, NameOrNumber(id)) in users.iter().enumerate() {
            let user = UserId::parse(id).map_err(|error| {
                let place = if several { format!("userId[{place}]") } else { "userId".to_owned() };
                Problem::invalid(error.to_string()).at(place).details(serde_json::json!({ "userId": shortened(id) }))
            })?;
            targets.push(Target { channel: user.inbox(), user: Some(user) });
        }
        Ok(Order {
            targets: each_once(targets),
            several,
            name: Some(event_type(self.event.as_deref().unwrap_or("notification"))?),
            key: self.key.as_deref().map(key).transpose()?,
            ttl: self.ttl.map(Ttl::check).transpose()?,
            payload: Payload::Message { message: self.message.get().into(), timestamp_ms: now_ms },
            repeat: RepeatKey::of_entry(self.idempotency_key, header, None)?,
        })
    }
}

impl Announcement<'_> {
    fn order(self, header: Option<&str>, now_ms: u64) -> Result<Order, Problem> {
        Ok(Order {
            targets: vec![Target { channel: Channel::broadcast(), user: None }],
            several: false,
            name: Some(event_type(self.event.as_deref().unwrap_or("announcement"))?),
            key: self.key.as_deref().map(key).transpose()?,
            ttl: self.ttl.map(Ttl::check).transpose()?,
            payload: Payload::Message { message: self.message.get().into(), timestamp_ms: now_ms },
            repeat: RepeatKey::of_entry(self.idempotency_key, header, None)?,
        })
    }
}

/// Whoever is named twice hears it once.
fn each_once(mut targets: Vec<Target>) -> Vec<Target> {
    if targets.len() < 2 {
        return targets;
    }
    let mut known = HashSet::new();
    targets.retain(|target| known.insert(target.channel.clone()));
    targets
}

fn event_type(text: &str) -> Result<EventType, Problem> {
    EventType::parse(text).map_err(|error| Problem::invalid(format!("event: {error}")))
}

fn key(text: &str) -> Result<Key, Problem> {
    Key::parse(text).map_err(|error| Problem::invalid(format!("key: {error}")))
}

/// A string is delivered as its text, anything else as the JSON that was written.
fn text_of(data: &RawValue) -> Result<Box<str>, Problem> {
    let written = data.get();
    if !written.starts_with('"') {
        return Ok(written.into());
    }
    // JSON can spell half a character (a lone surrogate), which no text can hold.
    serde_json::from_str::<Box<str>>(written).map_err(|error| Problem::invalid(format!("data: {error}")))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// A text that may stand in a message of ours: the beginning of it.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    const CHARS_MAX: usize = 100;
    match text.char_indices().nth(CHARS_MAX) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// Seconds that an event is kept or a token is good.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Ttl(f64);

impl Ttl {
    pub(crate) fn check(self) -> Result<NonZeroU32, Problem> {
        let whole = (self.0.fract() == 0.0).then_some(self.0 as u32); // In JSON 60.0 is a whole number, too.
        whole
            .and_then(NonZeroU32::new)
            .filter(|ttl| ttl.get() <= TTL_SECONDS_MAX)
            .ok_or_else(|| Problem::invalid(format!("ttl: it is 1 to {TTL_SECONDS_MAX} seconds, not {}", self.0)))
    }
}

/// A name.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name(String);

/// A name that some databases have as a number: `42` is `"42"`.
pub(crate) struct NameOrNumber(pub(crate) String);

impl<'de> Deserialize<'de> for NameOrNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl Visitor<'_> for Reading {
            type Value = NameOrNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<NameOrNumber, E> {
                Ok(NameOrNumber(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<NameOrNumber, E> {
                Ok(NameOrNumber(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<NameOrNumber, E> {
                Ok(NameOrNumber(number.to_string()))
            }

            /// In JSON `42.0` is a whole number, too, as far as doubles count one by one.
            fn visit_f64<E: Error>(self, number: f64) -> Result<NameOrNumber, E> {
                match number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
                    true => Ok(NameOrNumber((number as i64).to_string())),
                    false => Err(E::invalid_value(Unexpected::Float(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

/// One, or an array of several; which of the two it was shapes the answer.
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values, and whether they were an array.
    fn into_parts(self, field: &str) -> Result<(Vec<T>, bool), Problem> {
        match self {
            Self::One(one) => Ok((vec![one], false)),
            Self::Many(many) if many.is_empty() => Err(Problem::invalid(format!("{field}: the array is empty"))),
            Self::Many(many) if many.len() > EVENTS_MAX => Err(Problem::invalid(format!(
                "{field}: the array may have {EVENTS_MAX} values, this one has {}",
                many.len()
            ))),
            Self::Many(many) => Ok((many, true)),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reading<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one or an array of several")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let one: StrDeserializer<'_, E> = text.into_deserializer();
                T::deserialize(one).map(OneOrMany::One)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                let one: U64Deserializer<E> = number.into_deserializer();
                T::deserialize(one).map(OneOrMany::One)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                let one: I64Deserializer<E> = number.into_deserializer();
                T::deserialize(one).map(OneOrMany::One)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                let one: F64Deserializer<E> = number.into_deserializer();
                T::deserialize(one).map(OneOrMany::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(values)).map(OneOrMany::Many)
            }
        }
        deserializer.deserialize_any(Reading(PhantomData))
    }
}
