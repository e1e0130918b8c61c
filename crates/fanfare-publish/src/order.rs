//! What a checked entry asks to be published, and publishing it.

use std::num::NonZeroU32;

use fanfare_auth::PublishKey;
use fanfare_backbone::event_id;
use fanfare_http::Problem;
use fanfare_protocol::{Channel, Content, Draft, EventType, Key, UserId};

use crate::Inner;
use crate::idempotency::{RepeatKey, digest};
use crate::outcome::{Outcome, Settled, problem_of};

/// Events handed to the backbone at once, at most; and bytes of their data, after which no further one is added.
const CHUNK_EVENTS_MAX: usize = 256;
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// One entry, checked: events that differ in where they go.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) targets: Vec<Target>,
    /// Whether the targets were written as an array: then the answer is one, too.
    pub(crate) several: bool,
    pub(crate) name: Option<EventType>,
    pub(crate) key: Option<Key>,
    pub(crate) ttl: Option<NonZeroU32>,
    pub(crate) payload: Payload,
    pub(crate) repeat: Option<RepeatKey>,
}

/// Where an event goes: a channel, and the user if it is their notification.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) channel: Channel,
    pub(crate) user: Option<UserId>,
}

/// What subscribers get.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Text as it was sent.
    Data(Box<str>),
    /// A message as JSON text, which is delivered in a frame of JSON around it.
    Message { message: Box<str>, timestamp_ms: u64 },
}

impl Order {
    fn data(&self, user: Option<&UserId>) -> Box<str> {
        match &self.payload {
            Payload::Data(data) => data.clone(),
            Payload::Message { message, timestamp_ms } => {
                let quoted = |text: &str| serde_json::Value::from(text).to_string();
                let name = quoted(self.name.as_ref().map_or("message", EventType::as_str));
                let user = user.map(|user| format!(r#""userId":{},"#, quoted(user.as_str()))).unwrap_or_default();
                format!(r#"{{"type":{name},{user}"message":{message},"timestamp":{timestamp_ms}}}"#).into()
            }
        }
    }

    /// The longest data that any target gets.
    pub(crate) fn data_bytes(&self) -> usize {
        match &self.payload {
            Payload::Data(data) => data.len(),
            Payload::Message { .. } => {
                let users = self.targets.iter().map(|target| target.user.as_ref());
                let longest = users.max_by_key(|user| user.map_or(0, |user| user.as_str().len()));
                self.data(longest.flatten()).len()
            }
        }
    }

    /// What a repetition has to share. A message's timestamp is not in it, because it is ours.
    fn body_digest(&self) -> [u8; 16] {
        let (kind, text) = match &self.payload {
            Payload::Data(data) => ("data", data),
            Payload::Message { message, .. } => ("message", message),
        };
        let name = self.name.as_ref().map_or("", EventType::as_str);
        let key = self.key.as_ref().map_or("", Key::as_str);
        let ttl = self.ttl.map(|ttl| ttl.to_string()).unwrap_or_default();
        digest([kind, name, text, key, &ttl])
    }

    fn draft(&self, target: &Target, repeat: Option<(&RepeatKey, [u8; 16])>, publisher: &PublishKey) -> Draft {
        let content = Content {
            name: self.name.clone(),
            key: self.key.clone(),
            ttl: self.ttl,
            data: self.data(target.user.as_ref()),
        };
        let idempotency = repeat.map(|(key, body)| key.digests(publisher, &target.channel, body));
        Draft { channel: target.channel.clone(), content, idempotency }
    }
}

/// The events of orders, made a chunk at a time: a thousand users' notifications need not be in memory together.
struct Chunks<'a> {
    orders: &'a [Order],
    publisher: &'a PublishKey,
    /// The first order's next target.
    target: usize,
}

impl Chunks<'_> {
    fn next_chunk(&mut self) -> Vec<Draft> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while let Some((order, others)) = self.orders.split_first() {
            // A digest costs more than all the rest: it is made only where it is used.
            let repeat = order.repeat.as_ref().map(|key| (key, order.body_digest()));
            while let Some(target) = order.targets.get(self.target) {
                if chunk.len() >= CHUNK_EVENTS_MAX || bytes >= CHUNK_BYTES_MAX {
                    return chunk;
                }
                let draft = order.draft(target, repeat, self.publisher);
                bytes += draft.content.data.len();
                chunk.push(draft);
                self.target += 1;
            }
            (self.orders, self.target) = (others, 0);
        }
        chunk
    }
}

impl Inner {
    /// Publishes orders, in order, and says what came of each.
    pub(crate) async fn publish(&self, orders: &[Order], publisher: &PublishKey) -> Vec<Outcome> {
        let mut settled = Vec::new();
        let mut chunks = Chunks { orders, publisher, target: 0 };
        loop {
            let chunk = chunks.next_chunk();
            if chunk.is_empty() {
                break;
            }
            settled.extend(self.publish_chunk(chunk).await);
        }
        let mut settled = settled.into_iter();
        let outcome = |order: &Order| {
            let mut results = settled.by_ref().take(order.targets.len()).collect::<Vec<_>>();
            match (order.several, results.pop()) {
                (false, Some(only)) => Outcome::One(only),
                (_, last) => {
                    results.extend(last);
                    Outcome::Several(results)
                }
            }
        };
        orders.iter().map(outcome).collect()
    }

    async fn publish_chunk(&self, drafts: Vec<Draft>) -> Vec<Settled> {
        let channels = drafts.iter().map(|draft| draft.channel.clone()).collect::<Vec<_>>();
        let answers = self.backbone.publish(drafts).await;
        debug_assert_eq!(channels.len(), answers.len(), "each draft is answered");
        let fresh = answers.iter().flatten().filter(|receipt| !receipt.repeated).count();
        self.metrics.published(fresh);
        let settle = |(channel, answer): (Channel, Result<fanfare_backbone::Receipt, _>)| {
            let result = match answer {
                Ok(receipt) => Ok(event_id(self.backbone.partitions(), receipt.partition, receipt.point)),
                Err(error) => Err(problem_of(&error)),
            };
            Settled { channel, result }
        };
        channels.into_iter().zip(answers).map(settle).collect()
    }

    /// Refuses data over the limit of any of its channels.
    pub(crate) fn check_size(&self, order: &Order) -> Result<(), Problem> {
        let limits = order.targets.iter().map(|target| (self.config.payload_bytes_max.of(&target.channel), target));
        let Some((limit, target)) = limits.min_by_key(|(limit, _)| *limit) else { return Ok(()) };
        let (size, limit) = (order.data_bytes(), limit.get());
        if size <= limit {
            return Ok(());
        }
        let channel = &target.channel;
        let detail = format!("the event's data has {size} bytes as it is delivered, the limit is {limit} on {channel}");
        Err(Problem::new(fanfare_http::Code::PayloadTooLarge, detail)
            .details(serde_json::json!({ "size": size, "limit": limit })))
    }
}
