//! `PATCH /events/{clientId}`: a live connection's channels change, or it gets a new token.
//!
//! Whoever asks is known here, at the edge that the request came to, and so is what they may have. What follows from
//! it is an [`Order`], which the connection's own shard carries out: on this edge, or on another one that is told of
//! it (see `control`).

use std::time::{Duration, SystemTime};

use fanfare_auth::Reach;
use fanfare_http::{
    Code, Problem, Query, Reply, Request, accept_json, from_json_object, json, path_segments, read_body,
};
use fanfare_protocol::{CHANGES_BYTES_MAX, Channel, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Edge;
use crate::client_id::ClientId;
use crate::control::AskError;
use crate::shard::Command;
use crate::subscription::channel;

/// Bytes of a body at most.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A shard of this edge that doesn't answer by then has other troubles.
const SHARD_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is to change, by someone who may.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) client: ClientId,
    /// Whoever asks. It must be the connection's own.
    pub(crate) user: Option<UserId>,
    pub(crate) subscribe: Vec<Channel>,
    pub(crate) unsubscribe: Vec<Channel>,
    pub(crate) renewal: Option<Renewal>,
}

/// What a new token says.
#[derive(Clone, Debug)]
pub(crate) struct Renewal {
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) issued_at: Option<SystemTime>,
    /// Channels outside of it are left.
    pub(crate) reach: Reach,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connection follows these now; its stream says so once the new ones have begun.
    Done(Vec<Channel>),
    /// There is no such connection (any more).
    NotFound,
    /// It is somebody else's.
    OtherUser,
    /// It would follow nothing.
    NothingLeft,
    /// It would follow so many, which is more than it may.
    TooMany(usize),
    /// What has changed since its URL would take so many bytes in the cursor, which has not that much room.
    TooLong(usize),
}

/// The body.
#[derive(Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "camelCase",
    expecting = "an object such as {\"subscribe\":[\"server:8\"],\"unsubscribe\":[\"server:7\"]}"
)]
#[derive(Default)]
struct Body {
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
    token: Option<String>,
}

#[derive(Serialize)]
struct Changed<'a> {
    success: bool,
    channels: Vec<&'a str>,
}

impl Edge {
    /// Answers a PATCH.
    pub(crate) async fn patch(&self, request: Request) -> Result<Reply, Problem> {
        let order = self.order(request).await?;
        let renews = order.renewal.is_some();
        let outcome = match order.client.node == self.node {
            true => self.carry_out(order).await?,
            false => self.control.ask(order).await.map_err(unasked)?,
        };
        let channels = self.judge(outcome, renews)?;
        let channels = channels.iter().map(Channel::as_str).collect();
        Ok(json(StatusCode::OK, &Changed { success: true, channels }).into())
    }

    /// Reads and checks a request.
    async fn order(&self, request: Request) -> Result<Order, Problem> {
        let (parts, body) = request.into_parts();
        let segments = path_segments(parts.uri.path())?;
        let client = segments.get(1).and_then(|text| ClientId::parse(text)).ok_or_else(no_such_connection)?;
        accept_json(&parts.headers)?;
        let body: Body = from_json_object(&read_body(body, BODY_BYTES_MAX).await?)?;
        let now = SystemTime::now();
        let (subscriber, renews) = match &body.token {
            Some(token) => {
                let renewed = self.access.renew(token, now)?;
                let none = || Problem::invalid("token: this server has no secret, so there are no tokens");
                (renewed.ok_or_else(none)?, true)
            }
            None => {
                let query = Query::parse(parts.uri.query())?;
                (self.access.authorise(&parts.headers, &query, now)?.subscriber, false)
            }
        };
        self.blocks.check(&subscriber, now)?;
        let read = |names: &[String], place: &str| {
            names.iter().map(|name| channel(name, place)).collect::<Result<Vec<_>, _>>()
        };
        let (subscribe, unsubscribe) = (read(&body.subscribe, "subscribe")?, read(&body.unsubscribe, "unsubscribe")?);
        if subscribe.is_empty() && unsubscribe.is_empty() && !renews {
            return Err(Problem::invalid("there is nothing to change")
                .hint("name channels to subscribe or unsubscribe, or a new token"));
        }
        if let Some(both) = subscribe.iter().find(|channel| unsubscribe.contains(channel)) {
            return Err(Problem::invalid(format!("{both} can't be subscribed and unsubscribed at once")));
        }
        subscriber.check(&subscribe)?;
        let renewal = renews.then(|| Renewal {
            expires_at: subscriber.expires_at(),
            issued_at: subscriber.issued_at(),
            reach: subscriber.reach().clone(),
        });
        Ok(Order { client, user: subscriber.user().cloned(), subscribe, unsubscribe, renewal })
    }

    /// Has one of this edge's own shards do it.
    async fn carry_out(&self, order: Order) -> Result<Outcome, Problem> {
        let Some(shard) = self.shards.get(usize::from(order.client.shard)) else { return Ok(Outcome::NotFound) };
        let (sender, answer) = oneshot::channel();
        let asked = async {
            _ = shard.send(Command::Patch(Box::new(order), sender)).await;
            answer.await.unwrap_or(Outcome::NotFound) // A shard that is gone has no connections either.
        };
        timeout(SHARD_TIMEOUT, asked).await.map_err(|_| unasked(AskError::NoAnswer))
    }

    fn judge(&self, outcome: Outcome, renews: bool) -> Result<Vec<Channel>, Problem> {
        match outcome {
            Outcome::Done(channels) => Ok(channels),
            Outcome::NotFound => Err(no_such_connection()),
            Outcome::OtherUser => Err(Problem::new(Code::Forbidden, "the connection is another user's")
                .hint("send the credentials that opened it (in `fanfare dev`, the same ?user=)")),
            Outcome::NothingLeft if renews => {
                Err(Problem::new(Code::Forbidden, "the new token allows none of the connection's channels"))
            }
            Outcome::NothingLeft => {
                Err(Problem::invalid("nothing would be left to follow").hint("close the stream instead"))
            }
            Outcome::TooMany(count) => {
                let max = self.config.channels_max;
                let detail = format!("the connection would follow {count} channels, and it may follow {max}");
                Err(Problem::invalid(detail).hint("the inbox and the broadcast count as well"))
            }
            Outcome::TooLong(bytes) => {
                let detail = format!(
                    "the channels changed since the stream was opened take {bytes} bytes in its ids, which have room \
                     for {CHANGES_BYTES_MAX}"
                );
                Err(Problem::new(Code::PayloadTooLarge, detail)
                    .hint("open a new stream with these channels in its URL or body"))
            }
        }
    }
}

fn no_such_connection() -> Problem {
    Problem::new(Code::NotFound, "there is no connection with this client id")
        .hint("it stands in the stream's `connected` event, and is another one after each reconnection")
}

fn unasked(error: AskError) -> Problem {
    match error {
        AskError::Full => Problem::new(Code::Overloaded, "too many requests wait for other edges just now"),
        AskError::Backbone(error) => Problem::new(
            Code::BackboneUnavailable,
            format!("the connection's edge can't be reached just now ({error}), so it may be changed or not"),
        )
        .hint("repeat it: that is harmless"),
        AskError::NoAnswer => {
            Problem::new(Code::Timeout, "the connection's edge did not answer, so it may be changed or not")
                .hint("repeat it: that is harmless. `event: subscribed` in the stream tells when it is done")
        }
    }
}
